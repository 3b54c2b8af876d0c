"""Client for single requests that block, with a worker's authentication, TLS, proxy and headers."""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from spark_llm.auth.tokens import SignInError, Token, TokenKeeper
from spark_llm.endpoint.route import Route
from spark_llm.errors import ConfigError
from spark_llm.protocol.bodies import RequestBody
from spark_llm.protocol.hints import with_hint
from spark_llm.protocol.urls import masked_url
from spark_llm.protocol.values import Failure, Response, RowError
from spark_llm.transport.blocking import send_once, transfer_once
from spark_llm.transport.form import FileForm

_NO_HEADERS: Mapping[str, str] = {}
T = TypeVar("T")


class BlockingClient:
    """Blocking client with the credential of a route; for threads without an event loop."""

    def __init__(self, route: Route) -> None:
        """Keep the route, and send nothing yet."""
        self._route = route
        self._headers = dict(route.headers)
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

    def send(
        self,
        method: str,
        url: str,
        body: RequestBody | None,
        timeout_s: float,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> Response:
        """Send one request, and once more if a refused token can be replaced. Raises `SignInError`.

        `headers` are added to the route's, and replace the client's own, such as its Content-Type.
        """
        send = partial(send_once, method, url, body=body, timeout_s=timeout_s)
        return self._with_token(partial(send, headers={**self._headers, **headers}))

    def upload(self, url: str, form: FileForm, idle_s: float) -> Response:
        """Post a form with a file, read from the disk while it is sent; the rest is as `send` does.

        `idle_s` is the longest time in which nothing may happen.
        """
        headers = {**self._headers, "Content-Type": form.content_type}
        return self._with_token(partial(transfer_once, "POST", url, headers=headers, body=form, idle_s=idle_s))

    def download(self, url: str, path: str, idle_s: float) -> Response:
        """Get a file's content into a file on this machine, in constant memory; the rest is as `upload` does.

        The response has no body where its status is 200; that of an error is returned as ever. Raises `OSError` where
        the file cannot be written.
        """

        def fetch(**options: Any) -> Response:  # noqa: ANN401 -- of `transfer_once`
            with Path(path).open("wb") as file:  # anew at each attempt
                return transfer_once("GET", url, headers=self._headers, sink=file.write, idle_s=idle_s, **options)

        return self._with_token(fetch)

    def _with_token(self, send: Callable[..., Response]) -> Response:
        """Send a request with a token, and once more if that is refused and can be replaced."""
        route, response = self._route, Response(0)
        for _ in range(2):
            token = self.sign_in()
            try:
                response = send(token=token, azure=route.azure, ca_bundle=route.ca_bundle)
            except ConfigError as error:
                raise SignInError(_failure_of(error)) from None
            if response.status not in (401, 403):
                self._keeper.record_success(token)
                break
            if not self._keeper.replace(token):
                break
        return response

    def message_of(self, error: RowError, url: str | None = None) -> str:
        """Return the message that a row would get for this error, with the URL and the next step.

        `url` is the URL of the request where it is not the route's.
        """
        route = self._route
        return with_hint(
            error, route.shown if url is None else masked_url(url), route.credential.origin, stops_all=True
        ).message


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
