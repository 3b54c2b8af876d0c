"""A loopback server of one model that speaks MLflow's scoring protocol, and counts what it gets."""

import contextlib
import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.loopback import serving

Model = Callable[[list[Any]], object]  # from the rows of a request to its predictions
TRACE = 'Traceback (most recent call last):\n  File "score.py", line 7, in predict\nValueError: hidden\n'


class RefusedError(Exception):
    """Ends a request with a status and a body."""

    def __init__(self, message: str, status: int = 400) -> None:
        """Make the body that MLflow sends for an exception in a model."""
        super().__init__(message)
        self.status = status
        self.body: dict[str, object] = {"error_code": "BAD_REQUEST", "message": message, "stack_trace": TRACE}


class ScoringServer:
    """The server's URL, and the rows of each request that it got."""

    def __init__(self) -> None:
        """Record no request yet."""
        self.url = ""
        self.requests: list[list[Any]] = []
        self.bodies: list[bytes] = []


def rows_of(document: dict[str, Any]) -> list[Any]:
    """Return the rows of a body: an object for each, or a value where the columns have no names."""
    if (frame := document.get("dataframe_split")) is not None:
        names = frame.get("columns")
        return [row[0] if names is None else dict(zip(names, row, strict=True)) for row in frame["data"]]
    rows: list[Any] | dict[str, list[Any]] = document["instances"] if "instances" in document else document["inputs"]
    return (
        [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
        if isinstance(rows, dict)
        else rows
    )


@contextlib.contextmanager
def scoring_server(model: Model) -> Iterator[ScoringServer]:
    """Serve a model until the block ends."""
    served = ScoringServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            rows = rows_of(json.loads(body))
            served.bodies.append(body)
            served.requests.append(rows)
            try:
                status, document = 200, {"predictions": model(rows)}
            except RefusedError as refused:
                status, document = refused.status, refused.body
            raw = json.dumps(document).encode()  # with NaN and Infinity
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.send_header("served-model-name", "score-1")
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_port}/invocations"
    with serving(server):
        yield served
