"""What to send next, and when. Decides and never acts: `now` and `dice` are arguments, sending is somebody else's.

New requests wait in a line; those told to try again wait in a heap, where they hold no slot, and go first when their
time has come. A batch of which the server refused something is cut in two, until the bad input stands alone; as long as
nothing was ever answered, one input is tried alone first, so that a request that is wrong as a whole shows itself.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from spark_llm._form import Form, Then
from spark_llm._limit import Limit, Sent
from spark_llm._outage import RetryBudget
from spark_llm._pack import Numbered
from spark_llm._request import Request
from spark_llm._retry import wait_before_next
from spark_llm._values import Answer, Failure, RowError
from spark_llm.policy import Policy


class LastWord(NamedTuple):
    """What a request ends with."""

    error: RowError
    stops_all: bool  # no other row of the task can fare better


class Schedule:
    """The line in front of one endpoint."""

    def __init__(self, limit: Limit, policy: Policy) -> None:
        """Keep within `limit`; try again as `policy` says."""
        self.limit = limit
        self._policy = policy
        self._counts_tokens = policy.tokens_per_minute is not None
        self._budget = RetryBudget()
        self._fresh: deque[Request] = deque()
        self._waiting: list[tuple[float, int, Request]] = []
        self._serial = 0
        self.held_until = 0.0  # when the pause ends that Retry-After asked for
        self._answered_at: float | None = None

    @property
    def outage_since(self) -> float | None:
        """When the outage began; None while there is none."""
        return self._budget.spent_at

    def add(self, owner: object, inputs: list[Numbered], form: Form) -> None:
        """Put a request at the end of the line."""
        self._fresh.append(Request(owner, inputs, form))

    def ready(self, now: float) -> list[Request]:
        """Return the requests to send now; they count as in flight from here on."""
        going: list[Request] = []
        while (request := self._next(now)) is not None:
            request.dialect = request.form.dialect
            request.sent = self.limit.sent(now, request.letters if self._counts_tokens else 0)
            request.form.sent(now)
            request.probe = self._budget.sent()
            request.tries.sent += 1
            going.append(request)
        return going

    def _next(self, now: float) -> Request | None:
        """Take the next request out of the line, if one may go now."""
        if now < self.held_until or self._budget.opens_at(now) != now:
            return None
        due, request = self._head(now)
        if request is None or due > now:
            return None
        opened = request.form.opened(now)
        if opened is not None:
            if request.form.out >= opened:
                return None
            self.limit.widen(opened)
        if not self.limit.room(now):
            return None
        self._take(request)
        return self._part_to_send(request, now)

    def _head(self, now: float) -> tuple[float, Request | None]:
        """Return the request whose turn is next, and when: a retry that is due, or a new one.

        As long as nothing was answered a new one waits for the retry: the endpoint, or the whole job, may be wrong.
        """
        if self._waiting:
            due, _, request = self._waiting[0]
            if due <= now and len(request.inputs) > 1 and self._fresh and self._fresh[-1].form.from_the_end:
                return now, self._fresh[-1]
            if due <= now or not self._fresh or not self._fresh[0].form.answered:
                return due, request
        if not self._fresh:
            return now, None
        return now, self._fresh[-1] if self._fresh[0].form.from_the_end else self._fresh[0]

    def _take(self, head: Request) -> None:
        if self._waiting and self._waiting[0][2] is head:
            heapq.heappop(self._waiting)
        elif self._fresh[0] is head:
            self._fresh.popleft()
        else:
            self._fresh.pop()

    def _part_to_send(self, request: Request, now: float) -> Request:
        """Return the request, or as much of it as may go in one; the rest waits right behind it."""
        form, count, spoilt = request.form, len(request.inputs), request.spoilt
        if spoilt and form.answered and count > 1:  # to ask it whole would only be refused
            request, rest = request.split(count // 2)
        elif count <= form.most_inputs:
            return request
        elif form.from_the_end:
            rest, request = request.split(count - 1)
        else:
            request, rest = request.split(form.most_inputs)
        if form.alone:
            rest.spoilt = spoilt
        self._wait(rest, now)
        return self._part_to_send(request, now)

    def next_due(self, now: float) -> float | None:
        """Return when `ready` can next give something without an outcome; None where only an outcome will help."""
        due, head = self._head(now)
        if head is None:
            return None
        opened = head.form.opened(now)
        silent = opened is not None and head.form.out >= opened
        opens_at = head.form.opens_at() if silent else self.limit.opens_at(now)
        probe_at = self._budget.opens_at(now)
        if opens_at is None or probe_at is None:
            return None
        return max(due, self.held_until, opens_at, probe_at)

    def answered(self, request: Request, answer: Answer, now: float, latency_s: float | None) -> bool:
        """Take note that a request was answered; return whether that settles it, or it goes on."""
        tokens = None if answer.usage is None else answer.usage.total_tokens
        self.limit.answered(_sent(request), now, latency_s, tokens)
        request.sent = None
        self._budget.answered()
        self._answered_at = now
        form = request.form
        form.back()
        misread = answer.about_form and form.misunderstood(request.dialect)
        if not misread:
            form.understood(request.dialect, len(request.inputs), in_doubt=request.in_doubt)
            if not self._may_be_better(request, answer):
                return True
            request.ask_again(form.task, answer)
        request.has_cost(answer.usage)
        self._wait(request, now)
        return False

    def _may_be_better(self, request: Request, answer: Answer) -> bool:
        error = answer.results[0].error
        return error is not None and error.kind == "schema_mismatch" and request.asked_again < self._policy.reask

    def failed(self, request: Request, failure: Failure, now: float, dice: Callable[[], float]) -> LastWord | None:
        """Take note of a failure; return what the request ends with, or None when it goes on."""
        request.form.back()
        request.has_cost(failure.usage)
        if failure.told_to_wait:
            return self._refused(request, failure, now, dice)
        if failure.about_input or failure.about_form:
            self.limit.answered(_sent(request), now)  # the endpoint is well, and had time to read what it refused
            self._budget.answered()
        else:
            self.limit.failed()
            self._budget.failed(now, dice(), probe=request.probe)
        request.sent = None
        if failure.about_input:
            return self._asked_otherwise(request, failure, now)
        if failure.about_form and request.form.misunderstood(request.dialect):
            self._wait(request, now)
            return None
        if request.form.failed(failure.error):
            return _hopeless(failure.error)
        return self._faulted(request, failure, now, dice)

    def _asked_otherwise(self, request: Request, failure: Failure, now: float) -> LastWord | None:
        """Ask in another form, or in two parts; an input alone is what was refused."""
        then = request.form.refused(request.dialect, request.inputs, failure.error)
        if then is Then.HOPELESS:
            return _hopeless(failure.error)
        if then is Then.END:
            return LastWord(failure.error, stops_all=False)
        if then is Then.AGAIN:
            request.in_doubt = True
            self._wait(request, -math.inf)  # before all others: what comes of it decides how they are asked
        else:
            request.spoilt = True
            self._wait(request, now)
        return None

    def _refused(self, request: Request, failure: Failure, now: float, dice: Callable[[], float]) -> LastWord | None:
        told_s = failure.retry_after_s or 0.0
        told_when = told_s > 0 and failure.error.kind == "rate_limited"
        self.limit.refused(_sent(request), now, told_when=told_when)
        request.sent = None
        self._budget.refused(probe=request.probe)
        self.held_until = max(self.held_until, now + min(told_s, self._policy.give_up_after_s))
        verdict = wait_before_next(failure, request.tries, self._policy, now, dice())
        if isinstance(verdict, RowError):
            since = request.tries.refused_since
            return LastWord(verdict, stops_all=self._answered_at is None or since is None or self._answered_at < since)
        self._wait(request, now + verdict)
        return None

    def _faulted(self, request: Request, failure: Failure, now: float, dice: Callable[[], float]) -> LastWord | None:
        if failure.final:
            return LastWord(failure.error, stops_all=True)
        outage_at = self._budget.spent_at
        if outage_at is not None and self._answered_at is not None and failure.error.retryable:
            if now - outage_at > self._policy.give_up_after_s:
                why = f"nothing was answered for {now - outage_at:.0f} s, then given up; last: {failure.error.message}"
                return LastWord(failure.error._replace(message=why), stops_all=True)
            self._wait(request, now)  # when a probe may go: an outage spends no tries
            return None
        verdict = wait_before_next(failure, request.tries, self._policy, now, dice())
        if isinstance(verdict, RowError):
            unreachable = self._answered_at is None and failure.error.kind in ("connection", "timeout", "unavailable")
            return LastWord(verdict, stops_all=failure.stops_all or unreachable)
        self._wait(request, now + verdict)
        return None

    def cancelled(self, request: Request) -> None:
        """Take note that a request was called off; one that is not in flight holds no slot to give back."""
        if request.sent is None:
            return
        request.sent = None
        request.form.back()
        self.limit.failed()
        self._budget.refused(probe=request.probe)

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


def _hopeless(error: RowError) -> LastWord:
    why = "it was the same with all that were asked, and none was answered, so no more were sent"
    return LastWord(error._replace(message=f"{error.message} ({why})"), stops_all=True)


def _sent(request: Request) -> Sent:
    """Return what the limit wants back of a request that is in flight."""
    if request.sent is None:
        raise ValueError("The request was never sent.")
    return request.sent
