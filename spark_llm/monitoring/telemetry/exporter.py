"""Exports the numbers of a job while it runs and at its end, where the environment or the program turns that on.

A thread of its own imports OpenTelemetry's SDK, exports, and waits for the endpoint. The job waits for it once, at its
end, for `WAIT_S` at most.
"""

import importlib.util
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from spark_llm.engine.request_spec import RequestSpec
from spark_llm.livecounts.counts import LiveCounts
from spark_llm.livecounts.labels import Label
from spark_llm.metering.operations import Operations
from spark_llm.metering.tally import Tally, sums, total_of
from spark_llm.monitoring.telemetry import conventions
from spark_llm.monitoring.telemetry.attributes import Value, attributes_of, attributes_of_label
from spark_llm.monitoring.telemetry.environment import is_disabled, otlp_signals
from spark_llm.monitoring.telemetry.failures import FailedRow, FailureSample
from spark_llm.monitoring.telemetry.points import Points, Series, column_points
from spark_llm.monitoring.telemetry.provider import meter_provider, tracer_provider
from spark_llm.monitoring.telemetry.sinks import Failed, Job, Outcome, Sinks, Targets, current_context
from spark_llm.text.excerpt import excerpt

WAIT_S = 3.0  # at the job's end, for an endpoint that is slow or down
_INSTALL = "pip install 'spark-llm-endpoints[otel]'"
_HINT = "check OTEL_EXPORTER_OTLP_ENDPOINT, and the server there"
_URL = re.compile(r"(url: |//)\S+")  # may have a key in it

_logger = logging.getLogger("spark_llm.monitoring")


class Telemetry:
    """The metrics and spans of one job; where nothing is turned on, it does nothing.

    >>> with LiveCounts(host) as live, Telemetry("enrich_table", {"spark_llm.run": run}) as telemetry:
    ...     telemetry.watch(live, lambda: {"mood": request_specs(plan)})
    ...     run_a_job_whose_tasks_report_to(live.address)
    """

    def __init__(self, name: str, attributes: Mapping[str, Value], wait_s: float = WAIT_S) -> None:
        """Read what is turned on; `name` and `attributes` are those of the job's span."""
        self._name, self._attributes, self._wait_s = name, attributes, wait_s
        self._warned = threading.Event()
        self._targets = self._turned_on()
        self._lock = threading.Lock()
        self._live: LiveCounts | None = None
        self._columns: dict[str, Mapping[str, Value]] = {}
        self._tallies: dict[str, Tally] = {}  # of the chunks that are over
        self._operations: dict[str, Operations] = {}
        self._sample, self._failed = FailureSample(), list[Failed]()
        self._error: str | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._sinks: Sinks | None = None

    @property
    def has_metrics(self) -> bool:
        """Whether metrics go anywhere."""
        return self._targets.has_metrics

    def __enter__(self) -> "Telemetry":  # noqa: PYI034 -- typing.Self came with Python 3.11
        if self._targets.has_metrics or self._targets.has_spans:
            job = Job(self._name, self._attributes, time.time_ns(), current_context())
            self._thread = threading.Thread(target=self._run, args=(job,), name="spark_llm telemetry", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._error = None if kind is None else kind.__qualname__
        self._ended.set()
        if self._thread is None:
            return
        self._thread.join(self._wait_s)
        if self._thread.is_alive():
            self._warn(f"the last export did not end within {self._wait_s:g} s", _HINT)
            if self._sinks is not None:
                self._sinks.abort()

    def watch(self, live: LiveCounts, columns: Callable[[], Mapping[str, Iterable[RequestSpec]]] = dict) -> None:
        """Export these live counts from now on; tasks that get its address from now on count operations too.

        `columns` returns the request specs of each column of a table job. One that it lacks has only its name as an
        attribute. Outside a table job, counts have the labels of UDFs as names.
        """
        if self._thread is None:
            return
        self._columns = {column: attributes_of(specs) for column, specs in columns().items()}
        if self.has_metrics:
            live.want_operations()
            with self._lock:
                self._live = live

    def finish_chunk(
        self, tallies: Mapping[str, Tally], read: Callable[[Iterable[str]], Mapping[str, Operations]]
    ) -> None:
        """Add the exact counts of a finished chunk, which replace its live ones; refusals are known only live.

        Where a column's live tally is the exact one, so are its live operations. `read` returns those of the others.
        """
        if self._thread is None:
            return
        live = self._live
        counts, operations = ({}, {}) if live is None else (live.counts(), live.operations())
        lost = [name for name, tally in tallies.items() if name not in operations or _differ(tally, counts.get(name))]
        if self.has_metrics and lost:
            _logger.debug("live counts lack rows: the operations of %s are read", ", ".join(lost))
            try:
                written = read(lost)
            except Exception as error:  # noqa: BLE001 -- metrics are not worth a job
                self._warn(f"{type(error).__name__}: {error}", "look at Spark's log")
                written = {}
            refusals = {name: Operations(refusals=operations[name].refusals) for name in written if name in operations}
            operations = {**operations, **sums(written, refusals)}
        with self._lock:
            if live is not None:
                live.end()
            self._tallies = sums(self._tallies, tallies)
            self._operations = sums(self._operations, operations)

    def add_failures(
        self, tallies: Mapping[str, Tally], read: Callable[[Mapping[str, int]], Iterable[FailedRow]]
    ) -> None:
        """Export a span for each failed row of a finished chunk that is sampled.

        `read` returns as many failed rows of each column as it is told; it is not called for none.
        """
        if not self._targets.has_spans:
            return
        wanted = {column: self._sample.take(sum(tally.failed.values())) for column, tally in tallies.items()}
        if not any(wanted.values()):
            return
        now_ns = time.time_ns()
        try:
            failed = [Failed(row, self._attributes_of(row.column), now_ns) for row in read(wanted)]
        except Exception as error:  # noqa: BLE001 -- as above
            self._warn(f"{type(error).__name__}: {error}", "look at Spark's log")
            return
        with self._lock:
            self._failed += failed

    def points(self) -> Points:
        """Return the points of the chunks that are over, and of the live counts."""
        tallies, operations, live = self._counted()
        points: Points = {}
        for column, tally in tallies.items():
            points |= column_points(tally, operations.get(column), self._attributes_of(column))
        if live is not None and (flow := live.flow()) is not None:
            now = {conventions.WINDOW: flow.window, conventions.IN_FLIGHT: flow.in_flight}
            points |= {Series.of(metric, {}): number for metric, number in now.items()}
        return points

    def _counted(self) -> tuple[Mapping[str, Tally], Mapping[str, Operations], LiveCounts | None]:
        """Return what the chunks that are over and the live counts come to, and the live counts."""
        with self._lock:
            live = self._live
            if live is None:
                return self._tallies, self._operations, None
            return sums(self._tallies, live.counts()), sums(self._operations, live.operations()), live

    def _turned_on(self) -> Targets:
        signals = otlp_signals(os.environ)
        if signals.problem:
            self._warn(signals.problem, "set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, and the port for it")
        if (signals.metrics or signals.traces) and not _is_installed():
            self._warn("the exporter is not installed", _INSTALL)
            signals = signals._replace(metrics=False, traces=False)
        if is_disabled(os.environ):
            return Targets(signals, None, None)
        return Targets(signals, meter_provider(), tracer_provider())

    def _run(self, job: Job) -> None:
        """Export until the job has ended, and once more then; whatever the SDK raises, the job goes on."""
        try:
            self._sinks = sinks = Sinks(self._targets, job)
        except ImportError as error:
            self._warn(f"the exporter is not complete: {error}", _INSTALL)
            return
        except Exception as error:  # noqa: BLE001 -- see above
            self._warn(f"{type(error).__name__}: {error}", _HINT)
            return
        outcome = None
        while outcome is None:
            if self._ended.wait(sinks.every_s):
                outcome = self._outcome()
            with self._lock:
                failed, self._failed = self._failed, []
            try:
                sinks.export(self.points(), failed, outcome)
            except Exception as error:  # noqa: BLE001 -- see above
                self._warn(f"{type(error).__name__}: {error}", _HINT)

    def _outcome(self) -> Outcome:
        tallies, *_ = self._counted()
        total = total_of(tallies.values())
        numbers = {
            conventions.JOB_ASKED: total.asked,
            conventions.JOB_FAILED: sum(total.failed.values()),
            conventions.JOB_REQUESTS: total.requests,
        }
        return Outcome(numbers, self._error)

    def _attributes_of(self, column: str) -> dict[str, Value]:
        if conventions.TABLE not in self._attributes:
            return attributes_of_label(Label.of(column))
        table = {conventions.TABLE: self._attributes[conventions.TABLE]}
        return {conventions.COLUMN: column, **table, **self._columns.get(column, {})}

    def _warn(self, problem: str, hint: str) -> None:
        """Log a warning, once for a job."""
        if not self._warned.is_set():
            self._warned.set()
            reason = excerpt(_URL.sub(r"\1***", problem), 300).rstrip(".")
            _logger.warning("Telemetry is not exported: %s. Hint: %s. The job is not affected.", reason, hint)


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ImportError:  # of a package around it
        return False


def _differ(tally: Tally, live: Tally | None) -> bool:
    """Return whether live counts lack something; written answers have tiers only where they have a price."""
    return live is None or replace(tally, tiers={}) != replace(live, tiers={})
