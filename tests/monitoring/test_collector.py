"""Telemetry of a job at the OpenTelemetry Collector."""

import shutil

import pytest

from spark_llm.livecounts.counts import LiveCounts
from spark_llm.metering.tally import Tally
from spark_llm.monitoring.telemetry.exporter import Telemetry
from tests.monitoring.test_exporter import CHAT, FAILED_ROW, JOB, finish
from tests.support.collector import collector
from tests.support.otlp_receiver import OTLPReceiver


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("go") is None, reason="the collector is compiled with Go, which is not installed")
def test_the_collector_takes_everything_and_passes_it_on(
    receiver: OTLPReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes out of it is what the endpoint gets without it."""
    job(wait_s=5.0)
    direct, spans = receiver.exports()[-1], sorted(span.name for span in receiver.spans)
    receiver.metrics.clear()
    receiver.spans.clear()
    with collector(receiver.url) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        job(wait_s=30.0)

    [passed_on] = receiver.exports()
    assert direct.keys() == passed_on.keys()
    for key, point in direct.items():
        other = passed_on[key]
        for time in ("start_time_unix_nano", "time_unix_nano"):
            setattr(other, time, getattr(point, time))
        assert sorted(map(str, point.attributes)) == sorted(map(str, other.attributes))
        del point.attributes[:], other.attributes[:]
        assert point == other
    assert spans == sorted(span.name for span in receiver.spans) == ["chat smollm2", "enrich_table"]


def job(wait_s: float) -> None:
    """Export the numbers of a job."""
    with Telemetry("enrich_table", JOB, wait_s) as telemetry, LiveCounts("") as live:
        telemetry.watch(live, lambda: {"mood": CHAT})
        finish(telemetry)
        telemetry.add_failures({"mood": Tally(6, {"timeout": 1})}, lambda _: [FAILED_ROW])
