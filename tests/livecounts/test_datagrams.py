"""Datagrams of live counts: the driver decodes the counts of the tasks, whatever the network does to them."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader

from spark_llm.errors import KINDS
from spark_llm.livecounts.datagrams import (
    MAX_BYTES,
    Count,
    RunningCounts,
    Sender,
    decoded_counts,
    encoded_counts,
)
from spark_llm.livecounts.signing import signed
from spark_llm.metering.operations import DURATION_BOUNDS_MS, TOKEN_BOUNDS, Histogram, Operations
from spark_llm.metering.tally import Tally
from spark_llm.protocol.values import Result, RowError, Usage
from tests.support.strategies import JSON, TEXTS

SECRET = b"0123456789abcdef"
WHOLE = st.integers(0, 2**63 - 1)
RESULTS = st.lists(
    st.none()
    | st.builds(
        Result,
        usage=st.none()
        | st.builds(Usage, *[st.none() | st.integers(0, 2**31 - 1)] * 6, st.sampled_from([None, "flex", "batch"])),
        error=st.none() | st.builds(RowError, st.sampled_from(KINDS), st.none(), st.just("no."), st.booleans()),
        attempts=st.integers(0, 3),
        requests=st.integers(0, 9),
        latency_ms=st.none() | st.integers(0, 200_000) | st.sampled_from(DURATION_BOUNDS_MS),
        refusals=st.lists(st.sampled_from([429, 503]), max_size=3).map(tuple),
    ),
    max_size=12,
)
COUNTS = st.builds(Count.of, RESULTS, operations=st.booleans())
COLUMNS = st.dictionaries(TEXTS, COUNTS, min_size=1, max_size=4)
SENDERS = st.builds(Sender, WHOLE, WHOLE, WHOLE)


def counted(rows: int) -> Count:
    """Return a count of rows that were answered at the first attempt."""
    return Count.of([Result(text="", requests=1)] * rows)


def datagram(partition: int, attempt: int, chunk: int = 1, **columns: int) -> bytes:
    """Return the datagram of an attempt, with the number of rows of each column."""
    [only] = encoded_counts(
        SECRET, Sender(chunk, partition, attempt), {name: counted(rows) for name, rows in columns.items()}
    )
    return only


def running(*datagrams: bytes) -> RunningCounts:
    """Return the running counts after datagrams of chunk 1."""
    chunk = RunningCounts(SECRET)
    chunk.begin(1)
    for each in datagrams:
        chunk.receive(each)
    return chunk


def asked(chunk: RunningCounts) -> dict[str, int]:
    """Return the number of rows that were asked, by column."""
    return {name: tally.asked for name, tally in chunk.counts().items()}


@given(RESULTS, RESULTS, st.booleans())
def test_counting_in_pieces_is_counting_at_once(
    first: list[Result | None],
    then: list[Result | None],
    operations: bool,  # noqa: FBT001 -- drawn
) -> None:
    """Counts of two parts add up to the count of both."""
    parts = [Count.of(part, operations=operations) for part in (first, then)]
    assert Count.of(first + then, operations=operations) == parts[0].plus(parts[1])


@given(RESULTS)
def test_a_count_has_rows_errors_tokens_and_requests(results: list[Result | None]) -> None:
    """Errors are counted by kind, and a row that asked nothing counts as a row only."""
    count = Count.of(results)
    asked_results = [result for result in results if result is not None]

    assert (len(results), len(asked_results)) == (count.rows, count.tally.asked)
    assert Counter(result.error.kind for result in asked_results if result.error) == count.tally.failed
    assert sum(result.requests for result in asked_results) == count.tally.requests
    usages = [result.usage for result in asked_results if result.usage]
    assert sum(usage.total_tokens or 0 for usage in usages) == count.tally.total_tokens
    flex = sum(usage.cache_write_tokens or 0 for usage in usages if usage.service_tier == "flex")
    assert flex == count.tally.tiers.get("flex", Tally()).cache_write_tokens


@given(RESULTS)
def test_operations_are_those_that_opentelemetry_counts(results: list[Result | None]) -> None:
    """Its own instruments have the same buckets, counts and sums of rows with a request."""
    operations = Count.of(results, operations=True).operations
    asked = [result for result in results if result is not None]
    sent = [result.usage for result in asked if result.usage is not None and result.attempts]
    timed = [result for result in asked if result.requests and result.latency_ms is not None]
    by_kind: dict[str, list[float | None]] = {}
    for result in timed:
        by_kind.setdefault(result.error.kind if result.error else "", []).append(result.latency_ms)

    assert operations is not None
    assert recorded([usage.prompt_tokens for usage in sent], TOKEN_BOUNDS) == operations.prompt_tokens
    assert recorded([usage.completion_tokens for usage in sent], TOKEN_BOUNDS) == operations.completion_tokens
    assert {kind: recorded(of, DURATION_BOUNDS_MS) for kind, of in by_kind.items()} == operations.durations_ms
    assert len(timed) == operations.count
    assert Counter(status for result in asked for status in result.refusals) == operations.refusals


def recorded(values: Sequence[float | None], bounds: Sequence[float]) -> Histogram:
    """Return what OpenTelemetry's SDK makes of the values."""
    numbers = [value for value in values if value is not None]
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("test")
    histogram = meter.create_histogram("values", explicit_bucket_boundaries_advisory=bounds)
    for number in numbers:
        histogram.record(number)
    if not numbers or (data := reader.get_metrics_data()) is None:
        return Histogram()
    [point] = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    assert isinstance(point, HistogramDataPoint)
    return Histogram(tuple(point.bucket_counts), point.sum)


@given(SENDERS, COLUMNS)
def test_encoded_counts_are_decoded(sender: Sender, columns: dict[str, Count]) -> None:
    """The counts of all columns arrive, in datagrams of `MAX_BYTES` at most."""
    datagrams = list(encoded_counts(SECRET, sender, columns))
    decoded = [decoded_counts(SECRET, each) for each in datagrams]

    assert [sender] * len(decoded) == [each[0] for each in decoded if each]
    assert columns == {name: count for each in decoded if each for name, count in each[1].items()}
    assert max(map(len, datagrams)) <= MAX_BYTES


def test_a_column_with_operations_fits_in_a_datagram() -> None:
    """The column is of a long job, and its rows failed in every way."""
    wide = Histogram((0, 0, 0, *[12_345] * 8, 0, 0, 0, 0), 12_345_678.901234)
    late = Histogram((*[0] * 12, 12, 345, 0), 1_234_567.25)
    operations = Operations({"": wide, **dict.fromkeys(KINDS, late)}, wide, wide, {429: 12_345, 503: 12_345})
    tally = Tally(98_765, dict.fromkeys(KINDS, 357), 1_234_567, 234_567, 123_456, 1_469_134, 123_450)
    [only] = encoded_counts(SECRET, Sender(12, 199, 123_456), {"a_column_of_a_job": Count(98_765, tally, operations)})

    assert MAX_BYTES > len(only)
    assert decoded_counts(SECRET, only) is not None


def test_running_counts_have_the_operations_that_tasks_count() -> None:
    """Those of the latest attempts add up; a task that counts none is left out."""
    one = Count.of([Result(usage=Usage(5, 2, 7), attempts=1, requests=1, latency_ms=20.0)] * 3, operations=True)
    datagrams = [
        next(encoded_counts(SECRET, Sender(1, partition, attempt), {"mood": count}))
        for partition, attempt, count in ((0, 1, one), (1, 2, one), (1, 3, one), (2, 4, counted(3)))
    ]
    operations = running(*datagrams).operations()

    assert one.operations is not None
    assert {"mood": one.operations.plus(one.operations)} == operations


def test_ten_columns_fit_in_a_datagram() -> None:
    """The columns are of a long job, with errors; forty of them fit in four datagrams."""
    tally = Tally(12_000, {"rate_limited": 100}, 1_234_567, 234_567, 123_456, 1_469_134, 12_345)
    columns = {f"column_number_{number}": Count(12_000, tally) for number in range(40)}
    ten = dict(list(columns.items())[:10])

    assert [1_023] == [len(each) for each in encoded_counts(SECRET, Sender(12, 199, 123_456), ten)]
    assert 4 == len(list(encoded_counts(SECRET, Sender(12, 199, 123_456), columns)))


@given(SENDERS, COLUMNS, st.data())
def test_a_datagram_with_a_wrong_bit_is_dropped(sender: Sender, columns: dict[str, Count], data: st.DataObject) -> None:
    """The position of the bit does not matter."""
    first = next(encoded_counts(SECRET, sender, columns))
    bit = data.draw(st.integers(0, 8 * len(first) - 1))
    flipped = bytearray(first)
    flipped[bit // 8] ^= 1 << bit % 8

    assert decoded_counts(SECRET, bytes(flipped)) is None


@given(SENDERS, COLUMNS, st.data())
def test_a_truncated_datagram_is_dropped(sender: Sender, columns: dict[str, Count], data: st.DataObject) -> None:
    """The length does not matter."""
    first = next(encoded_counts(SECRET, sender, columns))

    assert decoded_counts(SECRET, first[: data.draw(st.integers(0, len(first) - 1))]) is None


@given(st.binary(max_size=200))
def test_bytes_without_our_signature_are_dropped(garbage: bytes) -> None:
    """Bytes that are signed with another secret are dropped too."""
    assert decoded_counts(SECRET, garbage) is None
    assert decoded_counts(SECRET, signed(b"another" * 2, garbage)) is None


@given(st.binary(max_size=60) | JSON.map(lambda value: str(value).replace("'", '"').encode("utf-8", "surrogatepass")))
def test_a_signed_payload_of_another_format_is_dropped(garbage: bytes) -> None:
    """A worker may run another version, which signs with our secret."""
    assert decoded_counts(SECRET, signed(SECRET, garbage)) is None


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
        '[1,2,3,[["a",1,1,0,0,0,0,0,0,{},{}]]]',
        '[1,2,3,[["a",1,1,0,0,0,0,0,0,{},{},1]]]',
        '[1,2,3,[["a",1,1,0,0,0,0,0,0,{},{},[{"new":[1,0,1]},[0,0,0],[0,0,0],[]]]]]',
        '[1,2,3,[["a",1,1,0,0,0,0,0,0,{},{},[{},[-1,0,0],[0,0,0],[]]]]]',
        '[1,2,3,[["a",1,1,0,0,0,0,0,0,{},{},[{},[NaN,0,0],[0,0,0],[]]]]]',
        '[1,2,3,[["a",1,1,0,0,0,0,0,0,{},{},[{},[0,14,1,1],[0,0,0],[]]]]]',
        '[1,2,3,[["a",1,1,0,0,0,0,0,0,{},{},[{},[0,0,1.5],[0,0,0],[]]]]]',
        '[1,2,3,[["a",1,1,0,0,0,0,0,0,{},{},[{},[0,0,0],[0,0,0],[[429,-1]]]]]]',
        '[1,2,3,["a"]]',
        "[" * 100_000,
        "9" * 5_000,
    ],
)
def test_impossible_counts_are_dropped(payload: str) -> None:
    """Such are an extra number, a negative one, more failed than asked rows, and an unknown kind."""
    assert decoded_counts(SECRET, signed(SECRET, payload.encode())) is None


def test_the_counts_of_partitions_add_up() -> None:
    """Each partition counts with its greatest count, in whatever order and number its datagrams arrive."""
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
    """It counts even with fewer rows, and when an earlier attempt arrives after it: those rows are asked again."""
    chunk = running(
        datagram(0, 7, mood=50, topic=20), datagram(0, 9, mood=2), datagram(0, 7, mood=60), datagram(0, 8, mood=70)
    )

    assert {"mood": 2} == asked(chunk)


def test_only_the_running_chunk_counts() -> None:
    """Late tasks of an earlier chunk do not count; before the first chunk and after the end, nothing does."""
    chunk = RunningCounts(SECRET)
    chunk.receive(datagram(0, 1, chunk=1, mood=5))
    before = asked(chunk)
    chunk.begin(2)
    for late in (datagram(0, 1, chunk=1, mood=5), datagram(0, 2, chunk=2, mood=3)):
        chunk.receive(late)
    during = asked(chunk)
    chunk.end()
    chunk.receive(datagram(0, 2, chunk=2, mood=9))

    assert ({}, {"mood": 3}, {}) == (before, during, asked(chunk))
    assert 0 == chunk.rows()


def test_a_row_is_done_when_its_slowest_column_is() -> None:
    """This holds for each partition; a column without counts in a partition is the slowest there."""
    assert 3 + 4 == running(datagram(0, 1, mood=3, topic=10), datagram(1, 2, mood=9, topic=4)).rows()
    assert 3 == running(datagram(0, 1, mood=3, topic=10), datagram(1, 2, mood=9)).rows()


def test_a_row_is_not_done_before_every_column_has_reported() -> None:
    """A column whose first datagram is still to come is the slowest."""
    counts = RunningCounts(SECRET)
    counts.begin(1, ["mood", "topic"])
    counts.receive(datagram(0, 1, mood=3))

    assert 0 == counts.rows()
    assert {"mood": 3, "topic": 0} == asked(counts)


def test_rows_that_ask_only_some_columns_are_done_too() -> None:
    """A column counts the rows that ask it nothing."""
    columns = {"mood": Count.of([Result()] * 8), "topic": Count.of([None, Result(), *[None] * 6])}
    [only] = encoded_counts(SECRET, Sender(1, 0, 1), columns)

    assert 8 == running(only).rows()
    assert {"mood": 8, "topic": 1} == asked(running(only))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 20)), max_size=20), st.randoms())
def test_the_order_of_arrival_does_not_change_the_counts(sent: list[tuple[int, int, int]], random: object) -> None:
    """Duplicates do not either: each partition has the greatest count of its latest attempt."""
    datagrams = [datagram(partition, attempt, mood=rows) for partition, attempt, rows in sent]
    shuffled = datagrams * 2
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # random.Random
    latest = {partition: max(attempt for other, attempt, _ in sent if other == partition) for partition, _, _ in sent}
    expected = sum(
        max(rows for *sender, rows in sent if tuple(sender) == (partition, attempt))
        for partition, attempt in latest.items()
    )

    assert expected == running(*shuffled).rows()
    assert expected == asked(running(*shuffled)).get("mood", 0)
