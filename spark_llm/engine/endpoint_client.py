"""One attempt at a request: encode it, send it with a token that is good, and decode the response."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from spark_llm.auth.tokens import SignInError, TokenKeeper
from spark_llm.endpoint.route import Route
from spark_llm.engine.row_stream import Stream
from spark_llm.errors import ConfigError
from spark_llm.flow.judge import RefusalJudge
from spark_llm.flow.request import Request
from spark_llm.protocol.bodies import RequestBody
from spark_llm.protocol.hints import with_hint
from spark_llm.protocol.task import RESPONSES, UnsendableError
from spark_llm.protocol.urls import masked_url, responses_url
from spark_llm.protocol.values import Answer, Failure, Response, RowError
from spark_llm.transport.http import HTTPClient

_MAX_TOKENS = 3  # that one attempt is sent with: each may have ended while it was on its way


class EndpointClient:
    """Sends requests to one endpoint, over connections that stay open; used on one event loop."""

    def __init__(self, route: Route, keeper: TokenKeeper, timeout_s: float, connections: int) -> None:
        """Open nothing before the first request, and at most so many connections."""
        self._route = route
        self._responses_url = responses_url(route.url)
        self._keeper = keeper
        self._timeout_s = timeout_s
        self._connections = connections
        self._http: HTTPClient | None = None
        self._token_lock = asyncio.Lock()
        self._renewal: asyncio.Future[None] | None = None  # of a token that is still good

    async def send(
        self, request: Request, stream: Stream, judge: RefusalJudge
    ) -> "tuple[Answer | Failure, float | None]":
        """Return the outcome of one attempt, and its latency in seconds; None where nothing was sent.

        `judge` knows whether a refusal of this request would end its task: that is worth a new token.
        """
        task, items = stream.negotiation.task, [item for _, item in request.inputs]
        try:
            body, request.body = request.body or stream.bodies.write(request), None
        except UnsendableError as error:
            request.attempts.sent -= 1  # nothing was sent
            return error.failure, None
        try:
            if self._http is None:
                self._http = self._connected()
            now = time.time()
            if self._keeper.needs_renewal(now):
                await self._renew(now)
            response = await self._post(self._http, request, body, judge)
        except SignInError as error:
            return error.failure, None
        except ConfigError as error:  # the bundle of certificates
            return Failure(RowError("connection", None, str(error), retryable=False), final=True), None
        outcome = task.decode(response, len(items), request.wire_format)
        return task.parse_output(outcome, items, request.wire_format), response.latency_s

    def with_hint(self, error: RowError, wire_format: int, *, stops_all: bool) -> RowError:
        """Return an error of this endpoint with where it was met and what to do, where there is something to do."""
        shown = masked_url(self._url_for(wire_format) or self._route.url)
        return with_hint(error, shown, self._route.credential.origin, stops_all=stops_all)

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.close()

    async def _renew(self, now: float) -> None:
        """Wait for a new token where the present one has ended; else renew it in the background."""
        if self._keeper.has_expired(now):
            await self._in_thread(self._keeper.renew_if_needed)
        elif self._renewal is None or self._renewal.done():
            self._renewal = asyncio.get_running_loop().run_in_executor(None, self._keeper.renew_if_needed)
            self._renewal.add_done_callback(_retrieve_error)

    async def _post(self, http: HTTPClient, request: Request, body: RequestBody, judge: RefusalJudge) -> Response:
        """Send a request, and again where another token can be had than the one that was refused."""
        tokens = 0
        while True:
            tokens += 1
            request.token = token = self._keeper.token
            request.http_requests += 1
            response = await http.post(body, token, self._url_for(request.wire_format))
            if response.status not in (401, 403):
                self._keeper.record_success(token, was_refused=tokens > 1)
                return response
            if tokens == _MAX_TOKENS or not await self._replace(request, token, judge):
                if tokens > 1:
                    self._keeper.record_futile_renewal()
                return response
            request.attempts.sent += 1
            request.refusals += (response.status,)

    async def _replace(self, request: Request, token: str | None, judge: RefusalJudge) -> bool:
        """Get another token than the one that a request was refused with; return whether there is one."""
        decisive = judge.is_decisive(request)
        while not await self._in_thread(self._keeper.replace, token, decisive):
            if decisive or not judge.is_decisive(request):
                return False
            decisive = True  # others were refused meanwhile
        return True

    def _url_for(self, wire_format: int) -> str | None:
        """Return the URL for requests in a wire format; None for the route's own."""
        return self._responses_url if wire_format & RESPONSES else None

    def _connected(self) -> HTTPClient:
        route = self._route
        return HTTPClient(
            route.url,
            self._timeout_s,
            self._connections,
            headers=dict(route.headers),
            azure=route.azure,
            ca_bundle=route.ca_bundle,
        )

    async def _in_thread(self, function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 -- its result
        """Return the result of a function of the keeper, which blocks; one such call runs at a time."""
        async with self._token_lock:
            return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)


def _retrieve_error(renewal: "asyncio.Future[None]") -> None:
    """Retrieve a renewal's exception, or asyncio logs it: the next request renews again, and reports the failure."""
    if not renewal.cancelled():
        renewal.exception()
