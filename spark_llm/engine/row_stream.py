"""The rows of one task on their way through: taken in from Spark's batches, put in order again, let out in chunks.

These stand between two threads: Spark's, which reads batches and yields results, and the event loop's, which sends and
settles. `ReorderBuffer` and the twins of a `Stream` are shared, each under a lock of its own.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from spark_llm.flow.batcher import Batcher, Indexed
from spark_llm.flow.dedupe import Dedupe
from spark_llm.flow.negotiation import WireFormatNegotiation
from spark_llm.flow.retry import FAILURE_ROWS, FailureRate
from spark_llm.policy import Policy
from spark_llm.protocol.values import Result, Row, RowError

if TYPE_CHECKING:
    from spark_llm.cache.answer_cache import Cache


class Rows:
    """The input as a flow of rows that is read no faster than it is asked for."""

    def __init__(self, batches: Iterator[Sequence[Row]]) -> None:
        """Read from `batches`, one at a time."""
        self._batches = batches
        self._batch: Sequence[Row] = ()
        self._at = 0
        self.ended = False

    def take(self, most: int) -> Sequence[Row]:
        """Return up to `most` rows, of one batch; none when a batch was empty or all have been taken (`ended`)."""
        if self._at >= len(self._batch):
            self._batch, self._at = (), 0  # let the old batch go before the next one comes
            batch = next(self._batches, None)
            if batch is None:
                self.ended = True
                return ()
            self._batch = batch
        taken = self._batch[self._at : self._at + most]
        self._at += len(taken)
        return taken


class ReorderBuffer:
    """Rows in their order, of which some have their results: the head leaves when it is ready."""

    def __init__(self) -> None:
        """Begin empty."""
        self.stopped: RowError | None = None  # why no further row is asked
        self.aborted = False  # whether every row has that error that had no result yet
        self.lacks = 0  # rows that are wanted beyond the reader's pace
        self.unsent = 0  # rows taken in that no request has carried yet
        self._results: dict[int, Result | None] = {}
        self._head = 0  # the first row that has not left
        self._ready = 0  # the first row after it that has no result
        self._end = 0  # one past the last row taken in
        self._changed = threading.Condition()
        self._wake_at = (0, 0)
        self._ended = False  # whether no row is still to come

    @property
    def ready(self) -> int:
        """How many results at the head could leave now."""
        return self._ready - self._head

    @property
    def left(self) -> int:
        """How many rows have left."""
        return self._head

    @property
    def held(self) -> int:
        """How many rows are inside, answered or not."""
        return self._end - self._head

    @property
    def settled(self) -> int:
        """How many rows inside have their results."""
        return len(self._results)

    def take_in(self, rows: Sequence[Row]) -> Iterator[Indexed]:
        """Number rows at the end of the line; those that ask something are returned, the others have their results."""
        numbered = list(enumerate(rows, self._end))
        asked = [(number, row) for number, row in numbered if row is not None and not isinstance(row, RowError)]
        with self._changed:
            self._end += len(rows)
            if self.aborted:
                self._results.update((number, Result(error=self.stopped)) for number, _ in asked)
                asked = []
            if len(asked) < len(rows):
                errors = ((number, Result(error=row)) for number, row in numbered if isinstance(row, RowError))
                self._results.update((number, None) for number, row in numbered if row is None)
                self._results.update(errors)
                self._advance()
        return iter(asked)

    def queue(self, rows: int) -> None:
        """Take note that so many rows are to be carried by requests; a row that waits for its twin is not."""
        with self._changed:
            self.unsent += 0 if self.aborted else rows

    def sent(self, rows: int) -> None:
        """Take note that a request carries so many rows for the first time."""
        with self._changed:
            self.unsent -= 0 if self.aborted else rows
            self._wake()

    def settle(self, results: Iterable[tuple[int, Result]]) -> None:
        """Put results in their places, unless the line was aborted: then every row has one."""
        with self._changed:
            if not self.aborted:
                self._results.update(results)
                self._advance()
                self._wake()

    def stop(self, error: RowError) -> None:
        """Take note that no further row is to be asked, and why."""
        self.stopped = error

    def abort(self, error: RowError) -> None:
        """Give every row without a result this error, and every row that is still to come; the first error stays."""
        with self._changed:
            if self.aborted:
                return
            self.stopped, self.aborted, self.unsent = error, True, 0
            for number in range(self._ready, self._end):
                self._results.setdefault(number, Result(error=error))
            self._advance()
            self._wake()

    def lack(self) -> bool:
        """Ask for another row, whatever the reader's pace; return whether there may be one."""
        with self._changed:
            self.lacks = 0 if self._ended else 1
            self._changed.notify_all()
        return bool(self.lacks)

    def end(self) -> None:
        """Take note that no further row will come."""
        with self._changed:
            self._ended, self.lacks = True, 0

    def pop(self) -> list[Result | None]:
        """Take the results at the head of the line out of it."""
        with self._changed:
            chunk = [self._results.pop(number) for number in range(self._head, self._ready)]
            self._head = self._ready
        return chunk

    def wait(self, timeout_s: float, ready: int, unsent: int) -> None:
        """Wait until `ready` results could leave, no more than `unsent` rows are unsent, or the time is over."""
        with self._changed:
            self._wake_at = (ready, unsent)
            if not self._due():
                self._changed.wait(timeout_s)
            self._wake_at = (0, 0)

    def _due(self) -> bool:
        ready, unsent = self._wake_at
        return self.ready >= ready or self.unsent <= unsent

    def _wake(self) -> None:
        if self._wake_at != (0, 0) and self._due():
            self._changed.notify_all()

    def _advance(self) -> None:
        while self._ready in self._results:
            self._ready += 1


class Stream:
    """The rows of one task, and what becomes of each: asked, a twin's answer, one from the cache, or nothing."""

    def __init__(self, form: WireFormatNegotiation, policy: Policy, cache: "Cache | None" = None) -> None:
        """Begin with an empty line; a cache is used where equal rows may have one answer."""
        self.form = form
        self.line = ReorderBuffer()
        self.packer = Batcher(form.max_inputs)
        self._failure_rate = FailureRate(policy.max_failure_rate)
        one_for_all = form.task.repeatable if policy.dedupe is None else policy.dedupe
        self._twins = Dedupe() if one_for_all else None
        self._cache = cache if one_for_all else None
        self._lock = threading.Lock()

    def asked(self, rows: Sequence[Row]) -> list[Indexed]:
        """Take rows into the line and return those that are to be asked."""
        to_ask = list(self.line.take_in([None if self._asks_nothing(row) else row for row in rows]))
        if self._twins is not None:
            with self._lock:
                to_ask, known = self._twins.admit(to_ask)
            if self._cache is not None and to_ask:
                to_ask, found = self._cache.find(to_ask)
                with self._lock:
                    known += self._twins.settle(found)[0]
            with self._lock:
                for _ in known:
                    self._failure_rate.is_exceeded_by(failed=False)
            if known:
                self.line.settle(known)
        self.line.queue(len(to_ask))
        return to_ask

    def _asks_nothing(self, row: Row) -> bool:
        return row is None or (not isinstance(row, RowError) and self.form.task.skips(row))

    def settle(self, results: Iterable[tuple[int, Result]]) -> list[list[Indexed]]:
        """Put results in their places; return requests for what waited for a twin that failed."""
        asked, to_ask = list(results), list[Indexed]()
        results = asked
        if self._twins is not None:
            with self._lock:
                results, to_ask = self._twins.settle(asked)
        if self._cache is not None:
            self._cache.settle(asked, to_ask)
        self.line.queue(len(to_ask))
        self.line.settle(results)
        with self._lock:
            too_many = [r for _, r in results if self._failure_rate.is_exceeded_by(failed=r.error is not None)]
        if too_many and self.line.stopped is None:
            self.line.stop(_too_many_failed(too_many[0].error))
        return [[entry] for entry in to_ask]

    def close(self) -> None:
        """Have all answers kept that came, where there is a cache."""
        if self._cache is not None:
            self._cache.close()

    def waits_alone(self) -> bool:
        """Return whether the rows in the packer are the only ones not sent, so that waiting for more gains nothing."""
        return 0 < self.line.unsent == len(self.packer)


def _too_many_failed(last: RowError | None) -> RowError:
    why = f"not asked: as many of the last {FAILURE_ROWS:,} rows failed as max_failure_rate allows"
    return RowError("cancelled", None, f"{why}; last: {last.kind}: {last.message}" if last else why, retryable=True)
