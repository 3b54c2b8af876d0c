"""What the standard variables of OpenTelemetry turn on. The exporters read all other ones themselves."""

from collections.abc import Mapping
from typing import NamedTuple

_INTERVAL_MS = 60_000.0  # the SDK's default


class Signals(NamedTuple):
    """What goes to an OTLP endpoint.

    Attributes:
        metrics: Whether metrics do.
        traces: Whether spans do.
        interval_s: The seconds between two exports.
        delta: Whether totals are exported as what came on top of the last export.
        problem: Why a signal that has an endpoint is not exported; empty without such a reason.
    """

    metrics: bool
    traces: bool
    interval_s: float = _INTERVAL_MS / 1000
    delta: bool = False
    problem: str = ""


def is_disabled(environ: Mapping[str, str]) -> bool:
    """Return whether the SDK is turned off as a whole."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def otlp_signals(environ: Mapping[str, str]) -> Signals:
    """Return which signals have an OTLP endpoint and are not turned off."""
    wanted = [signal for signal in ("METRICS", "TRACES") if _is_wanted(environ, signal)]
    protocols = {signal: _setting(environ, signal, "PROTOCOL") or "http/protobuf" for signal in wanted}
    others = [protocol for protocol in protocols.values() if not protocol.startswith("http")]
    metrics, traces = (protocols.get(signal, "").startswith("http") for signal in ("METRICS", "TRACES"))
    temporality = environ.get("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "").strip().upper()
    problem = f"the protocol {others[0]} is not supported" if others else ""
    return Signals(metrics, traces, _interval_s(environ), temporality in ("DELTA", "LOWMEMORY"), problem)


def _is_wanted(environ: Mapping[str, str], signal: str) -> bool:
    exporters = environ.get(f"OTEL_{signal}_EXPORTER", "").strip() or "otlp"
    named = any(name.strip().lower().startswith("otlp") for name in exporters.split(","))
    return named and bool(_setting(environ, signal, "ENDPOINT")) and not is_disabled(environ)


def _setting(environ: Mapping[str, str], signal: str, name: str) -> str:
    """Return a setting of one signal, else that of all signals."""
    values = (environ.get(f"OTEL_EXPORTER_OTLP{part}_{name}", "").strip() for part in (f"_{signal}", ""))
    return next(filter(None, values), "")


def _interval_s(environ: Mapping[str, str]) -> float:
    try:
        interval_ms = float(environ.get("OTEL_METRIC_EXPORT_INTERVAL", "") or _INTERVAL_MS)
    except ValueError:
        interval_ms = _INTERVAL_MS
    return (interval_ms if 0 < interval_ms < float("inf") else _INTERVAL_MS) / 1000
