"""Loopback servers that send fixed bytes, and one request to them."""

import asyncio
import contextlib
import re
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import trustme

from spark_llm.protocol.values import Response
from spark_llm.transport.http import HTTPClient

AUTHORITY = trustme.CA()  # a certificate authority that no client trusts by default
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Request-Id: r1\r\n\r\n{}"


def post(url: str, *, token: str | None = None, timeout_s: float = 5.0, **options: Any) -> Response:  # noqa: ANN401 -- the client's
    """Post a small body with the library's HTTP client, and return its response."""

    async def once() -> Response:
        client = HTTPClient(url, timeout_s, 1, **options)
        try:
            return await client.post(b"{}", token)
        finally:
            await client.close()

    return asyncio.run(once())


class RawServer:
    """A listener for one connection: it records the bytes received, and sends fixed bytes."""

    def __init__(self, response: bytes, *, tls: bool = False) -> None:
        """Listen on a free loopback port."""
        self._socket = socket.create_server(("127.0.0.1", 0))
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
            self._socket = context.wrap_socket(self._socket, server_side=True)
        self._response = response
        self.received = b""
        self.authority = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.url = f"{'https' if tls else 'http'}://{self.authority}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # a client that rejects the certificate closes the connection
            connection, _ = self._socket.accept()
            with connection:
                while not self._has_whole_request() and (more := connection.recv(65_536)):
                    self.received += more
                connection.sendall(self._response)

    def _has_whole_request(self) -> bool:
        """Return whether the request has ended: with its body, with the empty line of a CONNECT or GET, or in TLS."""
        head, end, body = self.received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        return (bool(end) and len(body) >= int(length[1] if length else 0)) or self.received.startswith(b"\x16")

    def close(self) -> None:
        """Stop listening."""
        self._thread.join(timeout=5)
        self._socket.close()


class HangingServer:
    """A server on the test's own event loop that sends `response` for each request, by default nothing."""

    def __init__(self) -> None:
        """Send nothing yet."""
        self.url = ""
        self.response = b""
        self.got_request = asyncio.Event()
        self.hung_up = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read requests until the client hangs up."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n{}")
                self.got_request.set()
                writer.write(self.response)
        self.hung_up.set()
        writer.close()


@contextlib.asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[str]:
    """Serve on the test's own event loop and yield the URL; at the end, wait until every connection is closed.

    A test closes its clients before. A server that closes, or a loop that ends, leaves connections open that asyncio
    has just accepted, and on Python 3.11 those that `serve` works on.
    """
    tasks_before = asyncio.all_tasks()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        while accepted := asyncio.all_tasks() - tasks_before:  # a task that accepts starts one that serves
            await asyncio.wait_for(asyncio.gather(*accepted, return_exceptions=True), 5)
    finally:
        server.close()


@contextlib.asynccontextmanager
async def hanging_server() -> AsyncIterator[HangingServer]:
    """Start a hanging server, and stop it at the end."""
    hanging = HangingServer()
    async with listening(hanging.serve) as hanging.url:
        yield hanging
