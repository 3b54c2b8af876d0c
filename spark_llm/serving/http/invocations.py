"""The handler of requests for a model.

A request passes these stations: count, token, body, endpoint, fields, capacity, hold, fault, latency, model. Each can
refuse it, in the dialect of its route.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from aiohttp import web

from spark_llm.serving.auth.tokens import TokenStore
from spark_llm.serving.catalog import Catalog, Deployment
from spark_llm.serving.http.responses import (
    CORRUPTING_FAULTS,
    REPLACING_FAULTS,
    PendingResponse,
    drip,
    error_response,
    failed_response,
    model_response,
    send,
)
from spark_llm.serving.http.routes import GATEWAY, Route
from spark_llm.serving.http.streams import EventStream, send_stream
from spark_llm.serving.models.base import Model
from spark_llm.serving.models.tasks import CHAT, EMBEDDINGS, PREDICTIONS, RERANKINGS, RESPONSES, TASKS, Task
from spark_llm.serving.protocol.credentials import token_of
from spark_llm.serving.protocol.errors import (
    AZURE_NOT_FOUND,
    INTERNAL_ERROR,
    STOPPED,
    Dialect,
    Refused,
    endpoint_not_found,
    only_responses,
    too_large,
)
from spark_llm.serving.protocol.requests import (
    MAX_EMBEDDING_INPUTS,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Request,
    parse_object,
    parse_request,
)
from spark_llm.serving.protocol.responses_request import ResponsesRequest, check_fields
from spark_llm.serving.scenario.capacity import Capacity
from spark_llm.serving.scenario.faults import Faults
from spark_llm.serving.scenario.gate import Gate
from spark_llm.serving.scenario.holds import Holds
from spark_llm.serving.scenario.stats import Recorded, RequestStats, StatsCollector

ATTRIBUTION = frozenset({"client_request_id", "usage_context"})  # fields of Databricks for requests of every task
MAX_TOOLS: dict[Dialect, int] = {"databricks": 32, "openai": 128, "azure": 128}
FLEX = "flex"
MEGABYTE = 2**20
MAX_MEGABYTES = 16
MAX_FOUNDATION_MEGABYTES = 4  # of Databricks' routes, for every model but a custom one

Latency = float | Callable[[int], float]
SECRET_HEADERS = frozenset({"authorization", "api-key", "x-api-key"})

_logger = logging.getLogger(__name__)


class _Invocation(NamedTuple):
    """One HTTP request for a model, with its route, its counters and its id."""

    http_request: web.Request
    route: Route
    stats: RequestStats
    request_id: str


class _ModelCall(NamedTuple):
    """A valid request, and the model that serves it, by the name of its served entity."""

    entity: str
    model: Model
    request: Request


class InvocationHandler:
    """Handles every request for a model; used on one event loop only.

    Attributes:
        catalog: The endpoints.
        tokens: The valid tokens.
        faults: The faults of requests; may be set at any time.
        latency_s: Seconds before the model runs, or a function of the request's number; may be set at any time.
        gate: Applies the capacity.
        holds: Hold single requests back.
        stats: The counters.
    """

    def __init__(
        self, catalog: Catalog, tokens: TokenStore, *, faults: Faults, latency_s: Latency, capacity: Capacity
    ) -> None:
        self.catalog = catalog
        self.tokens = tokens
        self.faults = faults
        self.latency_s = latency_s
        self.gate = Gate(capacity)
        self.holds = Holds()
        self.stats = StatsCollector()

    def reset(self) -> None:
        """Set the counters and the spent capacity to zero; the next request is number 0."""
        self.stats.reset()
        self.gate.reset()

    async def handle(self, request: web.Request, *, route: Route) -> web.StreamResponse:
        """Return the response to one request on `route`."""
        invocation = _Invocation(request, route, self.stats.begin_request(), secrets.token_hex(12))
        try:
            response = await self._respond(invocation, await self._parse(invocation))
        except Refused as refused:
            response = error_response(refused, route.dialect)
        except asyncio.CancelledError:
            invocation.stats.disconnect()
            raise
        except Exception:
            _logger.exception("A model failed")
            response = error_response(Refused(INTERNAL_ERROR), route.dialect)
        invocation.stats.end(response.status, response.rows, response.usage)
        return await send(request, response, invocation.request_id)

    async def _parse(self, invocation: _Invocation) -> _ModelCall:
        """Return the valid request and its model; raises `Refused` for a wrong token, body, endpoint or field."""
        http_request, route, stats, _ = invocation
        name, raw, body = http_request.match_info.get("name", ""), b"", None
        try:
            self._authorize(http_request, route, self.catalog.get(name))
            raw = await read_body(http_request)
            body = parse_object(raw)
            name = name or self._endpoint_name(body, route)
        finally:
            stats.record(_record(http_request, name, body), len(raw))
        deployment = self._find_deployment(name, http_request.match_info.get("served"), route)
        stats.set_endpoint(name)
        if not deployment.ready:
            raise Refused(STOPPED)
        task = find_task(deployment, body, route.task, route.dialect)
        if route.dialect == "databricks" and task != PREDICTIONS and len(raw) > MAX_FOUNDATION_MEGABYTES * MEGABYTE:
            raise Refused(too_large(MAX_FOUNDATION_MEGABYTES))
        request = read_request(body, task, name, route.dialect)
        stats.add_rows(request.rows)
        entity = http_request.match_info.get("served") or next(iter(deployment.entities))
        return _ModelCall(entity, deployment.entities[entity], request)

    def _authorize(self, http_request: web.Request, route: Route, deployment: Deployment | None) -> None:
        """Raise `Refused` unless the request brings a token that is valid for its route."""
        presented = presented_token(http_request, route.dialect)
        endpoint_id = (deployment.id if deployment else "") if route.data_plane else None
        refusal = self.tokens.authorize(presented, time.monotonic(), endpoint_id=endpoint_id)
        if refusal is not None:
            raise Refused(refusal)
        if route.needs_version and not http_request.query.get("api-version"):
            raise Refused(AZURE_NOT_FOUND)

    def _endpoint_name(self, body: Mapping[str, object], route: Route) -> str:
        """Return the name of the endpoint, where the path has none."""
        if route.task == PREDICTIONS:
            return next((name for name, each in self.catalog.items() if PREDICTIONS in each.tasks), "")
        name = body.get("model")
        if not isinstance(name, str):
            raise Refused.bad_request("The request needs 'model', the name of an endpoint.", param="model")
        return name

    def _find_deployment(self, name: str, entity: str | None, route: Route) -> Deployment:
        deployment = self.catalog.get(name)
        if (
            deployment is None
            or entity not in (None, *deployment.entities)
            or (route.data_plane and not deployment.route_optimized)
            or (route.dialect == "databricks" and deployment.is_service and not route.path.startswith(GATEWAY))
        ):
            raise Refused(endpoint_not_found(name, route.dialect))
        return deployment

    async def _respond(self, invocation: _Invocation, call: _ModelCall) -> PendingResponse:
        """Return the response when the capacity has a slot; raises `Refused` when it refuses."""
        async with self.gate.slot(is_flex=getattr(call.request, "service_tier", None) == FLEX):
            with invocation.stats.in_work():
                response = await self._inject_fault(invocation, call)
            if response.usage is not None:
                self.gate.spend(response.usage.total_tokens)
            return response

    async def _inject_fault(self, invocation: _Invocation, call: _ModelCall) -> PendingResponse:
        """Return the model's response after its hold and latency, or the fault of this request."""
        request, dialect = call.request, invocation.route.dialect
        await self.holds.wait(request.body)
        faults, number = self.faults, invocation.stats.number
        fault = faults.at(number)
        if fault.refusal is not None:
            raise Refused(fault.refusal, retry_after=fault.retry_after)
        if (refusal := faults.poisoned(request.texts)) is not None:
            raise Refused(refusal)
        latency_s = self.latency_s(number) if callable(self.latency_s) else self.latency_s
        if latency_s > 0:
            await asyncio.sleep(latency_s)
        if fault.kind == "errorbody" and isinstance(request, ResponsesRequest):
            return failed_response(call.model, request, invocation.request_id)
        if fault.kind in REPLACING_FAULTS:
            return await REPLACING_FAULTS[fault.kind](dialect)
        headers = {"served-model-name": call.entity} if dialect == "databricks" else {}
        empty = fault.kind == "empty"
        if isinstance(request, ChatRequest | CompletionRequest | ResponsesRequest) and request.stream:
            stream = EventStream(call.model, request, dialect, invocation.request_id, empty=empty)
            if fault.kind not in CORRUPTING_FAULTS and fault.kind != "drip":
                return await send_stream(invocation.http_request, stream, headers, invocation.request_id)
            response = await stream.collect(headers)
        else:
            response = await model_response(call.model, request, headers, invocation.request_id, empty=empty)
        if fault.kind == "drip":
            return await drip(invocation.http_request, response, invocation.request_id, faults.drip_s)
        return CORRUPTING_FAULTS[fault.kind](response) if fault.kind in CORRUPTING_FAULTS else response


def presented_token(http_request: web.Request, dialect: Dialect) -> str | None:
    """Return the token that a request brings; Azure's routes take it in a header of its own too."""
    api_key = http_request.headers.get("api-key") if dialect == "azure" else None
    return token_of(http_request.headers.get("Authorization", ""), api_key)


def read_request(body: dict[str, Any], task: Task, name: str, dialect: Dialect) -> Request:
    """Return a body as a request for the endpoint of this name; raises `Refused` for a wrong one."""
    if task == RESPONSES:
        check_fields(body, ATTRIBUTION if dialect == "databricks" else frozenset())
    request = parse_request(body, task.request_type)
    _check_counts(request, name, dialect)
    return request


def find_task(deployment: Deployment, body: Mapping[str, object], task: Task | None, dialect: Dialect) -> Task:
    """Return the task of the route, or else of the body's field; raises `Refused` if the endpoint lacks it."""
    if task in deployment.tasks or (task in RERANKINGS and EMBEDDINGS in deployment.tasks):
        return task
    tasks = deployment.own_path_tasks
    if task is None:
        # A custom model's own words say what is wrong with a body.
        is_custom = deployment.tasks == (PREDICTIONS,)
        task = next((each for each in tasks if is_custom or body.keys() & each.input_fields), None)
    if task not in deployment.tasks:
        wants_chat = task == CHAT or (task is None and "messages" in body)
        if wants_chat and RESPONSES in deployment.tasks:
            raise Refused(only_responses(deployment.name, dialect))
        own = [field for each in tasks for field in each.input_fields]
        foreign = [field for each in TASKS for field in each.input_fields if field not in own]
        other = next((field for field in foreign if field in body), None)
        unknown = f'Bad request: json: unknown field "{other}". ' if other else ""
        serves = " and ".join(each.name for each in tasks)
        fields = " or ".join(map(repr, own))
        raise Refused.bad_request(
            f"{unknown}Endpoint {deployment.name} serves {serves}: the request needs {fields}.", param=other
        )
    return task


def _check_counts(request: Request, name: str, dialect: Dialect) -> None:
    """Raise `Refused` for more inputs or tools than the service takes."""
    if isinstance(request, EmbeddingRequest) and request.rows > MAX_EMBEDDING_INPUTS:
        raise Refused.bad_request(
            f"Input embeddings size is too large, exceeding {MAX_EMBEDDING_INPUTS} limit for {name}", param="input"
        )
    count, limit = len(getattr(request, "tools", None) or ()), MAX_TOOLS[dialect]
    if count > limit:
        raise Refused.bad_request(
            f"Invalid 'tools': array too long. Expected an array with maximum length {limit}, but got an array with "
            f"length {count} instead.",
            param="tools",
            code="array_above_max_length",
        )


def _record(http_request: web.Request, endpoint: str, body: Mapping[str, object] | None) -> Recorded:
    """Return the request as tests read it, with secrets masked."""
    headers = {name.lower(): value for name, value in http_request.headers.items()}
    for name in SECRET_HEADERS & headers.keys():
        scheme, blank, _ = headers[name].rpartition(" ")
        headers[name] = f"{scheme}{blank}***"
    return Recorded(endpoint, body, headers, http_request.path_qs)


async def read_body(http_request: web.Request) -> bytes:
    """Return the whole body of a request; raises `Refused` for one that is too large or cannot be read."""
    try:
        return await http_request.read()
    except web.HTTPRequestEntityTooLarge:
        raise Refused(too_large(MAX_MEGABYTES)) from None
    except web.RequestPayloadError as error:
        raise Refused.bad_request(f"The request body cannot be read: {error}") from None
