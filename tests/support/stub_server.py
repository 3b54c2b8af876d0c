"""A loopback server with a response for each path, fixed or made from the request, over HTTP or HTTPS."""

import contextlib
import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.loopback import serving
from tests.support.raw_server import AUTHORITY

Answer = tuple[int, object]  # a status and a JSON document
Responses = Mapping[str, Answer | Callable[[Any], Answer]]  # by "GET /path", perhaps made from the JSON body; else 404
CHAT_RESPONSE = {
    "model": "stub",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3},
}


class StubServer:
    """The server's URL and its requests: "METHOD /path", the headers in lower case, and the JSON bodies."""

    def __init__(self) -> None:
        """Record no request yet."""
        self.url = ""
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[dict[str, Any]] = []


@contextlib.contextmanager
def stub_server(responses: Responses, *, tls: bool = False) -> Iterator[StubServer]:
    """Serve these responses until the block ends."""
    stub = StubServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            request = f"{self.command} {self.path}"
            stub.requests.append(request)
            stub.headers.append({name.lower(): ", ".join(self.headers.get_all(name, [])) for name in self.headers})
            document: Any = json.loads(body) if body.startswith(b"{") else None  # a form has none
            if document is not None:
                stub.bodies.append(document)
            response = responses.get(request, (404, {"detail": "Not Found"}))
            status, document = response(document) if callable(response) else response
            raw = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_POST = do_GET  # noqa: N815 -- http.server's name

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Ignore clients that reject the certificate."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    stub.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    with serving(server):
        yield stub
