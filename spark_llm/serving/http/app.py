"""The HTTP application: every route, and the documents beside the models.

Routes about endpoints or requests need a token. `/health` needs none, nor do the files of the serving page and the
documents that a client reads before signing in (`/.well-known`, `/oidc`, `/openapi.json`): they are equal on every
machine.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import msgspec
from aiohttp import web

from spark_llm.serving.auth.oauth import TokenEndpoint
from spark_llm.serving.auth.tokens import TokenStore
from spark_llm.serving.catalog import Catalog, Deployment
from spark_llm.serving.http import openapi
from spark_llm.serving.http.batch_api import BatchApi
from spark_llm.serving.http.descriptions import (
    ENDPOINTS_PATH,
    SERVICES_PATH,
    endpoint_detail,
    endpoint_list,
    model_detail,
    model_list,
    service_detail,
    workspace_config,
)
from spark_llm.serving.http.invocations import MAX_MEGABYTES, MEGABYTE, InvocationHandler, read_body
from spark_llm.serving.http.loopback import page_refusal
from spark_llm.serving.http.page import INDEX, page_response
from spark_llm.serving.http.routes import ROUTES
from spark_llm.serving.http.streams import EVENT_STREAM
from spark_llm.serving.protocol.credentials import token_of
from spark_llm.serving.protocol.errors import (
    ErrorResponse,
    Refused,
    dialect_of,
    endpoint_not_found,
    resource_not_found,
    route_not_found,
)
from spark_llm.serving.protocol.sse import data_line

_LIVE_STEP_S = 1.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Application:
    """Serves endpoints over HTTP; used on one event loop only.

    Attributes:
        catalog: The endpoints.
        tokens: The valid tokens.
        invocations: The handler of requests for a model.
        token_endpoint: The OAuth token endpoint.
        batch_api: The routes of files and batches.
    """

    catalog: Catalog
    tokens: TokenStore
    invocations: InvocationHandler
    token_endpoint: TokenEndpoint
    batch_api: BatchApi
    _created_ms: int = field(default_factory=lambda: int(time.time() * 1000), init=False)

    def build(self) -> web.Application:
        """Return the aiohttp application."""
        app = web.Application(client_max_size=MAX_MEGABYTES * MEGABYTE)
        endpoints = _document(lambda _: endpoint_list(self.catalog, self._created_ms))
        for route in ROUTES:
            app.router.add_post(route.path, _local_only(partial(self.invocations.handle, route=route)))
        for path, handler in {
            "/v1/models": self._authenticated(_document(lambda _: model_list(self.catalog, self._created_ms))),
            "/v1/models/{name}": self._authenticated(self._model),
            ENDPOINTS_PATH: self._authenticated(endpoints),
            f"{ENDPOINTS_PATH}/": self._authenticated(endpoints),
            f"{ENDPOINTS_PATH}/{{name}}": self._authenticated(self._endpoint),
            f"{ENDPOINTS_PATH}/{{name}}/openapi": self._authenticated(self._endpoint_openapi),
            f"{SERVICES_PATH}/{{name}}": self._authenticated(self._service),
            "/stats": self._authenticated(self._stats),
            "/": self._page,
            "/page/{file}": self._page,
            "/health": _document(lambda _: {"status": "OK"}),
            "/openapi.json": _document(openapi.server_document),
            "/.well-known/databricks-config": _document(workspace_config),
            "/oidc/.well-known/oauth-authorization-server": _document(self.token_endpoint.metadata),
        }.items():
            app.router.add_get(path, _local_only(handler))
        for method, path, handler in self.batch_api.routes():
            app.router.add_route(method, path, _local_only(handler))
        app.router.add_post("/oidc/v1/token", _local_only(self._token))
        app.router.add_route("*", "/{tail:.*}", _local_only(self._not_found))
        return app

    def _authenticated(self, handler: Handler) -> Handler:
        """Return `handler` behind a check of the workspace token."""

        async def check(request: web.Request) -> web.StreamResponse:
            refusal = self.tokens.authorize(token_of(request.headers.get("Authorization", "")), time.monotonic())
            return await handler(request) if refusal is None else _error(refusal, request)

        return check

    def _deployment(self, request: web.Request) -> Deployment | None:
        return self.catalog.get(request.match_info["name"])

    async def _model(self, request: web.Request) -> web.Response:
        if (deployment := self._deployment(request)) is None:
            return _error(endpoint_not_found(request.match_info["name"], "openai"), request)
        return _json(model_detail(deployment, self._created_ms))

    async def _service(self, request: web.Request) -> web.Response:
        if (deployment := self._deployment(request)) is None or not deployment.is_service:
            return _resource_not_found(request, "Model service")
        return _json(service_detail(deployment))

    async def _endpoint(self, request: web.Request) -> web.Response:
        if (deployment := self._deployment(request)) is None or deployment.is_service:
            return _resource_not_found(request)
        return _json(endpoint_detail(deployment, _base_url(request), self._created_ms))

    async def _endpoint_openapi(self, request: web.Request) -> web.Response:
        if (deployment := self._deployment(request)) is None or deployment.is_service:
            return _resource_not_found(request)
        return _json(openapi.endpoint_document(deployment, _base_url(request)))

    async def _token(self, request: web.Request) -> web.Response:
        try:
            body = await read_body(request)
        except Refused as refused:
            return _error(refused.refusal, request)
        authorization = request.headers.get("Authorization", "")
        response = self.token_endpoint.respond(body, request.content_type, authorization, time.monotonic())
        return _json(response.document, response.status, response.headers)

    async def _stats(self, request: web.Request) -> web.StreamResponse:
        if EVENT_STREAM not in request.headers.get("Accept", ""):
            return _json(self.invocations.stats.snapshot())
        response = web.StreamResponse(headers={"Content-Type": EVENT_STREAM, "Cache-Control": "no-store"})
        await response.prepare(request)
        token = token_of(request.headers.get("Authorization", ""))
        while self.tokens.is_valid(token, time.monotonic()):
            ready = {name: deployment.ready for name, deployment in self.catalog.items()}
            await response.write(data_line({"ready": ready, **msgspec.to_builtins(self.invocations.stats.live())}))
            await asyncio.sleep(_LIVE_STEP_S)
        return response

    async def _page(self, request: web.Request) -> web.StreamResponse:
        return page_response(request.match_info.get("file", INDEX)) or await self._not_found(request)

    async def _not_found(self, request: web.Request) -> web.Response:
        return _error(route_not_found(request.method, request.path), request)


def _local_only(handler: Handler) -> Handler:
    """Return `handler` behind a check that the request comes from a program on this machine."""

    async def check(request: web.Request) -> web.StreamResponse:
        hosts = request.headers.getall("Host", [])
        if hosts and not request.raw_path.startswith("/"):  # an absolute URL, as a proxy gets it
            hosts = [*hosts, request.host]
        refusal = page_refusal(hosts, request.headers.getall("Origin", []))
        return await handler(request) if refusal is None else _error(refusal, request)

    return check


def _document(make: Callable[[str], object]) -> Handler:
    """Return the handler of a document that is made from the server's address."""

    async def respond(request: web.Request) -> web.StreamResponse:
        return _json(make(_base_url(request)))

    return respond


def _base_url(request: web.Request) -> str:
    """Return the server's address, by the host name that the client used."""
    return f"http://{request.host}"


def _error(error: ErrorResponse, request: web.Request) -> web.Response:
    return _json(error.body_in(dialect_of(request.path)), error.status)


def _resource_not_found(request: web.Request, kind: str = "Endpoint") -> web.Response:
    request_id = secrets.token_hex(12)
    error = resource_not_found(kind, request.match_info["name"], request_id)
    return _json(error.body_in("databricks"), error.status, {"x-request-id": request_id})


def _json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), status=status, headers=headers, content_type="application/json"
    )
