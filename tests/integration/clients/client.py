"""What a row of clients in docs/clients.md is: what is asked in each of its columns, and how the answer is read."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

ENDPOINTS = {"chat": "chat", "completions": "complete", "embeddings": "embed"}
ROUTES = {"chat": "chat/completions", "completions": "completions", "embeddings": "embeddings"}
TEXT = "red green blue"
INPUTS = ["red", "green"]
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": TEXT}], "max_tokens": 2},
    "completions": {"prompt": TEXT, "max_tokens": 2},
    "embeddings": {"input": INPUTS},
}
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
TIMEOUT_S = 30

ASKING = ("chat", "completions", "embeddings")
STREAMING = ("chat", "chat streamed", "completions", "completions streamed", "embeddings")
DESCRIBING = ("list", "describe")

Body = Mapping[str, Any]


class Workspace(NamedTuple):
    """Where the endpoints are, and who asks."""

    url: str
    token: str
    client_id: str
    client_secret: str


class Client(ABC):
    """A client: how it asks, and what it makes of the answer, in values that JSON can carry."""

    columns: ClassVar[tuple[str, ...]] = ASKING
    with_mlflow: ClassVar[bool] = False  # only MLflow's environment has it

    def __init__(self, workspace: Workspace) -> None:
        """Sign in to a workspace."""
        self.workspace = workspace

    @abstractmethod
    def ask(self, task: str, body: Body) -> Body:
        """Return the response to a request."""

    def stream(self, task: str, body: Body) -> Iterator[Body]:
        """Return the chunks of a response."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """Return the names of all endpoints."""
        raise NotImplementedError

    def described(self, name: str) -> Body:
        """Return what is told of one endpoint."""
        raise NotImplementedError

    def do(self, column: str) -> object:
        """Do what a column says."""
        match column.split():
            case ["list"]:
                return sorted(self.names())
            case ["describe"]:
                told = self.described("chat")
                return {"name": told["name"], "task": told["task"], "ready": told["state"]["ready"]}
            case ["embeddings"]:
                return _vectors(self.ask("embeddings", BODIES["embeddings"]))
            case [task]:
                return _reply(task, self.ask(task, BODIES[task]))
            case [task, "streamed"]:
                return _joined(task, list(self.stream(task, {**BODIES[task], **STREAMED})))
        raise KeyError(column)


def _reply(task: str, response: Body) -> dict[str, object]:
    (choice,) = response["choices"]
    text = choice["message"]["content"] if task == "chat" else choice["text"]
    return {"text": text, "model": response["model"], "tokens": _tokens(response["usage"])}


def _joined(task: str, chunks: list[Body]) -> dict[str, object]:
    """Put the chunks of a stream together; one piece alone would be no stream."""
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    pieces = [choice["delta"].get("content") if task == "chat" else choice["text"] for choice in choices]
    usage = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    return {
        "text": "".join(filter(None, pieces)),
        "model": chunks[0]["model"],
        "tokens": _tokens(usage[-1]),
        "pieces": len(list(filter(None, pieces))),
        "finish_reason": [choice["finish_reason"] for choice in choices if choice.get("finish_reason")],
    }


def _vectors(response: Body) -> dict[str, object]:
    vectors = [each["embedding"] for each in sorted(response["data"], key=lambda each: int(each["index"]))]
    return {"vectors": vectors, "model": response["model"], "tokens": response["usage"]["total_tokens"]}


def _tokens(usage: Body) -> list[int]:
    return [usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]]
