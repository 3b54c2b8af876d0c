"""A streamed answer: the pieces as the model writes them, or as they are cut from a whole one, and how they go out."""

import logging
import re
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import cast

from aiohttp import web

from spark_llm.serving.http.responses import Answer, begin, hang
from spark_llm.serving.models.base import ChatModel, CompletionModel, Model, StreamingModel
from spark_llm.serving.protocol.errors import INTERNAL_ERROR, Dialect, Refused
from spark_llm.serving.protocol.requests import ChatRequest, CompletionRequest, Piece, Texts, Usage
from spark_llm.serving.protocol.sse import DONE, Chunks, error_event

EVENT_STREAM = "text/event-stream"

_WORDS = re.compile(r"\s*\S+|\s+")  # every letter is in one of them
_logger = logging.getLogger(__name__)


class Streamed:
    """One answer as events, and what the ledger shall say of it when they are all out.

    Attributes:
        rows: How many inputs it answers.
        usage: What has been used so far.
    """

    def __init__(
        self,
        model: Model,
        asked: ChatRequest | CompletionRequest,
        dialect: Dialect,
        request_id: str,
        *,
        empty: bool,
    ) -> None:
        """Ask the model when the first event is asked for; an `empty` answer is billed and says nothing."""
        pieces = _pieces(model, asked)
        self._pieces = _emptied(pieces) if empty else pieces
        self._chunks = Chunks(asked, model.name, dialect, request_id=request_id, created=int(time.time()))
        self.rows = len(asked.inputs)
        self.usage: Usage | None = None

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Give the events in their order, all but the last word."""
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                self.usage = piece.usage
                yield self._chunks.write(piece)
        yield self._chunks.end()

    async def whole(self, headers: Mapping[str, str]) -> Answer:
        """Give the answer when it is done, all its events in one."""
        async with aclosing(self.events()) as events:
            body = b"".join([event async for event in events])
        return Answer(body + DONE, content_type=EVENT_STREAM, headers=headers, rows=self.rows, usage=self.usage)


async def stream(request: web.Request, streamed: Streamed, headers: Mapping[str, str], request_id: str) -> Answer:
    """Send the events as they come, all but the last word; `send` brings that one when the answer is counted.

    A model that fails before its first piece is answered as ever; after that its error is the last event.
    """
    head = Answer(b"", content_type=EVENT_STREAM, headers=headers)
    response = None
    try:
        async with aclosing(streamed.events()) as events:
            async for event in events:
                response = response or await begin(request, head, request_id)
                await response.write(event)
    except ConnectionResetError:
        return await hang()  # the client has gone, and what cancels this is under way
    except Exception as error:
        if response is None:
            raise
        if not isinstance(error, Refused):
            _logger.exception("A model failed in the middle of its answer")
        return Answer(error_event(error.refusal if isinstance(error, Refused) else INTERNAL_ERROR), begun=response)
    return replace(head, body=DONE, rows=streamed.rows, usage=streamed.usage, begun=response)


async def _pieces(model: Model, asked: ChatRequest | CompletionRequest) -> AsyncGenerator[Piece, None]:
    if isinstance(model, StreamingModel):
        async with aclosing(model.stream(asked)) as pieces:
            async for piece in pieces:
                yield piece
        return
    if isinstance(asked, ChatRequest):
        texts = await cast("ChatModel", model).chat(asked)
    else:
        texts = await cast("CompletionModel", model).complete(asked)
    for piece in cut(texts):
        yield piece


def cut(texts: Texts) -> Iterator[Piece]:
    """Cut whole replies into their words; the tokens are shared out over them, and add up."""
    replies = [_WORDS.findall(choice.text) for choice in texts.choices]
    left, tokens = sum(len(words) for words in replies), 0
    for index, (choice, words) in enumerate(zip(texts.choices, replies, strict=True)):
        for word in words:
            tokens += (texts.usage.completion_tokens - tokens) // left
            left -= 1
            yield Piece(word, replace(texts.usage, completion_tokens=tokens), index)
        is_last = index == len(replies) - 1  # replies without a word may have tokens all the same
        usage = texts.usage if is_last else replace(texts.usage, completion_tokens=tokens)
        yield Piece("", usage, index, choice.finish_reason)


async def _emptied(pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
    """Leave out what the replies say; they end for their length."""
    async with aclosing(pieces):
        all_pieces = [piece async for piece in pieces]
    for index in sorted({piece.index for piece in all_pieces}):
        yield Piece("", all_pieces[-1].usage, index, "length")
