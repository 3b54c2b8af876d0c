"""Streamed responses: pieces from the model, or from a whole answer split into words, sent as events."""

import logging
import re
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol, cast

from aiohttp import web

from spark_llm.serving.http.responses import PendingResponse, hang, reported_usage, send_headers
from spark_llm.serving.models.base import ChatModel, CompletionModel, Model, StreamingModel
from spark_llm.serving.protocol.errors import INTERNAL_ERROR, Dialect, ErrorResponse, Refused
from spark_llm.serving.protocol.requests import ChatRequest, CompletionRequest
from spark_llm.serving.protocol.responses_body import ResponseObject
from spark_llm.serving.protocol.responses_events import ResponsesEncoder
from spark_llm.serving.protocol.responses_request import ResponsesRequest
from spark_llm.serving.protocol.sse import EventEncoder
from spark_llm.serving.protocol.values import CallPiece, Choice, Piece, Texts, Usage

EVENT_STREAM = "text/event-stream"

_WORDS = re.compile(r"\s*\S+|\s+")  # the matches contain every character of a text
_logger = logging.getLogger(__name__)


class Encoder(Protocol):
    """Encodes the pieces of an answer as the events of one API."""

    def encode(self, piece: Piece) -> bytes:
        """Return the events of one piece."""

    def end(self) -> bytes:
        """Return the events after the last piece."""

    def error(self, error: ErrorResponse) -> bytes:
        """Return the event that ends a broken stream."""


class EventStream:
    """One model answer as a stream of events, with the numbers for the counters.

    Attributes:
        rows: The number of inputs that it answers.
        usage: The tokens so far.
    """

    def __init__(
        self,
        model: Model,
        request: ChatRequest | CompletionRequest | ResponsesRequest,
        dialect: Dialect,
        request_id: str,
        *,
        empty: bool,
    ) -> None:
        """Prepare the stream; the model runs at the first event. An `empty` answer reports its tokens, without text."""
        created = int(time.time())
        self.encoder: Encoder
        if isinstance(request, ResponsesRequest):
            pieces = _model_pieces(model, request.chat)
            response = ResponseObject(request, model.name, request_id=request_id, created=created)
            self.encoder = ResponsesEncoder(response)
        else:
            pieces = _model_pieces(model, request)
            self.encoder = EventEncoder(request, model.name, dialect, request_id=request_id, created=created)
        self._pieces = _without_text(pieces) if empty else pieces
        self._request = request
        self.rows = request.rows
        self.usage: Usage | None = None

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Yield the events in order, without those that the encoder ends with."""
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                self.usage = reported_usage(self._request, piece.usage)
                yield self.encoder.encode(piece)

    async def collect(self, headers: Mapping[str, str]) -> PendingResponse:
        """Return all events as one response, when the answer is complete."""
        async with aclosing(self.events()) as events:
            body = b"".join([event async for event in events])
        body += self.encoder.end()
        return PendingResponse(body, content_type=EVENT_STREAM, headers=headers, rows=self.rows, usage=self.usage)


async def send_stream(
    request: web.Request, stream: EventStream, headers: Mapping[str, str], request_id: str
) -> PendingResponse:
    """Send the events as they come, without the last ones; `send` sends those after the response is counted.

    An error before the model's first piece gets its own HTTP status; after that it is the last event.
    """
    head = PendingResponse(b"", content_type=EVENT_STREAM, headers=headers)
    started = None
    try:
        async with aclosing(stream.events()) as events:
            async for event in events:
                started = started or await send_headers(request, head, request_id)
                await started.write(event)
    except ConnectionResetError:
        return await hang()  # the client hung up, and aiohttp is about to cancel this
    except Exception as error:
        if started is None:
            raise
        if not isinstance(error, Refused):
            _logger.exception("A model failed in the middle of its answer")
        event = stream.encoder.error(error.refusal if isinstance(error, Refused) else INTERNAL_ERROR)
        return PendingResponse(event, started=started)
    return replace(head, body=stream.encoder.end(), rows=stream.rows, usage=stream.usage, started=started)


async def _model_pieces(model: Model, request: ChatRequest | CompletionRequest) -> AsyncGenerator[Piece, None]:
    if isinstance(model, StreamingModel):
        async with aclosing(model.stream(request)) as pieces:
            async for piece in pieces:
                yield piece
        return
    if isinstance(request, ChatRequest):
        texts = await cast("ChatModel", model).chat(request)
    else:
        texts = await cast("CompletionModel", model).complete(request)
    for piece in split_into_words(texts):
        yield piece


def split_into_words(texts: Texts) -> Iterator[Piece]:
    """Yield whole replies word by word; the completion tokens are spread over the words, and add up."""
    replies = [[*_reply_words(choice)] for choice in texts.choices]
    left, tokens = sum(len(words) for words in replies), 0
    for index, (choice, words) in enumerate(zip(texts.choices, replies, strict=True)):
        for text, call in words:
            tokens += (texts.usage.completion_tokens - tokens) // left
            left -= 1
            yield Piece(text, replace(texts.usage, completion_tokens=tokens), index, call=call)
        is_last = index == len(replies) - 1  # replies without a word may have tokens all the same
        usage = texts.usage if is_last else replace(texts.usage, completion_tokens=tokens)
        yield Piece("", usage, index, choice.finish_reason)


def _reply_words(choice: Choice) -> Iterator[tuple[str, CallPiece | None]]:
    """Yield the words of a reply's text, then the beginning of each call and the words of its arguments."""
    yield from ((word, None) for word in _WORDS.findall(choice.text))
    for number, call in enumerate(choice.tool_calls):
        yield "", CallPiece(number, "", call.id, call.name)
        yield from (("", CallPiece(number, word)) for word in _WORDS.findall(call.arguments))


async def _without_text(pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
    """Yield one empty piece for each reply, with finish_reason "length"."""
    async with aclosing(pieces):
        all_pieces = [piece async for piece in pieces]
    for index in sorted({piece.index for piece in all_pieces}):
        yield Piece("", all_pieces[-1].usage, index, "length")
