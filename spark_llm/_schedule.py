"""What to send next, and when. Decides and never acts: `now` and `dice` are arguments, sending is somebody else's.

New requests wait in a line; those told to try again wait in a heap, where they hold no slot, and go first when their
time has come. A batch of which the server refused something is cut in two, until the bad input stands alone.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from spark_llm._limit import Limit
from spark_llm._pack import Numbered
from spark_llm._retry import Tries, wait_before_next
from spark_llm._values import Answer, Failure, Result, RowError, Usage
from spark_llm.policy import Policy


@dataclass(slots=True, eq=False)
class Request:
    """Inputs on their way: whose they are, how they were asked, and what their tries cost."""

    owner: Any  # whoever it is for; told apart by identity
    inputs: list[Numbered]
    dialect: int = 0
    tries: Tries = field(default_factory=Tries)
    spent: Usage | None = None  # tokens of tries that gave no answer
    epoch: int = 0

    def settled(self, outcome: Answer | RowError, latency_s: float | None) -> Iterator[tuple[int, Result]]:
        """Give each input its result, with its part of the tokens that all tries cost, by length."""
        answered = outcome.usage if isinstance(outcome, Answer) else None
        usage = self.spent if answered is None else answered.plus(self.spent)
        shares = [None] * len(self.inputs) if usage is None else usage.share([len(item) for _, item in self.inputs])
        results = [Result(error=outcome) for _ in self.inputs] if isinstance(outcome, RowError) else outcome.results
        for (number, _), result, share in zip(self.inputs, results, shares, strict=True):
            result.usage = share
            result.attempts = self.tries.sent
            result.latency_ms = None if latency_s is None else latency_s * 1000
            yield number, result

    def halves(self) -> "list[Request]":
        """Cut in two; what the tries cost is shared out by length."""
        middle = len(self.inputs) // 2
        parts = [self.inputs[:middle], self.inputs[middle:]]
        spent = (
            [None, None]
            if self.spent is None
            else self.spent.share([sum(len(item) for _, item in part) for part in parts])
        )
        return [
            Request(self.owner, part, self.dialect, Tries(sent=self.tries.sent), share)
            for part, share in zip(parts, spent, strict=True)
        ]


class Schedule:
    """The line in front of one endpoint."""

    def __init__(self, limit: Limit, policy: Policy, dialects: int = 1) -> None:
        """Keep within `limit`; try again as `policy` says; know that the task has so many wire forms."""
        self.limit = limit
        self.dialect = 0  # the wire form that new requests take
        self._policy = policy
        self._dialects = dialects
        self._dialect_proven = False
        self._fresh: deque[Request] = deque()
        self._waiting: list[tuple[float, int, Request]] = []
        self._serial = 0
        self._held_until = 0.0

    def add(self, owner: object, inputs: list[Numbered]) -> None:
        """Put a request at the end of the line."""
        self._fresh.append(Request(owner, inputs))

    def ready(self, now: float) -> list[Request]:
        """Return the requests to send now; they count as in flight from here on."""
        if now < self._held_until:
            return []
        going: list[Request] = []
        room = self.limit.room
        while len(going) < room:
            if self._waiting and self._waiting[0][0] <= now:
                request = heapq.heappop(self._waiting)[2]
            elif self._fresh:
                request = self._fresh.popleft()
                request.dialect = self.dialect
            else:
                break
            going.append(request)
        for request in going:
            if self._dialect_proven:
                request.dialect = self.dialect
            request.epoch = self.limit.sent()
            request.tries.sent += 1
        return going

    def next_due(self) -> float | None:
        """Return when `ready` can next give something without a slot being freed; None where only that will help."""
        if not self.limit.room or not (self._fresh or self._waiting):
            return None
        due = self._held_until if self._fresh else self._waiting[0][0]
        return max(due, self._held_until)

    def answered(self, request: Request) -> None:
        """Take note that a request was answered."""
        self.limit.answered()
        if not self._dialect_proven:
            self.dialect = request.dialect
            self._dialect_proven = True

    def failed(self, request: Request, failure: Failure, now: float, dice: Callable[[], float]) -> RowError | None:
        """Take note of a failure; return the error that is the last word, or None when the request goes on."""
        if failure.told_to_wait:
            self.limit.refused(request.epoch)
            if failure.retry_after_s:
                self._held_until = max(self._held_until, now + min(failure.retry_after_s, self._policy.give_up_after_s))
        elif failure.about_input and (self._dialect_proven or self._dialects == 1):
            self.limit.answered()  # the endpoint is well, and had time to read what it refused
        else:
            self.limit.failed()
        if failure.usage is not None:
            request.spent = failure.usage.plus(request.spent)
        if failure.about_input:
            return self._asked_otherwise(request, failure, now)
        verdict = wait_before_next(failure, request.tries, self._policy, now, dice())
        if isinstance(verdict, RowError):
            return verdict
        self._wait(request, now + verdict)
        return None

    def cancelled(self) -> None:
        """Take note that a request in flight was called off."""
        self.limit.failed()

    def _asked_otherwise(self, request: Request, failure: Failure, now: float) -> RowError | None:
        """Ask in the next wire form where none is proven, else in two halves; an input alone is refused."""
        if (
            failure.error.kind == "invalid_request"
            and not self._dialect_proven
            and request.dialect + 1 < self._dialects
        ):
            request.dialect += 1
            self._wait(request, now)
            return None
        if len(request.inputs) == 1:
            return failure.error
        request.dialect = self.dialect  # no form was taken, so the form was not what was refused
        for half in request.halves():
            self._wait(half, now)
        return None

    def _wait(self, request: Request, due: float) -> None:
        self._serial += 1
        heapq.heappush(self._waiting, (due, self._serial, request))

    def drop(self, owner: object) -> list[Request]:
        """Take every request of `owner` that is not in flight out of the line, and return them."""
        dropped = [request for request in self._fresh if request.owner is owner]
        dropped += [entry[2] for entry in self._waiting if entry[2].owner is owner]
        self._fresh = deque(request for request in self._fresh if request.owner is not owner)
        self._waiting = [entry for entry in self._waiting if entry[2].owner is not owner]
        heapq.heapify(self._waiting)
        return dropped

    def __len__(self) -> int:
        """Return how many requests stand in line, in flight not counted."""
        return len(self._fresh) + len(self._waiting)
