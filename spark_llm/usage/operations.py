"""The operations of a column of answers: aggregates that give the same histograms as workers count live.

Each histogram is one aggregate. Its values are whole numbers, fewer than it has bins, so it is exact.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from spark_llm.errors import KINDS
from spark_llm.metering.operations import (
    ANSWERED,
    BUCKETS,
    DURATION_BOUNDS_MS,
    TOKEN_BOUNDS,
    Histogram,
    Operations,
)
from spark_llm.protocol.identifiers import struct
from spark_llm.usage.answers import AnswerColumn

_ENDINGS = (ANSWERED, *KINDS)
_BINS = 256  # 15 endings of 15 buckets are 225


def operation_aggregate(answers: AnswerColumn, requests: str) -> str:
    """Return the aggregate that makes the operations of a column; `requests` is the row's HTTP requests, as SQL."""
    kind, duration_ms = answers.field("error", "kind"), f"CAST({answers.field('latency_ms')} AS DOUBLE)"
    timed = f"CASE WHEN {requests} > 0 THEN {duration_ms} END"
    ending = f"coalesce(array_position(array({', '.join(map(repr, KINDS))}), {kind}), 0)"
    sums = [f"sum(CASE WHEN {ending} = {number} THEN {timed} END)" for number in range(len(_ENDINGS))]
    parts = {
        "durations": _histogram(f"{ending} * {BUCKETS} + {_bucket(timed, DURATION_BOUNDS_MS)}"),
        "duration_sums": f"array({', '.join(sums)})",
    }
    for name in ("prompt_tokens", "completion_tokens"):
        sent = f"CASE WHEN {answers.field('attempts')} > 0 THEN {answers.tokens(name)} END"
        parts |= {name: _histogram(_bucket(sent, TOKEN_BOUNDS)), f"{name}_sum": f"sum({sent})"}
    return f"to_json({struct(parts)})"


def operations_from(value: str | None) -> Operations:
    """Return the operations of the aggregate's value; without a value there were no rows."""
    parts = json.loads(value or "{}")
    numbers, sums = _counts(parts.get("durations")), parts.get("duration_sums")
    durations = {
        ending: Histogram(tuple(numbers[place * BUCKETS + bucket] for bucket in range(BUCKETS)), sums[place] or 0)
        for place, ending in enumerate(_ENDINGS)
        if sums and sums[place] is not None
    }
    prompt, completion = (
        Histogram(tuple(counts[bucket] for bucket in range(BUCKETS)), parts.get(f"{name}_sum") or 0)
        for name in ("prompt_tokens", "completion_tokens")
        for counts in [_counts(parts.get(name))]
    )
    return Operations(durations, prompt, completion)


def _bucket(number: str, bounds: Sequence[float]) -> str:
    return " + ".join(f"CAST({number} > {bound}D AS INT)" for bound in bounds)


def _histogram(number: str) -> str:
    return f"histogram_numeric(CAST({number} AS DOUBLE), {_BINS})"


def _counts(histogram: Sequence[Mapping[str, float]] | None) -> Counter[int]:
    """Return the counts by number; partial histograms may have a number more than once."""
    counts = Counter[int]()
    for part in histogram or ():
        counts[round(part["x"])] += round(part["y"])
    return counts
