"""Running counts of a chunk: what a task counts, how that travels in datagrams, and what they all come to.

Counts are cumulative, so that a datagram that is lost, late or doubled does no harm. Knows no socket and no clock.
"""

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from spark_llm.errors import KINDS
from spark_llm.metering.tally import Tally, total_of
from spark_llm.protocol.values import Result

MAC_BYTES = 16
MOST_BYTES = 1_200  # of a datagram of several columns: every route carries so many in one piece
_SUMS = ("asked", "prompt_tokens", "completion_tokens", "cached_tokens", "total_tokens", "requests")


class Sender(NamedTuple):
    """Who counts: an attempt at one partition of a chunk; a later attempt has a greater number."""

    chunk: int
    partition: int
    attempt: int


class Count(NamedTuple):
    """What one column of a partition has come to; `rows` that asked nothing are counted in none of the tally."""

    rows: int = 0
    tally: Tally = Tally()

    @classmethod
    def of(cls, results: Sequence[Result | None]) -> "Count":
        """Count results; None is a row that asked nothing."""
        asked = [result for result in results if result is not None]
        usages = [result.usage for result in asked if result.usage is not None]
        tally = Tally(
            asked=len(asked),
            failed=dict(Counter(result.error.kind for result in asked if result.error is not None)),
            prompt_tokens=sum(usage.prompt_tokens or 0 for usage in usages),
            completion_tokens=sum(usage.completion_tokens or 0 for usage in usages),
            cached_tokens=sum(usage.cached_tokens or 0 for usage in usages),
            total_tokens=sum(usage.total_tokens or 0 for usage in usages),
            requests=sum(result.requests for result in asked),
        )
        return cls(len(results), tally)

    def plus(self, other: "Count") -> "Count":
        """Add two up."""
        return Count(self.rows + other.rows, self.tally.plus(other.tally))


def written(secret: bytes, sender: Sender, columns: Mapping[str, Count]) -> Iterator[bytes]:
    """Write counts as signed datagrams: one, or as many as `MOST_BYTES` and long names of columns ask for."""
    gathered: list[str] = []
    size = 0
    for name, count in columns.items():
        column = _json([name, count.rows, *(getattr(count.tally, part) for part in _SUMS), count.tally.failed])
        if gathered and size + _bytes(column) > MOST_BYTES - _ENVELOPE:
            yield _signed(secret, sender, gathered)
            gathered, size = [], 0
        gathered.append(column)
        size += _bytes(column) + 1  # and the comma
    if gathered:
        yield _signed(secret, sender, gathered)


def read(secret: bytes, datagram: bytes) -> tuple[Sender, dict[str, Count]] | None:
    """Return who counts and what; None for whatever `written` did not write with this secret."""
    mac, payload = datagram[:MAC_BYTES], datagram[MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(secret, payload)):
        return None
    try:  # the sender is ours, but its version may be another
        chunk, partition, attempt, columns = json.loads(payload.decode("utf-8", "surrogatepass"))
        sender = Sender(*map(_whole, (chunk, partition, attempt)))
        return sender, dict(map(_column, columns))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


class RunningCounts:
    """What the datagrams of the chunk that is running come to: of each partition its latest attempt."""

    def __init__(self, secret: bytes) -> None:
        """Count nothing yet, and only what is signed with this secret."""
        self._secret = secret
        self._chunk: int | None = None
        self._latest: dict[int, tuple[int, dict[str, Count]]] = {}  # by partition: the attempt, and its columns

    def begin(self, chunk: int) -> None:
        """Forget what was counted, and count this chunk alone."""
        self._chunk, self._latest = chunk, {}

    def end(self) -> None:
        """Forget what was counted, and count nothing until the next chunk begins."""
        self._chunk, self._latest = None, {}

    def take(self, datagram: bytes) -> None:
        """Count what a datagram tells, if it is one of ours and tells anything new."""
        if (told := read(self._secret, datagram)) is None or told[0].chunk != self._chunk:
            return
        (_, partition, attempt), columns = told
        latest, known = self._latest.get(partition, (-1, {}))
        if attempt > latest:
            self._latest[partition] = attempt, columns
        elif attempt == latest:  # datagrams overtake each other: what counts more is the later one
            news = {name: count for name, count in columns.items() if count.rows > known.get(name, Count()).rows}
            known.update(news)

    def counts(self) -> dict[str, Tally]:
        """Return what was counted, by column."""
        partitions = self._counts()
        return {
            name: total_of(columns[name].tally for columns in partitions if name in columns) for name in self._names()
        }

    def rows(self) -> int:
        """Return how many rows are done: those that the slowest column of their partition is done with."""
        names = self._names()
        return sum(min(counts.get(name, Count()).rows for name in names) for counts in self._counts())

    def _counts(self) -> list[dict[str, Count]]:
        return [counts for _, counts in self._latest.values()]

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for counts in self._counts() for name in counts))


def _signed(secret: bytes, sender: Sender, columns: Sequence[str]) -> bytes:
    payload = f"[{','.join(map(str, sender))},[{','.join(columns)}]]".encode("utf-8", "surrogatepass")
    return _mac(secret, payload) + payload


def _mac(secret: bytes, payload: bytes) -> bytes:
    return hmac.digest(secret, payload, hashlib.sha256)[:MAC_BYTES]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _column(column: Sequence[object]) -> tuple[str, Count]:
    name, rows, *sums, failed = column
    if not isinstance(name, str) or not isinstance(failed, dict):
        raise TypeError
    kinds = {kind: _whole(failed[kind]) for kind in KINDS if kind in failed}
    numbers = dict(zip(_SUMS, map(_whole, sums), strict=True))
    if len(kinds) < len(failed) or sum(kinds.values()) > numbers["asked"] or numbers["asked"] > _whole(rows):
        raise ValueError
    return name, Count(_whole(rows), Tally(failed=kinds, **numbers))


def _whole(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError
    return value


_ENVELOPE = MAC_BYTES + 3 * 20 + 10  # three numbers of 64 bits, and the brackets
