"""What goes out for a request: a model's answer, a refusal, or a fault as it looks on the wire."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import cast

import msgspec
from aiohttp import web

from spark_llm.serving.models.base import ChatModel, CompletionModel, EmbeddingModel, Model
from spark_llm.serving.protocol.bodies import chat_body, completion_body, embedding_body
from spark_llm.serving.protocol.errors import INTERNAL_ERROR, Dialect, Refused
from spark_llm.serving.protocol.requests import (
    AnyRequest,
    ChatRequest,
    Choice,
    EmbeddingRequest,
    Usage,
)

_PIECES = 16
_GARBAGE = b"\x00\xff{not json"
_PAGE = b"<!DOCTYPE html><html><head><title>502</title></head><body><h1>Bad Gateway</h1></body></html>"


@dataclass(frozen=True)
class Answer:
    """A response before it is sent, and what the ledger shall say of it.

    Attributes:
        body: The whole body.
        status: The HTTP status.
        content_type: What the body claims to be.
        headers: Further headers.
        rows: How many inputs it answers.
        usage: The tokens that it reports.
        cut: Send half of it, and close the connection.
        begun: The response that has begun to be sent; `body` is what is left of it.
    """

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    rows: int = 0
    usage: Usage | None = None
    cut: bool = False
    begun: web.StreamResponse | None = None


async def ask(model: Model, asked: AnyRequest, headers: Mapping[str, str], request_id: str, *, empty: bool) -> Answer:
    """Ask the model, which serves this task, and write its answer; an `empty` one is billed and says nothing."""
    rows, created = len(asked.inputs), int(time.time())
    if isinstance(asked, EmbeddingRequest):
        vectors = await cast("EmbeddingModel", model).embed(asked)
        vectors = replace(vectors, vectors=()) if empty else vectors
        body = embedding_body(model.name, vectors, as_base64=asked.encoding_format == "base64")
        return Answer(body, headers=headers, rows=rows, usage=vectors.usage)
    if isinstance(asked, ChatRequest):
        texts, write = await cast("ChatModel", model).chat(asked), chat_body
    else:
        texts, write = await cast("CompletionModel", model).complete(asked), completion_body
    if empty:
        texts = replace(texts, choices=[Choice("", "length") for _ in texts.choices])
    body = write(model.name, texts, request_id=request_id, created=created)
    return Answer(body, headers=headers, rows=rows, usage=texts.usage)


def refuse(refused: Refused, dialect: Dialect) -> Answer:
    """Tell a refusal, with its wait in a header, or in the body where that service tells it there."""
    refusal, wait = refused.refusal, refused.retry_after
    body = dict(refusal.told(dialect))
    headers: dict[str, str] = {}
    if wait is not None and refusal.tells_wait_in_body:
        body["error"] = {**body["error"], "retry_after": float(wait)}
    elif wait is not None:
        headers = _retry_headers(wait)
    return Answer(msgspec.json.encode(body), status=refusal.status, headers=headers)


def _retry_headers(wait: str) -> dict[str, str]:
    if wait.endswith("ms"):
        return {"retry-after-ms": wait.removesuffix("ms")}
    if wait.startswith("+"):
        return {"Retry-After": formatdate(time.time() + float(wait), usegmt=True)}
    return {"Retry-After": wait}


async def hang(_dialect: Dialect | None = None) -> Answer:
    """Never answer."""
    never: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    return await never


async def _garbage(_dialect: Dialect) -> Answer:
    return Answer(_GARBAGE)


async def _html(_dialect: Dialect) -> Answer:
    return Answer(_PAGE, content_type="text/html")


async def _error_body(dialect: Dialect) -> Answer:
    return replace(refuse(Refused(INTERNAL_ERROR), dialect), status=200)


def _cut(answer: Answer) -> Answer:
    return replace(answer, rows=0, usage=None, cut=True)


def _half(answer: Answer) -> Answer:
    return replace(answer, rows=0, usage=None, body=answer.body[: len(answer.body) // 2])


# Faults that come in place of a model's answer, and faults that spoil one; "empty" is asked of the model, and `drip`
# is below.
INSTEAD: dict[str, Callable[[Dialect], Awaitable[Answer]]] = {
    "hang": hang,
    "garbage": _garbage,
    "html": _html,
    "errorbody": _error_body,
}
SPOILT: dict[str, Callable[[Answer], Answer]] = {"cut": _cut, "half": _half}


async def drip(request: web.Request, answer: Answer, request_id: str, drip_s: float) -> Answer:
    """Send all of an answer but its last piece, slowly; `send` brings that one when the answer is counted."""
    size = -(-len(answer.body) // _PIECES)
    *pieces, last = (answer.body[start : start + size] for start in range(0, len(answer.body), size))
    try:
        response = await begin(request, answer, request_id, length=len(answer.body))
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(drip_s / len(pieces))
    except ConnectionResetError:
        return await hang()  # the client has gone, and what cancels this is under way
    return replace(answer, body=last, begun=response)


async def send(request: web.Request, answer: Answer, request_id: str) -> web.StreamResponse:
    """Send an answer, the half of it, or what is left of it."""
    if answer.begun is not None:
        with suppress(ConnectionResetError):  # gone at the last moment; aiohttp finds that out by itself
            await answer.begun.write(answer.body)
        return answer.begun
    if answer.cut:
        response = await begin(request, answer, request_id, length=len(answer.body))
        await response.write(answer.body[: len(answer.body) // 2])
        if request.transport is not None:
            request.transport.close()
        return response
    return web.Response(body=answer.body, status=answer.status, headers=_headers(answer, request_id))


async def begin(request: web.Request, answer: Answer, request_id: str, length: int | None = None) -> web.StreamResponse:
    """Send the headers, which promise a body of this length, or one that ends when it ends."""
    promise = {} if length is None else {"Content-Length": str(length)}
    response = web.StreamResponse(status=answer.status, headers={**_headers(answer, request_id), **promise})
    await response.prepare(request)
    return response


def _headers(answer: Answer, request_id: str) -> Mapping[str, str]:
    return {"Content-Type": answer.content_type, "x-request-id": request_id, **answer.headers}
