"""The HTTP client: it sends a body and returns a `Response`. Network errors become a `Response` with a `fault`.

Connections are aiohttp's, and stay open between requests. Redirects are not followed: the token is for one host.
Certificates are always verified.
"""

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any, Protocol
from urllib.request import getproxies, proxy_bypass

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from spark_llm._version import __version__
from spark_llm.protocol.bodies import RequestBody
from spark_llm.protocol.masking import secrets_of
from spark_llm.protocol.values import Response
from spark_llm.transport.certificates import ssl_context
from spark_llm.transport.network_errors import error_text, host_and_port, is_permanent, on_one_line
from spark_llm.transport.proxy import proxy_of
from spark_llm.transport.timeouts import Deadline, IdleLimit

if TYPE_CHECKING:
    from spark_llm.errors import Kind

CONNECT_TIMEOUT_S = 15.0
STREAMED_BYTES = 2**20  # a larger body is written piece by piece: asyncio copies what a socket does not take at once
MAX_ANSWER_BYTES = 2**27  # 128 MiB, unpacked: five times 150 vectors of 8,192 numbers as JSON
_PIECE_BYTES = 2**17
_NO_HEADERS: Mapping[str, str] = {}
_MAX_HEADER_BYTES = 128 * 1024  # curl reads 100 KB, requests 64
_MAX_HEADERS = 1_000
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)  # of this process, or of the machine
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": f"spark_llm/{__version__}"}
_NETWORK_ERRORS = (asyncio.TimeoutError, aiohttp.ClientError, OSError, UnicodeError)


class StreamedBody(Protocol):
    """A body that is written piece by piece, as often as it takes, and has a known length."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes | memoryview]: ...


LongBody = RequestBody | StreamedBody


def _proxy_for(url: URL) -> URL | None:
    """Return the proxy for this URL by the environment or the system's settings; it is looked up once.

    aiohttp's own `trust_env` would look it up at every request, and would send the passwords of ~/.netrc.
    """
    return None if proxy_bypass(url.raw_host or "") else proxy_of(url, getproxies())


class HTTPClient:
    """Posts JSON to one URL, or to another path of its host, over a pool of connections, on one event loop."""

    _connected_by: type[aiohttp.TCPConnector] = aiohttp.TCPConnector

    def __init__(
        self,
        url: str,
        timeout_s: float,
        connections: int,
        *,
        headers: Mapping[str, str] = _NO_HEADERS,
        azure: bool = False,
        ca_bundle: str | None = None,
    ) -> None:
        """Post to `url`, with `timeout_s` for one attempt and at most `connections` open.

        `headers` are added to every request; with `azure`, a key is sent in Azure's header. `ca_bundle` is
        certificates in PEM, or the path of a file of them, to trust besides the system's own. Raises `ConfigError` for
        a bundle that cannot be read and for a proxy that cannot be used.
        """
        self._url = URL(url, encoded=True)
        self._azure = azure
        self._custom_headers = headers
        self._timeout_s = timeout_s
        # Half the time at most: a connection that fails is then not taken for a slow answer.
        self._connect_timeout_s = min(timeout_s / 2, CONNECT_TIMEOUT_S)
        self._deadline = Deadline(timeout_s)
        self._proxy = _proxy_for(self._url)
        self._headers_by_token: dict[str | None, tuple[CIMultiDict[str], tuple[str, ...]]] = {}
        self._has_connected = False
        self._session = aiohttp.ClientSession(
            connector=self._connected_by(
                limit=connections, ttl_dns_cache=300, keepalive_timeout=30, ssl=ssl_context(ca_bundle) or True
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),  # `Deadline` is the total
            cookie_jar=aiohttp.DummyCookieJar(),
            **_header_limits(),
        )

    async def post(self, body: RequestBody, token: str | None, url: str | None = None) -> Response:
        """Send one body and return the complete answer, a time-out or a connection error.

        It goes to the client's URL, or to another `url` that differs from it in the path alone.
        """
        return await self._send("POST", body, token, self._url if url is None else URL(url, encoded=True))

    async def send(self, method: str, body: RequestBody | None, token: str | None) -> Response:
        """Send one request with any method, and return as `post` does."""
        return await self._send(method, body, token, self._url)

    async def _send(self, method: str, body: RequestBody | None, token: str | None, url: URL) -> Response:
        started = time.monotonic()
        headers, secrets = self._headers_for(token)
        data: bytes | AsyncIterator[memoryview] | None = None
        if body is not None and len(body) > STREAMED_BYTES:
            headers, data = headers.copy(), _pieces(body)
            headers["Content-Length"] = str(len(body))
        elif body is not None:
            data = bytes(body)
        status = 0
        try:
            with self._deadline:
                answer = await self._session.request(
                    method,
                    url,
                    data=data,
                    headers=headers,
                    proxy=self._proxy,
                    allow_redirects=False,
                )
                status = answer.status
                self._has_connected = True
                content = await _read(answer)
            waited_s = time.monotonic() - started
            if len(content) > MAX_ANSWER_BYTES and status < 300:
                return _oversized(status, waited_s, secrets)
            return Response(status, content, answer.headers, waited_s, secrets=secrets)
        except _NETWORK_ERRORS as error:
            return self._failed(error, status, started, secrets)

    def _failed(self, error: Exception, status: int, started: float, secrets: tuple[str, ...]) -> Response:
        """Return the response for a time-out or an error of the network."""
        waited_s = time.monotonic() - started
        fault: Kind = "connection"
        permanent = no_socket = False
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            place = f"{host_and_port(self._url)}{' through the proxy' if self._proxy else ''}"
            detail = f"no connection to {place} within {self._connect_timeout_s:g} s"
        elif isinstance(error, asyncio.TimeoutError):
            fault, detail = "timeout", f"no complete answer within {self._timeout_s:g} s ({waited_s:.1f} s waited)"
        elif isinstance(error, aiohttp.ClientPayloadError):
            fault, detail = "invalid_response", f"the answer is incomplete: {on_one_line(error)}"
        else:
            detail, permanent, no_socket = error_text(error), is_permanent(error), self._has_no_socket(error)
        return Response(
            status,
            latency_s=waited_s,
            fault=fault,
            detail=detail,
            final=permanent,
            no_socket=no_socket,
            secrets=secrets,
        )

    async def close(self) -> None:
        """Close every connection."""
        self._deadline.close()
        await self._session.close()

    def _has_no_socket(self, error: Exception) -> bool:
        """Return whether this machine has no file or no port left for another connection.

        The error for no port is also the one for an address that this machine cannot reach at all.
        """
        number = getattr(getattr(error, "os_error", error), "errno", None)
        return number in _OUT_OF_FILES or (number == errno.EADDRNOTAVAIL and self._has_connected)

    def _headers_for(self, token: str | None) -> tuple[CIMultiDict[str], tuple[str, ...]]:
        """Return the headers of a request, and the secrets in it."""
        cached = self._headers_by_token.get(token)
        if cached is None:
            headers, with_secrets = CIMultiDict(_HEADERS), list(self._custom_headers.items())
            headers.update(self._custom_headers)
            if token is not None:
                name, value = token_header(token, azure=self._azure)
                headers[name] = value
                with_secrets.append((name, value))
            proxy_password = None if self._proxy is None else self._proxy.password
            cached = headers, secrets_of(str(self._url), with_secrets, proxy_password)
            self._headers_by_token = {token: cached}
        return cached


class _AbortableConnector(aiohttp.TCPConnector):
    """A connector that drops its last connection at the end: to close it waits until the server reads what was sent."""

    _transport: asyncio.Transport | None = None

    async def connect(self, *arguments: Any, **options: Any) -> aiohttp.connector.Connection:  # noqa: ANN401 -- aiohttp's
        connection = await super().connect(*arguments, **options)
        self._transport = connection.transport
        return connection

    async def close(self, **options: Any) -> None:  # noqa: ANN401 -- as above
        if self._transport is not None:
            self._transport.abort()
        await super().close(**options)


class TransferClient(HTTPClient):
    """Sends bodies and takes answers that may be large, one at a time; `timeout_s` is the longest pause."""

    _connected_by = _AbortableConnector

    async def transfer(
        self, method: str, body: LongBody | None, token: str | None, sink: Callable[[bytes], object] | None = None
    ) -> Response:
        """Send one request whose body or answer may be large, and return as `post` does.

        With a `sink`, the content of a 200 goes there piece by piece, and the response has no body. Raises the sink's
        `OSError`.
        """
        started = time.monotonic()
        headers, secrets = self._headers_for(token)
        limit, data = IdleLimit(self._timeout_s), None
        if body is not None:
            headers, data = headers.copy(), _pieces(body, limit.touch)
            headers["Content-Length"] = str(len(body))
        status, content = 0, bytearray()
        try:
            with limit:
                answer = await self._session.request(
                    method, self._url, data=data, headers=headers, proxy=self._proxy, allow_redirects=False
                )
                status = answer.status
                self._has_connected = True
                take = content.extend if sink is None or status != 200 else sink
                async for piece in answer.content.iter_chunked(_PIECE_BYTES):
                    limit.touch()
                    take(piece)
        except (asyncio.TimeoutError, aiohttp.ClientError, UnicodeError) as error:  # a plain `OSError` is the sink's
            return self._failed(error, status, started, secrets)
        return Response(status, bytes(content), answer.headers, time.monotonic() - started, secrets=secrets)


async def _pieces(body: LongBody, touch: Callable[[], object] | None = None) -> AsyncIterator[memoryview]:
    """Yield a body without a copy of it; aiohttp waits until most of a piece is on its way. Then `touch` is called."""
    for part in [body] if isinstance(body, bytes) else body:
        view = memoryview(part)
        for start in range(0, len(view), _PIECE_BYTES):
            yield view[start : start + _PIECE_BYTES]
            if touch is not None:
                touch()


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """Return an answer's content, or the beginning of one that is larger than `MAX_ANSWER_BYTES`.

    The connection goes back to the pool; it is closed on an error, and where the rest is not read.
    """
    pieces, size = list[bytes](), 0
    try:
        while size <= MAX_ANSWER_BYTES and (piece := await answer.content.readany()):
            pieces.append(piece)
            size += len(piece)
        if size <= MAX_ANSWER_BYTES:
            await answer.read()  # of nothing more; it waits for a body that is still being sent
        else:
            answer.close()
    except BaseException:
        answer.close()
        raise
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _oversized(status: int, waited_s: float, secrets: tuple[str, ...]) -> Response:
    """Return the response for an answer that is too large to be read."""
    detail = f"the answer has more than {MAX_ANSWER_BYTES // 2**20} MB, and was not read"
    return Response(
        status, latency_s=waited_s, fault="invalid_response", detail=detail, oversized=True, secrets=secrets
    )


def _header_limits() -> dict[str, Any]:
    """Return the limits for an answer's headers; aiohttp has `max_headers` since 3.14."""
    limits = {"max_line_size": _MAX_HEADER_BYTES, "max_field_size": _MAX_HEADER_BYTES, "max_headers": _MAX_HEADERS}
    return {name: limit for name, limit in limits.items() if name in signature(aiohttp.ClientSession).parameters}


def token_header(token: str, *, azure: bool) -> tuple[str, str]:
    """Return the header for a token: `api-key` for a key of Azure, `Authorization` for any other token."""
    return ("api-key", token) if azure and token.count(".") != 2 else ("Authorization", f"Bearer {token}")
