"""Metrics and spans to an OTLP endpoint. Histograms go straight to the SDK's exporter, past its instruments.

Headers, timeout, certificates and compression are the exporter's own reading of the standard variables.
"""

import logging
import threading
from collections.abc import Mapping
from itertools import groupby

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from spark_llm._version import __version__
from spark_llm.metering.operations import DURATION_BOUNDS_MS, TOKEN_BOUNDS, Histogram
from spark_llm.monitoring.telemetry import conventions
from spark_llm.monitoring.telemetry.points import Points, Series, since

_BOUNDS = {
    conventions.DURATION: tuple(bound_ms / 1000 for bound_ms in DURATION_BOUNDS_MS),
    conventions.TOKENS: TOKEN_BOUNDS,
}


class ExportFailedError(Exception):
    """The endpoint did not take an export; the message says why."""


class OTLPMetrics:
    """Exports points to the OTLP endpoint that the environment names; used in one thread, but for `abort`."""

    def __init__(self, resource: Resource, started_at_ns: int, *, delta: bool) -> None:
        """Export totals since a time; with `delta`, what came on top of the last export that succeeded."""
        self._resource = resource
        self._since_ns = started_at_ns
        self._delta = delta
        self._exported: Points = {}
        self._exporter = OTLPMetricExporter()

    def export(self, points: Points, now_ns: int) -> None:
        """Export points; raises `ExportFailedError`."""
        sent = since(points, self._exported) if self._delta else points
        if not sent:
            return
        scope = InstrumentationScope(conventions.SCOPE, __version__, conventions.SCHEMA_URL)
        metrics = ScopeMetrics(scope, self._metrics(sent, now_ns), conventions.SCHEMA_URL)
        data = MetricsData([ResourceMetrics(self._resource, [metrics], self._resource.schema_url)])
        with quiet(OTLPMetricExporter) as said:
            if self._exporter.export(data) is not MetricExportResult.SUCCESS:
                raise ExportFailedError(said.last)
        if self._delta:
            self._exported, self._since_ns = dict(points), now_ns

    def abort(self) -> None:
        """Stop retrying, from any thread."""
        self._exporter.shutdown()

    def _metrics(self, points: Points, now_ns: int) -> list[Metric]:
        ordered = sorted(points.items(), key=lambda point: point[0].metric.name)
        return [self._metric(metric, dict(each), now_ns) for metric, each in groupby(ordered, lambda it: it[0].metric)]

    def _metric(self, metric: conventions.Metric, points: Points, now_ns: int) -> Metric:
        temporality = AggregationTemporality.DELTA if self._delta else AggregationTemporality.CUMULATIVE
        buckets = [
            self._buckets(series, number, now_ns) for series, number in points.items() if isinstance(number, Histogram)
        ]
        numbers = [
            NumberDataPoint(dict(series.attributes), self._since_ns, now_ns, number)
            for series, number in points.items()
            if not isinstance(number, Histogram)
        ]
        data: HistogramData | Sum | Gauge
        if metric.kind == "histogram":
            data = HistogramData(buckets, temporality)
        else:
            data = Gauge(numbers) if metric.kind == "gauge" else Sum(numbers, temporality, is_monotonic=True)
        return Metric(metric.name, metric.description, metric.unit, data)

    def _buckets(self, series: Series, number: Histogram, now_ns: int) -> HistogramDataPoint:
        return HistogramDataPoint(
            dict(series.attributes),
            self._since_ns,
            now_ns,
            number.count,
            number.sum,
            number.buckets,
            _BOUNDS[series.metric],
            min=None,  # type: ignore[arg-type]  # the protocol has it optional, and nobody counts it
            max=None,  # type: ignore[arg-type]
        )


class OTLPSpans:
    """A TracerProvider of our own, whose spans go to the OTLP endpoint that the environment names."""

    def __init__(self, resource: Resource) -> None:
        """Sample as the environment says."""
        self._ended = _Ended()
        self._exporter = OTLPSpanExporter()
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.provider.add_span_processor(self._ended)

    def export(self) -> None:
        """Export the spans that have ended since the last time; raises `ExportFailedError`."""
        spans, self._ended.spans = self._ended.spans, []
        if spans:
            with quiet(OTLPSpanExporter) as said:
                if self._exporter.export(spans) is not SpanExportResult.SUCCESS:
                    raise ExportFailedError(said.last)

    def abort(self) -> None:
        """Stop retrying, from any thread."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the SDK gives it no types


class _Ended(SpanProcessor):
    """Keeps the spans that have ended."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """Keep a span."""
        self.spans.append(span)


def resource_of(run: str, environ: Mapping[str, str]) -> Resource:
    """Return the resource that the environment describes, of one run.

    The run is the instance, unless the environment names another: series of two runs at a time are two series.
    """
    is_named = conventions.INSTANCE in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create({conventions.RUN: run, **({} if is_named else {conventions.INSTANCE: run})})


class quiet(logging.Filter):  # noqa: N801 -- used as a function
    """Keeps what an exporter logs in this thread out of the log while its block runs, and remembers the last of it."""

    def __init__(self, exporter: type) -> None:
        """Listen to the logger of this class's module."""
        super().__init__()
        self.last = "no reason given"
        self._logger = logging.getLogger(exporter.__module__)
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is another thread's."""
        if record.thread != self._thread:
            return True
        self.last = record.getMessage()
        return False

    def __enter__(self) -> "quiet":  # noqa: PYI034 -- typing.Self came with Python 3.11
        self._logger.addFilter(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeFilter(self)
