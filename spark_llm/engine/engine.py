"""The engine: sends the rows of one worker to one endpoint, and yields their results in the rows' order.

Two threads share it. Spark's thread reads rows and yields results (`Engine.stream`, here); the event loop's thread
sends requests and settles them (`dispatcher`). An engine outlives a Spark task with its open connections and the window
that it has found: the next task on the same endpoint goes on with them (`registry`).
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence

from spark_llm.auth.tokens import TokenKeeper
from spark_llm.endpoint.route import Route
from spark_llm.engine.dispatcher import Dispatcher
from spark_llm.engine.loop_thread import LoopThread, engine_error
from spark_llm.engine.request_spec import NO_JOB, StreamJob
from spark_llm.engine.row_stream import RowReader, Stream, raise_if_failed
from spark_llm.flow.batcher import Indexed
from spark_llm.flow.read_ahead import ReadAhead
from spark_llm.policy import Policy
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Result, Row

_CANCEL_S = 5.0
_KEEP_ERRORS = 'leave out Policy(on_error="raise"), or give ai_query failOnError=False, to keep errors in their rows.'

_logger = logging.getLogger("spark_llm.engine")


class Engine:
    """Answers streams of rows from one endpoint; any thread may read a stream."""

    def __init__(
        self,
        route: Route,
        policy: Policy,
        keeper: TokenKeeper | None = None,
        group: tuple[object, ...] | None = None,
    ) -> None:
        """Start the event loop's thread; no connection is opened before the first row.

        `keeper` keeps the token of the route's credential; without one the engine has its own. Engines of one host with
        the same `group` share their limits; without one it keeps to its own part of them.
        """
        self._label = route.shown
        self._policy = policy
        self._loop_thread = LoopThread(self._label)
        keeper = keeper or TokenKeeper(route.credential, route.ca_bundle)
        self._dispatcher = Dispatcher(route, policy, keeper, self._loop_thread, group)
        self._loop_thread.start(self._dispatcher)
        self._loop_thread.call(self._dispatcher.join_group)
        _logger.info("%s: engine opened", self._label)

    @property
    def is_alive(self) -> bool:
        """Whether it can answer: it was not closed, and its thread runs, in this process and not in its parent."""
        return self._loop_thread.is_alive

    def stream(
        self, task: Task, batches: Iterator[Sequence[Row]], job: StreamJob = NO_JOB
    ) -> Iterator[list[Result | None]]:
        """Yield the result of every row of `batches`, in chunks and in the rows' order; null for null.

        An empty chunk is a flush: there is nothing yet, and the caller should push out what it has buffered. Raises
        `RowFailedError` for the first row that failed, where the policy says so. When the caller stops reading, the
        requests in flight are cancelled.

        `batches` may depend on the results that were yielded: it yields `NOT_YET` while it waits for further ones.
        """
        stream = self._opened(task, job)
        counts, failed = _logger.isEnabledFor(logging.DEBUG), 0
        try:
            for chunk in self._results(stream, RowReader(batches)):
                if counts:
                    failed += sum(result is not None and result.error is not None for result in chunk)
                yield chunk
        finally:
            self._closed(stream, failed)

    def close(self) -> None:
        """Cancel what is in flight, close the connections and end the threads; the engine cannot be used again."""
        self._loop_thread.close()

    def _opened(self, task: Task, job: StreamJob) -> Stream:
        stream = self._dispatcher.open_stream(task, job)
        self._loop_thread.call(self._dispatcher.set_driver, job.driver)
        _logger.debug("%s: %s stream begun", self._label, task.name)
        return stream

    def _closed(self, stream: Stream, failed: int) -> None:
        buffer = stream.buffer
        if buffer.held > buffer.ready and self.is_alive:
            cancelled = threading.Event()
            self._loop_thread.call(self._dispatcher.cancel, stream, cancelled)
            cancelled.wait(_CANCEL_S)
        self._dispatcher.discard(stream)
        stream.close()
        message = "%s: %s stream ended: %d rows, %d of them failed"
        _logger.debug(message, self._label, stream.negotiation.task.name, buffer.popped, failed)

    def _results(self, stream: Stream, rows: RowReader) -> Iterator[list[Result | None]]:
        rows_per_request = stream.negotiation.max_inputs
        buffer, read_ahead = stream.buffer, ReadAhead(time.monotonic(), rows_per_request)
        while buffer.held or not rows.ended:
            now = time.monotonic()
            window_rows = self._dispatcher.window * rows_per_request
            wanted = read_ahead.rows_to_read(buffer.unsent, window_rows, now, buffer.unsent_bytes)
            wanted = wanted or buffer.extra_rows_wanted
            if wanted:
                read_ahead.on_read(self._read(stream, rows, wanted), ended=rows.ended)
                wanted = 0 if rows.waits else wanted
            nothing_to_wait_for = not wanted and buffer.ready == buffer.held
            if buffer.ready and (nothing_to_wait_for or rows.waits or read_ahead.should_yield(buffer.ready, now)):
                is_last = rows.ended and buffer.ready == buffer.held
                if is_last and read_ahead.rows_left:
                    yield []  # a reader that has enough goes now, and not while the worker writes its end
                chunk = buffer.pop_ready()
                if self._policy.on_error == "raise":
                    raise_if_failed(chunk, _KEEP_ERRORS)
                yield chunk
                if not read_ahead.on_yield(len(chunk), time.monotonic()) or is_last:
                    continue
            elif not read_ahead.should_flush(now):
                if not wanted:
                    self._wait(stream, read_ahead, window_rows, now, for_results=rows.waits)
                continue
            yield []
            read_ahead.on_flush(time.monotonic(), buffer.settled)

    def _read(self, stream: Stream, rows: RowReader, limit: int) -> int:
        """Read rows, no more than `limit`, and admit them; return how many."""
        read = rows.take(limit)
        self._admit(stream, stream.batcher.add(stream.admit(read)))
        if stream.buffer.extra_rows_wanted:
            self._admit(stream, stream.batcher.flush())
        if rows.ended:
            stream.buffer.end_input()
            self._loop_thread.call(self._dispatcher.pump)
        return len(read)

    def _wait(self, stream: Stream, read_ahead: ReadAhead, window_rows: int, now: float, *, for_results: bool) -> None:
        """Wait until there are results to yield or rows to read; abort the stream where the loop has ended.

        With `for_results` the rows to read depend on results, so that one of these is enough.
        """
        buffer = stream.buffer
        if stream.only_partial_batch_unsent():
            self._admit(stream, stream.batcher.flush())
        if for_results:
            min_rows, low = 1, (-1, 0)
        else:
            min_rows = max(1, min(read_ahead.min_chunk_rows(), buffer.held))
            low = read_ahead.low_watermark(window_rows, now)
        buffer.wait(read_ahead.next_check_at(buffer.ready) - now, min_rows, low)
        if not self.is_alive:
            buffer.abort(engine_error("its thread ended"))

    def _admit(self, stream: Stream, batches: list[list[Indexed]]) -> None:
        if batches:
            self._loop_thread.call(self._dispatcher.admit, stream, batches)
