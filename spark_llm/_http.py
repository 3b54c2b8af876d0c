"""The one door to the network: a body goes out, a `Response` comes back, whatever happens. No exception leaves.

aiohttp's client, with connections kept open between requests. Redirects are not followed: the token is for one host.
Certificates are always verified.
"""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.request import getproxies, proxy_bypass

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from spark_llm._deadline import Deadline
from spark_llm._values import Response
from spark_llm._version import __version__
from spark_llm.auth import header_of
from spark_llm.errors import ConfigError

if TYPE_CHECKING:
    from spark_llm.errors import Kind

CONNECT_S = 15.0
EMPTY: Mapping[str, str] = {}
_SECRET_LETTERS = 8  # a header's value that is shorter is no secret, and may be any word
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")  # the other side speaks plain HTTP
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": f"spark_llm/{__version__}"}


def _proxy_for(url: URL) -> str | None:
    """Return the proxy that the environment names for this URL, looked up once.

    aiohttp's own `trust_env` would look for proxies and read ~/.netrc at every request, and send what it finds there.
    """
    proxy = None if proxy_bypass(url.host or "") else getproxies().get(url.scheme)
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy  # "host:port" is enough, as for curl


class HTTPClient:
    """Posts JSON to one URL over a pool of open connections; lives on one event loop."""

    def __init__(
        self,
        url: str,
        timeout_s: float,
        connections: int,
        *,
        headers: Mapping[str, str] = EMPTY,
        azure: bool = False,
        ca_bundle: str | None = None,
    ) -> None:
        """Post to `url`; give one try `timeout_s`; keep at most `connections` open.

        `headers` go with every request; `azure` says that a key has Azure's header. `ca_bundle` is certificates in
        PEM, or the path of a file of them, that are trusted besides the system's own; raises `ConfigError` where it
        cannot be read.
        """
        self._url = URL(url, encoded=True)
        self._azure = azure
        self._own_headers = headers
        self._timeout_s = timeout_s
        # Half the time at most: a connection that is not made shows as that, and not as a slow answer.
        self._connect_s = min(timeout_s / 2, CONNECT_S)
        self._deadline = Deadline(timeout_s)
        self._proxy = _proxy_for(self._url)
        self._headers: dict[str | None, CIMultiDict[str]] = {}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=connections, ttl_dns_cache=300, keepalive_timeout=30, ssl=_trust(ca_bundle) or True
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_s),  # `Deadline` is the total
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def post(self, body: bytes, token: str | None) -> Response:
        """Send one body and wait for the whole answer, a time-out or a broken connection."""
        return await self.send("POST", body, token)

    async def send(self, method: str, body: bytes | None, token: str | None) -> Response:
        """Do what `post` does, with any method."""
        began = time.monotonic()
        status, final = 0, False
        fault: Kind
        try:
            with self._deadline:
                answer = await self._session.request(
                    method,
                    self._url,
                    data=body,
                    headers=self._headers_for(token),
                    proxy=self._proxy,
                    allow_redirects=False,
                )
                status = answer.status
                content = await answer.read()  # gives the connection back, or closes it if this breaks off
            if status != 200:
                content = self._without_secrets(content, token)
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
            fault, detail, final = "connection", _cause(error), _is_final(error)
        return Response(status, latency_s=time.monotonic() - began, fault=fault, detail=detail, final=final)

    async def close(self) -> None:
        """Close every connection."""
        self._deadline.close()
        await self._session.close()

    def _without_secrets(self, content: bytes, token: str | None) -> bytes:
        """Mask what we sent where a refusal says it again: its words end up in a table."""
        for secret in (token or "", *self._own_headers.values()):
            if len(secret) >= _SECRET_LETTERS:
                content = content.replace(secret.encode(), b"***")
        return content

    def _headers_for(self, token: str | None) -> CIMultiDict[str]:
        headers = self._headers.get(token)
        if headers is None:
            headers = CIMultiDict(_HEADERS)
            headers.update(self._own_headers)
            if token is not None:
                name, value = header_of(token, azure=self._azure)
                headers[name] = value
            self._headers = {token: headers}
        return headers


def ask_once(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes | None = None,
    token: str | None = None,
    azure: bool = False,
    timeout_s: float = 30.0,
    ca_bundle: str | None = None,
) -> Response:
    """Send one request on a connection of its own, and block until it is answered; for threads without a loop."""

    async def once() -> Response:
        client = HTTPClient(url, timeout_s, 1, headers=headers, azure=azure, ca_bundle=ca_bundle)
        try:
            return await client.send(method, body, token)
        finally:
            await client.close()

    return asyncio.run(once())


def _cause(error: Exception) -> str:
    """Say what stood between us and an answer, and where, in words that tell what to look at."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return _why_no_connection(error)
    if isinstance(error, aiohttp.InvalidURL):  # these two would print the proxy's address, password and all
        return "the address of the proxy cannot be read"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy lets no connection through: {error.status} {error.message}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection without an answer"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"what came back is not HTTP: {_on_one_line(error.message) or 'no status line'}"
    return f"the connection broke: {type(error).__name__}: {error}"


def _is_final(error: Exception) -> bool:
    """Return whether trying again is no use: a certificate, a protocol or a proxy that somebody must mend first."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return error.status in (401, 403, 407)
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return isinstance(error.os_error, ssl.SSLError) and error.os_error.reason in _NO_TLS
    return isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.InvalidURL))


def _trust(ca_bundle: str | None) -> ssl.SSLContext | None:
    """Return a context that trusts these certificates too; None for the system's alone."""
    if ca_bundle is None:
        return None
    context = ssl.create_default_context()
    try:
        if "-----BEGIN" in ca_bundle:
            context.load_verify_locations(cadata=ca_bundle)
        else:
            context.load_verify_locations(cafile=ca_bundle)
    except (OSError, ValueError) as error:
        what = ca_bundle if "-----BEGIN" not in ca_bundle else "its text"
        words = error.strerror if isinstance(error, FileNotFoundError) else "no certificates in PEM"
        raise ConfigError(
            f"ca_bundle cannot be used: {what}: {words}.",
            "the path must be good on every worker; the text of the file travels there by itself.",
        ) from None
    return context


def _why_no_connection(error: aiohttp.ClientConnectorError) -> str:
    where = f"{error.host}:{error.port}"
    certificate = isinstance(error, aiohttp.ClientConnectorCertificateError)  # has no `os_error` in aiohttp 3.10
    reason = error.__cause__ if certificate else error.os_error
    if isinstance(reason, socket.gaierror):
        return f"the name {error.host} cannot be resolved: {reason.strerror}"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {reason.verify_message} ({where})"
    if isinstance(reason, ssl.SSLError):
        words = (reason.reason or str(reason)).replace("_", " ").lower()
        return f"no TLS with {where}: {words}"
    whom = "the proxy " if isinstance(error, aiohttp.ClientProxyConnectionError) else ""
    words = os.strerror(reason.errno).lower() if isinstance(reason, OSError) and reason.errno else str(reason)
    return f"no connection to {whom}{where}: {words}"


def _on_one_line(words: object) -> str:
    return " ".join(str(words).split())
