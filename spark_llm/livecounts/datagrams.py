"""The datagrams of live counts: their format, and the sum of those of one chunk or `progress` block. It is pure.

Counts are cumulative, so a datagram that is lost, late or duplicated does no harm.
"""

import json
import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from spark_llm.errors import KINDS
from spark_llm.livecounts.column_count import Count
from spark_llm.livecounts.signing import MAC_BYTES, signed, verified
from spark_llm.metering.operations import ANSWERED, BUCKETS, Histogram, Operations, operations_total
from spark_llm.metering.tally import NUMBERS, TOKENS, Tally, total_of

MAX_BYTES = 1_200  # of a datagram with several columns: every route carries this without fragments
MAX_PLACES = 10_000  # partitions that are kept apart; those that were heard longest ago become one sum


class Sender(NamedTuple):
    """The source of counts: a stream of rows in a task.

    Attributes:
        chunk: The number of the table job's chunk, or of the `progress` block.
        stage: The number of Spark's stage.
        partition: The number of the partition.
        attempt: The number of the attempt at the partition; a later attempt has a greater one.
        stream: Tells the streams of one attempt apart: a task may run several UDFs, each in a process of its own.
    """

    chunk: int
    stage: int
    partition: int
    attempt: int
    stream: int


class Report(NamedTuple):
    """What a datagram tells: its sender, whether the stream has come to its end, and its counts by column."""

    sender: Sender
    ended: bool
    columns: Mapping[str, Count]


def encoded_counts(secret: bytes, report: Report) -> Iterator[bytes]:
    """Yield a report as signed datagrams of `MAX_BYTES` at most; one column with a long name may exceed it."""
    gathered: list[str] = []
    size = 0
    for name, count in report.columns.items():
        tally = count.tally
        tiers = {tier: _numbers(part, TOKENS) for tier, part in tally.tiers.items()}
        operations = None if count.operations is None else _compact_operations(count.operations)
        column = compact_json([name, count.rows, *_numbers(tally, NUMBERS), tally.failed, tiers, operations])
        if gathered and size + _utf8_size(column) > MAX_BYTES - _ENVELOPE_BYTES:
            yield signed(secret, _payload(report, gathered))
            gathered, size = [], 0
        gathered.append(column)
        size += _utf8_size(column) + 1  # and the comma
    if gathered:
        yield signed(secret, _payload(report, gathered))


def decoded_counts(secret: bytes, datagram: bytes) -> Report | None:
    """Return the report; None unless `encoded_counts` signed the bytes with this secret."""
    if (payload := verified(secret, datagram)) is None:
        return None
    try:  # a signed datagram may be of another version
        *numbers, ended, columns = json.loads(payload.decode("utf-8", "surrogatepass"))
        sender = Sender(*map(non_negative, numbers))
        return Report(sender, bool(non_negative(ended)), dict(map(_decoded_column, columns)))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


@dataclass
class _Attempt:
    """What the streams of an attempt at a partition have reported, by stream and column."""

    columns: dict[int, dict[str, Count]] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)  # streams

    def receive(self, report: Report) -> None:
        """Note a report. Datagrams overtake each other: the greater count is the later one."""
        known = self.columns.setdefault(report.sender.stream, {})
        known |= {name: each for name, each in report.columns.items() if each.rows > known.get(name, Count()).rows}
        if report.ended:
            self.ended.add(report.sender.stream)

    @property
    def has_ended(self) -> bool:
        """Whether all its streams have come to their end, as far as they have reported."""
        return len(self.ended) == len(self.columns)


class RunningCounts:
    """The sum of the datagrams of the running chunk or block: of each partition of a stage, one attempt counts.

    That is the latest attempt, but for one that has answered all its rows: a speculative copy may be killed.
    """

    def __init__(self, secret: bytes) -> None:
        """Count nothing yet; later, only datagrams that are signed with this secret."""
        self._secret = secret
        self._chunk: int | None = None
        self._names: tuple[str, ...] = ()
        self._places = OrderedDict[tuple[int, int], dict[int, _Attempt]]()  # attempts by stage and partition
        self._folded_rows, self._folded = 0, dict[str, Count]()  # of places that were heard long ago

    def begin(self, chunk: int, columns: Iterable[str] = ()) -> None:
        """Reset the counts, and count this chunk or block only.

        A row is not done before all `columns` have reported it; without their names, all that its stream has reported.
        """
        self.end()
        self._chunk, self._names = chunk, tuple(columns)

    def end(self) -> None:
        """Reset the counts, and count nothing until the next chunk begins."""
        self._chunk, self._names = None, ()
        self._places.clear()
        self._folded_rows, self._folded = 0, {}

    def receive(self, datagram: bytes) -> None:
        """Count a datagram if it is signed, of this chunk and newer than the known counts."""
        report = decoded_counts(self._secret, datagram)
        if report is None or report.sender.chunk != self._chunk:
            return
        place = report.sender.stage, report.sender.partition
        self._places.setdefault(place, {}).setdefault(report.sender.attempt, _Attempt()).receive(report)
        self._places.move_to_end(place)
        if len(self._places) > MAX_PLACES:
            _, attempts = self._places.popitem(last=False)
            self._folded_rows += self._rows([attempts])
            self._folded = {name: Count.total(counts) for name, counts in self._by_column([attempts]).items()}

    def counts(self) -> dict[str, Tally]:
        """Return the tallies by column."""
        counts = self._by_column(self._places.values()).items()
        return dict.fromkeys(self._names, Tally()) | {name: total_of(each.tally for each in of) for name, of in counts}

    def operations(self) -> dict[str, Operations]:
        """Return the operations of each column whose tasks count them."""
        counts = self._by_column(self._places.values()).items()
        known = {name: [each.operations for each in of if each.operations is not None] for name, of in counts}
        return {name: operations_total(each) for name, each in known.items() if each}

    def rows(self) -> int:
        """Return the number of rows that are done, by the slowest column of each stream."""
        return self._folded_rows + self._rows(self._places.values())

    def _rows(self, places: Iterable[Mapping[int, _Attempt]]) -> int:
        return sum(
            min([columns.get(name, Count()).rows for name in self._names or columns], default=0)
            for columns in _streams(places)
        )

    def _by_column(self, places: Iterable[Mapping[int, _Attempt]]) -> dict[str, list[Count]]:
        """Return the counts of places and the sum of those that were folded, by column."""
        parts = {name: [count] for name, count in self._folded.items()}
        for columns in _streams(places):
            for name, count in columns.items():
                parts.setdefault(name, []).append(count)
        return parts


def _streams(places: Iterable[Mapping[int, _Attempt]]) -> Iterator[Mapping[str, Count]]:
    """Yield the counts of each stream of the attempt that counts at each place, by column."""
    for attempts in places:
        number = max(attempts, key=lambda number: (attempts[number].has_ended, number))
        yield from attempts[number].columns.values()


def _payload(report: Report, columns: Sequence[str]) -> bytes:
    numbers = ",".join(map(str, (*report.sender, int(report.ended))))
    return f"[{numbers},[{','.join(columns)}]]".encode("utf-8", "surrogatepass")


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
    prompts = numbers["asked"] + numbers["cancelled"]
    if len(kinds) < len(failed) or sum(kinds.values()) > numbers["asked"] or prompts > non_negative(rows):
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


_ENVELOPE_BYTES = MAC_BYTES + 5 * 20 + 12  # five numbers of 64 bits, one of a bit, and the brackets
