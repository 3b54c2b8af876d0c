"""Server-sent events of a streamed response: `data:` lines with one chunk each, and `data: [DONE]` at the end."""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from spark_llm.serving.protocol.bodies import logprobs_body, usage_body
from spark_llm.serving.protocol.errors import Dialect, ErrorResponse
from spark_llm.serving.protocol.requests import ChatRequest, CompletionRequest
from spark_llm.serving.protocol.values import CallPiece, Piece, Usage

DONE = b"data: [DONE]\n\n"


class EventEncoder:
    """Encodes the pieces of one response as events.

    All chunks have the same id, model and time. A chat reply begins with its role; every reply ends with its
    `finish_reason`. Databricks sends the usage so far in every chunk. OpenAI sends it in a chunk of its own at the end,
    if the request asks for it.
    """

    def __init__(
        self, request: ChatRequest | CompletionRequest, model: str, dialect: Dialect, *, request_id: str, created: int
    ) -> None:
        """Prepare the head of the chunks, which is that of an unstreamed response."""
        self._is_chat = isinstance(request, ChatRequest)
        self._head: dict[str, Any] = {
            "id": f"{'chatcmpl' if self._is_chat else 'cmpl'}-{request_id}",
            "object": "chat.completion.chunk" if self._is_chat else "text_completion",
            "created": created,
            "model": model,
        }
        if isinstance(request, ChatRequest) and request.service_tier is not None:
            self._head["service_tier"] = "default" if request.service_tier == "auto" else request.service_tier
        includes_usage = request.stream_options is not None and request.stream_options.include_usage
        self._usage_in: Literal["each", "last"] | None = (
            "each" if dialect == "databricks" else "last" if includes_usage else None
        )
        self._started_replies: set[int] = set()
        self._usage: Usage | None = None

    def encode(self, piece: Piece) -> bytes:
        """Return the events of one piece."""
        self._usage = piece.usage
        return b"".join(self._event([choice], piece.usage) for choice in self._choices(piece))

    def end(self) -> bytes:
        """Return the events after the last piece: the usage, if it has one of its own, and `[DONE]`."""
        return (self._event([], self._usage) if self._usage_in == "last" else b"") + DONE

    def error(self, error: ErrorResponse) -> bytes:
        """Return the event that ends a broken stream; OpenAI's shape, which clients of all services read."""
        return data_line(error.body_in("openai"))

    def _choices(self, piece: Piece) -> Iterator[dict[str, Any]]:
        if self._is_chat and piece.index not in self._started_replies:
            self._started_replies.add(piece.index)
            content = "" if piece.call is None else None
            yield self._choice(piece.index, {"delta": {"role": "assistant", "content": content}})
        if piece.text or piece.logprobs:
            choice = self._choice(
                piece.index, {"delta": {"content": piece.text}} if self._is_chat else {"text": piece.text}
            )
            yield choice if piece.logprobs is None else choice | {"logprobs": logprobs_body(piece.logprobs)}
        if piece.call is not None:
            yield self._choice(piece.index, {"delta": {"tool_calls": [_call_delta(piece.call)]}})
        if piece.finish_reason is not None:
            yield self._choice(piece.index, {"delta": {}} if self._is_chat else {"text": ""}, piece.finish_reason)

    def _choice(self, index: int, content: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        return {"index": index, **content, "logprobs": None, "finish_reason": finish_reason}

    def _event(self, choices: list[dict[str, Any]], usage: Usage | None) -> bytes:
        chunk = {**self._head, "choices": choices}
        if self._usage_in is not None:
            has_usage = usage is not None and (self._usage_in == "each" or not choices)
            chunk["usage"] = usage_body(usage) if usage is not None and has_usage else None
        return data_line(chunk)


def _call_delta(call: CallPiece) -> dict[str, Any]:
    """Return a piece of a call; only the first one has the id and the name."""
    if call.id is None:
        return {"index": call.number, "function": {"arguments": call.arguments}}
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": call.number, "id": call.id, "type": "function", "function": function}


def data_line(document: object) -> bytes:
    """Return an event whose data is `document` as JSON."""
    return b"data: " + msgspec.json.encode(document) + b"\n\n"
