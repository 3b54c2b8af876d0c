"""What OpenTelemetry's standard variables turn on."""

import pytest

from spark_llm.monitoring.telemetry.environment import Signals, is_disabled, otlp_signals

ALL = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
METRICS = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector:4318/v1/metrics"}
TRACES = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}


@pytest.mark.parametrize(
    ("environ", "metrics", "traces"),
    [
        ({}, False, False),
        (ALL, True, True),
        (METRICS, True, False),
        (TRACES, False, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False, False),
        ({**ALL, "OTEL_SDK_DISABLED": "True"}, False, False),
        ({**ALL, "OTEL_SDK_DISABLED": "no"}, True, True),
        ({**ALL, "OTEL_METRICS_EXPORTER": "none"}, False, True),
        ({**ALL, "OTEL_TRACES_EXPORTER": "none"}, True, False),
        ({**ALL, "OTEL_METRICS_EXPORTER": "console, otlp"}, True, True),
        ({**ALL, "OTEL_METRICS_EXPORTER": "prometheus"}, False, True),
        ({**ALL, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True, True),
        (
            {**ALL, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"},
            False,
            True,
        ),
    ],
)
def test_signals_with_an_endpoint_are_on(environ: dict[str, str], metrics: bool, traces: bool) -> None:  # noqa: FBT001 -- a parameter of pytest
    """Unless the SDK, the exporter or the protocol says otherwise."""
    assert (metrics, traces) == otlp_signals(environ)[:2]


def test_a_protocol_that_is_not_supported_is_named() -> None:
    """It is a problem only where something would be exported."""
    grpc = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}

    assert "the protocol grpc is not supported" == otlp_signals({**ALL, **grpc}).problem
    assert "" == otlp_signals(grpc).problem


@pytest.mark.parametrize(
    ("value", "interval_s"), [("", 60), ("5000", 5), ("soon", 60), ("0", 60), ("-1", 60), ("nan", 60), ("inf", 60)]
)
def test_the_interval_is_the_sdks(value: str, interval_s: float) -> None:
    """It is in milliseconds; a value that is not a time is the default."""
    assert interval_s == otlp_signals({"OTEL_METRIC_EXPORT_INTERVAL": value}).interval_s


@pytest.mark.parametrize(
    ("value", "delta"), [("", False), ("cumulative", False), ("Delta", True), (" lowmemory", True)]
)
def test_the_preferred_temporality_is_kept(value: str, delta: bool) -> None:  # noqa: FBT001 -- a parameter of pytest
    """Both preferences with deltas have them for counters and histograms."""
    assert delta is otlp_signals({"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": value}).delta


def test_nothing_is_on_by_itself() -> None:
    """The SDK is not disabled by itself either."""
    assert Signals(metrics=False, traces=False) == otlp_signals({})
    assert not is_disabled({})
