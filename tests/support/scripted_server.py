"""A loopback server whose answers, and cut connections, a test scripts request by request."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.loopback import serving


@dataclass(frozen=True)
class Received:
    """A request: its method, its path with the query, its headers in lower case and its body."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def line(self) -> str:
        """The method and the path without the query."""
        return f"{self.method} {self.path.partition('?')[0]}"

    @property
    def json(self) -> Any:  # noqa: ANN401 -- any JSON
        """The document of its body."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Sent:
    """An answer: a document or bytes, and further headers; `cut` sends only so many bytes of the body."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None


CUT = Sent(0)  # the connection is closed without an answer
Respond = Callable[[Received], Sent]


class ScriptedServer:
    """The server's URL, and the requests that it received."""

    def __init__(self) -> None:
        """Record no request yet."""
        self.url = ""
        self.requests: list[Received] = []

    @property
    def lines(self) -> list[str]:
        """The method and the path of each request."""
        return [request.line for request in self.requests]


@contextlib.contextmanager
def scripted_server(respond: Respond) -> Iterator[ScriptedServer]:
    """Answer each request as the test says, until the block ends."""
    running = ScriptedServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Received(self.command, self.path, headers, body)
            running.requests.append(request)
            sent = respond(request)
            if sent == CUT:
                self.close_connection = True
                return
            raw = sent.body if isinstance(sent.body, bytes) else json.dumps(sent.body).encode()
            self.send_response(sent.status)
            for name, value in {"Content-Length": str(len(raw)), **sent.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw[: sent.cut])
            self.close_connection = sent.cut is not None

        do_POST = do_DELETE = do_GET  # noqa: N815 -- http.server's names

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.url = f"http://127.0.0.1:{server.server_port}"
    with serving(server):
        yield running
