"""Plays a whole task against a simulated endpoint and clock, and checks the flow control at every step."""

import heapq
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from spark_llm.flow.batcher import Batcher, Indexed
from spark_llm.flow.controller import FlowController
from spark_llm.flow.negotiation import WireFormatNegotiation
from spark_llm.flow.request import Request
from spark_llm.flow.scheduler import RequestScheduler
from spark_llm.policy import Policy
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Answer, Failure, Item, Outcome, Result, RowError, Usage

CHAT, COMPLETE, EMBED = Chat(), Complete(), Embed()
MAX_SENT = 20_000

BAD_INPUT = Failure(RowError("invalid_request", 400, "not allowed", retryable=False), usage=Usage(3, None, 3))
BAD_FORMAT = Failure(RowError("invalid_request", 400, "unknown field", retryable=False))
WRONG_COUNT = Failure(
    RowError("invalid_response", 200, "1 choice for 8", retryable=True), usage=Usage(5, 2, 7), format_unsupported=True
)
REFUSED = Failure(RowError("rate_limited", 429, "slower", retryable=True), throttled=True)
BROKEN = Failure(RowError("connection", None, "reset by peer", retryable=True))
GARBAGE = Failure(RowError("invalid_response", 200, "cut short", retryable=True), usage=Usage(5, 2, 7))
NOT_FOUND = Failure(RowError("not_found", 404, "no such endpoint", retryable=False))

Endpoint = Callable[[Request, float, random.Random], Outcome]


def rate_limited(retry_after_s: float) -> Failure:
    """Make a rate-limited response with a Retry-After."""
    return Failure(REFUSED.error, throttled=True, retry_after_s=retry_after_s)


def answer(request: Request) -> Answer:
    """Answer every input with its number, for one token a character and two more."""
    characters, count = request.characters, len(request.inputs)
    results = [Result(text=f"answer {number}") for number, _ in request.inputs]
    return Answer(results, Usage(characters, 2 * count, characters + 2 * count))


@dataclass(frozen=True)
class Server:
    """A simulated endpoint: the rows and wire formats that it refuses, and the shares of other failures."""

    bad_rows: Iterable[int] = ()
    refused_formats: Iterable[int] = ()
    format_failure: Failure = BAD_FORMAT
    refused: float = 0.0
    broken: float = 0.0
    garbage: float = 0.0
    outage: tuple[float, float] = (0.0, 0.0)  # its begin and end

    def __call__(self, request: Request, now: float, dice: random.Random) -> Outcome:
        """Return the outcome of a request."""
        if self.outage[0] <= now < self.outage[1]:
            return BROKEN
        draw = dice.random()
        if draw < self.refused:
            return dice.choice((REFUSED, rate_limited(0.4), rate_limited(3.0)))
        if draw < self.refused + self.broken:
            return BROKEN
        if draw < self.refused + self.broken + self.garbage:
            return GARBAGE
        alike = request.negotiation.task is COMPLETE and len(request.inputs) == 1  # one prompt is the same in both
        if request.wire_format in self.refused_formats and not (alike and request.wire_format == 0):
            return self.format_failure
        return BAD_INPUT if any(number in self.bad_rows for number, _ in request.inputs) else answer(request)


class Sent(NamedTuple):
    """One request that was sent."""

    at: float
    rows: list[int]
    wire_format: int
    outcome: Outcome
    in_flight: int  # requests, with this one


class Play:
    """A task played to its end, with the requests that were sent and the result of each row."""

    def __init__(
        self,
        rows: Sequence[Item],
        endpoint: Endpoint,
        policy: Policy,
        task: Task = EMBED,
        *,
        seed: int = 0,
        start: float = 0.0,
        latency_s: tuple[float, float] = (0.05, 2.0),
        attributed: bool = False,
    ) -> None:
        """Send all rows from the time `start` on, as an engine would."""
        self.sent: list[Sent] = []
        self.results: dict[int, Result] = {}
        self.stopped: RowError | None = None
        self.now = start
        self.controller = FlowController(policy)
        self.scheduler = RequestScheduler(self.controller, policy)
        self._endpoint, self._dice, self._latency_s = endpoint, random.Random(seed), latency_s
        self._ceiling = policy.ceiling
        self._in_flight: list[tuple[float, int, Request, Outcome]] = []
        negotiation = WireFormatNegotiation(task, policy.batch_size, attributed=attributed)
        batcher = Batcher(negotiation.max_inputs)
        for batch in [*batcher.add(enumerate(rows)), *batcher.flush()]:
            self.scheduler.add(self, batch, negotiation)
        while len(self.scheduler) or self._in_flight:
            self._send()
            self._wait()

    @property
    def errors(self) -> dict[int, RowError]:
        """The rows that failed, and why."""
        return {number: result.error for number, result in self.results.items() if result.error is not None}

    @property
    def billed(self) -> Usage:
        """The tokens that the endpoint reported."""
        return total(sent.outcome.usage for sent in self.sent)

    @property
    def received(self) -> Usage:
        """The tokens that the rows carry."""
        return total(result.usage for result in self.results.values())

    def _send(self) -> None:
        going = self.scheduler.ready(self.now)
        for request in going:
            rows = [number for number, _ in request.inputs]
            assert not self.results.keys() & rows, "a row is not sent after it was settled"
            assert len(rows) <= request.negotiation.max_inputs, (
                "a request carries no more than its wire negotiation takes"
            )
            outcome = self._endpoint(request, self.now, self._dice)
            due = self.now + self._dice.uniform(*self._latency_s)
            heapq.heappush(self._in_flight, (due, len(self.sent), request, outcome))
            request.http_requests += 1
            self.sent.append(Sent(self.now, rows, request.wire_format, outcome, len(self._in_flight)))
        assert len(self.sent) < MAX_SENT, "it comes to an end"
        assert not going or len(self._in_flight) <= min(self.controller.window, self._ceiling), (
            "no more requests are in flight than allowed"
        )
        assert len(self._in_flight) == self.controller.in_flight, "queued requests hold no slot"

    def _wait(self) -> None:
        due = self.scheduler.next_due(self.now)
        comes = self._in_flight[0][0] if self._in_flight else None
        assert due is None or due > self.now, "the next time is later: this very time would be a busy loop"
        assert due is not None or comes is not None or not len(self.scheduler), "queued requests have a next time"
        times = [time for time in (due, comes) if time is not None]
        if not times:
            return
        between = self.now + (min(times) - self.now) * self._dice.random()
        may_be_forgotten = self.controller.limiter.rate_per_s is not None  # a learned rate, before its time
        if not may_be_forgotten and between < min(times):
            assert not self.scheduler.ready(between), "nothing can go before the next time"
        self.now = min(times)
        if comes == self.now:
            _, _, request, outcome = heapq.heappop(self._in_flight)
            self._settle(request, outcome)

    def _settle(self, request: Request, outcome: Outcome) -> None:
        if isinstance(outcome, Answer):
            self.scheduler.on_answer(request, outcome, self.now, 1.0)
            self._deliver(request, outcome)
        elif verdict := self.scheduler.on_failure(request, outcome, self.now, self._dice.random):
            self._deliver(request, verdict.error)
            if verdict.stops_all:
                self.stopped = verdict.error
        for judged, verdict in self.scheduler.judge.verdicts(self.now, lambda _: False):
            self._deliver(judged, verdict.error)
        if self.stopped is not None:
            for dropped in self.scheduler.drop(self):
                self._deliver(dropped, self.stopped)

    def _deliver(self, request: Request, outcome: Answer | RowError) -> None:
        for number, result in request.results(outcome, 1.0):
            assert number not in self.results, "a row is settled once"
            self.results[number] = result


def pack(*numbers: int) -> list[Indexed]:
    """Make the inputs of a request: these rows, with a different text each."""
    return [(number, f"row {number}") for number in numbers]


def begun(policy: Policy, task: Task = CHAT, owner: object = "task") -> tuple[RequestScheduler, WireFormatNegotiation]:
    """Return a scheduler that has had one answer at time 0, and the negotiation of its task."""
    scheduler = RequestScheduler(FlowController(policy), policy)
    negotiation = WireFormatNegotiation(task, policy.batch_size)
    scheduler.add(owner, pack(0), negotiation)
    (first,) = scheduler.ready(0.0)
    scheduler.on_answer(first, answer(first), 0.0, 1.0)
    return scheduler, negotiation


def total(parts: Iterable[Usage | None]) -> Usage:
    """Add up tokens; None counts as none."""
    columns = zip([0] * 8, *[[count or 0 for count in part.counts] for part in parts if part], strict=True)
    return Usage.of(map(sum, columns), None)


def texts(count: int) -> list[str]:
    """Make so many rows that differ, also in their lengths."""
    return [f"{number} {'x' * (number * 7 % 13)}" for number in range(count)]
