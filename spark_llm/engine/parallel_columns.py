"""Several columns of the same rows asked at the same time: each in a thread of its own, joined row by row.

The threads read one input, whose batches are held until the last of them has taken them; and they run only while the
caller waits for rows, so a reader that has enough, or has gone, holds all of them back as it would a single column.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from spark_llm.protocol.values import Result

AHEAD_ROWS = 10_000  # results that one column may hold while another one has none: as many as an Arrow batch has rows
END_S = 15.0  # how long the columns may take to call off what they have in flight, and to keep their answers

Results = Iterator[list[Result | None]]
Ask = Callable[[Iterator[Any]], Results]  # reads batches, yields results in the rows' order; an empty list is a beat
ParallelResults = list[list[Result | None]]  # of each column as many results; without columns it is a beat


def ask_in_parallel(
    batches: Iterator[Any], columns: Sequence[Ask], ahead_rows: int = AHEAD_ROWS, end_s: float = END_S
) -> Iterator[ParallelResults]:
    """Ask all columns about the rows of `batches`; yield the rows that every column has, as soon as it has them.

    What goes wrong in one column ends the others, and is raised here as it was. When the caller stops reading, each
    column is closed in its own thread before this returns. Raises `RuntimeError` where one has not ended within
    `end_s`: a thread that still reads `batches` would take another task's rows. A single column needs no thread.
    """
    if len(columns) == 1:
        yield from ([results] if results else [] for results in columns[0](batches))
        return
    join = _Join(len(columns), ahead_rows)
    source = _Source(batches, len(columns), join)
    threads = [
        threading.Thread(target=join.run, args=(lane, ask, source.reader(lane)), name="spark_llm column", daemon=True)
        for lane, ask in enumerate(columns)
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
    ends_at = time.monotonic() + end_s
    for thread in threads:
        thread.join(max(0.0, ends_at - time.monotonic()))
    if left := sum(thread.is_alive() for thread in threads):
        raise RuntimeError(
            f"{left} of {len(threads)} columns did not end within {end_s:g} s, and may still read the task's input."
            " Hint: run the task again; where it recurs, ask about one column at a time, and report it."
        )


class _StoppedError(Exception):
    """Nobody wants the rows any more: what a column's thread ends with."""


class _Join:
    """The results of each column that wait for the other columns', and for the caller."""

    def __init__(self, lanes: int, ahead_rows: int) -> None:
        self.changed = threading.Condition()
        self.stopped = False
        self._waiting: list[list[Result | None]] = [[] for _ in range(lanes)]
        self._running = set(range(lanes))
        self._ahead_rows = ahead_rows
        self._asked = True  # whether the caller waits for rows
        self._beat = False  # whether the caller is to push out what it has buffered
        self._beaten: set[int] = set()  # the columns with a beat since the last chunk, or the last that was passed on
        self._error: BaseException | None = None

    # The caller's thread.

    def take(self) -> ParallelResults | None:
        """Wait for rows that are whole and return them; no columns for a beat, None after the last row."""
        with self.changed:
            self._asked = True
            self.changed.notify_all()
            while True:
                if self._error is not None:
                    raise self._error
                if whole := self._whole:
                    return self._taken(whole)
                if self._beat:
                    self._asked = self._beat = False
                    return []
                if self._is_over():
                    return None
                self.changed.wait()

    def stop(self) -> None:
        """Have every column's thread end."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()

    @property
    def _whole(self) -> int:
        """How many rows every column has."""
        return min(map(len, self._waiting))

    def _taken(self, rows: int) -> ParallelResults:
        chunk = [waiting[:rows] for waiting in self._waiting]
        for waiting in self._waiting:
            del waiting[:rows]
        self._asked = self._beat = False
        self._beaten.clear()
        return chunk

    def _is_over(self) -> bool:
        """Return whether every column has ended; raises `RuntimeError` where one ended before another."""
        if any(self._waiting) and any(
            not waiting for lane, waiting in enumerate(self._waiting) if lane not in self._running
        ):
            counts = ", ".join(str(len(waiting)) for waiting in self._waiting)
            raise RuntimeError(
                f"One column gave fewer rows than another (left over: {counts}). Hint: this is a mistake of spark_llm:"
                " ask about one column at a time, and report it."
            )
        return not self._running

    # The columns' threads.

    def run(self, lane: int, ask: Ask, batches: Iterator[Any]) -> None:
        """Ask one column to its end."""
        try:
            answers = ask(batches)
            try:
                for results in answers:
                    self._deliver(lane, results)
            finally:
                if close := getattr(answers, "close", None):  # a generator ends in the thread that ran it
                    close()
        except _StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 -- whatever it is, the caller's thread raises it
            self._end(lane, error)
        else:
            self._end(lane, None)

    def _deliver(self, lane: int, results: list[Result | None]) -> None:
        """Hand over results; return when more are wanted."""
        with self.changed:
            waiting = self._waiting[lane]
            waiting += results
            if not results:
                self._has_flushed(lane)
            if self._beat or self._whole:
                self._asked = False
            self.changed.notify_all()
            while not self.stopped and (not self._asked or len(waiting) >= self._ahead_rows):
                self.changed.wait()
            if self.stopped:
                raise _StoppedError

    def _has_flushed(self, lane: int) -> None:
        """Pass on one column's beats, and another's only when that one has no more: each costs the caller as much."""
        if not self._beaten or lane in self._beaten:
            self._beat = True
            self._beaten.clear()
        self._beaten.add(lane)

    def _end(self, lane: int, error: BaseException | None) -> None:
        with self.changed:
            self._running.discard(lane)
            if error is not None and not self.stopped:
                self._error, self.stopped = error, True
            self.changed.notify_all()


class _Source:
    """Batches that each of several threads reads, and one of them at a time fetches."""

    def __init__(self, batches: Iterator[Any], readers: int, join: _Join) -> None:
        self._batches = batches
        self._join = join
        self._held: deque[Any] = deque()
        self._first = 0  # the number of the first batch that is held
        self._next = [0] * readers  # the number of the batch that each reader takes next
        self._fetching = False
        self._ended = False

    def reader(self, lane: int) -> Iterator[Any]:
        """Yield every batch to one reader."""
        while self._has(lane):
            yield self._take(lane)

    def _has(self, lane: int) -> bool:
        """Wait until the reader's next batch is here, and fetch it where nobody else does; False after the last."""
        while True:
            with self._join.changed:
                while self._fetching and not self._is_here(lane) and not self._join.stopped:
                    self._join.changed.wait()
                if self._join.stopped:
                    raise _StoppedError
                if self._is_here(lane) or self._ended:
                    return self._is_here(lane)
                self._fetching = True
            self._fetch()

    def _fetch(self) -> None:
        batch: Any = self  # stands for none
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

    def _is_here(self, lane: int) -> bool:
        return self._next[lane] < self._first + len(self._held)

    def _take(self, lane: int) -> Any:  # noqa: ANN401 -- a batch, of Arrow or of pandas
        with self._join.changed:
            batch = self._held[self._next[lane] - self._first]
            self._next[lane] += 1
            while self._held and min(self._next) > self._first:
                self._held.popleft()
                self._first += 1
            return batch
