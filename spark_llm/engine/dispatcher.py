"""The dispatcher: carries out on the event loop what the scheduler decides, and hands each row its result.

An unexpected exception ends the stream that it belongs to, or all streams of the engine where that cannot be known.
"""

import asyncio
import logging
import random
import threading
from collections.abc import Iterable
from functools import partial

from spark_llm.auth.tokens import TokenKeeper
from spark_llm.coordination.broker import PermitBroker
from spark_llm.coordination.flow_reporter import limited_by
from spark_llm.coordination.group import Group
from spark_llm.coordination.member import Demand
from spark_llm.coordination.worker import Worker, clock
from spark_llm.endpoint.route import Route
from spark_llm.engine.endpoint_client import EndpointClient
from spark_llm.engine.loop_thread import LoopThread, engine_error, log_unexpected, weak
from spark_llm.engine.process_identity import max_connections
from spark_llm.engine.request_body import unsendable_error
from spark_llm.engine.request_spec import StreamJob
from spark_llm.engine.row_stream import Stream, open_stream, unanswered_error
from spark_llm.flow.batcher import Indexed
from spark_llm.flow.controller import Controller
from spark_llm.flow.log import Flow, FlowLog
from spark_llm.flow.negotiation import WireFormatNegotiation, known_route
from spark_llm.flow.request import Request
from spark_llm.flow.scheduler import RequestScheduler
from spark_llm.livecounts.counts import Address
from spark_llm.policy import MAX_IN_FLIGHT, Policy
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Answer, Failure, Result, RowError

_CANCELLED = RowError("cancelled", None, "the reader stopped before this row was answered", retryable=True)

_flow_logger = logging.getLogger("spark_llm.flow")


class Dispatcher:
    """The requests of one endpoint: its queue, its limits, its connections, and the streams they come from.

    `open_stream` and `discard` are for any thread, all else runs in the loop's.
    """

    def __init__(
        self,
        route: Route,
        policy: Policy,
        keeper: TokenKeeper,
        loop_thread: LoopThread,
        group: tuple[object, ...] | None = None,
    ) -> None:
        """Send nothing before the first row is admitted; engines with the same `group` share their limits."""
        self._route, self._policy = route, policy
        self._renews = keeper.is_renewable
        self._loop_thread, self._loop = loop_thread, loop_thread.loop
        self._sending: dict[asyncio.Task[None], Request] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._streams: set[Stream] = set()
        self._streams_lock = threading.Lock()
        self._group_key = group
        connections = min(policy.max_in_flight or MAX_IN_FLIGHT, max_connections() or MAX_IN_FLIGHT)
        self._now = clock(self._loop)
        self._worker = Worker(
            *(self._loop, loop_thread.guarded, weak(self._demand), weak(self._queued), weak(self.pump)),
            *(connections, self._now),
        )
        self._reset()
        self._client = EndpointClient(route, keeper, policy.attempt_s, connections)

    @property
    def window(self) -> int:
        """The most requests that may be in flight now."""
        return self._group.controller.window

    def join_group(self) -> None:
        """Share the limits with the other engines of the group."""
        if self._group_key is not None:
            self._group.join(self._group_key)

    def _reset(self) -> None:
        """Begin with an empty queue, and with limits that know nothing of the endpoint."""
        label = " ".join(filter(None, (self._route.shown, self._route.model)))
        self._group = Group(self._policy, self._worker, weak(self._use), label)
        self._scheduler = RequestScheduler(self._group.controller, self._policy, unsendable_error, renews=self._renews)
        self._negotiations: dict[tuple[Task, bool], WireFormatNegotiation] = {}  # by task, and whether attributed
        self._flow_log = FlowLog()

    def open_stream(self, task: Task, job: StreamJob) -> Stream:
        """Return a new stream of rows."""
        key = task, bool(job.attribution)
        with self._streams_lock:
            known = known_route(self._route.api, self._negotiations.values())
            new = WireFormatNegotiation(task, self._policy.batch_size, known, attributed=key[1])
            stream = open_stream(self._negotiations.setdefault(key, new), self._policy, self._route, job)
            self._streams.add(stream)
        return stream

    def set_driver(self, driver: Address | None) -> None:
        """Take note of the driver of the stream that began last: it allots the limits, and is told of the flow."""
        self._group.set_driver(driver)

    def discard(self, stream: Stream) -> None:
        """Forget a stream that is over."""
        with self._streams_lock:
            self._streams.discard(stream)

    def admit(self, stream: Stream, batches: list[list[Indexed]]) -> None:
        """Queue a request for each batch, and send what may go."""
        for batch in batches:
            self._scheduler.add(stream, batch, stream.negotiation)
        stream.buffer.extra_rows_wanted = 0
        if stream.buffer.stop_error is not None:
            self._stop(stream, stream.buffer.stop_error)
        self.pump()

    def pump(self) -> None:
        """Send the requests that may go now, each in a task of its own, and set the timer for the next."""
        for request in self._ready():
            self._start(request)

    def cancel(self, stream: Stream, cancelled: threading.Event) -> None:
        """Cancel all requests of a stream, and then set the event."""
        self._loop.call_soon(cancelled.set)
        self._abort(stream, _CANCELLED)
        self.pump()

    def on_error(self, error: BaseException) -> None:
        """End all streams and forget all requests: after such an error no count can be trusted."""
        log_unexpected(self._route.shown, error)
        for sending, request in self._sending.items():
            request.permit = None  # its slot goes with all others
            sending.cancel()
        if self._timer is not None:
            self._timer.cancel()
        with self._streams_lock:
            self._group.leave()
            self._reset()
            for stream in self._streams:
                stream.buffer.abort(engine_error(type(error).__name__))
        self.join_group()

    def on_loop_end(self, reason: str) -> None:
        """End all streams, whose rows can have no answer any more."""
        with self._streams_lock:
            for stream in self._streams:
                stream.buffer.abort(engine_error(reason))

    async def shut_down(self) -> None:
        """Cancel what is in flight, close the connections, and then give up the permits."""
        group, self._group_key = self._group, None  # an error from here on does not make it join again
        self._reset()  # no queued request takes the place of a cancelled one
        for sending in self._sending:
            sending.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self._client.close()
        finally:
            await group.close()

    def _use(self, controller: Controller) -> None:
        self._scheduler.controller = controller

    def _demand(self) -> Demand:
        """Return what could be sent now."""
        head, requests = self._scheduler.sendable(self._now())
        free = self._worker.connections - self._group.controller.in_flight
        characters = head.characters if head is not None and self._policy.tokens_per_minute is not None else 0
        return Demand(max(0, min(requests, free)), characters, len(self._streams))

    def _queued(self) -> int:
        return len(self._scheduler)

    def _ready(self) -> list[Request]:
        """Return the requests that may go now, which count as sent; deliver the verdicts that are due before."""
        try:
            for request, verdict in self._scheduler.judge.verdicts(
                self._now(), lambda stream: stream.buffer.request_row()
            ):
                row_error = self._client.with_hint(verdict.error, request.wire_format, stops_all=verdict.stops_all)
                self._deliver(request.owner, request.results(row_error, None))
            if stopped := self._group.controller.stopped:
                self._stop_jobs(stopped)
            going = self._scheduler.ready(self._now())
            while self._scheduler.unsendable:
                self._end_unsendable()
                going += self._scheduler.ready(self._now())  # a duplicate is sent after all
            for request in going:
                if request.attempts.sent == 1:
                    request.owner.buffer.remove_unsent(len(request.inputs), request.bytes)
            due = self._scheduler.next_due(self._now())
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None if due is None else self._loop.call_at(due, self._loop_thread.guarded, self.pump)
            if _flow_logger.isEnabledFor(logging.INFO):
                self._log_flow()
        except BaseException as error:  # noqa: BLE001 -- requests that had left the queue may be lost
            self.on_error(error)
            return []
        return going

    def _start(self, request: Request) -> None:
        sending = self._loop.create_task(self._send(request))
        self._sending[sending] = request
        sending.add_done_callback(partial(self._loop_thread.guarded, self._on_sending_end))

    async def _send(self, request: Request) -> None:
        """Send a request, and in the slot that it leaves the next one, as long as there is one."""
        sending = asyncio.current_task(self._loop)
        while True:
            try:
                await self._settle(request, request.owner)
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001 -- whatever it is, the rows say so
                self._fail(request, error)
                self.pump()
                return
            going = self._ready()
            if not going:
                return
            request = going.pop(0)
            if sending is not None:
                self._sending[sending] = request
            for another in going:
                self._start(another)

    def _on_sending_end(self, sending: "asyncio.Task[None]") -> None:
        request = self._sending.pop(sending)
        if sending.cancelled():
            self._fail(request, asyncio.CancelledError())
            self.pump()

    async def _settle(self, request: Request, stream: Stream) -> None:
        """Make one attempt, and give the rows their results, or the request its place in the queue."""
        try:
            outcome, latency_s = await self._client.send(request, stream, self._scheduler.judge)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 -- a row never sinks a job, not even by a mistake of ours
            message = f"{type(error).__name__} in spark_llm while sending: {error}"
            outcome, latency_s = Failure(RowError("invalid_response", None, message, retryable=False)), None
        if request.permit is None:  # `on_error` has forgotten it
            return
        now = self._now()
        if isinstance(outcome, Answer):
            if self._scheduler.on_answer(request, outcome, now, latency_s):
                self._deliver(stream, request.results(outcome, latency_s))
        else:
            verdict = self._scheduler.on_failure(request, outcome, now, random.random)
            if verdict is not None:
                row_error = self._client.with_hint(verdict.error, request.wire_format, stops_all=verdict.stops_all)
                self._deliver(stream, request.results(row_error, latency_s))
                if verdict.stops_all:
                    self._stop(stream, row_error)
        if stream.buffer.stop_error is not None:
            self._stop(stream, stream.buffer.stop_error)

    def _deliver(self, stream: Stream, results: Iterable[tuple[int, Result]]) -> None:
        """Give rows their results, and queue the duplicates of a row that failed."""
        for batch in stream.settle(results):
            self._scheduler.add(stream, batch, stream.negotiation)
        stream.count_rows(self._group.controller.count_rows)

    def _end_unsendable(self) -> None:
        """End the rows whose requests are not sent: too large, or without a place for their input."""
        ended, self._scheduler.unsendable = self._scheduler.unsendable, []
        for request, error in ended:
            if request.attempts.sent == 0:
                request.owner.buffer.remove_unsent(len(request.inputs), request.bytes)
            self._deliver(request.owner, request.results(error, None))

    def _stop_jobs(self, jobs: frozenset[int]) -> None:
        """Stop the streams of jobs of which too many rows failed on this host."""
        with self._streams_lock:
            failing = [each for each in self._streams if each.job in jobs and each.buffer.stop_error is None]
        for stream in failing:
            self._stop(stream, stream.failure_rate_error)

    def _stop(self, stream: Stream, error: RowError) -> None:
        """End every row of the stream that is not in flight, since no further row is sent after this error."""
        stream.buffer.stop(error)
        unanswered = unanswered_error(error)
        while dropped := self._scheduler.drop(stream):
            for request in dropped:
                if request.attempts.sent == 0:
                    stream.buffer.remove_unsent(len(request.inputs), request.bytes)
                failed_too = request.attempts.sent and error.retryable  # its own failure may pass as well
                self._deliver(stream, request.results(error if failed_too else unanswered, None))

    def _abort(self, stream: Stream, error: RowError) -> None:
        """Give this error to every row of the stream that has no result, and cancel its requests."""
        stream.buffer.abort(error)
        self._scheduler.drop(stream)
        for sending, request in self._sending.items():
            if request.owner is stream:
                sending.cancel()

    def _fail(self, request: Request, error: BaseException) -> None:
        """Free the slot of a request that will have no outcome, and end its stream, unless that is over."""
        self._scheduler.on_cancel(request)
        if not request.owner.buffer.aborted:
            log_unexpected(self._route.shown, error)
            self._abort(request.owner, engine_error(type(error).__name__))

    def _log_flow(self) -> None:
        broker, now = self._group.controller, self._now()
        if not isinstance(broker, PermitBroker):
            return  # which logs them
        formats = tuple((each.task.name, each.wire_format) for each in self._negotiations.values() if each.wire_format)
        reason = limited_by(broker, self._worker, now) if _flow_logger.isEnabledFor(logging.DEBUG) else None
        flow = Flow.of(broker.controller, reason, formats)
        for level, message in self._flow_log.changes(flow, now):
            _flow_logger.log(level, "%s: %s", self._route.shown, message)
