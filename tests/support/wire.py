"""Servers on loopback that do as they are told, byte by byte, and one request to them."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from typing import Any

import trustme

from spark_llm.protocol.values import Response
from spark_llm.transport.http import HTTPClient

AUTHORITY = trustme.CA()  # nobody trusts it but a test that says so
FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Request-Id: r1\r\n\r\n{}"


def post(url: str, *, token: str | None = None, timeout_s: float = 5.0, **options: Any) -> Response:  # noqa: ANN401 -- the client's
    """Post a small body and return what came of it."""

    async def once() -> Response:
        client = HTTPClient(url, timeout_s, 1, **options)
        try:
            return await client.post(b"{}", token)
        finally:
            await client.close()

    return asyncio.run(once())


class Scripted:
    """A listener that keeps what one connection sends and answers with fixed bytes."""

    def __init__(self, answer: bytes, *, tls: bool = False) -> None:
        """Listen on a free port of loopback."""
        self._socket = socket.create_server(("127.0.0.1", 0))
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
            self._socket = context.wrap_socket(self._socket, server_side=True)
        self._answer = answer
        self.heard = b""
        self.authority = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.url = f"{'https' if tls else 'http'}://{self.authority}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # whoever does not trust the certificate hangs up
            connection, _ = self._socket.accept()
            with connection:
                while not self._has_a_whole_request() and (more := connection.recv(65_536)):
                    self.heard += more
                connection.sendall(self._answer)

    def _has_a_whole_request(self) -> bool:
        """Tell a request by its end: the body, or the empty line after a CONNECT or a GET; TLS has lines of its own."""
        ends = b"\r\n\r\n" if self.heard.startswith((b"CONNECT ", b"GET ")) else b"\r\n\r\n{}"
        return ends in self.heard or self.heard.startswith(b"\x16")

    def close(self) -> None:
        """Stop listening."""
        self._thread.join(timeout=5)
        self._socket.close()


class Hanging:
    """A server on the test's own loop that says what it is told to, and sees its callers hang up."""

    def __init__(self) -> None:
        """Say nothing yet."""
        self.url = ""
        self.says = b""
        self.asked = asyncio.Event()
        self.hung_up = asyncio.Event()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read requests until the caller hangs up."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n{}")
                self.asked.set()
                writer.write(self.says)
        self.hung_up.set()
        writer.close()


@contextlib.asynccontextmanager
async def hanging() -> AsyncIterator[Hanging]:
    """Start a server that hangs, and stop it in the end."""
    state = Hanging()
    server = await asyncio.start_server(state.take, "127.0.0.1", 0)
    state.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        yield state
    finally:
        server.close()
        await server.wait_closed()
