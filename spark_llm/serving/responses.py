"""What goes out for a request: an answer, a refusal, or a fault as it looks on the wire."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate

import msgspec
from aiohttp import web

from spark_llm.serving.refusals import Dialect, Refused
from spark_llm.serving.wire import Usage

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
    """

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    rows: int = 0
    usage: Usage | None = None
    cut: bool = False


def refuse(refused: Refused, dialect: Dialect) -> Answer:
    """Tell a refusal, with its wait in a header, or in the body where that service tells it there."""
    refusal, wait = refused.refusal, refused.retry_after
    body = dict(refusal.told(dialect))
    headers: dict[str, str] = {}
    if wait is not None and refusal.body is not None:
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


async def _hang() -> Answer:
    never: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    return await never


async def _garbage() -> Answer:
    return Answer(_GARBAGE)


async def _html() -> Answer:
    return Answer(_PAGE, content_type="text/html")


# Faults that come in place of a model's answer; "cut" and "empty" are made of one.
INSTEAD: dict[str, Callable[[], Awaitable[Answer]]] = {"hang": _hang, "garbage": _garbage, "html": _html}


async def send(request: web.Request, answer: Answer, request_id: str) -> web.StreamResponse:
    """Send an answer, or the half of it."""
    headers = {"Content-Type": answer.content_type, "x-request-id": request_id, **answer.headers}
    if not answer.cut:
        return web.Response(body=answer.body, status=answer.status, headers=headers)
    response = web.StreamResponse(headers={**headers, "Content-Length": str(len(answer.body))})
    await response.prepare(request)
    await response.write(answer.body[: len(answer.body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response
