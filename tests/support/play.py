"""A whole task against a made-up endpoint, on a made-up clock; the rules' promises are checked at every step."""

import heapq
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from spark_llm.flow.batcher import Batcher, Indexed
from spark_llm.flow.limiter import ConcurrencyLimiter
from spark_llm.flow.negotiation import WireFormatNegotiation
from spark_llm.flow.request import Request
from spark_llm.flow.scheduler import RequestScheduler
from spark_llm.policy import Policy
from spark_llm.protocol.chat import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Answer, Failure, Item, Outcome, Result, RowError, Usage

CHAT, COMPLETE, EMBED = Chat(), Complete(), Embed()
SENT_MOST = 20_000

BAD_INPUT = Failure(RowError("invalid_request", 400, "not allowed", retryable=False), usage=Usage(3, None, 3))
BAD_FORM = Failure(RowError("invalid_request", 400, "unknown field", retryable=False))
WRONG_COUNT = Failure(
    RowError("invalid_response", 200, "1 choice for 8", retryable=True), usage=Usage(5, 2, 7), format_unsupported=True
)
REFUSED = Failure(RowError("rate_limited", 429, "slower", retryable=True), throttled=True)
BROKEN = Failure(RowError("connection", None, "reset by peer", retryable=True))
GARBAGE = Failure(RowError("invalid_response", 200, "cut short", retryable=True), usage=Usage(5, 2, 7))
NOT_FOUND = Failure(RowError("not_found", 404, "no such endpoint", retryable=False))

Endpoint = Callable[[Request, float, random.Random], Outcome]


def told(retry_after_s: float) -> Failure:
    """Make a refusal that names a time."""
    return Failure(REFUSED.error, throttled=True, retry_after_s=retry_after_s)


def answer(request: Request) -> Answer:
    """Answer every input of a request by its number, for a token a letter and two more."""
    characters, count = request.characters, len(request.inputs)
    results = [Result(text=f"answer {number}") for number, _ in request.inputs]
    return Answer(results, Usage(characters, 2 * count, characters + 2 * count))


@dataclass(frozen=True)
class Server:
    """A made-up endpoint: the rows and the wire forms that it does not take, and how often it does what else."""

    poison: Iterable[int] = ()
    forms: Iterable[int] = ()
    format_unsupported: Failure = BAD_FORM
    refused: float = 0.0
    broken: float = 0.0
    garbage: float = 0.0
    outage: tuple[float, float] = (0.0, 0.0)  # from when to when it is away

    def __call__(self, request: Request, now: float, dice: random.Random) -> Outcome:
        """Answer a request, or not."""
        if self.outage[0] <= now < self.outage[1]:
            return BROKEN
        draw = dice.random()
        if draw < self.refused:
            return dice.choice((REFUSED, told(0.4), told(3.0)))
        if draw < self.refused + self.broken:
            return BROKEN
        if draw < self.refused + self.broken + self.garbage:
            return GARBAGE
        alone = request.form.task is COMPLETE and len(request.inputs) == 1  # then it is written alike in both forms
        if request.dialect in self.forms and not (alone and request.dialect == 0):
            return self.format_unsupported
        return BAD_INPUT if any(number in self.poison for number, _ in request.inputs) else answer(request)


class Sent(NamedTuple):
    """One request that went out."""

    at: float
    rows: list[int]
    dialect: int
    outcome: Outcome
    out: int  # requests in flight with it


class Play:
    """A task played to its end; keeps what was sent, and what each row got."""

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
    ) -> None:
        """Ask all rows from `start` on, as an engine would."""
        self.sent: list[Sent] = []
        self.results: dict[int, Result] = {}
        self.stopped: RowError | None = None
        self.now = start
        self.limit = ConcurrencyLimiter(policy)
        self.schedule = RequestScheduler(self.limit, policy)
        self._endpoint, self._dice, self._latency_s = endpoint, random.Random(seed), latency_s
        self._ceiling = policy.ceiling
        self._in_flight: list[tuple[float, int, Request, Outcome]] = []
        form = WireFormatNegotiation(task, policy.batch_size)
        packer = Batcher(form.max_inputs)
        for pack in [*packer.add(enumerate(rows)), *packer.flush()]:
            self.schedule.add(self, pack, form)
        while len(self.schedule) or self._in_flight:
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
        going = self.schedule.ready(self.now)
        for request in going:
            rows = [number for number, _ in request.inputs]
            assert not self.results.keys() & rows, "a row is not sent after it was settled"
            assert len(rows) <= request.form.max_inputs, "a request carries no more than its wire form takes"
            outcome = self._endpoint(request, self.now, self._dice)
            due = self.now + self._dice.uniform(*self._latency_s)
            heapq.heappush(self._in_flight, (due, len(self.sent), request, outcome))
            request.requests += 1
            self.sent.append(Sent(self.now, rows, request.dialect, outcome, len(self._in_flight)))
        assert len(self.sent) < SENT_MOST, "it comes to an end"
        assert not going or len(self._in_flight) <= min(self.limit.window, self._ceiling), "no more than may be out"
        assert len(self._in_flight) == self.limit.in_flight, "what waits holds no slot"

    def _wait(self) -> None:
        due = self.schedule.next_due(self.now)
        comes = self._in_flight[0][0] if self._in_flight else None
        assert due is None or due > self.now, "what could go has gone: to name this very time would be to spin"
        assert due is not None or comes is not None or not len(self.schedule), "what is left in line has a time"
        times = [time for time in (due, comes) if time is not None]
        if not times:
            return
        between = self.now + (min(times) - self.now) * self._dice.random()
        if self.limit.per_s is None and between < min(times):  # a learned rate may be forgotten before its time
            assert not self.schedule.ready(between), "nothing can go before the time that is named"
        self.now = min(times)
        if comes == self.now:
            _, _, request, outcome = heapq.heappop(self._in_flight)
            self._settle(request, outcome)

    def _settle(self, request: Request, outcome: Outcome) -> None:
        if isinstance(outcome, Answer):
            self.schedule.answered(request, outcome, self.now, 1.0)
            self._deliver(request, outcome)
        elif last_word := self.schedule.failed(request, outcome, self.now, self._dice.random):
            self._deliver(request, last_word.error)
            if last_word.stops_all:
                self.stopped = last_word.error
        for judged, last_word in self.schedule.judged(self.now, lambda _: False):
            self._deliver(judged, last_word.error)
        if self.stopped is not None:
            for dropped in self.schedule.drop(self):
                self._deliver(dropped, self.stopped)

    def _deliver(self, request: Request, outcome: Answer | RowError) -> None:
        for number, result in request.settled(outcome, 1.0):
            assert number not in self.results, "a row is settled once"
            self.results[number] = result


def pack(*numbers: int) -> list[Indexed]:
    """Make a request's inputs: these rows, each a text of its own."""
    return [(number, f"row {number}") for number in numbers]


def begun(policy: Policy, task: Task = CHAT, owner: object = "task") -> tuple[RequestScheduler, WireFormatNegotiation]:
    """Return a line of which one request was answered at time 0, and its form."""
    schedule = RequestScheduler(ConcurrencyLimiter(policy), policy)
    form = WireFormatNegotiation(task, policy.batch_size)
    schedule.add(owner, pack(0), form)
    (first,) = schedule.ready(0.0)
    schedule.answered(first, answer(first), 0.0, 1.0)
    return schedule, form


def total(parts: Iterable[Usage | None]) -> Usage:
    """Add up tokens; None counts as none."""
    return Usage(
        *(sum(column) for column in zip(Usage(0, 0, 0, 0, 0), *[[n or 0 for n in p] for p in parts if p], strict=True))
    )


def texts(count: int) -> list[str]:
    """Make so many rows that differ, also in their lengths."""
    return [f"{number} {'x' * (number * 7 % 13)}" for number in range(count)]
