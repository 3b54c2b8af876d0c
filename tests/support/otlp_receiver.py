"""An OTLP/HTTP endpoint on loopback, which decodes what it gets with OpenTelemetry's own protocol files."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, NumberDataPoint

if TYPE_CHECKING:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

Attributes = frozenset[tuple[str, Any]]
Point = HistogramDataPoint | NumberDataPoint


class OTLPReceiver:
    """Receives metrics and spans while its `with` block runs.

    Attributes:
        status: The HTTP status of its answers.
        answers: An event that an answer waits for; set from the beginning.
        requests: The paths of all requests.
        headers: The headers of the last request.
        metrics: The metrics that it took.
        spans: The spans that it took.
        resources: The attributes of the resource of each export of metrics or spans.
    """

    def __init__(self) -> None:
        self.status = 200
        self.answers = threading.Event()
        self.answers.set()
        self.requests: list[str] = []
        self.headers: dict[str, str] = {}
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.spans: list[Span] = []
        self.resources: list[dict[str, Any]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        """The endpoint, without the path of a signal."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "OTLPReceiver":  # noqa: PYI034 -- typing.Self came with Python 3.11
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()

    def exports(self) -> list[dict[tuple[str, Attributes], Point]]:
        """Return the points of each export, by metric and attributes."""
        return [
            {
                (metric.name, attributes(point.attributes)): point
                for resource in request.resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
                for point in getattr(metric, metric.WhichOneof("data")).data_points
            }
            for request in self.metrics
        ]

    def last(self, name: str) -> dict[Attributes, Any]:
        """Return the last points of a metric by their attributes, without those that all of them have."""
        points = {key[1]: point for key, point in self.exports()[-1].items() if key[0] == name}
        common = frozenset[tuple[str, Any]].intersection(*points) if len(points) > 1 else frozenset()
        return {each - common: point for each, point in points.items()}

    def total(self, name: str, **having: object) -> float:
        """Return the sum of the last points of a metric: of the values, or of the counts of a histogram."""
        points = [
            point
            for (metric, each), point in self.exports()[-1].items()
            if metric == name and having.items() <= {key.replace(".", "_"): value for key, value in each}.items()
        ]
        return sum(
            point.count if isinstance(point, HistogramDataPoint) else point.as_int or point.as_double
            for point in points
        )

    def _take(self, path: str, body: bytes) -> None:
        if path == "/v1/metrics":
            request = ExportMetricsServiceRequest.FromString(body)
            self.metrics.append(request)
            self.resources += [dict(attributes(each.resource.attributes)) for each in request.resource_metrics]
        else:
            traces = ExportTraceServiceRequest.FromString(body)
            for each in traces.resource_spans:
                self.resources.append(dict(attributes(each.resource.attributes)))
                self.spans += [span for scope in each.scope_spans for span in scope.spans]

    def _handler(receiver) -> type[BaseHTTPRequestHandler]:  # noqa: N805 -- `self` is the handler's
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append(self.path)
                receiver.headers = dict(self.headers)
                receiver.answers.wait(30)
                if receiver.status == 200:
                    receiver._take(self.path, body)
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        return Handler


def attributes(pairs: Any) -> Attributes:  # noqa: ANN401 -- a list of the protocol's own
    """Return the attributes of a point, a span or a resource."""

    def value(pair: KeyValue) -> Any:  # noqa: ANN401 -- of any type
        kind = pair.value.WhichOneof("value")
        found = getattr(pair.value, kind or "string_value")
        return tuple(each.string_value for each in found.values) if kind == "array_value" else found

    return frozenset((pair.key, value(pair)) for pair in pairs)
