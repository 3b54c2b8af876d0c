"""Spans: one for a job, and below it one for each failed row that is sampled.

They have no prompt, no answer and no key of a row. They have no error's message either, which may quote a prompt.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider, set_span_in_context

from spark_llm._version import __version__
from spark_llm.monitoring.telemetry import conventions
from spark_llm.monitoring.telemetry.attributes import Value
from spark_llm.monitoring.telemetry.failures import FailedRow


class JobSpans:
    """The span of a job, and those of its failed rows."""

    def __init__(
        self,
        provider: TracerProvider,
        name: str,
        attributes: Mapping[str, Value],
        started_at_ns: int,
        parent: Context | None,
    ) -> None:
        """Begin the job's span, below the one of the caller's context if there is one."""
        self._tracer = provider.get_tracer(conventions.SCOPE, __version__, schema_url=conventions.SCHEMA_URL)
        self._job = self._tracer.start_span(name, parent, attributes=dict(attributes), start_time=started_at_ns)
        self._context = set_span_in_context(self._job, parent)

    def add(self, row: FailedRow, attributes: Mapping[str, Value], ended_at_ns: int) -> None:
        """Add the span of a failed row: as long as its last request, until its chunk was written."""
        names = (attributes.get(name) for name in (conventions.OPERATION_NAME, conventions.REQUEST_MODEL))
        began_at_ns = ended_at_ns - round((row.latency_ms or 0) * 1e6)
        span = self._tracer.start_span(
            " ".join(str(name) for name in names if name) or conventions.SCOPE,
            self._context,
            SpanKind.CLIENT,
            {**attributes, **dict(_attributes(row))},
            start_time=began_at_ns,
        )
        span.set_status(Status(StatusCode.ERROR))
        span.end(ended_at_ns)

    def end(self, attributes: Mapping[str, Value], error: str | None, ended_at_ns: int) -> None:
        """End the job's span; it has failed where the job raised an error of this type."""
        self._job.set_attributes(dict(attributes))
        if error is not None:
            self._job.set_attribute(conventions.ERROR_TYPE, error)
            self._job.set_status(Status(StatusCode.ERROR))
        self._job.end(ended_at_ns)


def _attributes(row: FailedRow) -> Iterator[tuple[str, Any]]:
    yield conventions.COLUMN, row.column
    yield conventions.ERROR_TYPE, row.kind
    yield conventions.ATTEMPTS, row.attempts
    known = {
        conventions.STATUS_CODE: row.status,
        conventions.RESPONSE_MODEL: row.model,
        conventions.RESPONSE_ID: row.request_id,
        conventions.FINISH_REASONS: row.finish_reason and [row.finish_reason],
        **{name: row.usage.get(field) for field, name in conventions.USAGE.items()},
    }
    yield from ((name, value) for name, value in known.items() if value is not None)
