"""What the results of a column come to: rows, a tally and, where someone exports them, operations. It is pure."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any, NamedTuple

from spark_llm.metering.operations import (
    ANSWERED,
    DURATION_BOUNDS_MS,
    TOKEN_BOUNDS,
    Histogram,
    Operations,
    operations_total,
)
from spark_llm.metering.tally import TOKENS, Tally, total_of
from spark_llm.protocol.values import Result, Usage


class Count(NamedTuple):
    """The counts of one column, of a stream or of several.

    Rows that asked nothing count in `rows`, not in `tally`. `operations` are counted only where someone exports them.
    """

    rows: int = 0
    tally: Tally = Tally()
    operations: Operations | None = None

    @classmethod
    def of(cls, results: Sequence[Result | None], *, operations: bool = False) -> "Count":
        """Return the count of results; None is a row that asked nothing."""
        asked = [result for result in results if result is not None]
        usages = [usage for result in asked if (usage := result.usage) is not None]
        failed = Counter([error.kind for result in asked if (error := result.error) is not None])
        cancelled = failed.pop("cancelled", 0)
        columns = _columns(usages)
        tally = replace(
            _tokens_of(columns),
            asked=len(asked) - cancelled,
            failed=dict(failed),
            cancelled=cancelled,
            requests=sum([result.requests for result in asked]),
            tiers={
                tier: _tokens_of(_columns([usage for usage in usages if usage.service_tier == tier]))
                for tier in set(filter(None, columns.get("service_tier", ())))
            },
        )
        return cls(len(results), tally, _operations_of(asked) if operations else None)

    @classmethod
    def total(cls, counts: Sequence["Count"]) -> "Count":
        """Return the sum of counts."""
        known = [count.operations for count in counts if count.operations is not None]
        tally = total_of(count.tally for count in counts)
        return cls(sum([count.rows for count in counts]), tally, operations_total(known) if known else None)


def _columns(usages: Sequence[Usage]) -> dict[str, Any]:
    """Return all values of each field: to add them up so costs a third of going from row to row."""
    return dict(zip(Usage._fields, zip(*usages, strict=True), strict=False))


def _tokens_of(columns: Mapping[str, Any]) -> Tally:
    return Tally.of_tokens({name: sum(filter(None, columns.get(name, ()))) for name in TOKENS})


def _operations_of(asked: Sequence[Result]) -> Operations:
    """Return the operations of rows that asked something; a row that another one answered has none."""
    timed = [result for result in asked if result.requests and result.latency_ms is not None]
    durations: dict[str, list[float | None]] = {ANSWERED: []}
    durations[ANSWERED] = [result.latency_ms for result in timed if result.error is None]
    for result in timed if len(durations[ANSWERED]) < len(timed) else ():
        if result.error is not None:
            durations.setdefault(result.error.kind, []).append(result.latency_ms)
    usages = [result.usage for result in asked if result.attempts and result.usage is not None]
    return Operations(
        {kind: _histogram(values, DURATION_BOUNDS_MS) for kind, values in durations.items() if values},
        _histogram([usage.prompt_tokens for usage in usages if usage.prompt_tokens is not None], TOKEN_BOUNDS),
        _histogram([usage.completion_tokens for usage in usages if usage.completion_tokens is not None], TOKEN_BOUNDS),
        dict(Counter(chain.from_iterable([result.refusals for result in asked if result.refusals]))),
    )


def _histogram(values: Iterable[Any], bounds: Sequence[float]) -> Histogram:
    ordered = sorted(values)
    ends = [bisect_right(ordered, bound) for bound in bounds]  # sorting is faster than a bisection for each value
    return Histogram(tuple(end - start for start, end in pairwise([0, *ends, len(ordered)])), sum(ordered))
