"""The HTTP application: every route, and the documents that are served beside the models.

Two things need no token: whether it runs (`/health`), and what a client reads before it has one, which is the same on
every machine (`/.well-known`, `/oidc`, `/openapi.json`). Whatever tells of the endpoints or of what was asked needs it.
"""

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import msgspec
from aiohttp import web

from spark_llm.serving.auth.oauth import TokenEndpoint
from spark_llm.serving.auth.tokens import Tokens
from spark_llm.serving.catalog import Catalog, Deployment
from spark_llm.serving.http import openapi
from spark_llm.serving.http.descriptions import API, endpoint_detail, endpoint_list, model_detail, model_list, workspace
from spark_llm.serving.http.invocations import Invocations
from spark_llm.serving.http.loopback import stranger
from spark_llm.serving.http.routes import ROUTES
from spark_llm.serving.protocol.credentials import token_of
from spark_llm.serving.protocol.errors import (
    TOO_LARGE,
    Refusal,
    Refused,
    dialect_of,
    no_such_endpoint,
    no_such_resource,
    no_such_route,
)

MAX_BODY_BYTES = 16 * 1024 * 1024

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Application:
    """Serves endpoints over HTTP; used on one event loop only.

    Attributes:
        catalog: The endpoints.
        tokens: What a request must bring.
        invocations: What takes the requests for a model.
        token_endpoint: What gives tokens to clients.
    """

    def __init__(
        self, catalog: Catalog, tokens: Tokens, invocations: Invocations, token_endpoint: TokenEndpoint
    ) -> None:
        self.catalog = catalog
        self.tokens = tokens
        self.invocations = invocations
        self.token_endpoint = token_endpoint
        self._created_ms = int(time.time() * 1000)

    def build(self) -> web.Application:
        """Build the aiohttp application."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        for route in ROUTES:
            app.router.add_post(route.path, _ours(partial(self.invocations.take, route=route)))
        for path, handler in {
            "/v1/models": self._known(self._models),
            "/v1/models/{name}": self._known(self._model),
            API: self._known(self._endpoints),
            f"{API}/": self._known(self._endpoints),
            f"{API}/{{name}}": self._known(self._endpoint),
            f"{API}/{{name}}/openapi": self._known(self._endpoint_openapi),
            "/stats": self._known(self._stats),
            "/health": self._health,
            "/openapi.json": self._openapi,
            "/.well-known/databricks-config": self._workspace,
            "/oidc/.well-known/oauth-authorization-server": self._authorization_server,
        }.items():
            app.router.add_get(path, _ours(handler))
        app.router.add_post("/oidc/v1/token", _ours(self._token))
        app.router.add_route("*", "/{tail:.*}", _ours(self._elsewhere))
        return app

    def _known(self, handler: Handler) -> Handler:
        """Let only those come to `handler` who bring a token of the workspace."""

        async def check(request: web.Request) -> web.StreamResponse:
            refusal = self.tokens.refusal(token_of(request.headers.get("Authorization", "")), time.monotonic())
            return await handler(request) if refusal is None else _refused(refusal, request)

        return check

    def _deployment(self, request: web.Request) -> Deployment | None:
        return self.catalog.get(request.match_info["name"])

    async def _models(self, _request: web.Request) -> web.Response:
        return _json(model_list(self.catalog, self._created_ms))

    async def _model(self, request: web.Request) -> web.Response:
        if (deployment := self._deployment(request)) is None:
            return _refused(no_such_endpoint(request.match_info["name"], "openai").refusal, request)
        return _json(model_detail(deployment, self._created_ms))

    async def _endpoints(self, _request: web.Request) -> web.Response:
        return _json(endpoint_list(self.catalog, self._created_ms))

    async def _endpoint(self, request: web.Request) -> web.Response:
        if (deployment := self._deployment(request)) is None:
            return _no_such_resource(request)
        return _json(endpoint_detail(deployment, _base(request), self._created_ms))

    async def _endpoint_openapi(self, request: web.Request) -> web.Response:
        if (deployment := self._deployment(request)) is None:
            return _no_such_resource(request)
        return _json(openapi.of_endpoint(deployment, _base(request)))

    async def _stats(self, _request: web.Request) -> web.Response:
        return _json(self.invocations.ledger.stats)

    async def _health(self, _request: web.Request) -> web.Response:
        return _json({"status": "OK"})

    async def _openapi(self, request: web.Request) -> web.Response:
        return _json(openapi.of_server(_base(request)))

    async def _workspace(self, request: web.Request) -> web.Response:
        return _json(workspace(_base(request)))

    async def _authorization_server(self, request: web.Request) -> web.Response:
        return _json(self.token_endpoint.described(_base(request)))

    async def _token(self, request: web.Request) -> web.Response:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _refused(TOO_LARGE, request)
        except web.RequestPayloadError as error:
            return _refused(Refused.bad_request(f"The request body cannot be read: {error}").refusal, request)
        answer = self.token_endpoint.answer(
            body, request.content_type, request.headers.get("Authorization", ""), time.monotonic()
        )
        return _json(answer.document, answer.status, answer.headers)

    async def _elsewhere(self, request: web.Request) -> web.Response:
        return _refused(no_such_route(request.method, request.path), request)


def _ours(handler: Handler) -> Handler:
    """Let only programs on this machine come to `handler`."""

    async def check(request: web.Request) -> web.StreamResponse:
        hosts = request.headers.getall("Host", [])
        if hosts and not request.raw_path.startswith("/"):  # a whole address, as a proxy is asked for it
            hosts = [*hosts, request.host]
        refusal = stranger(hosts, request.headers.getall("Origin", []))
        return await handler(request) if refusal is None else _refused(refusal, request)

    return check


def _base(request: web.Request) -> str:
    """Return the address that the client came to, by the name that it used."""
    return f"http://{request.host}"


def _refused(refusal: Refusal, request: web.Request) -> web.Response:
    return _json(refusal.told(dialect_of(request.path)), refusal.status)


def _no_such_resource(request: web.Request) -> web.Response:
    request_id = secrets.token_hex(12)
    refusal = no_such_resource(request.match_info["name"], request_id)
    return _json(refusal.told("databricks"), refusal.status, {"x-request-id": request_id})


def _json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), status=status, headers=headers, content_type="application/json"
    )
