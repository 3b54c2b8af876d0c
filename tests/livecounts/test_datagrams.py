"""Datagrams of live counts: the driver decodes the counts of the tasks, whatever the network does to them."""

import json
import pickle
from collections import Counter
from collections.abc import Sequence
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader

from spark_llm.errors import KINDS
from spark_llm.livecounts.column_count import Count
from spark_llm.livecounts.datagrams import (
    MAX_BYTES,
    MAX_PLACES,
    Report,
    RunningCounts,
    Sender,
    decoded_counts,
    encoded_counts,
)
from spark_llm.livecounts.signing import signed
from spark_llm.metering.operations import BUCKETS, DURATION_BOUNDS_MS, TOKEN_BOUNDS, Histogram, Operations
from spark_llm.metering.tally import NUMBERS, Tally
from spark_llm.protocol.values import Result, RowError, Usage
from tests.support.strategies import JSON, TEXTS, usages

SECRET = b"0123456789abcdef"
WHOLE = st.integers(0, 2**63 - 1)
RESULTS = st.lists(
    st.none()
    | st.builds(
        Result,
        usage=st.none() | usages(st.none() | st.integers(0, 2**31 - 1)),
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
SENDERS = st.builds(Sender, WHOLE, WHOLE, WHOLE, WHOLE, WHOLE)
REPORTS = st.builds(Report, SENDERS, st.booleans(), COLUMNS)


def counted(rows: int) -> Count:
    """Return a count of rows that were answered at the first attempt."""
    return Count.of([Result(text="", requests=1)] * rows)


def datagram(
    partition: int,
    attempt: int,
    *,
    chunk: int = 1,
    stage: int = 0,
    stream: int = 0,
    ended: bool = False,
    **columns: int,
) -> bytes:
    """Return the datagram of a stream in an attempt, with the number of rows of each column."""
    sender = Sender(chunk, stage, partition, attempt, stream)
    [only] = encoded_counts(SECRET, Report(sender, ended, {name: counted(rows) for name, rows in columns.items()}))
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
    assert Count.of(first + then, operations=operations) == Count.total(parts)


@given(RESULTS)
def test_a_count_has_rows_errors_tokens_and_requests(results: list[Result | None]) -> None:
    """Errors are counted by kind, and a row that asked nothing counts as a row only."""
    count = Count.of(results)
    asked_results = [result for result in results if result is not None]

    kinds = Counter(result.error.kind for result in asked_results if result.error)
    cancelled = kinds.pop("cancelled", 0)

    assert (len(results), len(asked_results)) == (count.rows, count.tally.asked + count.tally.cancelled)
    assert (kinds, cancelled) == (count.tally.failed, count.tally.cancelled)
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


@given(REPORTS)
def test_encoded_counts_are_decoded(report: Report) -> None:
    """The counts of all columns arrive, in datagrams of `MAX_BYTES` at most, each with its sender and its end."""
    datagrams = list(encoded_counts(SECRET, report))
    decoded = [decoded_counts(SECRET, each) for each in datagrams]

    assert [report[:2]] * len(decoded) == [each[:2] for each in decoded if each]
    assert report.columns == {name: count for each in decoded if each for name, count in each.columns.items()}
    assert max(map(len, datagrams)) <= MAX_BYTES


def test_a_column_with_operations_fits_in_a_datagram() -> None:
    """The column is of a long job, and its rows failed in every way."""
    wide = Histogram((0, 0, 0, *[12_345] * 8, 0, 0, 0, 0), 12_345_678.901234)
    late = Histogram((*[0] * 12, 12, 345, 0), 1_234_567.25)
    operations = Operations({"": wide, **dict.fromkeys(KINDS, late)}, wide, wide, {429: 12_345, 503: 12_345})
    tally = Tally(98_765, dict.fromkeys(KINDS, 357), 1_234_567, 234_567, 123_456, 1_469_134, 123_450)
    columns = {"a_column_of_a_job": Count(98_765, tally, operations)}
    [only] = encoded_counts(SECRET, Report(Sender(12, 34, 199, 123_456, 2**32 - 1), ended=False, columns=columns))

    assert MAX_BYTES > len(only)
    assert decoded_counts(SECRET, only) is not None


def test_running_counts_have_the_operations_that_tasks_count() -> None:
    """Those of the latest attempts add up; a task that counts none is left out."""
    one = Count.of([Result(usage=Usage(5, 2, 7), attempts=1, requests=1, latency_ms=20.0)] * 3, operations=True)
    datagrams = [
        next(encoded_counts(SECRET, Report(Sender(1, 0, partition, attempt, 0), ended=False, columns={"mood": count})))
        for partition, attempt, count in ((0, 1, one), (1, 2, one), (1, 3, one), (2, 4, counted(3)))
    ]

    assert one.operations is not None
    assert {"mood": one.operations.plus(one.operations)} == running(*datagrams).operations()


def test_ten_columns_fit_in_a_datagram() -> None:
    """The columns are of a long job, with errors; forty of them fit in four datagrams."""
    sender = Sender(12, 34, 199, 123_456, 2**32 - 1)
    tally = Tally(12_000, {"rate_limited": 100}, 1_234_567, 234_567, 123_456, 1_469_134, 12_345)
    columns = {f"column_number_{number}": Count(12_000, tally) for number in range(40)}
    ten = dict(list(columns.items())[:10])

    assert [1_099] == [len(each) for each in encoded_counts(SECRET, Report(sender, ended=False, columns=ten))]
    assert 4 == len(list(encoded_counts(SECRET, Report(sender, ended=False, columns=columns))))


@given(REPORTS, st.data())
def test_a_datagram_with_a_wrong_bit_is_dropped(report: Report, data: st.DataObject) -> None:
    """The position of the bit does not matter."""
    first = next(encoded_counts(SECRET, report))
    bit = data.draw(st.integers(0, 8 * len(first) - 1))
    flipped = bytearray(first)
    flipped[bit // 8] ^= 1 << bit % 8

    assert decoded_counts(SECRET, bytes(flipped)) is None


@given(REPORTS, st.data())
def test_a_truncated_datagram_is_dropped(report: Report, data: st.DataObject) -> None:
    """The length does not matter."""
    first = next(encoded_counts(SECRET, report))

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


EMPTY = [0, 0, 0]  # an encoded histogram: its sum, the first bucket that is used, and that bucket


def payload(*sender: object, **changed: object) -> str:
    """Return the payload of a column of one row; some of its parts are changed."""
    numbers = dict.fromkeys(NUMBERS, 0)
    parts = {"name": "a", "rows": 1, **numbers, "asked": 1, "failed": {}, "tiers": {}, "operations": None, **changed}
    return json.dumps([*(sender or (1, 2, 3, 4, 5, 0)), [list(parts.values())]])


def test_a_payload_is_decoded() -> None:
    """Those below differ from it in one thing."""
    one = decoded_counts(SECRET, signed(SECRET, payload(operations=[{}, EMPTY, EMPTY, []]).encode()))

    assert one == Report(Sender(1, 2, 3, 4, 5), ended=False, columns={"a": Count(1, Tally(1), Operations())})


@pytest.mark.parametrize(
    "payload",
    [
        "[1,2,3,4,5,0]",
        "[" * 100_000,
        "9" * 5_000,
        payload(1, 2, 3, 4, -5, 0),
        payload(1, 2, 3, 4, True, 0),
        payload(1, 2, 3, 4, 5, True),
        payload(1, 2, 3, 4, 0),
        payload(1, 2, 3, 4, 5, 6, 0),
        payload(one_more=0),
        payload(name=["a"]),
        payload(rows=-1),
        payload(asked=2),
        payload(cancelled=1),
        payload(prompt_tokens=0.5),
        payload(failed={"timeout": 2}),
        payload(failed={"new_kind": 1}),
        payload(failed=[]),
        payload(tiers={"flex": [1]}),
        payload(operations=1),
        payload(operations={}),
        payload(operations=[{"new_kind": EMPTY}, EMPTY, EMPTY, []]),
        payload(operations=[{}, [-1, 0, 0], EMPTY, []]),
        payload(operations=[{}, [float("nan"), 0, 0], EMPTY, []]),
        payload(operations=[{}, [0, BUCKETS - 1, 1, 1], EMPTY, []]),
        payload(operations=[{}, [0, 0, 1.5], EMPTY, []]),
        payload(operations=[{}, EMPTY, EMPTY, [[429, -1]]]),
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


def test_an_attempt_that_has_ended_counts() -> None:
    """A speculative copy that began later is killed then; of two that have ended, the later one counts."""
    copy, end, copys_end = (
        datagram(0, 9, mood=2),
        datagram(0, 7, ended=True, mood=60),
        datagram(0, 9, ended=True, mood=61),
    )

    assert {"mood": 60} == asked(running(datagram(0, 7, mood=50), copy, end))
    assert {"mood": 60} == asked(running(end, copy))
    assert {"mood": 61} == asked(running(end, copy, copys_end))


def test_an_attempt_has_ended_when_all_its_streams_have() -> None:
    """A task that failed in its second UDF is asked again in both."""
    first = datagram(0, 7, stream=1, ended=True, chat_udf=60)
    second, again = datagram(0, 7, stream=2, embed_udf=5), datagram(0, 9, stream=3, chat_udf=2)

    assert {"chat_udf": 2} == asked(running(first, second, again))


def test_streams_and_stages_add_up() -> None:
    """Two UDFs of a task, also of one name, and the same partition of another stage, are other rows."""
    counts = running(
        datagram(0, 7, stream=1, chat_udf=3),
        datagram(0, 7, stream=2, chat_udf=3),
        datagram(0, 7, stream=3, embed_udf=2),
        datagram(0, 8, stage=1, stream=4, chat_udf=10),
    )

    assert {"chat_udf": 16, "embed_udf": 2} == asked(counts)
    assert 18 == counts.rows()


@pytest.mark.waits
def test_days_of_partitions_take_bounded_memory() -> None:
    """What was heard longest ago becomes one sum; no row is lost."""
    many = MAX_PLACES + 1_000
    datagrams = (datagram(0, 0, stage=stage, mood=2, topic=3) for stage in range(many))
    counts = running(*islice(datagrams, MAX_PLACES))
    size = len(pickle.dumps(counts))
    for each in (*datagrams, datagram(0, 0, stage=MAX_PLACES, mood=4, topic=4)):
        counts.receive(each)

    assert 2 * many + 2 == counts.rows()
    assert {"mood": 2 * many + 2, "topic": 3 * many + 1} == asked(counts)
    assert len(pickle.dumps(counts)) < 1.01 * size


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
    """This holds for each partition."""
    assert 3 + 4 == running(datagram(0, 1, mood=3, topic=10), datagram(1, 2, mood=9, topic=4)).rows()


def test_a_row_is_not_done_before_every_column_has_reported() -> None:
    """A column whose first datagram is still to come is the slowest of its partition."""
    counts = RunningCounts(SECRET)
    counts.begin(1, ["mood", "topic"])
    counts.receive(datagram(0, 1, mood=3))
    first = counts.rows(), asked(counts)
    counts.receive(datagram(1, 2, mood=5, topic=7))

    assert (0, {"mood": 3, "topic": 0}) == first
    assert (5, {"mood": 8, "topic": 7}) == (counts.rows(), asked(counts))


def test_rows_that_ask_only_some_columns_are_done_too() -> None:
    """A column counts the rows that ask it nothing."""
    columns = {"mood": Count.of([Result()] * 8), "topic": Count.of([None, Result(), *[None] * 6])}
    [only] = encoded_counts(SECRET, Report(Sender(1, 0, 0, 1, 0), ended=False, columns=columns))

    assert 8 == running(only).rows()
    assert {"mood": 8, "topic": 1} == asked(running(only))


STREAMS = st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 2), st.integers(0, 1))  # of an attempt


@given(st.lists(st.tuples(STREAMS, st.integers(1, 20)), max_size=20), st.sets(STREAMS), st.randoms())
def test_the_order_of_arrival_does_not_change_the_counts(
    sent: list[tuple[tuple[int, int, int, int], int]], ended: set[tuple[int, int, int, int]], random: object
) -> None:
    """Duplicates do not either: of each partition of a stage, the streams of one attempt have their greatest count."""
    most: dict[tuple[int, int, int, int], int] = {}
    for stream, rows in sent:
        most[stream] = max(rows, most.get(stream, 0))
    datagrams = [
        datagram(partition, attempt, stage=stage, stream=stream, mood=rows, ended=each in ended and rows == most[each])
        for each, rows in sent
        for stage, partition, attempt, stream in [each]
    ]
    shuffled = datagrams * 2
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # random.Random
    expected = 0
    for place in {stream[:2] for stream in most}:
        attempts = {each[2]: [other for other in most if other[:3] == each[:3]] for each in most if each[:2] == place}
        counting = max(attempts, key=lambda number: (set(attempts[number]) <= ended, number))
        expected += sum(most[each] for each in attempts[counting])

    assert expected == running(*shuffled).rows()
    assert expected == asked(running(*shuffled)).get("mood", 0)
