"""The base class of the clients in docs/clients.md: one method for each column, and the reading of its response."""

import contextlib
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
    """The endpoints' URL and credentials."""

    url: str
    token: str
    client_id: str
    client_secret: str


class Client(ABC):
    """A client under test; its results are JSON values."""

    columns: ClassVar[tuple[str, ...]] = ASKING
    with_mlflow: ClassVar[bool] = False  # it is installed only in MLflow's environment

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

    def describe(self, name: str) -> Body:
        """Return the description of one endpoint."""
        raise NotImplementedError

    def run(self, column: str) -> object:
        """Return the result of one column's call, and close the client."""
        with contextlib.closing(self):
            match column.split():
                case ["list"]:
                    return sorted(self.names())
                case ["describe"]:
                    endpoint = self.describe("chat")
                    return {"name": endpoint["name"], "task": endpoint["task"], "ready": endpoint["state"]["ready"]}
                case ["embeddings"]:
                    return _vectors(self.ask("embeddings", BODIES["embeddings"]))
                case [task]:
                    return _reply(task, self.ask(task, BODIES[task]))
                case [task, "streamed"]:
                    return _joined(task, list(self.stream(task, {**BODIES[task], **STREAMED})))
        raise KeyError(column)

    def close(self) -> None:  # noqa: B027 -- most clients have nothing to close
        """Close the client's connections."""


def _reply(task: str, response: Body) -> dict[str, object]:
    (choice,) = response["choices"]
    text = choice["message"]["content"] if task == "chat" else choice["text"]
    return {"text": text, "model": response["model"], "tokens": _tokens(response["usage"])}


def _joined(task: str, chunks: list[Body]) -> dict[str, object]:
    """Return the reply of a stream, with its number of pieces, which shows that it was streamed."""
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
