"""Running counts: what a task counts is what the driver reads, whatever the network does to it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import KINDS
from spark_llm.livecounts.datagrams import MAC_BYTES, MOST_BYTES, Count, RunningCounts, Sender, _mac, read, written
from spark_llm.metering.tally import Tally
from spark_llm.protocol.values import Result, RowError, Usage
from tests.support.strategies import JSON, TEXTS

SECRET = b"0123456789abcdef"
WHOLE = st.integers(0, 2**63 - 1)
RESULTS = st.lists(
    st.none()
    | st.builds(
        Result,
        usage=st.none() | st.builds(Usage, *[st.none() | st.integers(0, 2**31 - 1)] * 5),
        error=st.none() | st.builds(RowError, st.sampled_from(KINDS), st.none(), st.just("no."), st.booleans()),
        requests=st.integers(0, 9),
    ),
    max_size=12,
)
COLUMNS = st.dictionaries(TEXTS, RESULTS.map(Count.of), min_size=1, max_size=4)
SENDERS = st.builds(Sender, WHOLE, WHOLE, WHOLE)


def counted(rows: int) -> Count:
    """Return a count of rows that were answered at the first try."""
    return Count.of([Result(text="", requests=1)] * rows)


def datagram(partition: int, attempt: int, chunk: int = 1, **columns: int) -> bytes:
    """Return what an attempt tells of its columns' rows."""
    [only] = written(SECRET, Sender(chunk, partition, attempt), {name: counted(rows) for name, rows in columns.items()})
    return only


def running(*datagrams: bytes) -> RunningCounts:
    """Return what datagrams of chunk 1 come to."""
    chunk = RunningCounts(SECRET)
    chunk.begin(1)
    for each in datagrams:
        chunk.take(each)
    return chunk


def asked(chunk: RunningCounts) -> dict[str, int]:
    """Return how many rows were asked, by column."""
    return {name: tally.asked for name, tally in chunk.counts().items()}


@given(RESULTS, RESULTS)
def test_counting_in_pieces_is_counting_at_once(first: list[Result | None], then: list[Result | None]) -> None:
    """A task may count as results come."""
    assert Count.of(first + then) == Count.of(first).plus(Count.of(then))


@given(RESULTS)
def test_everything_is_counted(results: list[Result | None]) -> None:
    """Rows, errors by kind, tokens and requests; a row that asked nothing is only a row."""
    count = Count.of(results)
    there = [result for result in results if result is not None]

    assert (len(results), len(there)) == (count.rows, count.tally.asked)
    assert Counter(result.error.kind for result in there if result.error) == count.tally.failed
    assert sum(result.requests for result in there) == count.tally.requests
    assert sum(result.usage.total_tokens or 0 for result in there if result.usage) == count.tally.total_tokens


@given(SENDERS, COLUMNS)
def test_what_is_written_is_read(sender: Sender, columns: dict[str, Count]) -> None:
    """Column by column, over as many datagrams as it takes, none larger than a route carries whole."""
    datagrams = list(written(SECRET, sender, columns))
    told = [read(SECRET, each) for each in datagrams]

    assert [sender] * len(told) == [each[0] for each in told if each]
    assert columns == {name: count for each in told if each for name, count in each[1].items()}
    assert max(map(len, datagrams)) <= MOST_BYTES


def test_ten_columns_fit_in_a_datagram() -> None:
    """Of a long job, with errors; and forty in a few."""
    tally = Tally(12_000, {"rate_limited": 100}, 1_234_567, 234_567, 123_456, 1_469_134, 12_345)
    columns = {f"column_number_{number}": Count(12_000, tally) for number in range(40)}
    ten = dict(list(columns.items())[:10])

    assert [923] == [len(each) for each in written(SECRET, Sender(12, 199, 123_456), ten)]
    assert 4 == len(list(written(SECRET, Sender(12, 199, 123_456), columns)))


@given(SENDERS, COLUMNS, st.data())
def test_a_flipped_bit_is_nothing(sender: Sender, columns: dict[str, Count], data: st.DataObject) -> None:
    """Wherever it is."""
    first = next(written(SECRET, sender, columns))
    bit = data.draw(st.integers(0, 8 * len(first) - 1))
    flipped = bytearray(first)
    flipped[bit // 8] ^= 1 << bit % 8

    assert read(SECRET, bytes(flipped)) is None


@given(SENDERS, COLUMNS, st.data())
def test_a_datagram_that_is_cut_is_nothing(sender: Sender, columns: dict[str, Count], data: st.DataObject) -> None:
    """Wherever it is cut."""
    first = next(written(SECRET, sender, columns))

    assert read(SECRET, first[: data.draw(st.integers(0, len(first) - 1))]) is None


@given(st.binary(max_size=200))
def test_garbage_is_nothing(garbage: bytes) -> None:
    """Nor is what somebody else signed."""
    assert read(SECRET, garbage) is None
    assert read(SECRET, _mac(b"another" * 2, garbage) + garbage) is None


@given(st.binary(max_size=60) | JSON.map(lambda value: str(value).replace("'", '"').encode("utf-8", "surrogatepass")))
def test_garbage_of_our_own_is_nothing(garbage: bytes) -> None:
    """A worker may run another version: what it signs is ours, and is not what we read."""
    assert read(SECRET, _mac(SECRET, garbage) + garbage) is None


@pytest.mark.parametrize(
    "payload",
    [
        "[1,2,3]",
        "[1,2,-3,[]]",
        "[1,2,true,[]]",
        '[1,2,3,[["a",1,1,0,0,0,0,{}]]]',
        '[1,2,3,[["a",1,1,0,0,0,0,0,0,{}]]]',
        '[1,2,3,[["a",1,2,0,0,0,0,0,{}]]]',
        '[1,2,3,[["a",1,1,0,0,0,0,0,{"timeout":2}]]]',
        '[1,2,3,[["a",1,1,0,0,0,0,0,{"new_kind":1}]]]',
        '[1,2,3,[["a",1,1,0,0,0,0,0.5,{}]]]',
        '[1,2,3,[[["a"],1,1,0,0,0,0,0,{}]]]',
        '[1,2,3,[["a",1,1,0,0,0,0,0,[]]]]',
        '[1,2,3,["a"]]',
        "[" * 100_000,
        "9" * 5_000,
    ],
)
def test_counts_that_cannot_be_are_nothing(payload: str) -> None:
    """A number too many, one below 0, more failed than asked, a kind that there is not: however it was signed."""
    signed = _mac(SECRET, payload.encode()) + payload.encode()

    assert read(SECRET, signed) is None
    assert MAC_BYTES == len(signed) - len(payload)


def test_partitions_add_up() -> None:
    """Each counts with what it told last, however often it told it and in whatever order that came."""
    chunk = running(
        datagram(0, 7, mood=3),
        datagram(1, 8, mood=10),
        datagram(0, 7, mood=5),
        datagram(0, 7, mood=4),
        datagram(0, 7, mood=5),
    )

    assert {"mood": 15} == asked(chunk)
    assert 15 == chunk.rows()


def test_the_latest_attempt_counts() -> None:
    """Also when it has less, and when an earlier one is heard after it: what that had is asked again."""
    chunk = running(
        datagram(0, 7, mood=50, topic=20), datagram(0, 9, mood=2), datagram(0, 7, mood=60), datagram(0, 8, mood=70)
    )

    assert {"mood": 2} == asked(chunk)


def test_a_chunk_counts_itself_alone() -> None:
    """Not the one before, whose tasks may still talk; before the first and after an end, nothing counts."""
    chunk = RunningCounts(SECRET)
    chunk.take(datagram(0, 1, chunk=1, mood=5))
    before = asked(chunk)
    chunk.begin(2)
    for late in (datagram(0, 1, chunk=1, mood=5), datagram(0, 2, chunk=2, mood=3)):
        chunk.take(late)
    during = asked(chunk)
    chunk.end()
    chunk.take(datagram(0, 2, chunk=2, mood=9))

    assert ({}, {"mood": 3}, {}) == (before, during, asked(chunk))
    assert 0 == chunk.rows()


def test_a_row_is_done_when_its_slowest_column_is() -> None:
    """In each partition; a column that only some partitions have told of is slowest in the others."""
    assert 3 + 4 == running(datagram(0, 1, mood=3, topic=10), datagram(1, 2, mood=9, topic=4)).rows()
    assert 3 == running(datagram(0, 1, mood=3, topic=10), datagram(1, 2, mood=9)).rows()


def test_a_row_that_asks_only_some_columns_is_done_too() -> None:
    """A column passes over the rows that ask it nothing."""
    columns = {"mood": Count.of([Result()] * 8), "topic": Count.of([None, Result(), *[None] * 6])}
    [told] = written(SECRET, Sender(1, 0, 1), columns)

    assert 8 == running(told).rows()
    assert {"mood": 8, "topic": 1} == asked(running(told))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 20)), max_size=20), st.randoms())
def test_no_order_of_arrival_changes_what_it_comes_to(told: list[tuple[int, int, int]], dice: object) -> None:
    """Nor does it when each comes twice: of a partition, the most of the latest attempt."""
    datagrams = [datagram(partition, attempt, mood=rows) for partition, attempt, rows in told]
    shuffled = datagrams * 2
    dice.shuffle(shuffled)  # type: ignore[attr-defined]  # random.Random
    latest = {partition: max(attempt for where, attempt, _ in told if where == partition) for partition, _, _ in told}
    expected = sum(
        max(rows for *where, rows in told if tuple(where) == (partition, attempt))
        for partition, attempt in latest.items()
    )

    assert expected == running(*shuffled).rows()
    assert expected == asked(running(*shuffled)).get("mood", 0)
