"""Responses before they are sent: a model's answer, an error response, or an injected fault."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import cast

import msgspec
from aiohttp import web

from spark_llm.serving.models.base import ChatModel, CompletionModel, EmbeddingModel, Model, PredictionModel
from spark_llm.serving.models.rerank import scores_of
from spark_llm.serving.protocol.bodies import chat_body, completion_body, embedding_body
from spark_llm.serving.protocol.errors import INTERNAL_ERROR, Dialect, Refused
from spark_llm.serving.protocol.predictions import PredictionRequest, prediction_body
from spark_llm.serving.protocol.requests import ChatRequest, CompletionRequest, EmbeddingRequest, Request
from spark_llm.serving.protocol.rerank import RerankRequest, ScoreRequest, rerank_body, score_body
from spark_llm.serving.protocol.responses_body import ResponseObject
from spark_llm.serving.protocol.responses_request import ResponsesRequest
from spark_llm.serving.protocol.values import Choice, Texts, Usage

_DRIP_PIECES = 16
_GARBAGE = b"\x00\xff{not json"
_PAGE = b"<!DOCTYPE html><html><head><title>502</title></head><body><h1>Bad Gateway</h1></body></html>"


@dataclass(frozen=True)
class PendingResponse:
    """A response that is not sent yet, or not wholly, with the numbers for the counters.

    Attributes:
        body: The whole body, or its rest once `started` is set.
        status: The HTTP status.
        content_type: The Content-Type header.
        headers: Further headers.
        rows: The number of inputs that it answers.
        usage: The tokens that it reports.
        is_cut: Send half of the body, and close the connection.
        started: The response whose headers are sent; `body` is its rest.
    """

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    rows: int = 0
    usage: Usage | None = None
    is_cut: bool = False
    started: web.StreamResponse | None = None


async def model_response(
    model: Model,
    request: Request,
    headers: Mapping[str, str],
    request_id: str,
    *,
    empty: bool,
    service_tier: str | None = None,
) -> PendingResponse:
    """Return the model's answer; an `empty` one reports its tokens and has no text, vectors, scores or predictions.

    The tier of chat and of responses is that of the model, else `service_tier`, else what the request asks for.
    """
    rows, created = request.rows, int(time.time())
    if isinstance(request, PredictionRequest):
        predictions = await cast("PredictionModel", model).predict(request)
        body = prediction_body(replace(predictions, values=[]) if empty else predictions)
        return PendingResponse(body, headers=headers, rows=rows)
    if isinstance(request, EmbeddingRequest):
        vectors = await cast("EmbeddingModel", model).embed(request)
        vectors = replace(vectors, vectors=()) if empty else vectors
        body = embedding_body(model.name, vectors, as_base64=request.encoding_format == "base64")
        return PendingResponse(body, headers=headers, rows=rows, usage=vectors.usage)
    if isinstance(request, RerankRequest | ScoreRequest):
        scores = await scores_of(model, request)
        scores = replace(scores, values=()) if empty else scores
        if isinstance(request, RerankRequest):
            body = rerank_body(model.name, request, scores, request_id)
        else:
            body = score_body(model.name, scores, request_id, created)
        return PendingResponse(body, headers=headers, rows=rows, usage=scores.usage)
    if isinstance(request, ChatRequest | ResponsesRequest):
        chat = request if isinstance(request, ChatRequest) else request.chat
        texts = await cast("ChatModel", model).chat(chat)
        if texts.service_tier is None and (tier := service_tier or chat_tier(request)) is not None:
            texts = Texts(texts.choices, texts.usage, tier)
    else:
        texts = await cast("CompletionModel", model).complete(cast("CompletionRequest", request))
    if empty:
        texts = replace(texts, choices=[Choice("", "length") for _ in texts.choices])
    if isinstance(request, ResponsesRequest):
        response = ResponseObject(request, model.name, request_id=request_id, created=created)
        body = msgspec.json.encode(response.ended(texts.choices[0], texts.usage, texts.service_tier))
    else:
        encode = chat_body if isinstance(request, ChatRequest) else completion_body
        body = encode(model.name, texts, request_id=request_id, created=created)
    return PendingResponse(body, headers=headers, rows=rows, usage=reported_usage(request, texts.usage))


def chat_tier(request: ChatRequest | ResponsesRequest) -> str | None:
    """Return the tier that answers a request; None where it does not ask for one."""
    return "default" if request.service_tier == "auto" else request.service_tier


def reported_usage(request: Request, usage: Usage) -> Usage:
    """Return the tokens that an answer reports: those of the Responses API tell none of media."""
    return replace(usage, image_tokens=None, audio_tokens=None) if isinstance(request, ResponsesRequest) else usage


def failed_response(model: Model, request: ResponsesRequest, request_id: str) -> PendingResponse:
    """Return a response that failed, as the Responses API sends it: with status 200."""
    response = ResponseObject(request, model.name, request_id=request_id, created=int(time.time()))
    return PendingResponse(msgspec.json.encode(response.failed(INTERNAL_ERROR)))


def error_response(refused: Refused, dialect: Dialect) -> PendingResponse:
    """Return the error response, with its wait in a header, or in the body if the service sends it there."""
    error, retry_after = refused.refusal, refused.retry_after
    body = dict(error.body_in(dialect))
    headers: dict[str, str] = {}
    if retry_after is not None and error.has_wait_in_body:
        body["error"] = {**body["error"], "retry_after": float(retry_after)}
    elif retry_after is not None:
        headers = _retry_headers(retry_after)
    return PendingResponse(msgspec.json.encode(body), status=error.status, headers=headers)


def _retry_headers(retry_after: str) -> dict[str, str]:
    if retry_after.endswith("ms"):
        return {"retry-after-ms": retry_after.removesuffix("ms")}
    if retry_after.startswith("+"):
        return {"Retry-After": formatdate(time.time() + float(retry_after), usegmt=True)}
    return {"Retry-After": retry_after}


async def hang(_dialect: Dialect | None = None) -> PendingResponse:
    """Never return."""
    never: asyncio.Future[PendingResponse] = asyncio.get_running_loop().create_future()
    return await never


async def _garbage(_dialect: Dialect) -> PendingResponse:
    return PendingResponse(_GARBAGE)


async def _html(_dialect: Dialect) -> PendingResponse:
    return PendingResponse(_PAGE, content_type="text/html")


async def _error_body(dialect: Dialect) -> PendingResponse:
    return replace(error_response(Refused(INTERNAL_ERROR), dialect), status=200)


def _cut(response: PendingResponse) -> PendingResponse:
    return replace(response, rows=0, usage=None, is_cut=True)


def _half(response: PendingResponse) -> PendingResponse:
    return replace(response, rows=0, usage=None, body=response.body[: len(response.body) // 2])


# Faults that replace the model's answer, and faults that corrupt it. "empty" is an argument of `model_response`, and
# "drip" is below.
REPLACING_FAULTS: dict[str, Callable[[Dialect], Awaitable[PendingResponse]]] = {
    "hang": hang,
    "garbage": _garbage,
    "html": _html,
    "errorbody": _error_body,
}
CORRUPTING_FAULTS: dict[str, Callable[[PendingResponse], PendingResponse]] = {"cut": _cut, "half": _half}


async def drip(request: web.Request, response: PendingResponse, request_id: str, drip_s: float) -> PendingResponse:
    """Send all pieces of a body but the last, slowly; `send` sends that one after the response is counted."""
    size = -(-len(response.body) // _DRIP_PIECES)
    *pieces, last = (response.body[start : start + size] for start in range(0, len(response.body), size))
    try:
        started = await send_headers(request, response, request_id, length=len(response.body))
        for piece in pieces:
            await started.write(piece)
            await asyncio.sleep(drip_s / len(pieces))
    except ConnectionResetError:
        return await hang()  # the client hung up, and aiohttp is about to cancel this
    return replace(response, body=last, started=started)


async def send(request: web.Request, response: PendingResponse, request_id: str) -> web.StreamResponse:
    """Send a response, half of it if it is cut, or its rest if it has started."""
    if response.started is not None:
        with suppress(ConnectionResetError):  # the client hung up at the last moment; aiohttp notices by itself
            await response.started.write(response.body)
        return response.started
    if response.is_cut:
        started = await send_headers(request, response, request_id, length=len(response.body))
        await started.write(response.body[: len(response.body) // 2])
        if request.transport is not None:
            request.transport.close()
        return started
    return web.Response(body=response.body, status=response.status, headers=_headers(response, request_id))


async def send_headers(
    request: web.Request, response: PendingResponse, request_id: str, length: int | None = None
) -> web.StreamResponse:
    """Send the headers of a body with this length, or of one without a known length; return the open response."""
    content_length = {} if length is None else {"Content-Length": str(length)}
    started = web.StreamResponse(status=response.status, headers={**_headers(response, request_id), **content_length})
    await started.prepare(request)
    return started


def _headers(response: PendingResponse, request_id: str) -> Mapping[str, str]:
    return {"Content-Type": response.content_type, "x-request-id": request_id, **response.headers}
