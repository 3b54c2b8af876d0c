"""The events of a streamed answer, as the services document them: `data:` lines with a chunk each, and a last word."""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from spark_llm.serving.protocol.bodies import usage_body
from spark_llm.serving.protocol.errors import Dialect, Refusal
from spark_llm.serving.protocol.requests import ChatRequest, CompletionRequest, Piece, Usage

DONE = b"data: [DONE]\n\n"


class Chunks:
    """Writes the chunks of one answer, which all have its head.

    A chat reply begins with its role; every reply ends with its reason to finish. Databricks tells the usage so far in
    every chunk; OpenAI tells it in one more chunk at the end, where the request asks for it.
    """

    def __init__(
        self, asked: ChatRequest | CompletionRequest, model: str, dialect: Dialect, *, request_id: str, created: int
    ) -> None:
        """Write for this request; the head is that of an answer in one piece."""
        self._is_chat = isinstance(asked, ChatRequest)
        self._head: dict[str, Any] = {
            "id": f"{'chatcmpl' if self._is_chat else 'cmpl'}-{request_id}",
            "object": "chat.completion.chunk" if self._is_chat else "text_completion",
            "created": created,
            "model": model,
        }
        is_wanted = asked.stream_options is not None and asked.stream_options.include_usage
        self._told: Literal["each", "last"] | None = (
            "each" if dialect == "databricks" else "last" if is_wanted else None
        )
        self._begun: set[int] = set()
        self._usage: Usage | None = None

    def write(self, piece: Piece) -> bytes:
        """Write the events of one piece."""
        self._usage = piece.usage
        return b"".join(self._event([choice], piece.usage) for choice in self._choices(piece))

    def end(self) -> bytes:
        """Write what comes after the last piece: the usage, where it is told there."""
        return self._event([], self._usage) if self._told == "last" else b""

    def _choices(self, piece: Piece) -> Iterator[dict[str, Any]]:
        if self._is_chat and piece.index not in self._begun:
            self._begun.add(piece.index)
            yield self._choice(piece.index, {"delta": {"role": "assistant", "content": ""}})
        if piece.text:
            yield self._choice(
                piece.index, {"delta": {"content": piece.text}} if self._is_chat else {"text": piece.text}
            )
        if piece.finish_reason is not None:
            yield self._choice(piece.index, {"delta": {}} if self._is_chat else {"text": ""}, piece.finish_reason)

    def _choice(self, index: int, said: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        return {"index": index, **said, "logprobs": None, "finish_reason": finish_reason}

    def _event(self, choices: list[dict[str, Any]], usage: Usage | None) -> bytes:
        chunk = {**self._head, "choices": choices}
        if self._told is not None:
            is_told = usage is not None and (self._told == "each" or not choices)
            chunk["usage"] = usage_body(usage) if usage is not None and is_told else None
        return _data(chunk)


def error_event(refusal: Refusal) -> bytes:
    """Write the event of an answer that breaks off, which clients of all services read alike."""
    return _data(refusal.told("openai") if refusal.body is None else refusal.body)


def _data(document: object) -> bytes:
    return b"data: " + msgspec.json.encode(document) + b"\n\n"
