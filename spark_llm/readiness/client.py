"""Client for single requests, with a worker's authentication, TLS, proxy and headers."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from spark_llm.auth.tokens import SignInError, Token, TokenKeeper
from spark_llm.endpoint.route import Route
from spark_llm.errors import ConfigError
from spark_llm.protocol.bodies import RequestBody
from spark_llm.protocol.hints import with_hint
from spark_llm.protocol.values import Failure, Response, RowError
from spark_llm.transport.http import send_once

T = TypeVar("T")


class ReadinessClient:
    """Blocking client with the credential of a route; for threads without an event loop."""

    def __init__(self, route: Route) -> None:
        """Keep the route, and send nothing yet."""
        self._route = route
        headers = dict(route.headers)
        self._send_once = partial(send_once, headers=headers, azure=route.azure, ca_bundle=route.ca_bundle)
        self._keeper = TokenKeeper(route.credential, route.ca_bundle)

    def sign_in(self) -> str | None:
        """Return a token, as a worker gets one before its first request, or None for none. Raises `SignInError`."""
        try:
            self._keeper.renew_if_needed()
        except ConfigError as error:  # the bundle of certificates
            raise SignInError(_failure_of(error)) from None
        return self._keeper.token

    @property
    def token_ends_at(self) -> float:
        """When the token ends, in seconds since 1970; infinity if neither the token nor its issuer says so."""
        return min(self._keeper.expires_at, Token.parse(self._keeper.token or "", time.time()).expires_at)

    def send(self, method: str, url: str, body: RequestBody | None, timeout_s: float) -> Response:
        """Send one request, and once more if a refused token can be replaced. Raises `SignInError`."""
        response = Response(0)
        for _ in range(2):
            token = self.sign_in()
            try:
                response = self._send_once(method, url, body=body, token=token, timeout_s=timeout_s)
            except ConfigError as error:
                raise SignInError(_failure_of(error)) from None
            if response.status not in (401, 403):
                self._keeper.record_success(token)
                break
            if not self._keeper.replace(token):
                break
        return response

    def message_of(self, error: RowError) -> str:
        """Return the message that a row would get for this error, with the URL and the next step."""
        route = self._route
        return with_hint(error, route.shown, route.credential.origin, stops_all=True).message


def _failure_of(error: ConfigError) -> Failure:
    return Failure(RowError("connection", None, str(error), retryable=False), final=True)


def run_outside_loop(function: Callable[[], T]) -> T:
    """Run a blocking function, in a thread of its own if this thread runs an event loop, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return function()
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(function).result()
    finally:
        pool.shutdown(wait=False)
