"""The HTTP application: routes, tokens, errors, and what a fault does on the wire.

Each request goes the same way: counted, token, body, endpoint, fields, capacity, hold, fault, latency, model. Whatever
stops it on that way is told in the dialect of the path that was asked.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, NamedTuple

import msgspec
from aiohttp import web

from spark_llm.serving.bearer import BearerToken
from spark_llm.serving.faults import Faults
from spark_llm.serving.gate import Gate
from spark_llm.serving.holds import Holds
from spark_llm.serving.ledger import Ledger, Recorded, Ticket
from spark_llm.serving.limits import Capacity
from spark_llm.serving.models import ChatModel, CompletionModel, EmbeddingModel, Model
from spark_llm.serving.refusals import (
    INTERNAL_ERROR,
    NO_SUCH_ROUTE,
    TOO_LARGE,
    UNAUTHENTICATED,
    Dialect,
    Refused,
    no_such_endpoint,
)
from spark_llm.serving.responses import INSTEAD, SPOILT, Answer, AnyTask, ask, drip, refuse, send
from spark_llm.serving.wire import (
    MAX_EMBEDDING_INPUTS,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    read_object,
    read_request,
)

Task = Literal["chat", "completions", "embeddings"]
Latency = float | Callable[[int], float]
SECRET_HEADERS = frozenset({"authorization", "api-key", "x-api-key"})

MAX_BODY_BYTES = 16 * 1024 * 1024
# What tells a request's task where the path does not, and what a model must be to serve it.
FIELDS: dict[Task, str] = {"chat": "messages", "completions": "prompt", "embeddings": "input"}
PROTOCOLS: dict[Task, type] = {"chat": ChatModel, "completions": CompletionModel, "embeddings": EmbeddingModel}
OPENAI_PATHS: dict[str, Task] = {"chat/completions": "chat", "completions": "completions", "embeddings": "embeddings"}

_logger = logging.getLogger(__name__)


class _Call(NamedTuple):
    """One request for a model, and what goes with it on its way."""

    request: web.Request
    dialect: Dialect
    task: Task | None
    ticket: Ticket
    request_id: str


class Application:
    """Serves models under the names of their endpoints; used on one event loop only.

    Attributes:
        models: The models, by the name of their endpoint.
        token: What a request must bring; may be set anew at any time.
        faults: What goes wrong with which request; may be set anew as well.
        latency_s: Seconds before a model is asked, or a function of the request's number; may be set anew as well.
        gate: What holds the requests to a capacity.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        *,
        token: BearerToken,
        faults: Faults,
        latency_s: Latency,
        capacity: Capacity,
    ) -> None:
        self.models = dict(models)
        self.token = token
        self.faults = faults
        self.latency_s = latency_s
        self.gate = Gate(capacity)
        self.ledger = Ledger()
        self.holds = Holds()
        self._tasks = {
            name: [task for task, protocol in PROTOCOLS.items() if isinstance(model, protocol)]
            for name, model in self.models.items()
        }

    def build(self) -> web.Application:
        """Build the aiohttp application."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        invocations = partial(self._post, dialect="databricks", task=None)
        app.router.add_post("/serving-endpoints/{name}/invocations", invocations)
        for path, task in OPENAI_PATHS.items():
            app.router.add_post(f"/serving-endpoints/{path}", partial(self._post, dialect="databricks", task=task))
            app.router.add_post(f"/v1/{path}", partial(self._post, dialect="openai", task=task))
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/stats", self._stats)
        app.router.add_route("*", "/{tail:.*}", self._elsewhere)
        return app

    def reset(self) -> None:
        """Begin again: nothing is counted, the next request is number 0, nothing of the capacity is spent."""
        self.ledger.reset()
        self.gate.reset()

    async def _post(self, request: web.Request, *, dialect: Dialect, task: Task | None) -> web.StreamResponse:
        call = _Call(request, dialect, task, self.ledger.arrive(), secrets.token_hex(12))
        try:
            endpoint, asked = await self._receive(call)
            answer = await self._answer(call, endpoint, asked)
        except Refused as refused:
            answer = refuse(refused, dialect)
        except asyncio.CancelledError:
            call.ticket.leave()
            raise
        except Exception:
            _logger.exception("A model failed")
            answer = refuse(Refused(INTERNAL_ERROR), dialect)
        call.ticket.end(answer.status, answer.rows, answer.usage)
        return await send(request, answer, call.request_id)

    async def _receive(self, call: _Call) -> tuple[str, AnyTask]:
        """Read and check a request; return the name of its endpoint, and what is asked."""
        request, dialect, task, ticket, _ = call
        name, body = request.match_info.get("name", ""), None
        try:
            if not self._is_known(request):
                raise Refused(UNAUTHENTICATED)
            body = read_object(await _read(request))
            name = name or _model_name(body)
        finally:
            ticket.record(_recorded(request, name, body))
        if name not in self.models:
            raise no_such_endpoint(name, dialect)
        ticket.name(name)
        asked = _read_request(body, self._task(name, body, task))
        if isinstance(asked, EmbeddingRequest) and len(asked.inputs) > MAX_EMBEDDING_INPUTS:
            raise Refused.bad_request(
                f"Input embeddings size is too large, exceeding {MAX_EMBEDDING_INPUTS} limit for {name}", param="input"
            )
        ticket.ask(len(asked.inputs))
        return name, asked

    async def _answer(self, call: _Call, endpoint: str, asked: AnyTask) -> Answer:
        """Answer what is asked as soon as the capacity has a place for it, or refuse it at once."""
        async with self.gate.place():
            with call.ticket.in_work():
                answer = await self._work(call, endpoint, asked)
            if answer.usage is not None:
                self.gate.spend(answer.usage.total_tokens)
            return answer

    async def _work(self, call: _Call, endpoint: str, asked: AnyTask) -> Answer:
        """Answer what is asked, after its hold and its latency, or do what the faults say instead."""
        await self.holds.wait(asked.body)
        faults, number = self.faults, call.ticket.number
        fault = faults.at(number)
        if fault.refusal is not None:
            raise Refused(fault.refusal, retry_after=fault.retry_after)
        if (poison := faults.poisoned(asked.inputs)) is not None:
            raise Refused(poison)
        latency_s = self.latency_s(number) if callable(self.latency_s) else self.latency_s
        if latency_s > 0:
            await asyncio.sleep(latency_s)
        if fault.kind in INSTEAD:
            return await INSTEAD[fault.kind](call.dialect)
        answer = await ask(self.models[endpoint], asked, call.request_id, empty=fault.kind == "empty")
        if fault.kind == "drip":
            return await drip(call.request, answer, call.request_id, faults.drip_s)
        return SPOILT[fault.kind](answer) if fault.kind in SPOILT else answer

    def _task(self, name: str, body: Mapping[str, object], task: Task | None) -> Task:
        """Tell the task by the path, or else by the field that the body has."""
        served = self._tasks[name]
        if task is None:
            task = next((each for each in served if FIELDS[each] in body), None)
        if task not in served:
            fields = " or ".join(repr(FIELDS[each]) for each in served)
            raise Refused.bad_request(f"Endpoint {name} serves {' and '.join(served)}: the request needs {fields}.")
        return task

    def _is_known(self, request: web.Request) -> bool:
        return self.token.admits(request.headers.get("Authorization", ""), time.monotonic())

    async def _models(self, request: web.Request) -> web.Response:
        if not self._is_known(request):
            return _json(UNAUTHENTICATED.told("openai"), status=401)
        rows = [{"id": name, "object": "model", "created": 0, "owned_by": "local"} for name in self.models]
        return _json({"object": "list", "data": rows})

    async def _health(self, _request: web.Request) -> web.Response:
        return _json({"status": "OK"})

    async def _stats(self, _request: web.Request) -> web.Response:
        return _json(self.ledger.stats)

    async def _elsewhere(self, request: web.Request) -> web.Response:
        return _json(NO_SUCH_ROUTE.told("openai" if request.path.startswith("/v1/") else "databricks"), status=404)


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def _recorded(request: web.Request, endpoint: str, body: Mapping[str, object] | None) -> Recorded:
    headers = {name.lower(): value for name, value in request.headers.items()}
    for name in SECRET_HEADERS & headers.keys():
        scheme, blank, _ = headers[name].rpartition(" ")
        headers[name] = f"{scheme}{blank}***"
    return Recorded(endpoint, body, headers, request.path_qs)


async def _read(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise Refused(TOO_LARGE) from None
    except web.RequestPayloadError as error:
        raise Refused.bad_request(f"The request body cannot be read: {error}") from None


def _read_request(body: dict[str, object], task: Task) -> AnyTask:
    if task == "chat":
        return read_request(body, ChatRequest)
    return read_request(body, CompletionRequest) if task == "completions" else read_request(body, EmbeddingRequest)


def _model_name(body: Mapping[str, object]) -> str:
    name = body.get("model")
    if not isinstance(name, str):
        raise Refused.bad_request("The request needs 'model', the name of an endpoint.", param="model")
    return name
