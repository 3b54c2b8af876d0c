"""The rows of one task on their way through an engine: read, deduplicated, batched for requests, and settled.

Two threads share a `Stream`: Spark's reads batches and yields results, the event loop's settles rows. Its buffer and
its duplicates are each guarded by a lock.
"""

import os
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from spark_llm.cache.entry import Keys
from spark_llm.endpoint.route import Route
from spark_llm.engine.reorder_buffer import ReorderBuffer
from spark_llm.engine.request_body import BodyWriter
from spark_llm.engine.request_spec import StreamJob
from spark_llm.errors import RowFailedError
from spark_llm.flow.batcher import Indexed
from spark_llm.flow.dedupe import Dedupe
from spark_llm.flow.negotiation import WireFormatNegotiation
from spark_llm.flow.retry import FAILURE_ROWS, FailureRate
from spark_llm.metering.chunking import NOT_ROW_ERRORS
from spark_llm.policy import Policy
from spark_llm.protocol.chat.content import item_bytes
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Result, Row, RowError

if TYPE_CHECKING:
    from spark_llm.cache.answer_cache import Cache


NOT_YET: list[Row] = []  # in place of a batch: the next rows depend on results that have not left


class RowReader:
    """Reads rows from batches, no faster than they are wanted."""

    def __init__(self, batches: Iterator[Sequence[Row]]) -> None:
        """Read from `batches`, one at a time."""
        self._batches = batches
        self._batch: Sequence[Row] = ()
        self._position = 0
        self.ended = False
        self.waits = False  # whether the last batch was `NOT_YET`

    def take(self, limit: int) -> Sequence[Row]:
        """Return up to `limit` rows, of one batch; none where a batch was empty or all were read (`ended`)."""
        if self._position >= len(self._batch):
            self._batch, self._position = (), 0  # free the old batch before the next one comes
            batch = next(self._batches, None)
            if batch is None:
                self.ended = True
                return ()
            self._batch, self.waits = batch, batch is NOT_YET
        rows = self._batch[self._position : self._position + limit]
        self._position += len(rows)
        return rows


class Stream:
    """The rows of one task, each sent, answered by a duplicate or by the cache, or settled without a request."""

    def __init__(
        self,
        negotiation: WireFormatNegotiation,
        policy: Policy,
        cache: "Cache | None" = None,
        bodies: BodyWriter | None = None,
    ) -> None:
        """Begin without rows; a cache is used where equal rows may have one answer."""
        self.negotiation = negotiation
        self.bodies = bodies or BodyWriter(negotiation.task)
        self.buffer = ReorderBuffer()
        self.batcher = self.bodies.batcher(negotiation.max_inputs)
        self.job: int | None = None  # whose failed rows are counted over all tasks of the host, with those of this one
        self._failure_rate = FailureRate(policy.max_failure_rate)
        dedupes = negotiation.task.repeatable if policy.dedupe is None else policy.dedupe
        self._dedupe = Dedupe() if dedupes else None
        self._cache = cache if dedupes else None
        self._lock = threading.Lock()
        self._skips = type(negotiation.task).skips is not Task.skips  # whether it skips some inputs
        self._uncounted = [0, 0]  # rows that have ended, and those of them that failed
        self._last_error: RowError | None = None

    def admit(self, rows: Sequence[Row]) -> list[Indexed]:
        """Append rows to the buffer and return those to send."""
        if self._skips:
            rows = [None if self._needs_no_request(row) else row for row in rows]
        to_send = self.buffer.append(rows)
        if self._dedupe is not None:
            with self._lock:
                to_send, known = self._dedupe.admit(to_send)
            if self._cache is not None and to_send:
                to_send, found = self._cache.find(to_send)
                with self._lock:
                    known += self._dedupe.settle(found)[0]
            with self._lock:
                self._is_too_much(known)
            if known:
                self.buffer.settle(known)
        self._add_unsent(to_send)
        return to_send

    def _needs_no_request(self, row: Row) -> bool:
        return row is not None and not isinstance(row, (RowError, Result)) and self.negotiation.task.skips(row)

    def _add_unsent(self, inputs: Sequence[Indexed]) -> None:
        self.buffer.add_unsent(len(inputs), sum(item_bytes(item) for _, item in inputs))

    def settle(self, results: Iterable[tuple[int, Result]]) -> list[list[Indexed]]:
        """Give rows their results; return one batch for each duplicate of a row that failed."""
        sent, to_send = list(results), list[Indexed]()
        results = sent
        if self._dedupe is not None:
            with self._lock:
                results, to_send = self._dedupe.settle(sent)
        if self._cache is not None:
            self._cache.settle(sent, to_send)
        self._add_unsent(to_send)
        self.buffer.settle(results)
        with self._lock:
            too_many = self._is_too_much(results)
        if too_many:
            self.buffer.stop(self.failure_rate_error)
        return [[entry] for entry in to_send]

    def _is_too_much(self, results: Iterable[tuple[int, Result]]) -> bool:
        """Count rows that have ended; return whether too many of this task have failed."""
        if self._failure_rate.max_share is None or self.buffer.stop_error is not None:  # rows that were not sent
            return False
        too_many = False
        for _, result in results:
            failed = result.error is not None
            self._uncounted[0] += 1
            self._uncounted[1] += failed
            if failed:
                self._last_error = result.error
            if self._failure_rate.is_exceeded_by(failed=failed):
                too_many = True
        return too_many

    def count_rows(self, count: Callable[[int, int, int, float], None]) -> None:
        """Have the rows counted that have ended since the last call, where the host counts the rows of its tasks."""
        if self.job is not None and self._failure_rate.max_share is not None:
            with self._lock:
                (rows, failed), self._uncounted = self._uncounted, [0, 0]
            if rows:
                count(self.job, rows, failed, self._failure_rate.max_share)

    @property
    def failure_rate_error(self) -> RowError:
        """The error of the rows that are not sent because too many have failed, of this task or of the host's."""
        rate, last = self._failure_rate, self._last_error
        message = (
            f"not sent: max_failure_rate={rate.max_share:g} allows fewer than {rate.max_failed:,} failed rows of the "
            f"last {FAILURE_ROWS:,}; this task had {rate.failed:,} of {rate.rows:,}"
            f"{', other tasks of its host the rest' if rate.failed < rate.max_failed else ''}"
            f"{'' if last is None else f'; last: {last.kind}: {last.message}'}"
        )
        return RowError("cancelled", None, message, retryable=True)

    def close(self) -> None:
        """Write all answers to the cache, where there is one."""
        if self._cache is not None:
            self._cache.close()

    def only_partial_batch_unsent(self) -> bool:
        """Return whether the only unsent rows are in the batcher, so that waiting to fill it gains nothing."""
        return 0 < self.buffer.unsent == len(self.batcher)


def job_number(stage: int | None, task: Task, max_share: float | None) -> int | None:
    """Return the same number in all workers for one stage of Spark, task and share; None where nothing is counted."""
    if stage is None or max_share is None:
        return None
    return zlib.crc32(repr((stage, task, max_share)).encode("utf-8", "surrogatepass"))


def open_stream(negotiation: WireFormatNegotiation, policy: Policy, route: Route, job: StreamJob) -> Stream:
    """Return a stream of a job's rows, with the cache that the policy names: its file stays open as long as it."""
    task, cache = negotiation.task, None
    if policy.cache is not None:
        from spark_llm.cache.answer_cache import Cache  # SQLite, which streams without a cache do not need

        cache = Cache(os.fspath(policy.cache), Keys(task, route.url, route.model, route.headers))
    stream = Stream(negotiation, policy, cache, BodyWriter.of(task, policy, route, job.attribution))
    stream.job = job_number(job.stage, task, policy.max_failure_rate)
    return stream


def raise_if_failed(results: Iterable[Result | None], hint: str) -> None:
    """Raise `RowFailedError` for the first of `results` that is an error."""
    for result in results:
        if result is not None and result.error is not None:
            error = result.error
            raise RowFailedError(f"A row was not answered: {error.kind} (status {error.status}): {error.message}", hint)


def unanswered_error(cause: RowError) -> RowError:
    """Return the error of the rows that a stopped task had not answered.

    A `cause` that is true of every row is theirs too. Any other was met by other rows: these can be sent again.
    """
    is_of_task = cause.kind == "invalid_request" and cause.status is None  # the wire format has no place for it
    if cause.kind in NOT_ROW_ERRORS or is_of_task:
        return cause
    message = f"the task stopped before this row was answered; last: {cause.kind}: {cause.message}"
    return RowError("cancelled", None, message, retryable=True)
