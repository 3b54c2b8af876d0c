"""Telemetry of a job: at an OTLP endpoint on loopback, in a program's own providers, and where something is wrong."""

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.metrics.v1.metrics_pb2 import NumberDataPoint as NumberPoint
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint, Sum
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from spark_llm import Endpoint, chat_udf
from spark_llm.engine.request_spec import request_specs
from spark_llm.livecounts.column_count import Count
from spark_llm.livecounts.counts import LiveCounts, Reporter, connected_socket
from spark_llm.livecounts.datagrams import Sender
from spark_llm.livecounts.flows import HostFlow, encoded_flow
from spark_llm.metering.operations import DURATION_BOUNDS_MS, Operations
from spark_llm.metering.tally import Tally
from spark_llm.monitoring.telemetry.conventions import SCHEMA_URL
from spark_llm.monitoring.telemetry.exporter import Telemetry
from spark_llm.monitoring.telemetry.failures import FailedRow
from spark_llm.protocol.values import Result, RowError, Usage
from tests.conftest import ROOT
from tests.support.otlp_receiver import OTLPReceiver, attributes

JOB = {"spark_llm.run": "0123456789ab", "spark_llm.table": "main.reviews"}
CHAT = list(request_specs(chat_udf(Endpoint("http://127.0.0.1:8000/v1", model="smollm2")).plan()))
ASKED = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "smollm2",
    "server.address": "127.0.0.1",
    "server.port": 8000,
    "spark_llm.column": "mood",
    "spark_llm.table": "main.reviews",
}
ANSWERED = Result(text="yes", usage=Usage(20, 3, 23), latency_ms=250.0, attempts=3, requests=3, refusals=(429, 503))
LATE = Result(error=RowError("timeout", None, "late", retryable=True), latency_ms=120_000.0, attempts=1, requests=1)
SHARED = Result(text="yes", usage=Usage(0, 0, 0))
RESULTS = [ANSWERED] * 4 + [LATE, SHARED, None]
FAILED_ROW = FailedRow("mood", "timeout", 504, 2, 1500.0, "smollm2", "id-1", "stop", {"prompt_tokens": 20})


def wait_for(condition: Callable[[], bool]) -> None:
    """Return as soon as something holds, or after five seconds."""
    pause = threading.Event()
    assert any(condition() for _ in range(1_000) if not pause.wait(0.005))


def report_live(live: LiveCounts, results: list[Result | None] = RESULTS, chunk: int = 1) -> None:
    """Send the results of a task, and return when they have arrived."""
    reporter = Reporter(live.address, Sender(chunk, 0, 0, 0, 0))
    reporter.add("mood", results)
    reporter.close()
    wait_for(lambda: live.rows() == len(results))


def finish(telemetry: Telemetry, results: list[Result | None] = RESULTS) -> list[str]:
    """Finish a chunk with these results; return the columns whose operations were read from its written answers."""
    were_read = list[str]()
    count = Count.of([None if each is None else unrefused(each) for each in results], operations=True)

    def read(columns: Iterable[str]) -> dict[str, Operations]:
        assert count.operations is not None
        were_read.extend(columns)
        return {"mood": count.operations}

    telemetry.finish_chunk({"mood": count.tally}, read)
    return were_read


def unrefused(result: Result) -> Result:
    """Return a result as it is written: without its refusals."""
    return Result(
        usage=result.usage,
        error=result.error,
        latency_ms=result.latency_ms,
        attempts=result.attempts,
        requests=result.requests,
    )


@pytest.fixture
def live() -> Iterator[LiveCounts]:
    """Live counts of a running chunk."""
    with LiveCounts("127.0.0.1") as listening:
        listening.begin(1, ["mood"])
        yield listening


def test_an_endpoint_gets_histograms_and_counters(
    receiver: OTLPReceiver, live: LiveCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have the names, units, bounds and attributes of the conventions, and the resource of the environment."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=data")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "nightly")
    with Telemetry("job", JOB) as telemetry:
        telemetry.watch(live, lambda: {"mood": CHAT})
        report_live(live)
        finish(telemetry)

    [request] = receiver.metrics
    [scope] = request.resource_metrics[0].scope_metrics
    assert ("spark_llm", SCHEMA_URL) == (scope.scope.name, scope.schema_url)
    units = {metric.name: metric.unit for metric in scope.metrics}
    assert ("s", "{token}") == (units["gen_ai.client.operation.duration"], units["gen_ai.client.token.usage"])
    durations = receiver.last("gen_ai.client.operation.duration")
    answered, late = durations[frozenset()], durations[frozenset({("error.type", "timeout")})]
    assert (4, 1.0, 1, 120.0) == (answered.count, answered.sum, late.count, late.sum)
    assert [bound / 1000 for bound in DURATION_BOUNDS_MS] == list(answered.explicit_bounds)
    assert (0.01, 81.92) == (answered.explicit_bounds[0], answered.explicit_bounds[-1])
    assert [4 if bucket == 5 else 0 for bucket in range(15)] == list(answered.bucket_counts)
    assert not answered.HasField("min")
    tokens = receiver.last("gen_ai.client.token.usage")
    assert {"input": (4, 80), "output": (4, 12)} == {
        kind: (point.count, point.sum) for each, point in tokens.items() for _, kind in each
    }
    bounds = tokens[frozenset({("gen_ai.token.type", "input")})].explicit_bounds
    assert (1, 67_108_864) == (bounds[0], bounds[-1])
    assert {frozenset(ASKED.items())} == {
        each
        - {("gen_ai.token.type", "input"), ("gen_ai.token.type", "output"), ("error.type", "timeout")}
        - {pair for pair in each if pair[0] == "http.response.status_code"}
        for _, each in receiver.exports()[-1]
    }
    assert (6, 13, 8) == tuple(receiver.total(f"spark_llm.{name}") for name in ("rows", "requests", "retries"))
    assert (4, 4) == tuple(
        receiver.total("spark_llm.refusals", http_response_status_code=status) for status in (429, 503)
    )
    assert {
        "service.name": "nightly",
        "service.instance.id": "0123456789ab",
        "spark_llm.run": "0123456789ab",
        "deployment.environment.name": "test",
    }.items() <= receiver.resources[0].items()
    assert "data" == receiver.headers["x-team"]


def test_an_instance_of_the_environment_is_kept(receiver: OTLPReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the program; the run is there beside it."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=mine")
    with Telemetry("job", JOB):
        pass

    assert {"service.instance.id": "mine", "spark_llm.run": "0123456789ab"}.items() <= receiver.resources[0].items()


def test_live_counts_are_exported_while_the_job_runs(
    receiver: OTLPReceiver, live: LiveCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exact counts replace them, and no total goes down when they are fewer."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    with Telemetry("job", JOB) as telemetry:
        telemetry.watch(live, lambda: {"mood": CHAT})
        report_live(live)
        wait_for(lambda: bool(receiver.metrics) and receiver.total("gen_ai.client.operation.duration") == 5)
        finish(telemetry, RESULTS[1:])
        live.begin(2, ["mood"])
        finish(telemetry, [ANSWERED] * 7)

    totals = [
        sum(getattr(point, "count", 0) for (name, _), point in export.items() if name.endswith("duration"))
        for export in receiver.exports()
    ]
    assert sorted(totals) == totals
    assert 5 in totals
    assert 11 == totals[-1]


def test_the_window_of_all_hosts_is_a_gauge(receiver: OTLPReceiver, live: LiveCounts) -> None:
    """Hosts tell it, and how many requests are in flight."""
    assert live.address is not None
    with Telemetry("job", JOB) as telemetry:
        telemetry.watch(live)
        with closing(connected_socket(live.address)) as host:
            host.send(encoded_flow(live.address.secret, HostFlow("h", "l", "chat", 1.0, 3, 5, 8, "refusals")))
        wait_for(lambda: live.flow() is not None)

    gauges = {key: point.as_int for (key, _), point in receiver.exports()[-1].items() if isinstance(point, NumberPoint)}
    assert (8, 3) == (gauges["spark_llm.window"], gauges["spark_llm.in_flight"])


def test_deltas_add_up_to_the_total(receiver: OTLPReceiver, live: LiveCounts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment prefers them; an export that fails is part of the next one."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    with Telemetry("job", JOB) as telemetry:
        telemetry.watch(live, lambda: {"mood": CHAT})
        report_live(live)
        wait_for(lambda: bool(receiver.metrics))
        receiver.status = 500
        finish(telemetry)
        finish(telemetry, [ANSWERED] * 7)
        failed = len(receiver.requests)
        wait_for(lambda: len(receiver.requests) > failed + 1)
        receiver.status = 200

    exports = receiver.exports()
    durations = [point for export in exports for (name, _), point in export.items() if name.endswith("duration")]
    [sent] = [metric for metric in metrics_of(receiver) if metric.name == "spark_llm.rows"]
    assert 12 == sum(getattr(point, "count", 0) for point in durations)
    assert 1 == sent.sum.aggregation_temporality  # delta
    times = [next((point.start_time_unix_nano, point.time_unix_nano) for point in each.values()) for each in exports]
    assert [end for _, end in times[:-1]] == [start for start, _ in times[1:]]


def metrics_of(receiver: OTLPReceiver) -> list[Metric]:
    """Return the metrics of the first export."""
    return list(receiver.metrics[0].resource_metrics[0].scope_metrics[0].metrics)


def test_a_programs_provider_gets_counters(live: LiveCounts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Durations and tokens are there as counts and sums, and add up over the chunks."""
    reader = InMemoryMetricReader()
    monkeypatch.setattr("opentelemetry.metrics._internal._METER_PROVIDER", MeterProvider([reader]))
    with Telemetry("job", JOB) as telemetry:
        telemetry.watch(live, lambda: {"mood": CHAT})
        report_live(live)
        finish(telemetry)
        finish(telemetry, [ANSWERED] * 2)

    counters = totals_of(reader)
    assert {"rows": 8, "requests": 19, "retries": 12, "operations": 7, "tokens": 138, "refusals": 8} == {
        name: counters[f"spark_llm.{name}"]
        for name in ("rows", "requests", "retries", "operations", "tokens", "refusals")
    }
    assert 121.5 == counters["spark_llm.operation.time"]


def totals_of(reader: InMemoryMetricReader) -> Mapping[str, float]:
    """Return the sum of the points of each counter in a reader."""
    data = reader.get_metrics_data()
    metrics = [] if data is None else data.resource_metrics[0].scope_metrics[0].metrics
    return {
        metric.name: sum(point.value for point in metric.data.data_points if isinstance(point, NumberDataPoint))
        for metric in metrics
        if isinstance(metric.data, Sum)
    }


def test_with_both_nothing_is_counted_twice(
    receiver: OTLPReceiver, live: LiveCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint gets the histograms, the provider the counters."""
    reader = InMemoryMetricReader()
    monkeypatch.setattr("opentelemetry.metrics._internal._METER_PROVIDER", MeterProvider([reader]))
    with Telemetry("job", JOB) as telemetry:
        telemetry.watch(live)
        finish(telemetry)

    assert {"gen_ai.client.operation.duration", "gen_ai.client.token.usage"} == {
        name for name, _ in receiver.exports()[-1]
    }
    assert 6 == totals_of(reader)["spark_llm.rows"]


def test_a_job_and_its_failed_rows_are_spans(receiver: OTLPReceiver) -> None:
    """A row's span is below the job's, as long as its last request, with what is known but its content."""

    def job() -> None:
        with Telemetry("enrich_table", JOB) as telemetry, LiveCounts("") as live:
            telemetry.watch(live, lambda: {"mood": CHAT})
            telemetry.add_failures({"mood": Tally(9, {"timeout": 2})}, lambda wanted: [FAILED_ROW] * wanted["mood"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        job()

    *rows, job_span = receiver.spans
    assert ["chat smollm2"] * 2 == [span.name for span in rows]
    assert {(job_span.trace_id, job_span.span_id, 3, 2)} == {
        (span.trace_id, span.parent_span_id, span.kind, span.status.code) for span in rows
    }
    assert 1_500_000_000 == rows[0].end_time_unix_nano - rows[0].start_time_unix_nano
    assert dict(attributes(rows[0].attributes)) == {
        **ASKED,
        "error.type": "timeout",
        "http.response.status_code": 504,
        "spark_llm.attempts": 2,
        "gen_ai.response.model": "smollm2",
        "gen_ai.response.id": "id-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 20,
    }
    assert ("enrich_table", 2) == (job_span.name, job_span.status.code)
    assert {**JOB, "error.type": "ZeroDivisionError"}.items() <= dict(attributes(job_span.attributes)).items()


def test_a_programs_tracers_get_the_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job's span is below the caller's."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", provider)
    with trace.get_tracer("test").start_as_current_span("caller") as caller, Telemetry("job", JOB) as telemetry:
        telemetry.add_failures({"mood": Tally(9, {"timeout": 1})}, lambda _: [FAILED_ROW])

    row, job, _ = exporter.get_finished_spans()
    assert job.parent is not None
    assert row.parent is not None
    assert (caller.get_span_context().span_id, job.context.span_id) == (job.parent.span_id, row.parent.span_id)


def test_a_chunk_without_failures_reads_no_rows(receiver: OTLPReceiver) -> None:
    """Where they cannot be read, the job goes on, and the log says so."""
    with Telemetry("job", JOB) as telemetry:
        telemetry.add_failures({"mood": Tally(9)}, lambda _: pytest.fail("rows were read"))
    assert ["job"] == [span.name for span in receiver.spans]


def test_answers_that_cannot_be_read_do_no_harm(receiver: OTLPReceiver, caplog: pytest.LogCaptureFixture) -> None:
    """The job goes on without their spans and operations, and the log says so once."""

    def read(_: object) -> Any:  # noqa: ANN401 -- operations or rows
        raise OSError

    tallies: Mapping[str, Tally] = {"mood": Tally(9, {"timeout": 1}, requests=9)}
    with Telemetry("job", JOB) as telemetry:
        telemetry.finish_chunk(tallies, read)
        telemetry.add_failures(tallies, read)
    assert ["job"] == [span.name for span in receiver.spans]
    assert (9, 0) == tuple(receiver.total(name) for name in ("spark_llm.rows", "gen_ai.client.operation.duration"))
    assert 1 == len(warnings_in(caplog))


def test_operations_are_read_where_datagrams_are_lost(receiver: OTLPReceiver, live: LiveCounts) -> None:
    """Where the live tally is the written one, its operations are exact, and nothing is read."""
    with Telemetry("job", JOB) as telemetry:
        telemetry.watch(live)
        report_live(live)
        were_read = [finish(telemetry)]
        live.begin(2, ["mood"])
        report_live(live, [ANSWERED], chunk=2)
        were_read.append(finish(telemetry, [ANSWERED] * 3))

    assert [[], ["mood"]] == were_read
    assert 5 + 3 == receiver.total("gen_ai.client.operation.duration")
    assert 8 + 2 == receiver.total("spark_llm.refusals")


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return all that was logged as a warning or worse, by any logger."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def unused_port() -> int:
    """Return a port where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.waits
@pytest.mark.parametrize("what", ["down", "slow", "500"])
def test_an_endpoint_in_trouble_is_one_warning(
    what: str,
    receiver: OTLPReceiver,
    live: LiveCounts,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The job waits for it once, at its end, and no longer than it may."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "10")
    if what == "down":
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{unused_port()}")
    elif what == "slow":
        receiver.answers.clear()
    else:
        receiver.status = 500
    with Telemetry("job", JOB, wait_s=0.5) as telemetry:
        began_s = time.monotonic()
        telemetry.watch(live)
        finish(telemetry)
        finish(telemetry)
        assert time.monotonic() - began_s < 0.4
        if what == "500":
            wait_for(lambda: len(receiver.requests) > 3)
        ended_s = time.monotonic()
    assert time.monotonic() - ended_s < 2
    receiver.answers.set()

    [warning] = warnings_in(caplog)
    assert warning.startswith("Telemetry is not exported: ")
    assert ("500" in warning) == (what == "500")
    assert "Hint: check OTEL_EXPORTER_OTLP_ENDPOINT" in warning


def test_a_missing_exporter_is_one_warning(
    receiver: OTLPReceiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It has the command that installs it; workers count nothing more."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
    with Telemetry("job", JOB) as telemetry:
        assert not telemetry.has_metrics

    [warning] = warnings_in(caplog)
    assert "pip install 'spark-llm-endpoints[otel]'" in warning
    assert [] == receiver.requests


def test_grpc_is_refused_with_a_warning(
    receiver: OTLPReceiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The exporter for it is not part of the extra."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with Telemetry("job", JOB):
        pass

    [warning] = warnings_in(caplog)
    assert "the protocol grpc is not supported" in warning
    assert [] == receiver.requests


def test_off_it_does_nothing(live: LiveCounts) -> None:
    """No thread starts, and workers are told to count no more than they did."""
    threads = threading.enumerate()
    with Telemetry("job", JOB) as telemetry:
        telemetry.watch(live, lambda: pytest.fail("the specs were read"))
        assert threads == threading.enumerate()
        finish(telemetry)

    assert live.address is not None
    assert not live.address.operations


def test_off_it_imports_nothing() -> None:
    """OpenTelemetry's packages need not be there."""
    program = (
        "import sys; from spark_llm.monitoring.telemetry.exporter import Telemetry\n"
        "with Telemetry('job', {}): print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "[]" == ran.stdout.strip()


def test_an_exporter_that_is_not_complete_is_a_warning(
    receiver: OTLPReceiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The hint is the command that installs the rest."""
    monkeypatch.setitem(sys.modules, "spark_llm.monitoring.telemetry.otlp", None)
    with Telemetry("job", {}):
        pass

    assert [] == receiver.metrics
    [warning] = [record.getMessage() for record in caplog.records if record.name == "spark_llm.monitoring"]
    assert "the exporter is not complete: " in warning
    assert "Hint: pip install 'spark-llm-endpoints[otel]'." in warning
