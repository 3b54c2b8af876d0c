"""Simulates whole jobs: workers that know nothing of each other, and of the endpoint only its responses.

Each worker has a `ConcurrencyLimiter` and a `RequestScheduler` of its own, as an engine has. Ten thousand requests take
a third of a second. Measured are the share of the endpoint's capacity that was used, and what it took.
"""

import heapq
import math
import random
from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import count, pairwise
from typing import NamedTuple

from spark_llm.flow.controller import Controller, FlowController
from spark_llm.flow.limiter import ConcurrencyLimiter
from spark_llm.flow.negotiation import WireFormatNegotiation
from spark_llm.flow.request import Request
from spark_llm.flow.scheduler import RequestScheduler
from spark_llm.policy import Policy
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.values import Answer, Result, RowError, Usage
from tests.support.servers import Endpoint, Reply

POLICY = Policy()
MAX_REQUESTS_PER_ROW = 50  # on average: with more it would never end
MAX_SILENCE_S = 61.0  # of a worker with rows to send and nothing in flight


class Worker:
    """One of the job's tasks, with its share of the rows."""

    def __init__(self, controller: Controller, policy: Policy, rows: Iterable[int], seed: int) -> None:
        """Queue every row."""
        self.scheduler = RequestScheduler(controller, policy)
        self.in_flight = 0
        self.leaves_at = math.inf
        self.wakes_at: float | None = 0.0
        self.dice = random.Random(seed).random
        negotiation = WireFormatNegotiation(Chat(), policy.batch_size)
        for number in rows:
            self.scheduler.add(self, [(number, "why?")], negotiation)


class Leaving(NamedTuple):
    """So many of the workers end at a time, with the requests that they have in flight."""

    workers: int
    at: float


class Event(NamedTuple):
    """The outcome of a worker's request, an action, or without either the time to wake the worker."""

    at: float
    serial: int
    worker: Worker
    request: Request | None = None
    reply: Reply | None = None
    action: Callable[[], None] | None = None


class Job:
    """A job played to its end; each step checks the limits of sending."""

    def __init__(
        self,
        endpoint: Endpoint,
        rows: int,
        *,
        workers: int = 1,
        leaving: Leaving | None = None,
        policy: Policy = POLICY,
        limit: Callable[[Policy], ConcurrencyLimiter] = ConcurrencyLimiter,
    ) -> None:
        """Share the rows among the workers, and send them all except those of workers that leave."""
        self.sent = 0
        self.results: dict[int, Result] = {}
        self._left: set[int] = set()  # rows of workers that left
        self._endpoint, self._rows, self._policy = endpoint, rows, policy
        self._answered_at: list[float] = []
        self._in_flight = [(0.0, 0)]  # times, and the requests in flight from then on
        self._serial = count()
        self._events: list[Event] = []
        self._limit = limit
        share = -(-rows // workers)
        for number, first in enumerate(range(0, rows, share)):
            worker = self._worker(range(first, min(rows, first + share)))
            worker.leaves_at = leaving.at if leaving and number < leaving.workers else math.inf
            self._wake(worker, 0.0)
        self._play()
        assert self.results.keys() | self._left == set(range(self._rows)), "no row is lost"

    @property
    def seconds(self) -> float:
        """When the last answer came."""
        return self._answered_at[-1]

    @property
    def failed(self) -> int:
        """How many rows failed."""
        return self._rows - len(self._left) - len(self._answered_at)

    @property
    def requests_per_row(self) -> float:
        """The requests per answered row."""
        return self.sent / len(self._answered_at)

    @property
    def max_in_flight(self) -> int:
        """The most requests that were in flight at once."""
        return max(requests for _, requests in self._in_flight)

    def share(self, of_rows: float = 1.0, *, begin: float = 0.0) -> float:
        """Return the rows answered over those that the endpoint could have answered: from `begin`, in seconds, on.

        It ends when `of_rows` of the rows that were then left are answered.
        """
        before = bisect_left(self._answered_at, begin)
        answered = int(of_rows * (len(self._answered_at) - before))
        end = self._answered_at[before + answered - 1]
        return answered / (self._capacity(end) - self._capacity(begin))

    def share_between(self, begin: float, end: float) -> float:
        """Return the rows answered between two times, in seconds, over those that the endpoint could have answered."""
        answered = bisect_left(self._answered_at, end) - bisect_left(self._answered_at, begin)
        return answered / (self._capacity(end) - self._capacity(begin))

    def _capacity(self, seconds: float) -> float:
        """Return how many rows the endpoint could have answered by then."""
        whole = int(seconds)
        capacity = sum(self._endpoint.per_s(float(second)) for second in range(whole))
        return capacity + (seconds - whole) * self._endpoint.per_s(seconds)

    def in_flight(self, begin: float = 0.5, end: float = 0.95) -> float:
        """Return the mean number of requests in flight between two parts of the job's time."""
        begin, end = begin * self.seconds, end * self.seconds
        stretches = pairwise(self._in_flight)
        return sum(requests * max(0.0, min(b, end) - max(a, begin)) for (a, requests), (b, _) in stretches) / (
            end - begin
        )

    def _worker(self, rows: range) -> Worker:
        controller = FlowController(self._policy)
        controller.limiter = self._limit(self._policy)
        return Worker(controller, self._policy, rows, seed=rows.start)

    def _play(self) -> None:
        while self._events:
            self._happen(heapq.heappop(self._events))

    def _happen(self, event: Event) -> None:
        worker = event.worker
        if event.request is not None and event.reply is not None:
            worker.in_flight -= 1
            self._count(event.at, -1)
            self._settle(event.request, event.reply, worker)
        elif worker.wakes_at != event.at:
            return  # it woke up before
        if event.at >= worker.leaves_at:
            left = worker.scheduler.drop(worker)
            self._left.update(number for request in left for number, _ in request.inputs)
        self._pump(worker, event.at)

    def _pump(self, worker: Worker, now: float) -> None:
        """Send what may go, and wake the worker when more may."""
        self._send(worker, now)
        due = worker.scheduler.next_due(now)
        if due is None:
            self._check_idle(worker)
            worker.wakes_at = None
        else:
            assert due > now, "the next time is later"
            assert worker.in_flight or due < now + MAX_SILENCE_S, "waiting is bounded"
            if due != worker.wakes_at:
                self._wake(worker, due)

    def _check_idle(self, worker: Worker) -> None:
        assert worker.in_flight or not len(worker.scheduler), "queued requests have a next time"

    def _wake(self, worker: Worker, now: float) -> None:
        worker.wakes_at = now
        heapq.heappush(self._events, Event(now, next(self._serial), worker))

    def _count(self, now: float, more: int) -> None:
        self._in_flight.append((now, self._in_flight[-1][1] + more))

    def _send(self, worker: Worker, now: float) -> None:
        for judged, final in worker.scheduler.judge.verdicts(now, lambda _: False):
            self._deliver(judged, final.error)
        window = worker.scheduler.controller.window
        for request in worker.scheduler.ready(now):
            assert request.inputs[0][0] not in self.results, "a row is not sent after its answer"
            worker.in_flight += 1
            window = max(window, worker.scheduler.controller.window)
            reply = self._reply(now)
            heapq.heappush(self._events, Event(reply.at, next(self._serial), worker, request, reply))
            self._on_send(worker, window, reply)
            self._count(now, 1)
            self.sent += 1
            assert self.sent <= MAX_REQUESTS_PER_ROW * self._rows, "it comes to an end"
        assert worker.in_flight == worker.scheduler.controller.in_flight, "queued requests hold no slot"

    def _reply(self, now: float) -> Reply:
        return self._endpoint.reply(now)

    def _on_send(self, worker: Worker, window: int, reply: Reply) -> None:
        assert worker.in_flight <= window, "no more is in flight than the window allows"

    def _settle(self, request: Request, reply: Reply, worker: Worker) -> None:
        """Do what an engine does with an outcome."""
        sent_at = reply.at if request.permit is None else request.permit.sent_at
        last_word: Answer | RowError
        if reply.failure is None:
            last_word = Answer([Result(text="because") for _ in request.inputs], Usage(2, 1, 3))
            worker.scheduler.on_answer(request, last_word, reply.at, reply.at - sent_at)
            self._answered_at.append(reply.at)
        else:
            final = worker.scheduler.on_failure(request, reply.failure, reply.at, worker.dice)
            if final is None:
                return
            last_word = final.error
            if final.stops_all:
                for unsent in worker.scheduler.drop(worker):
                    self._deliver(unsent, last_word)
        self._deliver(request, last_word)

    def _deliver(self, request: Request, last_word: Answer | RowError) -> None:
        for number, result in request.results(last_word, 1.0):
            assert number not in self.results, "a row is settled once"
            self.results[number] = result
