"""Metrics to a program's own MeterProvider: counters and gauges, since its API takes no histogram that is ready."""

import os
import sys
from typing import TYPE_CHECKING

from spark_llm._version import __version__
from spark_llm.metering.operations import Histogram
from spark_llm.monitoring.telemetry import conventions
from spark_llm.monitoring.telemetry.points import Points, as_counters, since

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, MeterProvider
    from opentelemetry.metrics import _Gauge as Gauge
    from opentelemetry.trace import TracerProvider


def meter_provider() -> "MeterProvider | None":
    """Return the MeterProvider that the program has set; None for those of the API itself, which do nothing."""
    if not _may_be_set("metrics", "OTEL_PYTHON_METER_PROVIDER"):
        return None
    from opentelemetry.metrics import get_meter_provider

    provider = get_meter_provider()
    return None if _is_of_api(provider) else provider


def tracer_provider() -> "TracerProvider | None":
    """Return the TracerProvider that the program has set, likewise."""
    if not _may_be_set("trace", "OTEL_PYTHON_TRACER_PROVIDER"):
        return None
    from opentelemetry.trace import get_tracer_provider

    provider = get_tracer_provider()
    return None if _is_of_api(provider) else provider


def _may_be_set(module: str, variable: str) -> bool:
    """Return whether the program uses the API: else nothing of it is imported."""
    return f"opentelemetry.{module}" in sys.modules or variable in os.environ


def _is_of_api(provider: object) -> bool:
    return f"{type(provider).__module__}.".startswith(("opentelemetry.metrics.", "opentelemetry.trace."))


class ProviderCounters:
    """Adds what came on top to the counters of a program's MeterProvider."""

    def __init__(self, provider: "MeterProvider") -> None:
        """Make each instrument when it has its first number."""
        self._meter = provider.get_meter(conventions.SCOPE, __version__, conventions.SCHEMA_URL)
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._added: Points = {}

    def add(self, points: Points) -> None:
        """Add the points' counters, and set their gauges."""
        counters = as_counters(points)
        for (metric, attributes), number in since(counters, self._added).items():
            name, unit, description, kind = metric
            if isinstance(number, Histogram):
                continue
            if kind == "gauge":
                if name not in self._gauges:
                    self._gauges[name] = self._meter.create_gauge(name, unit, description)
                self._gauges[name].set(number, dict(attributes))
            else:
                if name not in self._counters:
                    self._counters[name] = self._meter.create_counter(name, unit, description)
                self._counters[name].add(number, dict(attributes))
        self._added = counters
