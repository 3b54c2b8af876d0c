"""How far to look ahead, and when results leave: a whole task on a simulated clock."""

import heapq
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_llm.flow.read_ahead import (
    CHUNK_ROWS,
    CHUNK_WAIT_S,
    FLUSH_S,
    MIN_BACKLOG_BYTES,
    OPENING_ROWS,
    ROW_BYTES,
    SPAN_ROWS,
    ReadAhead,
)
from spark_llm.udf.slices import SLICE_BYTES

LEAVES_IN_S = 0.02  # how long Spark takes to end a task whose reader has enough


class Reading:
    """A task of `rows` rows: `window` are served at once, and the reader goes when it has seen `reads` of them."""

    def __init__(
        self,
        rows: int,
        reads: int,
        window: int,
        latency_s: Callable[[int], float] = lambda row: 0.1,
        batch: int = 1,
        *,
        row_bytes: Callable[[int], int] = lambda row: 0,
    ) -> None:
        """Play the task through to its end."""
        self.now, self.most_held, self.longest_silence_s, self.most_unsent_bytes = 0.0, 0, 0.0, 0
        self.taken_at: list[float] = []  # when each row was taken in
        self.doublings = 0
        self._read_ahead = ReadAhead(0.0, batch)
        self._window, self._latency_s, self._row_bytes = window, latency_s, row_bytes
        self._in_flight: list[tuple[float, int]] = []
        self._answered: set[int] = set()
        self.sent = self._left = 0
        self._play(rows, reads)

    @property
    def taken(self) -> int:
        """How many rows were read, all of which are paid for."""
        return len(self.taken_at)

    def _play(self, rows: int, reads: int) -> None:
        read_ahead, gone_at, flushed_at = self._read_ahead, float("inf"), 0.0
        while self._left < rows and self.now < gone_at:
            allowance = read_ahead.allowance
            wanted = read_ahead.rows_to_read(self.taken - self.sent, self._window, self.now, self._unsent_bytes)
            wanted = self._slice(min(wanted, rows - self.taken))
            self.doublings += read_ahead.allowance > allowance
            self.taken_at += [self.now] * wanted
            self.most_unsent_bytes = max(self.most_unsent_bytes, self._unsent_bytes)
            read_ahead.on_read(wanted, ended=self.taken == rows)
            self.most_held = max(self.most_held, self.taken - self._left)
            self._send()
            ready = self._ready()
            if ready and (
                read_ahead.should_yield(ready, self.now) or (not wanted and ready == self.taken - self._left)
            ):
                self._left += ready
                flushes = read_ahead.on_yield(ready, self.now)
            else:
                ready, flushes = 0, read_ahead.should_flush(self.now)
            if flushes:
                self.longest_silence_s = max(self.longest_silence_s, self.now - flushed_at)
                flushed_at = self.now
                if self._left >= reads:
                    gone_at = min(gone_at, self.now + LEAVES_IN_S)
                allowance = read_ahead.allowance
                read_ahead.on_flush(self.now, sum(r >= self._left for r in self._answered))
                self.doublings += read_ahead.allowance > allowance
            elif not wanted and not ready:
                self._wait_until(
                    min([read_ahead.next_check_at(self._ready()), *[due for due, _ in self._in_flight[:1]]])
                )

    @property
    def _unsent_bytes(self) -> int:
        return sum(map(self._row_bytes, range(self.sent, self.taken)))

    def _slice(self, wanted: int) -> int:
        """Return how many rows come at once: as many as a slice has, or one."""
        size, rows = 0, 0
        while rows < wanted and (size := size + self._row_bytes(self.taken + rows)) <= SLICE_BYTES:
            rows += 1
        return max(rows, min(1, wanted))

    def _send(self) -> None:
        while self.sent < self.taken and len(self._in_flight) < self._window:
            heapq.heappush(self._in_flight, (self.now + self._latency_s(self.sent), self.sent))
            self.sent += 1

    def _ready(self) -> int:
        end = self._left
        while end in self._answered:
            end += 1
        return end - self._left

    def _wait_until(self, due: float) -> None:
        assert due >= self.now, "time runs forward, or the task would spin"
        self.now = due + 1e-6  # a clock that stood still at a rounded number would never see it pass
        while self._in_flight and self._in_flight[0][0] <= self.now:
            self._answered.add(heapq.heappop(self._in_flight)[1])


@given(reads=st.integers(1, 3_000), window=st.integers(1, 512), latency_s=st.floats(0.05, 1.0))
def test_a_reader_of_a_few_rows_costs_a_few_requests(reads: int, window: int, latency_s: float) -> None:
    """A reader of k rows pays for about 4k, beyond the opening and what is in flight, not for the partition."""
    reading = Reading(100_000, reads, window, lambda row: latency_s)

    assert reading.sent <= max(OPENING_ROWS, 4 * reads) + window


@pytest.mark.parametrize("latency_s", [0.01, 0.1, 1.0, 2.0, 5.0, 20.0])
def test_a_preview_is_cheap_however_slow_the_model(latency_s: float) -> None:
    """`show(5)` reads six rows and sends at most 64, with a wide window and a slow model too."""
    assert Reading(10_000, 6, 512, lambda row: latency_s).sent <= 64


@pytest.mark.waits
@settings(max_examples=30)
@given(window=st.integers(1, 512), latency_s=st.floats(0.01, 2.0))
def test_a_full_read_soon_has_its_full_width(window: int, latency_s: float) -> None:
    """A reader of everything waits for at most ten doublings, each no longer than an answer and a grace."""
    rows = 40 * window
    reading = Reading(rows, rows, window, lambda row: latency_s)

    assert reading.doublings <= 10
    assert reading.now <= 40 * latency_s + 10 * (latency_s + 0.05) + 2 * CHUNK_WAIT_S


def test_a_head_that_hangs_does_not_hold_the_rest() -> None:
    """While the first row takes a minute, the others are sent at nearly the rate that the endpoint serves."""
    reading = Reading(20_000, 20_000, 16, lambda row: 60.0 if row == 0 else 0.1)
    in_that_minute = sum(at < 60.0 for at in reading.taken_at)

    assert 0.75 * 60 * 15 / 0.1 <= in_that_minute


@pytest.mark.waits
@settings(max_examples=10)
@given(st.integers(1, 64), st.sets(st.integers(0, 3_000), max_size=5), st.floats(5.0, 400.0))
def test_memory_is_bounded(window: int, hung: set[int], hangs_s: float) -> None:
    """However long rows hang, no more is held than one Arrow batch and what is in flight."""
    reading = Reading(12_000, 12_000, window, lambda row: hangs_s if row in hung else 0.01)

    assert 12_000 == reading.taken
    assert reading.most_held <= SPAN_ROWS + window


@settings(max_examples=30)
@given(st.integers(1, 64), st.floats(0.01, 30.0))
def test_the_buffer_is_flushed_repeatedly(window: int, latency_s: float) -> None:
    """A reader that has gone is noticed within two seconds, however slow the answers are."""
    assert Reading(500, 500, window, lambda row: latency_s).longest_silence_s <= 2.0


@pytest.mark.waits
@settings(max_examples=30)
@given(st.integers(1, 64), st.lists(st.integers(0, ROW_BYTES), min_size=1, max_size=9), st.floats(0.01, 2.0))
def test_small_rows_are_read_as_if_they_had_no_size(window: int, sizes: list[int], latency_s: float) -> None:
    """Rows of 4 KB or less are bounded by their number alone."""
    plays = [
        Reading(1_000, 1_000, window, lambda row: latency_s, row_bytes=row_bytes)
        for row_bytes in (lambda row: 0, lambda row: sizes[row % len(sizes)])
    ]

    assert plays[0].taken_at == plays[1].taken_at


@settings(max_examples=30)
@given(st.integers(1, 64), st.lists(st.integers(0, 40_000_000), min_size=1, max_size=9), st.floats(0.01, 2.0))
def test_large_rows_are_held_back_by_their_bytes(window: int, sizes: list[int], latency_s: float) -> None:
    """Unsent rows have 8 MB, beyond the last slice that was read; all rows are sent, at full width."""
    reading = Reading(500, 500, window, lambda row: latency_s, row_bytes=lambda row: sizes[row % len(sizes)])

    assert 500 == reading.sent
    assert reading.most_unsent_bytes <= MIN_BACKLOG_BYTES + max(SLICE_BYTES, *sizes)
    assert reading.now <= 1.02 * Reading(500, 500, window, lambda row: latency_s).now + 2 * CHUNK_WAIT_S


def test_rows_that_wait_are_bounded_whatever_the_window() -> None:
    """Where a request carries thousands of rows, four Arrow batches wait, and are refilled at one."""
    read_ahead = ReadAhead(0.0, 5_000)
    read_ahead.allowance = 10**9

    assert 4 * SPAN_ROWS == read_ahead.rows_to_read(0, 32 * 5_000, 0.0)
    assert 0 == read_ahead.rows_to_read(2 * SPAN_ROWS, 32 * 5_000, 0.0)
    assert SPAN_ROWS == read_ahead.low_watermark(32 * 5_000, 0.0)[0]


def test_the_opening_is_one_request_of_up_to_64_rows() -> None:
    """A request that may carry thousands of rows begins small: `show(5)` must not pay for all of them."""
    opened = [ReadAhead(0.0, batch).rows_to_read(0, batch, 0.0) for batch in (1, 28, 64, 2_048, 5_000)]

    assert [28, 28, 64, 64, 64] == opened


def test_the_first_results_leave_at_once() -> None:
    """In the opening each result leaves when it is ready, with a flush behind it."""
    read_ahead = ReadAhead(0.0)

    assert [False, True, True] == [
        read_ahead.should_yield(0, 0.1),
        read_ahead.should_yield(1, 0.1),
        read_ahead.on_yield(1, 0.1),
    ]


def test_later_results_leave_in_chunks() -> None:
    """Past the opening a chunk is worth its while from 64 results on, or when the first of them has waited."""
    read_ahead = ReadAhead(0.0)
    read_ahead.on_yield(OPENING_ROWS, 1.0)

    assert [False, True] == [read_ahead.should_yield(CHUNK_ROWS - 1, 1.1), read_ahead.should_yield(CHUNK_ROWS, 1.1)]
    assert read_ahead.should_yield(1, 1.1 + CHUNK_WAIT_S)
    assert 1.0 + CHUNK_WAIT_S == read_ahead.next_check_at(ready=1)


def test_while_nothing_is_ready_it_flushes() -> None:
    """The next time to check is the next flush's, and the flush is due then."""
    read_ahead = ReadAhead(10.0)

    assert 10.0 + FLUSH_S == read_ahead.next_check_at(ready=0)
    assert [False, True] == [read_ahead.should_flush(10.0 + FLUSH_S / 2), read_ahead.should_flush(10.0 + FLUSH_S)]


def test_nothing_is_read_while_the_backlog_is_full() -> None:
    """A backlog of two windows is enough; below that it is filled again."""
    read_ahead = ReadAhead(0.0)
    read_ahead.allowance = SPAN_ROWS

    assert [0, 0, 321, 640] == [read_ahead.rows_to_read(backlog, 160, 0.0) for backlog in (400, 320, 319, 0)]
