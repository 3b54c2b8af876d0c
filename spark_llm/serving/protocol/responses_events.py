"""The events of a streamed response of the Responses API: each item begins, grows and ends with events of its own."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec

from spark_llm.serving.protocol.errors import ErrorResponse
from spark_llm.serving.protocol.responses_body import Item, ResponseObject, text_part
from spark_llm.serving.protocol.tools import ToolCall
from spark_llm.serving.protocol.values import CallPiece, Choice, Piece, Usage

Event = dict[str, Any]


class ResponsesEncoder:
    """Encodes the pieces of one reply as events, numbered in order; the last event has the whole response."""

    def __init__(self, response: ResponseObject) -> None:
        self._response = response
        self._reply = Choice("")
        self._usage = Usage(0)
        self._count = 0
        self._items = 0  # the number of items that have ended
        self._open: Item | None = None  # the item that has begun and not ended

    def encode(self, piece: Piece) -> bytes:
        """Return the events of one piece."""
        self._usage = piece.usage
        begin = [] if self._count else [*self._begin()]
        return self._lines([*begin, *self._events(piece)])

    def end(self) -> bytes:
        """Return the event after the last piece: the whole response."""
        response = self._response.ended(self._reply, self._usage)
        return self._lines([{"type": f"response.{response['status']}", "response": response}])

    def error(self, error: ErrorResponse) -> bytes:
        """Return the event that ends a broken stream."""
        event = {"type": "error", "code": error.code, "message": error.message, "param": error.param}
        return self._lines([event])

    def _begin(self) -> Iterator[Event]:
        for kind in ("created", "in_progress"):
            yield {"type": f"response.{kind}", "response": self._response.begun()}
        for item in self._response.thoughts():
            yield from self._add_item(item)
            yield from self._end_item(item)

    def _events(self, piece: Piece) -> Iterator[Event]:
        if piece.text:
            if self._open is None:
                yield from self._begin_message()
            self._reply = replace(self._reply, text=self._reply.text + piece.text)
            yield {**self._part(), "type": "response.output_text.delta", "delta": piece.text, "logprobs": []}
        if piece.call is not None:
            yield from self._call_events(piece.call)
        if piece.finish_reason is not None:
            self._reply = replace(self._reply, finish_reason=piece.finish_reason)
            if self._open is None and any(item["type"] == "message" for item in self._response.items(self._reply)):
                yield from self._begin_message()
            yield from self._end_open()

    def _call_events(self, piece: CallPiece) -> Iterator[Event]:
        calls = [*self._reply.tool_calls]
        if piece.id is not None:
            yield from self._end_open()
            calls.append(ToolCall(piece.id, piece.name or "", ""))
            self._open = self._response.call(piece.number, calls[-1], "in_progress")
            yield from self._add_item(self._open)
        calls[-1] = calls[-1]._replace(arguments=calls[-1].arguments + piece.arguments)
        self._reply = replace(self._reply, tool_calls=calls)
        if piece.arguments:
            yield {**self._place(), "type": "response.function_call_arguments.delta", "delta": piece.arguments}

    def _begin_message(self) -> Iterator[Event]:
        self._open = self._response.message("in_progress", [])
        yield from self._add_item(self._open)
        yield {**self._part(), "type": "response.content_part.added", "part": text_part("")}

    def _end_open(self) -> Iterator[Event]:
        """Yield the events that end the open item, if there is one."""
        if self._open is None:
            return
        whole = next(item for item in self._response.items(self._reply) if item["id"] == self._open["id"])
        if whole["type"] == "message":
            [part] = whole["content"]
            yield {**self._part(), "type": "response.output_text.done", "text": part["text"], "logprobs": []}
            yield {**self._part(), "type": "response.content_part.done", "part": part}
        else:
            done = {"name": whole["name"], "arguments": whole["arguments"]}
            yield {**self._place(), "type": "response.function_call_arguments.done", **done}
        yield from self._end_item(whole)
        self._open = None

    def _add_item(self, item: Item) -> Iterator[Event]:
        yield {"type": "response.output_item.added", "output_index": self._items, "item": item}

    def _end_item(self, item: Item) -> Iterator[Event]:
        yield {"type": "response.output_item.done", "output_index": self._items, "item": item}
        self._items += 1

    def _place(self) -> Event:
        """Return the fields that say which item an event is about."""
        return {"item_id": (self._open or {}).get("id"), "output_index": self._items}

    def _part(self) -> Event:
        return {**self._place(), "content_index": 0}

    def _lines(self, events: list[Event]) -> bytes:
        lines = bytearray()
        for event in events:
            numbered = {**event, "sequence_number": self._count}
            self._count += 1
            lines += f"event: {event['type']}\ndata: ".encode() + msgspec.json.encode(numbered) + b"\n\n"
        return bytes(lines)
