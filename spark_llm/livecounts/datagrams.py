"""The datagrams of live counts: their format, and the sum of those of one chunk. It is pure.

Counts are cumulative, so a datagram that is lost, late or duplicated does no harm.
"""

import json
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any, NamedTuple

from spark_llm.errors import KINDS
from spark_llm.livecounts.signing import MAC_BYTES, signed, verified
from spark_llm.metering.operations import (
    ANSWERED,
    BUCKETS,
    DURATION_BOUNDS_MS,
    TOKEN_BOUNDS,
    Histogram,
    Operations,
    operations_total,
)
from spark_llm.metering.tally import NUMBERS, TOKENS, Tally, total_of
from spark_llm.protocol.values import Result, Usage

MAX_BYTES = 1_200  # of a datagram with several columns: every route carries this without fragments


class Sender(NamedTuple):
    """The source of counts: an attempt at one partition of a chunk; a later attempt has a greater number."""

    chunk: int
    partition: int
    attempt: int


class Count(NamedTuple):
    """The counts of one column of a partition; rows that asked nothing count in `rows` and not in `tally`.

    `operations` are counted only where someone exports them.
    """

    rows: int = 0
    tally: Tally = Tally()
    operations: Operations | None = None

    @classmethod
    def of(cls, results: Sequence[Result | None], *, operations: bool = False) -> "Count":
        """Return the count of results; None is a row that asked nothing."""
        asked = [result for result in results if result is not None]
        usages = [result.usage for result in asked if result.usage is not None]
        tiers = {usage.service_tier for usage in usages}
        errors = [result.error.kind for result in asked if result.error is not None]
        tally = replace(
            _tokens_of(usages),
            asked=len(asked),
            failed=dict(Counter(errors)),
            requests=sum([result.requests for result in asked]),
            tiers={
                tier: _tokens_of([usage for usage in usages if usage.service_tier == tier]) for tier in tiers if tier
            },
        )
        return cls(len(results), tally, operations_of(asked) if operations else None)

    def plus(self, other: "Count") -> "Count":
        """Return the sum of two counts."""
        known = [each for each in (self.operations, other.operations) if each is not None]
        operations = operations_total(known) if known else None
        return Count(self.rows + other.rows, self.tally.plus(other.tally), operations)


def _tokens_of(usages: Sequence[Usage]) -> Tally:
    columns = dict(zip(Usage._fields, zip(*usages, strict=True), strict=False))  # none without usages
    return Tally.of_tokens({name: sum(filter(None, columns.get(name, ()))) for name in TOKENS})


def operations_of(asked: Sequence[Result]) -> Operations:
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


def encoded_counts(secret: bytes, sender: Sender, columns: Mapping[str, Count]) -> Iterator[bytes]:
    """Yield counts as signed datagrams of `MAX_BYTES` at most; one column with a long name may exceed it."""
    gathered: list[str] = []
    size = 0
    for name, count in columns.items():
        tally = count.tally
        tiers = {tier: _numbers(part, TOKENS) for tier, part in tally.tiers.items()}
        operations = None if count.operations is None else _compact_operations(count.operations)
        column = compact_json([name, count.rows, *_numbers(tally, NUMBERS), tally.failed, tiers, operations])
        if gathered and size + _utf8_size(column) > MAX_BYTES - _ENVELOPE_BYTES:
            yield signed(secret, _payload(sender, gathered))
            gathered, size = [], 0
        gathered.append(column)
        size += _utf8_size(column) + 1  # and the comma
    if gathered:
        yield signed(secret, _payload(sender, gathered))


def decoded_counts(secret: bytes, datagram: bytes) -> tuple[Sender, dict[str, Count]] | None:
    """Return the sender and its counts by column; None unless `encoded_counts` signed the bytes with this secret."""
    if (payload := verified(secret, datagram)) is None:
        return None
    try:  # a signed datagram may be of another version
        chunk, partition, attempt, columns = json.loads(payload.decode("utf-8", "surrogatepass"))
        sender = Sender(*map(non_negative, (chunk, partition, attempt)))
        return sender, dict(map(_decoded_column, columns))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


class RunningCounts:
    """The sum of the running chunk's datagrams: the latest attempt of each partition counts."""

    def __init__(self, secret: bytes) -> None:
        """Count nothing yet; later, only datagrams that are signed with this secret."""
        self._secret = secret
        self._chunk: int | None = None
        self._columns: tuple[str, ...] = ()
        self._latest: dict[int, tuple[int, dict[str, Count]]] = {}  # by partition: the attempt, and its columns

    def begin(self, chunk: int, columns: Iterable[str] = ()) -> None:
        """Reset the counts, and count this chunk only; a row is not done before all `columns` have reported it."""
        self._chunk, self._columns, self._latest = chunk, tuple(columns), {}

    def end(self) -> None:
        """Reset the counts, and count nothing until the next chunk begins."""
        self._chunk, self._latest = None, {}

    def receive(self, datagram: bytes) -> None:
        """Count a datagram if it is signed, of this chunk and newer than the known counts."""
        if (decoded := decoded_counts(self._secret, datagram)) is None or decoded[0].chunk != self._chunk:
            return
        (_, partition, attempt), columns = decoded
        latest, known = self._latest.get(partition, (-1, {}))
        if attempt > latest:
            self._latest[partition] = attempt, columns
        elif attempt == latest:  # datagrams overtake each other: the greater count is the later one
            newer = {name: count for name, count in columns.items() if count.rows > known.get(name, Count()).rows}
            known.update(newer)

    def counts(self) -> dict[str, Tally]:
        """Return the counts by column."""
        partitions = self._partition_counts()
        return {
            name: total_of(columns[name].tally for columns in partitions if name in columns)
            for name in self._column_names()
        }

    def operations(self) -> dict[str, Operations]:
        """Return the operations of each column whose tasks count them."""
        counts = [item for columns in self._partition_counts() for item in columns.items()]
        known = [(name, count.operations) for name, count in counts if count.operations is not None]
        return {name: operations_total(each for other, each in known if other == name) for name in dict(known)}

    def rows(self) -> int:
        """Return the number of rows that are done, by the slowest column of each partition."""
        names = self._column_names()
        return sum(min(counts.get(name, Count()).rows for name in names) for counts in self._partition_counts())

    def _partition_counts(self) -> list[dict[str, Count]]:
        return [counts for _, counts in self._latest.values()]

    def _column_names(self) -> list[str]:
        reported = (name for counts in self._partition_counts() for name in counts)
        return list(dict.fromkeys([*self._columns, *reported]))


def _payload(sender: Sender, columns: Sequence[str]) -> bytes:
    return f"[{','.join(map(str, sender))},[{','.join(columns)}]]".encode("utf-8", "surrogatepass")


def _numbers(tally: Tally, names: Sequence[str]) -> list[int]:
    return [getattr(tally, name) for name in names]


def compact_json(value: object) -> str:
    """Return a value as JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _utf8_size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _decoded_column(column: Sequence[object]) -> tuple[str, Count]:
    name, rows, *sums, failed, tiers, operations = column
    if not isinstance(name, str) or not isinstance(failed, dict) or not isinstance(tiers, dict):
        raise TypeError
    kinds = {kind: non_negative(failed[kind]) for kind in KINDS if kind in failed}
    numbers = _named(NUMBERS, sums)
    parts = {tier: Tally.of_tokens(_named(TOKENS, tokens)) for tier, tokens in tiers.items()}
    if len(kinds) < len(failed) or sum(kinds.values()) > numbers["asked"] or numbers["asked"] > non_negative(rows):
        raise ValueError
    tally = Tally(failed=kinds, tiers=parts, **numbers)
    return name, Count(non_negative(rows), tally, None if operations is None else _decoded_operations(operations))


def _compact_operations(operations: Operations) -> list[object]:
    histograms = operations.prompt_tokens, operations.completion_tokens
    durations = {kind: _compact(histogram) for kind, histogram in operations.durations_ms.items()}
    return [durations, *map(_compact, histograms), list(operations.refusals.items())]


def _compact(histogram: Histogram) -> list[float]:
    """Return the sum, the number of the first bucket that is not empty, and the counts from there to the last such."""
    used = [bucket for bucket, count in enumerate(histogram.buckets) if count] or [0]
    return [histogram.sum, used[0], *histogram.buckets[used[0] : used[-1] + 1]]


def _decoded_operations(value: Any) -> Operations:  # noqa: ANN401 -- what JSON holds
    durations, prompt, completion, refusals = value
    if not set(durations) <= {ANSWERED, *KINDS}:
        raise ValueError
    return Operations(
        {kind: _decoded_histogram(histogram) for kind, histogram in durations.items()},
        _decoded_histogram(prompt),
        _decoded_histogram(completion),
        {non_negative(status): non_negative(count) for status, count in refusals},
    )


def _decoded_histogram(value: Any) -> Histogram:  # noqa: ANN401 -- what JSON holds
    total, first, *counts = value
    empty_after = BUCKETS - non_negative(first) - len(counts)
    if type(total) not in (int, float) or not 0 <= total < math.inf or empty_after < 0:
        raise ValueError
    return Histogram((*[0] * first, *map(non_negative, counts), *[0] * empty_after), total)


def _named(names: Sequence[str], numbers: Iterable[object]) -> dict[str, Any]:
    return dict(zip(names, map(non_negative, numbers), strict=True))


def non_negative(value: object) -> int:
    """Return a decoded number; raises `TypeError` where it is not a whole one, or less than 0."""
    if type(value) is not int or value < 0:
        raise TypeError
    return value


_ENVELOPE_BYTES = MAC_BYTES + 3 * 20 + 10  # three numbers of 64 bits, and the brackets
