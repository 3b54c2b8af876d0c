"""A server on loopback that answers each path with what it is told, over TLS if it is told so."""

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.wire import AUTHORITY

Answers = Mapping[str, tuple[int, object]]  # "GET /path" to the status and the document; a path that is not here is 404
CHAT_ANSWER = {
    "model": "stub",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3},
}


class Answering:
    """What was asked, and where: `asked` holds the method and path of each request, `bodies` what was posted."""

    def __init__(self) -> None:
        """Begin with nothing asked."""
        self.url = ""
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[dict[str, object]] = []


@contextlib.contextmanager
def answering(answers: Answers, *, tls: bool = False) -> Iterator[Answering]:
    """Serve these answers until the block ends."""
    state = Answering()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            asked = f"{self.command} {self.path}"
            state.asked.append(asked)
            state.headers.append({name.lower(): ", ".join(self.headers.get_all(name, [])) for name in self.headers})
            if body.startswith(b"{"):  # and no form
                state.bodies.append(json.loads(body))
            status, document = answers.get(asked, (404, {"detail": "Not Found"}))
            raw = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_POST = do_GET  # noqa: N815 -- http.server's name

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Say nothing of a caller who does not trust the certificate."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    state.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
