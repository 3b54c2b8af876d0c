"""The base class of the clients in docs/clients.md: one method for each column, and the reading of its response."""

import base64
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import itemgetter
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
NAMES = {**ENDPOINTS, "responses": "chat", "predictions": "score"}
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PNG_URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
ADD = {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}}
CALL = 'call add {"a": 1}\ncall add {"a": 2}'
FURTHER_BODIES: dict[str, dict[str, Any]] = {
    "image": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "See "},
                    {"type": "image_url", "image_url": {"url": PNG_URL}},
                ],
            }
        ]
    },
    "tools": {"messages": [{"role": "user", "content": CALL}], "tools": [{"type": "function", "function": ADD}]},
    "responses": {
        "instructions": "Look.",
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "See "},
                    {"type": "input_image", "image_url": PNG_URL, "detail": "auto"},
                ],
            }
        ],
        "store": False,
    },
    "responses tools": {"input": CALL, "tools": [{"type": "function", "strict": False, **ADD}]},
    "records": {"dataframe_records": [{"age": 1, "text": "red"}, {"age": 2, "text": "green"}]},
    "split": {"dataframe_split": {"columns": ["age", "text"], "data": [[1, "red"], [2, "green"]]}},
}
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
TIMEOUT_S = 30

ASKING = ("chat", "completions", "embeddings")
STREAMING = ("chat", "chat streamed", "completions", "completions streamed", "embeddings")
DESCRIBING = ("list", "describe")
CHATTING = ("image", "tools", "tools streamed")
RESPONDING = ("responses", "responses streamed", "responses tools")
PREDICTING = ("records", "split")

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
            if column == "list":
                return sorted(self.names())
            if column == "describe":
                endpoint = self.describe("chat")
                return {"name": endpoint["name"], "task": endpoint["task"], "ready": endpoint["state"]["ready"]}
            if column in STREAMED_CALLS:
                task, body, read_stream = STREAMED_CALLS[column]
                return read_stream([*self.stream(task, body)])
            task, body, read = CALLS[column]
            return read(self.ask(task, body))

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


def _calls(response: Body) -> dict[str, object]:
    (choice,) = response["choices"]
    functions = [call["function"] for call in choice["message"]["tool_calls"]]
    return {
        "calls": [[function["name"], function["arguments"]] for function in functions],
        "text": choice["message"]["content"],
        "finish_reason": choice["finish_reason"],
    }


def _joined_calls(chunks: list[Body]) -> dict[str, object]:
    """Return the calls of a stream, with the number of their pieces."""
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    pieces = [piece for choice in choices for piece in choice["delta"].get("tool_calls") or ()]
    calls: dict[int, list[str]] = {}
    for piece in pieces:
        call = calls.setdefault(piece["index"], [piece["function"].get("name") or "", ""])
        call[1] += piece["function"]["arguments"]
    return {
        "calls": list(calls.values()),
        "pieces": len(pieces),
        "finish_reason": [choice["finish_reason"] for choice in choices if choice.get("finish_reason")],
    }


def _response(response: Body) -> dict[str, object]:
    items = response["output"]
    usage = response["usage"]
    return {
        "text": "".join(part["text"] for item in items for part in item.get("content") or ()),
        "calls": [[item["name"], item["arguments"]] for item in items if item["type"] == "function_call"],
        "status": response["status"],
        "model": response["model"],
        "tokens": [usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]],
    }


def _joined_response(events: list[Body]) -> dict[str, object]:
    """Return the response of a stream, with the text of its pieces and their number."""
    pieces = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    return {**_response(events[-1]["response"]), "text": "".join(pieces), "pieces": len(pieces)}


def _vectors(response: Body) -> dict[str, object]:
    vectors = [each["embedding"] for each in sorted(response["data"], key=lambda each: int(each["index"]))]
    return {"vectors": vectors, "model": response["model"], "tokens": response["usage"]["total_tokens"]}


def _tokens(usage: Body) -> list[int]:
    return [usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]]


# What each column sends, to which task, and how its answer is read.
CALLS: dict[str, tuple[str, Body, Callable[[Body], object]]] = {
    "chat": ("chat", BODIES["chat"], partial(_reply, "chat")),
    "completions": ("completions", BODIES["completions"], partial(_reply, "completions")),
    "embeddings": ("embeddings", BODIES["embeddings"], _vectors),
    "image": ("chat", FURTHER_BODIES["image"], partial(_reply, "chat")),
    "tools": ("chat", FURTHER_BODIES["tools"], _calls),
    "responses": ("responses", FURTHER_BODIES["responses"], _response),
    "responses tools": ("responses", FURTHER_BODIES["responses tools"], _response),
    "records": ("predictions", FURTHER_BODIES["records"], itemgetter("predictions")),
    "split": ("predictions", FURTHER_BODIES["split"], itemgetter("predictions")),
}
STREAMED_CALLS: dict[str, tuple[str, Body, Callable[[list[Body]], object]]] = {
    "chat streamed": ("chat", {**BODIES["chat"], **STREAMED}, partial(_joined, "chat")),
    "completions streamed": ("completions", {**BODIES["completions"], **STREAMED}, partial(_joined, "completions")),
    "tools streamed": ("chat", {**FURTHER_BODIES["tools"], **STREAMED}, _joined_calls),
    "responses streamed": ("responses", {**FURTHER_BODIES["responses"], "stream": True}, _joined_response),
}
