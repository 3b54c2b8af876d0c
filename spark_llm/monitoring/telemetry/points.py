"""The points of metrics: what counts and operations of columns become, and their arithmetic. It is pure."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from spark_llm.metering.operations import ANSWERED, Histogram, Operations
from spark_llm.metering.tally import Tally
from spark_llm.monitoring.telemetry import conventions
from spark_llm.monitoring.telemetry.attributes import Value
from spark_llm.monitoring.telemetry.conventions import Metric


class Series(NamedTuple):
    """A metric with its attributes, in the order of their names."""

    metric: Metric
    attributes: tuple[tuple[str, Value], ...]

    @classmethod
    def of(cls, metric: Metric, attributes: Mapping[str, Value]) -> "Series":
        """Return the series of a metric with these attributes."""
        return cls(metric, tuple(sorted(attributes.items())))


Number = float | Histogram
Points = dict[Series, Number]


def column_points(tally: Tally, operations: Operations | None, attributes: Mapping[str, Value]) -> Points:
    """Return the points of a column; what only its operations know is left out where nobody counted them."""
    return {Series.of(metric, {**attributes, **more}): number for metric, more, number in _numbers(tally, operations)}


def _numbers(tally: Tally, operations: Operations | None) -> Iterator[tuple[Metric, Mapping[str, Value], Number]]:
    yield conventions.ROWS, {}, tally.answered
    for kind, count in tally.failed.items():
        yield conventions.ROWS, {conventions.ERROR_TYPE: kind}, count
    yield conventions.REQUESTS, {}, tally.requests
    if operations is None:
        return
    yield conventions.RETRIES, {}, max(0, tally.requests - operations.count)
    for status, count in operations.refusals.items():
        yield conventions.REFUSALS, {conventions.STATUS_CODE: status}, count
    for ending, durations in operations.durations_ms.items():
        error = {} if ending == ANSWERED else {conventions.ERROR_TYPE: ending}
        yield conventions.DURATION, error, Histogram(durations.buckets, durations.sum / 1000)
    sorts = {"input": operations.prompt_tokens, "output": operations.completion_tokens}
    for sort, tokens in sorts.items():
        if tokens.count:
            yield conventions.TOKENS, {conventions.TOKEN_TYPE: sort}, tokens


def not_below(points: Points, earlier: Points) -> Points:
    """Return points whose totals are in no number less than earlier ones; gauges are as they are now.

    A total goes down where a task is tried again, and where a chunk's exact counts are fewer than its live ones.
    Consumers would take that for a restart, and count everything twice.
    """
    totals = {series: number for series, number in earlier.items() if series.metric.kind != "gauge"}
    for series, number in points.items():
        before: Any = totals.get(series, number)
        totals[series] = number.at_least(before) if isinstance(number, Histogram) else max(number, before)
    return totals


def since(points: Points, earlier: Points) -> Points:
    """Return what came on top of earlier totals, where something did; gauges are as they are now."""
    return {
        series: change
        for series, number in points.items()
        if (change := _change(series, number, earlier.get(series))) not in (0, Histogram())
    }


def _change(series: Series, number: Number, before: Any) -> Number:  # noqa: ANN401 -- of the same type, or None
    if before is None or series.metric.kind == "gauge":
        return number
    return number.minus(before) if isinstance(number, Histogram) else number - before


def as_counters(points: Points) -> Points:
    """Return points without histograms: the count and the sum of each in their place."""
    return {series: number for each in points.items() for series, number in _counters(*each)}


def _counters(series: Series, number: Number) -> Iterator[tuple[Series, float]]:
    if not isinstance(number, Histogram):
        yield series, number
    elif series.metric == conventions.DURATION:
        yield series._replace(metric=conventions.OPERATIONS), number.count
        yield series._replace(metric=conventions.OPERATION_TIME), number.sum
    else:
        yield series._replace(metric=conventions.TOKEN_SUM), number.sum


def histograms(points: Points) -> Points:
    """Return the histograms among points."""
    return {series: number for series, number in points.items() if isinstance(number, Histogram)}
