"""Where the points and spans of a job go: an OTLP endpoint, the program's own providers, or both.

With both, histograms go to the endpoint and counters to the provider: a provider often has the same endpoint, where
one counter from two sides would count twice.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from spark_llm.monitoring.telemetry import conventions
from spark_llm.monitoring.telemetry.attributes import Value
from spark_llm.monitoring.telemetry.environment import Signals
from spark_llm.monitoring.telemetry.failures import FailedRow
from spark_llm.monitoring.telemetry.points import Points, histograms, not_below
from spark_llm.monitoring.telemetry.provider import ProviderCounters

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from spark_llm.monitoring.telemetry import otlp, spans

COUNTERS_EVERY_S = 5.0  # the program's own readers export them when they like


class Targets(NamedTuple):
    """What is turned on: signals to the OTLP endpoint, and the program's providers."""

    signals: Signals
    meters: "MeterProvider | None"
    tracers: "TracerProvider | None"

    @property
    def has_metrics(self) -> bool:
        """Whether metrics go anywhere."""
        return self.signals.metrics or self.meters is not None

    @property
    def has_spans(self) -> bool:
        """Whether spans go anywhere."""
        return self.signals.traces or self.tracers is not None


class Job(NamedTuple):
    """The span of a job: its name, its attributes, its beginning, and the caller's context."""

    name: str
    attributes: Mapping[str, Value]
    started_at_ns: int
    parent: Any  # an opentelemetry Context, or None


class Failed(NamedTuple):
    """A failed row, the attributes of its column, and when its chunk was written."""

    row: FailedRow
    attributes: Mapping[str, Value]
    ended_at_ns: int


class Outcome(NamedTuple):
    """How a job ended: the last attributes of its span, and the type of the error that it raised."""

    attributes: Mapping[str, Value]
    error: str | None


class Sinks:
    """Exports what it is given; used by one thread, but for `abort`."""

    def __init__(self, targets: Targets, job: Job) -> None:
        """Import what is needed of the SDK, and begin the job's span."""
        signals, tracers = targets.signals, targets.tracers
        self._interval_s, self._next_export_s = signals.interval_s, time.monotonic() + signals.interval_s
        self._points: Points = {}
        self._counters = None if targets.meters is None else ProviderCounters(targets.meters)
        self._metrics: otlp.OTLPMetrics | None = None
        self._spans: otlp.OTLPSpans | None = None
        self._job_spans: spans.JobSpans | None = None
        if signals.metrics or signals.traces:
            from spark_llm.monitoring.telemetry.otlp import OTLPMetrics, OTLPSpans, resource_of

            run = job.attributes.get(conventions.RUN, job.started_at_ns)
            resource = resource_of(str(run), os.environ)
            if signals.metrics:
                self._metrics = OTLPMetrics(resource, job.started_at_ns, delta=signals.delta)
            if signals.traces and tracers is None:
                self._spans = OTLPSpans(resource)
                tracers = self._spans.provider
        if tracers is not None:
            from spark_llm.monitoring.telemetry.spans import JobSpans

            self._job_spans = JobSpans(tracers, *job)

    @property
    def every_s(self) -> float:
        """How often `export` should be called."""
        return self._interval_s if self._counters is None else min(self._interval_s, COUNTERS_EVERY_S)

    def export(self, points: Points, failed: Sequence[Failed], outcome: Outcome | None) -> None:
        """Export points and failed rows; with an outcome, the job's span and everything that waits.

        Each destination is tried. Raises the first error.
        """
        self._points = not_below(points, self._points)
        errors = []
        for export in self._due(failed, outcome):
            try:
                export()
            except Exception as error:  # noqa: BLE001 -- the other destinations are not concerned
                errors.append(error)
        if errors:
            raise errors[0]

    def _due(self, failed: Sequence[Failed], outcome: Outcome | None) -> Iterator[Callable[[], None]]:
        now_ns = time.time_ns()
        if self._counters is not None:
            yield partial(self._counters.add, self._points)
        if self._job_spans is not None:
            yield partial(self._add_spans, self._job_spans, failed, outcome, now_ns)
        if outcome is None and time.monotonic() < self._next_export_s:
            return
        self._next_export_s = time.monotonic() + self._interval_s
        if self._metrics is not None:
            points = self._points if self._counters is None else histograms(self._points)
            yield partial(self._metrics.export, points, now_ns)
        if self._spans is not None:
            yield self._spans.export

    def _add_spans(
        self, job_spans: "spans.JobSpans", failed: Sequence[Failed], outcome: Outcome | None, now_ns: int
    ) -> None:
        for each in failed:
            job_spans.add(*each)
        if outcome is not None:
            job_spans.end(*outcome, now_ns)

    def abort(self) -> None:
        """Stop what waits for an endpoint, from any thread."""
        for each in (self._metrics, self._spans):
            if each is not None:
                each.abort()


def current_context() -> Any:  # noqa: ANN401 -- opentelemetry need not be installed
    """Return the caller's context, whose span is the parent of the job's; None where nothing of the API is imported."""
    context = sys.modules.get("opentelemetry.context")
    return None if context is None else context.get_current()
