"""Asking one request at a time, as a worker asks: by the same sign-in, TLS, proxy and headers."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from spark_llm.auth.tokens import SignInError, Token, TokenKeeper
from spark_llm.endpoint.route import Route
from spark_llm.errors import ConfigError
from spark_llm.protocol.hints import with_hint
from spark_llm.protocol.values import Failure, Response, RowError
from spark_llm.transport.http import send_once

Result = TypeVar("Result")


class ReadinessClient:
    """Whoever a route names, asking; blocks, so it is for a thread without an event loop."""

    def __init__(self, route: Route) -> None:
        """Ask nothing yet."""
        self._route = route
        self._keeper = TokenKeeper(route.credential, route.ca_bundle)

    def sign_in(self) -> str | None:
        """Get a token, as a worker does before its first request; None asks without. Raises `SignInError`."""
        try:
            self._keeper.renew_if_needed()
        except ConfigError as error:  # the bundle of certificates
            raise SignInError(_unusable(error)) from None
        return self._keeper.token

    @property
    def token_ends_at(self) -> float:
        """When the token ends, as far as it or whoever gave it tells; in seconds since 1970."""
        return min(self._keeper.expires_at, Token.parse(self._keeper.token or "", time.time()).expires_at)

    def send(self, method: str, url: str, body: bytes | None, timeout_s: float) -> Response:
        """Send one request; a token that is refused is replaced once, where there is another. Raises `SignInError`."""
        route, response = self._route, Response(0)
        for _ in range(2):
            token = self.sign_in()
            try:
                response = send_once(
                    method,
                    url,
                    headers=dict(route.headers),
                    body=body,
                    token=token,
                    azure=route.azure,
                    timeout_s=timeout_s,
                    ca_bundle=route.ca_bundle,
                )
            except ConfigError as error:
                raise SignInError(_unusable(error)) from None
            if response.status not in (401, 403):
                self._keeper.record_success(token)
                break
            if not self._keeper.replace(token):
                break
        return response

    def words(self, error: RowError) -> str:
        """Return a failure in the words of a row: what came back, from where, and what to do."""
        route = self._route
        return with_hint(error, route.shown, route.credential.origin, stops_all=True).message


def _unusable(error: ConfigError) -> Failure:
    return Failure(RowError("connection", None, str(error), retryable=False), final=True)


def off_the_loop(act: Callable[[], Result]) -> Result:
    """Do what blocks; in a thread of its own where an event loop runs in this one, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return act()
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(act).result()
    finally:
        pool.shutdown(wait=False)
