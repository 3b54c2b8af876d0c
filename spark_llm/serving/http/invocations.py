"""The way of a request for a model: counted, token, body, endpoint, fields, capacity, hold, fault, latency, model.

Whatever stops it on that way is told in the dialect of the route that it came by.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from aiohttp import web

from spark_llm.serving.auth.tokens import Tokens
from spark_llm.serving.catalog import Catalog, Deployment
from spark_llm.serving.http.responses import INSTEAD, SPOILT, Answer, ask, drip, refuse, send
from spark_llm.serving.http.routes import Route
from spark_llm.serving.http.streams import Streamed, stream
from spark_llm.serving.models.base import Model
from spark_llm.serving.models.tasks import TASKS, Task
from spark_llm.serving.protocol.credentials import token_of
from spark_llm.serving.protocol.errors import (
    AZURE_NOT_FOUND,
    INTERNAL_ERROR,
    STOPPED,
    TOO_LARGE,
    Refused,
    no_such_endpoint,
)
from spark_llm.serving.protocol.requests import (
    MAX_EMBEDDING_INPUTS,
    AnyRequest,
    EmbeddingRequest,
    read_object,
    read_request,
)
from spark_llm.serving.scenario.capacity import Capacity
from spark_llm.serving.scenario.faults import Faults
from spark_llm.serving.scenario.gate import Gate
from spark_llm.serving.scenario.holds import Holds
from spark_llm.serving.scenario.stats import Ledger, Recorded, Ticket

Latency = float | Callable[[int], float]
SECRET_HEADERS = frozenset({"authorization", "api-key", "x-api-key"})

_logger = logging.getLogger(__name__)


class _Call(NamedTuple):
    """One request for a model, and what goes with it on its way."""

    request: web.Request
    route: Route
    ticket: Ticket
    request_id: str


class _Asked(NamedTuple):
    """What is asked, and of which model: a served entity of an endpoint."""

    served: str
    model: Model
    body: AnyRequest


class Invocations:
    """Takes every request for a model; used on one event loop only.

    Attributes:
        catalog: The endpoints.
        tokens: What a request must bring.
        faults: What goes wrong with which request; may be set anew at any time.
        latency_s: Seconds before a model is asked, or a function of the request's number; may be set anew as well.
        gate: What holds the requests to a capacity.
        holds: What holds single requests back.
        ledger: What counts them.
    """

    def __init__(
        self, catalog: Catalog, tokens: Tokens, *, faults: Faults, latency_s: Latency, capacity: Capacity
    ) -> None:
        self.catalog = catalog
        self.tokens = tokens
        self.faults = faults
        self.latency_s = latency_s
        self.gate = Gate(capacity)
        self.holds = Holds()
        self.ledger = Ledger()

    def reset(self) -> None:
        """Begin again: nothing is counted, the next request is number 0, nothing of the capacity is spent."""
        self.ledger.reset()
        self.gate.reset()

    async def take(self, request: web.Request, *, route: Route) -> web.StreamResponse:
        """Answer one request that came by `route`."""
        call = _Call(request, route, self.ledger.arrive(), secrets.token_hex(12))
        try:
            answer = await self._answer(call, await self._receive(call))
        except Refused as refused:
            answer = refuse(refused, route.dialect)
        except asyncio.CancelledError:
            call.ticket.leave()
            raise
        except Exception:
            _logger.exception("A model failed")
            answer = refuse(Refused(INTERNAL_ERROR), route.dialect)
        call.ticket.end(answer.status, answer.rows, answer.usage)
        return await send(request, answer, call.request_id)

    async def _receive(self, call: _Call) -> _Asked:
        """Read and check a request."""
        request, route, ticket, _ = call
        name, body = request.match_info.get("name", ""), None
        try:
            self._admit(request, route, self.catalog.get(name))
            body = read_object(await _read(request))
            name = name or _model_name(body)
        finally:
            ticket.record(_recorded(request, name, body))
        deployment = self.catalog.get(name)
        served = request.match_info.get("served")
        if deployment is None or served not in (None, *deployment.entities):
            raise no_such_endpoint(name, route.dialect)
        if route.data_plane and not deployment.route_optimized:
            raise no_such_endpoint(name, route.dialect)
        ticket.name(name)
        if not deployment.ready:
            raise Refused(STOPPED)
        asked = read_request(body, _task(deployment, body, route.task).request)
        if isinstance(asked, EmbeddingRequest) and len(asked.inputs) > MAX_EMBEDDING_INPUTS:
            raise Refused.bad_request(
                f"Input embeddings size is too large, exceeding {MAX_EMBEDDING_INPUTS} limit for {name}", param="input"
            )
        ticket.ask(len(asked.inputs))
        served = served or next(iter(deployment.entities))
        return _Asked(served, deployment.entities[served], asked)

    def _admit(self, request: web.Request, route: Route, deployment: Deployment | None) -> None:
        """Let a request pass that brings a token which is good for its route."""
        is_azure = route.dialect == "azure"
        given = token_of(request.headers.get("Authorization", ""), request.headers.get("api-key") if is_azure else None)
        endpoint_id = (deployment.id if deployment else "") if route.data_plane else None
        refusal = self.tokens.refusal(given, time.monotonic(), endpoint_id=endpoint_id)
        if refusal is not None:
            raise Refused(refusal)
        if is_azure and not request.query.get("api-version"):
            raise Refused(AZURE_NOT_FOUND)

    async def _answer(self, call: _Call, asked: _Asked) -> Answer:
        """Answer what is asked as soon as the capacity has a place for it, or refuse it at once."""
        async with self.gate.place():
            with call.ticket.in_work():
                answer = await self._work(call, asked)
            if answer.usage is not None:
                self.gate.spend(answer.usage.total_tokens)
            return answer

    async def _work(self, call: _Call, asked: _Asked) -> Answer:
        """Answer what is asked, after its hold and its latency, or do what the faults say instead."""
        body, dialect = asked.body, call.route.dialect
        await self.holds.wait(body.body)
        faults, number = self.faults, call.ticket.number
        fault = faults.at(number)
        if fault.refusal is not None:
            raise Refused(fault.refusal, retry_after=fault.retry_after)
        if (poison := faults.poisoned(body.inputs)) is not None:
            raise Refused(poison)
        latency_s = self.latency_s(number) if callable(self.latency_s) else self.latency_s
        if latency_s > 0:
            await asyncio.sleep(latency_s)
        if fault.kind in INSTEAD:
            return await INSTEAD[fault.kind](dialect)
        headers = {"served-model-name": asked.served} if dialect == "databricks" else {}
        empty = fault.kind == "empty"
        if body.stream and not isinstance(body, EmbeddingRequest):
            streamed = Streamed(asked.model, body, dialect, call.request_id, empty=empty)
            if fault.kind not in SPOILT and fault.kind != "drip":
                return await stream(call.request, streamed, headers, call.request_id)
            answer = await streamed.whole(headers)
        else:
            answer = await ask(asked.model, body, headers, call.request_id, empty=empty)
        if fault.kind == "drip":
            return await drip(call.request, answer, call.request_id, faults.drip_s)
        return SPOILT[fault.kind](answer) if fault.kind in SPOILT else answer


def _task(deployment: Deployment, body: Mapping[str, object], task: Task | None) -> Task:
    """Tell the task by the route, or else by the field that the body has."""
    if task is None:
        task = next((each for each in deployment.tasks if each.field in body), None)
    if task not in deployment.tasks:
        other = next((each.field for each in TASKS if each.field in body and each not in deployment.tasks), None)
        unknown = f'Bad request: json: unknown field "{other}". ' if other else ""
        serves = " and ".join(each.name for each in deployment.tasks)
        fields = " or ".join(repr(each.field) for each in deployment.tasks)
        raise Refused.bad_request(
            f"{unknown}Endpoint {deployment.name} serves {serves}: the request needs {fields}.", param=other
        )
    return task


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


def _model_name(body: Mapping[str, object]) -> str:
    name = body.get("model")
    if not isinstance(name, str):
        raise Refused.bad_request("The request needs 'model', the name of an endpoint.", param="model")
    return name
