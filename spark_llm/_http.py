"""The one door to the network: a body goes out, a `Response` comes back, whatever happens. No exception leaves.

aiohttp's client, with connections kept open between requests. Redirects are not followed: the token is for one host.
"""

import asyncio
import os
import socket
import ssl
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.request import getproxies, proxy_bypass

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from spark_llm._values import Response
from spark_llm._version import __version__

if TYPE_CHECKING:
    from spark_llm.errors import Kind

CONNECT_S = 15.0
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": f"spark_llm/{__version__}"}


def _proxy_for(url: URL) -> str | None:
    """Return the proxy that the environment names for this URL, looked up once.

    aiohttp's own `trust_env` would look for proxies and read ~/.netrc at every request, and send what it finds there.
    """
    proxy = None if proxy_bypass(url.host or "") else getproxies().get(url.scheme)
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy  # "host:port" is enough, as for curl


class HTTPClient:
    """Posts JSON to one URL over a pool of open connections; lives on one event loop."""

    def __init__(self, url: str, timeout_s: float, connections: int) -> None:
        """Post to `url`; give one try `timeout_s`; keep at most `connections` open."""
        self._url = URL(url, encoded=True)
        self._timeout_s = timeout_s
        # Half the time at most: a connection that is not made shows as that, and not as a slow answer.
        self._connect_s = min(timeout_s / 2, CONNECT_S)
        self._deadline = Deadline(timeout_s)
        self._proxy = _proxy_for(self._url)
        self._headers: dict[str | None, CIMultiDict[str]] = {}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, ttl_dns_cache=300, keepalive_timeout=30),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_s),  # `Deadline` is the total
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def post(self, body: bytes, token: str | None) -> Response:
        """Send one body and wait for the whole answer, a time-out or a broken connection."""
        began = time.monotonic()
        status = 0
        fault: Kind
        try:
            with self._deadline:
                answer = await self._session.post(
                    self._url, data=body, headers=self._headers_for(token), proxy=self._proxy, allow_redirects=False
                )
                status = answer.status
                content = await answer.read()  # gives the connection back, or closes it if this breaks off
            return Response(status, content, answer.headers, time.monotonic() - began)
        except aiohttp.ConnectionTimeoutError:
            where = f"{self._url.host}:{self._url.port}{' by way of the proxy' if self._proxy else ''}"
            fault, detail = "connection", f"no connection to {where} within {self._connect_s:g} s"
        except asyncio.TimeoutError:
            waited = time.monotonic() - began
            fault, detail = "timeout", f"no whole answer within {self._timeout_s:g} s ({waited:.1f} s waited)"
        except aiohttp.ClientPayloadError as error:
            fault, detail = "invalid_response", f"the answer did not come whole: {_on_one_line(error)}"
        except (aiohttp.ClientError, OSError) as error:
            fault, detail = "connection", _cause(error)
        return Response(status, latency_s=time.monotonic() - began, fault=fault, detail=detail)

    async def close(self) -> None:
        """Close every connection."""
        self._deadline.close()
        await self._session.close()

    def _headers_for(self, token: str | None) -> CIMultiDict[str]:
        headers = self._headers.get(token)
        if headers is None:
            headers = CIMultiDict(_HEADERS)
            if token is not None:
                headers["Authorization"] = f"Bearer {token}"
            self._headers = {token: headers}
        return headers


class Deadline:
    """What `asyncio.timeout` does, for many tasks that all have the same time: `with` it, one is called off when late.

    As the time is the same, who came first is due first: one timer is enough, set for whoever has waited longest. A
    timer for each request is a tenth of what a request costs.
    """

    def __init__(self, seconds: float) -> None:
        """Give everybody who enters so many `seconds`; belongs to the running loop."""
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._due: dict[asyncio.Task[object], float] = {}  # in the order of entering, so of the times too
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        due = self._loop.time() + self._seconds
        self._due[self._task()] = due
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._call_off_the_late)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task = self._task()
        if self._due.pop(task, None) is not None:
            return
        called_off_by_others = sys.version_info >= (3, 11) and task.uncancel() > 0
        if kind is asyncio.CancelledError and not called_off_by_others:
            raise asyncio.TimeoutError from error

    def close(self) -> None:
        """Call nobody off any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _call_off_the_late(self) -> None:
        self._timer = None
        for task, due in list(self._due.items()):
            if due > self._loop.time():
                self._timer = self._loop.call_at(due, self._call_off_the_late)
                return
            del self._due[task]
            task.cancel()

    def _task(self) -> "asyncio.Task[object]":
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("Only a task can be called off.")
        return task


def _cause(error: Exception) -> str:
    """Say what stood between us and an answer, and where, in words that tell what to look at."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return _why_no_connection(error)
    if isinstance(error, aiohttp.InvalidURL):  # these two would print the proxy's address, password and all
        return "the proxy's address is none; look at HTTP_PROXY and HTTPS_PROXY"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy lets no connection through: {error.status} {error.message}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection without an answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"what came back is not HTTP: {_on_one_line(error.message) or 'no status line'}"
    return f"the connection broke: {type(error).__name__}: {error}"


def _why_no_connection(error: aiohttp.ClientConnectorError) -> str:
    where = f"{error.host}:{error.port}"
    certificate = isinstance(error, aiohttp.ClientConnectorCertificateError)  # has no `os_error` in aiohttp 3.10
    reason = error.__cause__ if certificate else error.os_error
    if isinstance(reason, socket.gaierror):
        return f"the name {error.host} cannot be resolved: {reason.strerror}"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {reason.verify_message} ({where}; SSL_CERT_FILE names whom to trust)"
    if isinstance(reason, ssl.SSLError):
        words = (reason.reason or str(reason)).replace("_", " ").lower()
        return f"no TLS with {where}: {words} (is it an http:// URL?)"
    whom = "the proxy " if isinstance(error, aiohttp.ClientProxyConnectionError) else ""
    words = os.strerror(reason.errno).lower() if isinstance(reason, OSError) and reason.errno else str(reason)
    return f"no connection to {whom}{where}: {words}"


def _on_one_line(words: object) -> str:
    return " ".join(str(words).split())
