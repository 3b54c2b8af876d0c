"""Several columns of the same rows in parallel: each in a thread of its own, joined row by row.

The threads read one input, whose batches are kept until the last thread has read them. They run only while the caller
waits for rows: a reader that has enough, or has gone, holds all of them back as it would a single column.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from spark_llm.protocol.values import Result

AHEAD_ROWS = 10_000  # results that one column may hold while another one has none: as many as an Arrow batch has rows
END_S = 15.0  # how long the columns may take to cancel their requests, and to write their answers to the cache

Results = Iterator[list[Result | None]]
Ask = Callable[[Iterator[Any]], Results]  # reads batches, yields results in the rows' order; an empty list is a flush
ParallelResults = list[list[Result | None]]  # of each column as many results; without columns it is a flush


def ask_in_parallel(
    batches: Iterator[Any], columns: Sequence[Ask], ahead_rows: int = AHEAD_ROWS, end_s: float = END_S
) -> Iterator[ParallelResults]:
    """Run all columns on the rows of `batches`; yield the rows that every column has answered.

    An exception in one column ends the others, and is raised here. When the caller stops reading, each column is closed
    in its own thread before this returns. Raises `RuntimeError` where one has not ended within `end_s`: a thread that
    still reads `batches` would take another task's rows. A single column needs no thread.
    """
    if len(columns) == 1:
        yield from ([results] if results else [] for results in columns[0](batches))
        return
    join = _Join(len(columns), ahead_rows)
    source = _Source(batches, len(columns), join)
    threads = [
        threading.Thread(
            target=join.run, args=(column, ask, source.reader(column)), name="spark_llm column", daemon=True
        )
        for column, ask in enumerate(columns)
    ]
    for thread in threads:
        thread.start()
    try:
        while (chunk := join.take()) is not None:
            yield chunk
    finally:
        join.stop()
        _end(threads, end_s)


def _end(threads: Sequence[threading.Thread], end_s: float) -> None:
    deadline = time.monotonic() + end_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if left := sum(thread.is_alive() for thread in threads):
        raise RuntimeError(
            f"{left} of {len(threads)} columns did not end within {end_s:g} s, and may still read the task's input."
            " Hint: run the task again; if it recurs, run one column at a time, and report it."
        )


class _StoppedError(Exception):
    """Ends a column's thread: the caller wants no more rows."""


class _Join:
    """The results of each column, which wait for those of the other columns and for the caller."""

    def __init__(self, columns: int, ahead_rows: int) -> None:
        self.changed = threading.Condition()
        self.stopped = False
        self._waiting: list[list[Result | None]] = [[] for _ in range(columns)]
        self._running = set(range(columns))
        self._ahead_rows = ahead_rows
        self._rows_wanted = True  # whether the caller waits for rows
        self._flush_due = False  # whether the caller should push out what it has buffered
        self._flushed_columns: set[int] = (
            set()
        )  # the columns with a flush since the last chunk, or since the last flush that was passed on
        self._error: BaseException | None = None

    # The caller's thread.

    def take(self) -> ParallelResults | None:
        """Wait for rows that every column has, and return them; no columns for a flush, None after the last row."""
        with self.changed:
            self._rows_wanted = True
            self.changed.notify_all()
            while True:
                if self._error is not None:
                    raise self._error
                if rows := self._complete_rows:
                    return self._pop(rows)
                if self._flush_due:
                    self._rows_wanted = self._flush_due = False
                    return []
                if self._is_over():
                    return None
                self.changed.wait()

    def stop(self) -> None:
        """Make every column's thread end."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()

    @property
    def _complete_rows(self) -> int:
        """How many rows every column has answered."""
        return min(map(len, self._waiting))

    def _pop(self, rows: int) -> ParallelResults:
        chunk = [waiting[:rows] for waiting in self._waiting]
        for waiting in self._waiting:
            del waiting[:rows]
        self._rows_wanted = self._flush_due = False
        self._flushed_columns.clear()
        return chunk

    def _is_over(self) -> bool:
        """Return whether every column has ended; raises `RuntimeError` where one ended before another."""
        if any(self._waiting) and any(
            not waiting for column, waiting in enumerate(self._waiting) if column not in self._running
        ):
            counts = ", ".join(str(len(waiting)) for waiting in self._waiting)
            raise RuntimeError(
                f"One column gave fewer rows than another (left over: {counts}). Hint: this is a bug of spark_llm:"
                " run one column at a time, and report it."
            )
        return not self._running

    # The columns' threads.

    def run(self, column: int, ask: Ask, batches: Iterator[Any]) -> None:
        """Run one column to its end."""
        try:
            answers = ask(batches)
            try:
                for results in answers:
                    self._deliver(column, results)
            finally:
                if close := getattr(answers, "close", None):  # a generator ends in the thread that ran it
                    close()
        except _StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 -- whatever it is, the caller's thread raises it
            self._end(column, error)
        else:
            self._end(column, None)

    def _deliver(self, column: int, results: list[Result | None]) -> None:
        """Add results; return when more are wanted."""
        with self.changed:
            waiting = self._waiting[column]
            waiting += results
            if not results:
                self._on_flush(column)
            if self._flush_due or self._complete_rows:
                self._rows_wanted = False
            self.changed.notify_all()
            while not self.stopped and (not self._rows_wanted or len(waiting) >= self._ahead_rows):
                self.changed.wait()
            if self.stopped:
                raise _StoppedError

    def _on_flush(self, column: int) -> None:
        """Pass on the flushes of one column, and another's only after its last: each one costs the caller."""
        if not self._flushed_columns or column in self._flushed_columns:
            self._flush_due = True
            self._flushed_columns.clear()
        self._flushed_columns.add(column)

    def _end(self, column: int, error: BaseException | None) -> None:
        with self.changed:
            self._running.discard(column)
            if error is not None and not self.stopped:
                self._error, self.stopped = error, True
            self.changed.notify_all()


class _Source:
    """Batches that each of several threads reads; one thread at a time fetches."""

    def __init__(self, batches: Iterator[Any], readers: int, join: _Join) -> None:
        self._batches = batches
        self._join = join
        self._held: deque[Any] = deque()
        self._first = 0  # the number of the first batch that is held
        self._next = [0] * readers  # the number of the batch that each reader takes next
        self._fetching = False
        self._ended = False

    def reader(self, column: int) -> Iterator[Any]:
        """Yield every batch to one reader."""
        while self._has(column):
            yield self._take(column)

    def _has(self, column: int) -> bool:
        """Wait until the reader's next batch is fetched, or fetch it; return False after the last."""
        while True:
            with self._join.changed:
                while self._fetching and not self._is_fetched(column) and not self._join.stopped:
                    self._join.changed.wait()
                if self._join.stopped:
                    raise _StoppedError
                if self._is_fetched(column) or self._ended:
                    return self._is_fetched(column)
                self._fetching = True
            self._fetch()

    def _fetch(self) -> None:
        batch: Any = self  # stands for "no batch"
        try:
            batch = next(self._batches, self)
        finally:
            with self._join.changed:
                self._fetching = False
                if batch is self:
                    self._ended = True
                else:
                    self._held.append(batch)
                self._join.changed.notify_all()

    def _is_fetched(self, column: int) -> bool:
        return self._next[column] < self._first + len(self._held)

    def _take(self, column: int) -> Any:  # noqa: ANN401 -- a batch, of Arrow or of pandas
        with self._join.changed:
            batch = self._held[self._next[column] - self._first]
            self._next[column] += 1
            while self._held and min(self._next) > self._first:
                self._held.popleft()
                self._first += 1
            return batch
