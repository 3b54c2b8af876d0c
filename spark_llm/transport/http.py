"""The HTTP client: it sends a body and returns a `Response`. Network errors become a `Response` with a `fault`.

aiohttp's client, with connections kept open between requests. Redirects are not followed: the token is for one host.
Certificates are always verified.
"""

import asyncio
import errno
import os
import socket
import ssl
import time
from collections.abc import Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from spark_llm._version import __version__
from spark_llm.errors import ConfigError
from spark_llm.protocol.masking import secrets_of
from spark_llm.protocol.values import Response
from spark_llm.transport.proxy import proxy_of
from spark_llm.transport.timeouts import Deadline

if TYPE_CHECKING:
    from spark_llm.errors import Kind

CONNECT_S = 15.0
EMPTY: Mapping[str, str] = {}
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")  # the other side speaks plain HTTP
_LONGEST_HEADER = 128 * 1024  # curl reads 100 KB, requests 64
_MOST_HEADERS = 1_000
_NO_FILE = (errno.EMFILE, errno.ENFILE)  # this process, or its machine, has no file left for a socket
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": f"spark_llm/{__version__}"}


def _proxy_for(url: URL) -> URL | None:
    """Return the proxy that the environment, or the system's settings, name for this URL, looked up once.

    aiohttp's own `trust_env` would look for proxies and read ~/.netrc at every request, and send what it finds there.
    """
    return None if proxy_bypass(url.host or "") else proxy_of(url, getproxies())


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
        PEM, or the path of a file of them, that are trusted besides the system's own. Raises `ConfigError` where they
        cannot be read, and for a proxy that cannot be used.
        """
        self._url = URL(url, encoded=True)
        self._azure = azure
        self._own_headers = headers
        self._timeout_s = timeout_s
        # Half the time at most: a connection that is not made shows as that, and not as a slow answer.
        self._connect_s = min(timeout_s / 2, CONNECT_S)
        self._deadline = Deadline(timeout_s)
        self._proxy = _proxy_for(self._url)
        self._headers: dict[str | None, tuple[CIMultiDict[str], tuple[str, ...]]] = {}
        self._has_connected = False
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=connections, ttl_dns_cache=300, keepalive_timeout=30, ssl=_trust(ca_bundle) or True
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_s),  # `Deadline` is the total
            cookie_jar=aiohttp.DummyCookieJar(),
            **_header_limits(),
        )

    async def post(self, body: bytes, token: str | None) -> Response:
        """Send one body and wait for the whole answer, a time-out or a broken connection."""
        return await self.send("POST", body, token)

    async def send(self, method: str, body: bytes | None, token: str | None) -> Response:
        """Do what `post` does, with any method."""
        began = time.monotonic()
        status = 0
        headers, secrets = self._headers_for(token)
        fault: Kind
        final = no_socket = False
        try:
            with self._deadline:
                answer = await self._session.request(
                    method,
                    self._url,
                    data=body,
                    headers=headers,
                    proxy=self._proxy,
                    allow_redirects=False,
                )
                status = answer.status
                self._has_connected = True
                content = await answer.read()  # gives the connection back, or closes it if this breaks off
            return Response(status, content, answer.headers, time.monotonic() - began, secrets=secrets)
        except aiohttp.ConnectionTimeoutError:
            where = f"{_place(self._url)}{' by way of the proxy' if self._proxy else ''}"
            fault, detail = "connection", f"no connection to {where} within {self._connect_s:g} s"
        except asyncio.TimeoutError:
            waited = time.monotonic() - began
            fault, detail = "timeout", f"no whole answer within {self._timeout_s:g} s ({waited:.1f} s waited)"
        except aiohttp.ClientPayloadError as error:
            fault, detail = "invalid_response", f"the answer did not come whole: {_on_one_line(error)}"
        except (aiohttp.ClientError, OSError) as error:
            fault, detail, final = "connection", _cause(error), _is_final(error)
            no_socket = self._has_no_socket(error)
        return Response(
            status,
            latency_s=time.monotonic() - began,
            fault=fault,
            detail=detail,
            final=final,
            no_socket=no_socket,
            secrets=secrets,
        )

    async def close(self) -> None:
        """Close every connection."""
        self._deadline.close()
        await self._session.close()

    def _has_no_socket(self, error: Exception) -> bool:
        """Return whether this machine's own limits leave no file or no port for another connection.

        The error of a port that is not left is also that of an address which this machine cannot reach at all.
        """
        number = getattr(getattr(error, "os_error", error), "errno", None)
        return number in _NO_FILE or (number == errno.EADDRNOTAVAIL and self._has_connected)

    def _headers_for(self, token: str | None) -> tuple[CIMultiDict[str], tuple[str, ...]]:
        """Return the headers of a request, and the secrets that it carries."""
        known = self._headers.get(token)
        if known is None:
            headers, carried = CIMultiDict(_HEADERS), list(self._own_headers.items())
            headers.update(self._own_headers)
            if token is not None:
                name, value = token_header(token, azure=self._azure)
                headers[name] = value
                carried.append((name, value))
            proxy_password = None if self._proxy is None else self._proxy.password
            known = headers, secrets_of(str(self._url), carried, proxy_password)
            self._headers = {token: known}
        return known


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


def _header_limits() -> dict[str, Any]:
    """Return how much of an answer's head is read; aiohttp counts headers since 3.14."""
    limits = {"max_line_size": _LONGEST_HEADER, "max_field_size": _LONGEST_HEADER, "max_headers": _MOST_HEADERS}
    return {name: most for name, most in limits.items() if name in signature(aiohttp.ClientSession).parameters}


def _cause(error: Exception) -> str:
    """Say what stood between us and an answer, and where, in words that tell what to look at."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return _why_no_connection(error)
    if isinstance(error, aiohttp.ClientHttpProxyError):  # it would print the proxy's address, password and all
        return f"the proxy lets no connection through: {error.status} {error.message}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection without an answer"
    if isinstance(error, aiohttp.ClientResponseError):
        words = _on_one_line(error.message) or "no status line"
        if words.startswith(("Got more than ", "Too many headers")):
            return f"the headers of the answer are too large: {words.partition(' when ')[0]}"
        what = "the answer cannot be read" if "content-encoding" in words else "what came back is not HTTP"
        return f"{what}: {words}"
    return f"the connection broke: {type(error).__name__}: {error}"


def _is_final(error: Exception) -> bool:
    """Return whether trying again is no use: a certificate, a protocol or a proxy that somebody must mend first."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return error.status in (401, 403, 407)
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return isinstance(error.os_error, ssl.SSLError) and error.os_error.reason in _NO_TLS
    return isinstance(error, aiohttp.ClientConnectorCertificateError)


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
    where = _place(error)
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


def _place(address: URL | aiohttp.ClientConnectorError) -> str:
    host = address.host or ""
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"


def _on_one_line(words: object) -> str:
    return " ".join(str(words).split())


def token_header(token: str, *, azure: bool) -> tuple[str, str]:
    """Return the header that brings a token: Azure's keys are no bearer tokens, Entra's (JSON web tokens) are."""
    return ("api-key", token) if azure and token.count(".") != 2 else ("Authorization", f"Bearer {token}")
