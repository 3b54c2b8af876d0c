"""The datagrams of live counts: their format, and the sum of those of one chunk or `progress` block. It is pure.

Counts are cumulative, so a datagram that is lost, late or duplicated does no harm.
"""

import json
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from spark_llm.errors import KINDS
from spark_llm.livecounts.signing import MAC_BYTES, signed, verified
from spark_llm.metering.tally import NUMBERS, TOKENS, Tally, total_of
from spark_llm.protocol.values import Result, Usage

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


class Count(NamedTuple):
    """The counts of one column of a partition; rows that asked nothing count in `rows` and not in `tally`."""

    rows: int = 0
    tally: Tally = Tally()

    @classmethod
    def of(cls, results: Sequence[Result | None]) -> "Count":
        """Return the count of results; None is a row that asked nothing."""
        asked = [result for result in results if result is not None]
        usages = [usage for result in asked if (usage := result.usage) is not None]
        failed = Counter([error.kind for result in asked if (error := result.error) is not None])
        columns = _columns(usages)
        tally = replace(
            _tokens_of(columns),
            asked=len(asked),
            failed=dict(failed),
            requests=sum([result.requests for result in asked]),
            tiers={
                tier: _tokens_of(_columns([usage for usage in usages if usage.service_tier == tier]))
                for tier in set(filter(None, columns.get("service_tier", ())))
            },
        )
        return cls(len(results), tally)

    def plus(self, other: "Count") -> "Count":
        """Return the sum of two counts."""
        return Count(self.rows + other.rows, self.tally.plus(other.tally))


def _columns(usages: Sequence[Usage]) -> dict[str, Any]:
    """Return all values of each field: to add them up so costs a third of going from row to row."""
    return dict(zip(Usage._fields, zip(*usages, strict=True), strict=False))


def _tokens_of(columns: Mapping[str, Any]) -> Tally:
    return Tally.of_tokens({name: sum(filter(None, columns.get(name, ()))) for name in TOKENS})


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
        column = compact_json([name, count.rows, *_numbers(tally, NUMBERS), tally.failed, tiers])
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
        self._folded_rows, self._folded = 0, dict[str, Tally]()  # of places that were heard long ago

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
            self._folded = self._tallies([attempts])

    def counts(self) -> dict[str, Tally]:
        """Return the counts by column."""
        return dict.fromkeys(self._names, Tally()) | self._tallies(self._places.values())

    def rows(self) -> int:
        """Return the number of rows that are done, by the slowest column of each stream."""
        return self._folded_rows + self._rows(self._places.values())

    def _rows(self, places: Iterable[Mapping[int, _Attempt]]) -> int:
        return sum(
            min([columns.get(name, Count()).rows for name in self._names or columns], default=0)
            for columns in _streams(places)
        )

    def _tallies(self, places: Iterable[Mapping[int, _Attempt]]) -> dict[str, Tally]:
        """Return the tallies of places and of those that were folded, by column."""
        parts = {name: [tally] for name, tally in self._folded.items()}
        for columns in _streams(places):
            for name, count in columns.items():
                parts.setdefault(name, []).append(count.tally)
        return {name: total_of(tallies) for name, tallies in parts.items()}


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
    name, rows, *sums, failed, tiers = column
    if not isinstance(name, str) or not isinstance(failed, dict) or not isinstance(tiers, dict):
        raise TypeError
    kinds = {kind: non_negative(failed[kind]) for kind in KINDS if kind in failed}
    numbers = _named(NUMBERS, sums)
    parts = {tier: Tally.of_tokens(_named(TOKENS, tokens)) for tier, tokens in tiers.items()}
    if len(kinds) < len(failed) or sum(kinds.values()) > numbers["asked"] or numbers["asked"] > non_negative(rows):
        raise ValueError
    return name, Count(non_negative(rows), Tally(failed=kinds, tiers=parts, **numbers))


def _named(names: Sequence[str], numbers: Iterable[object]) -> dict[str, Any]:
    return dict(zip(names, map(non_negative, numbers), strict=True))


def non_negative(value: object) -> int:
    """Return a decoded number; raises `TypeError` where it is not a whole one, or less than 0."""
    if type(value) is not int or value < 0:
        raise TypeError
    return value


_ENVELOPE_BYTES = MAC_BYTES + 5 * 20 + 12  # five numbers of 64 bits, one of a bit, and the brackets
