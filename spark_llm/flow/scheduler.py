"""What to send next, and when. Decides and never acts: `now` and `dice` are arguments, sending is somebody else's.

New requests wait in a line; those told to try again wait in a heap, where they hold no slot, and go first when their
time has come. A batch of which the server refused something is cut in two, until the bad input stands alone; as long as
nothing was ever answered, one input is tried alone first, so that a request that is wrong as a whole shows itself. What
looks like everybody's failure waits until there are witnesses enough (`flow.suspects`).
"""

import heapq
import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from spark_llm.flow.batcher import Indexed
from spark_llm.flow.limiter import ConcurrencyLimiter, Permit
from spark_llm.flow.negotiation import Doubt, NextStep, WireFormatNegotiation, witnesses
from spark_llm.flow.request import Request
from spark_llm.flow.retry import next_delay
from spark_llm.flow.retry_budget import RetryBudget
from spark_llm.flow.suspects import Suspect, Suspects
from spark_llm.policy import Policy
from spark_llm.protocol.values import Answer, Failure, RowError

_NEVER_REACHED = ("connection", "timeout", "unavailable")


class Verdict(NamedTuple):
    """What a request ends with."""

    error: RowError
    stops_all: bool  # no other row of the task can fare better


class RequestScheduler:
    """The line in front of one endpoint."""

    def __init__(self, limit: ConcurrencyLimiter, policy: Policy, *, renews: bool = False) -> None:
        """Keep within `limit`; try again as `policy` says. `renews`: a token that is refused can be replaced."""
        self.limit = limit
        self._policy = policy
        self._renews = renews
        self._counts_tokens = policy.tokens_per_minute is not None
        self._budget = RetryBudget()
        self._fresh: deque[Request] = deque()
        self._waiting: list[tuple[float, int, Request]] = []
        self._serial = 0
        self._sendings = 0
        self.held_until = 0.0  # when the pause ends that Retry-After asked for
        self._answered_at: float | None = None
        self._suspects: defaultdict[WireFormatNegotiation, Suspects] = defaultdict(Suspects)
        self._judged: list[tuple[Request, Verdict]] = []

    @property
    def outage_since(self) -> float | None:
        """When the outage began; None while there is none."""
        return self._budget.spent_at

    def add(self, owner: object, inputs: list[Indexed], form: WireFormatNegotiation) -> None:
        """Put a request at the end of the line."""
        self._fresh.append(Request(owner, inputs, form))

    def ready(self, now: float) -> list[Request]:
        """Return the requests to send now; they count as in flight from here on."""
        going: list[Request] = []
        while (request := self._next(now)) is not None:
            request.dialect = request.form.dialect | request.flags
            self._sendings += 1
            request.number = self._sendings
            request.sent = self.limit.sent(now, request.characters if self._counts_tokens else 0)
            request.form.sent(now)
            self._suspects[request.form].sent(request)
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
        if self._waits_for_outcome(request):
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

    def _waits_for_outcome(self, request: Request) -> bool:
        """Return whether only an outcome lets a request go: it may change the wire form, or clear a suspicion."""
        fills = self._suspects[request.form].fills(self.limit.in_flight, self.limit.window)
        return fills or request.form.waits(request.flags)

    def _from_the_end(self, form: WireFormatNegotiation) -> bool:
        """Return whether the last new request in line is next: other rows' neighbours are better witnesses."""
        return form.from_the_end or len(self._suspects[form].held) % 2 == 1

    def _head(self, now: float) -> tuple[float, Request | None]:
        """Return the request whose turn is next, and when: a retry that is due, or a new one.

        As long as nothing was answered a new one waits for the retry: the endpoint, or the whole job, may be wrong.
        """
        if self._waiting:
            due, _, request = self._waiting[0]
            if due <= now and len(request.inputs) > 1 and self._fresh and self._from_the_end(self._fresh[-1].form):
                return now, self._fresh[-1]
            if due <= now or not self._fresh or not self._fresh[0].form.answered:
                return due, request
        if not self._fresh:
            return now, None
        return now, self._fresh[-1] if self._from_the_end(self._fresh[0].form) else self._fresh[0]

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
        most = form.most_inputs_in(form.dialect | request.flags)
        if spoilt and form.answered and count > 1:  # to ask it whole would only be refused
            request, rest = request.split(count // 2)
        elif count <= most:
            return request
        elif form.from_the_end:
            rest, request = request.split(count - 1)
        else:
            request, rest = request.split(most)
        if form.alone:
            rest.spoilt = spoilt
        self._wait(rest, now)
        return self._part_to_send(request, now)

    def next_due(self, now: float) -> float | None:
        """Return when `ready` can next give something without an outcome; None where only an outcome will help."""
        due, head = self._head(now)
        if head is None:
            return None
        if self._waits_for_outcome(head):
            retry_at = self._waiting[0][0] if self._waiting else now  # a retry need not wait for it
            return retry_at if retry_at > now else None
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
        form = self._back(request)
        for suspect in self._suspects[form].answered(request):
            self._release(suspect, None if suspect.request.token != request.token else suspect.own, now)
        other = form.misunderstood(request.dialect, request.inputs) if answer.format_unsupported else None
        if other is None:
            proves = any(result.error is None or result.error.kind == "schema_mismatch" for result in answer.results)
            form.understood(request.dialect, request.inputs, request.doubt, proves=proves)
            if not self._may_be_better(request, answer):
                return True
            request.ask_again(form.task, answer)
        else:
            request.flags |= other
        request.has_cost(answer.usage)
        self._wait(request, now)
        return False

    def _back(self, request: Request) -> WireFormatNegotiation:
        """Take note that a request is in flight no longer."""
        request.form.back()
        self._suspects[request.form].back(request)
        return request.form

    def _may_be_better(self, request: Request, answer: Answer) -> bool:
        error = answer.results[0].error
        return error is not None and error.kind == "schema_mismatch" and request.asked_again < self._policy.reask

    def failed(self, request: Request, failure: Failure, now: float, draw: Callable[[], float]) -> Verdict | None:
        """Take note of a failure; return what the request ends with, or None when it goes on."""
        form = self._back(request)
        request.has_cost(failure.usage)
        if failure.throttled:
            return self._refused(request, failure, now, draw)
        if failure.about_input or failure.format_unsupported or (failure.stops_all and not failure.stops_at_once):
            self.limit.answered(_sent(request), now)  # the endpoint is well, and had time to read what it refused
            self._budget.answered()
        else:
            self.limit.failed()
            if _is_ours(failure.error):
                self._budget.refused(probe=request.probe)
            else:
                self._budget.failed(now, draw(), probe=request.probe)
        request.sent = None
        if failure.about_input:
            return self._asked_otherwise(request, failure, now)
        if failure.format_unsupported and (other := form.misunderstood(request.dialect, request.inputs)) is not None:
            request.flags |= other
            self._wait(request, now)
            return None
        return self._faulted(request, failure, now, draw)

    def _asked_otherwise(self, request: Request, failure: Failure, now: float) -> Verdict | None:
        """Ask in another form, or in two parts; an input alone is what was refused."""
        form, inputs = request.form, request.inputs
        other = form.fallback_format(request.dialect, inputs, failure.error)
        if other is not None:
            request.flags |= other
            request.doubt = request.doubt or Doubt(len(inputs), witnesses(inputs))
            self._wait(request, -math.inf)  # before all others: what comes of it decides how they are asked
            return None
        then = form.refused(1 + request.flags.bit_count() if request.doubt else 1, inputs, failure.error)
        if then is NextStep.SPLIT:
            self._ask_apart(request, now)
            return None
        if then is NextStep.HOPELESS:
            return Verdict(_of_all(failure.error, form.alike), stops_all=True)
        return Verdict(failure.error, stops_all=False)

    def _ask_apart(self, request: Request, now: float) -> None:
        request.doubt, request.spoilt = None, True
        self._wait(request, now)

    def _refused(self, request: Request, failure: Failure, now: float, draw: Callable[[], float]) -> Verdict | None:
        told_s = failure.retry_after_s or 0.0
        told_when = told_s > 0 and failure.error.kind == "rate_limited"
        self.limit.refused(_sent(request), now, told_when=told_when)
        request.sent = None
        self._budget.refused(probe=request.probe)
        verdict = next_delay(failure, request.tries, self._policy, now, draw())
        if isinstance(verdict, RowError) and request.tries.refusals == 1:  # it never waited: the time is too long
            return self._suspected(request, verdict, verdict, now)
        self.held_until = max(self.held_until, now + min(told_s, self._policy.give_up_after_s))
        if isinstance(verdict, RowError):
            since = request.tries.refused_since
            return Verdict(verdict, stops_all=self._answered_at is None or since is None or self._answered_at < since)
        self._wait(request, now + verdict)
        return None

    def _faulted(self, request: Request, failure: Failure, now: float, draw: Callable[[], float]) -> Verdict | None:
        error = failure.error
        if failure.stops_at_once:
            return Verdict(error, stops_all=True)
        if failure.stops_all:
            return self._suspected(request, error, _of_the_row(error), now)
        outage_at = self._budget.spent_at
        if outage_at is not None and self._answered_at is not None and error.retryable:
            if now - outage_at > self._policy.give_up_after_s:
                why = f"gave up: nothing was answered for {now - outage_at:.0f} s; last: {error.message}"
                return Verdict(error._replace(message=why), stops_all=True)
            self._wait(request, now)  # when a probe may go: an outage spends no tries
            return None
        return self._tried(request, failure, now, draw)

    def _tried(self, request: Request, failure: Failure, now: float, draw: Callable[[], float]) -> Verdict | None:
        """Try again as long as the row has tries left, and the endpoint may be well."""
        verdict = next_delay(failure, request.tries, self._policy, now, draw())
        own = verdict if isinstance(verdict, RowError) else None
        suspects = self._suspects[request.form]
        if self._may_be_dead(request.form, failure.error) and (own is not None or suspects.held):
            different = suspects.different(request)
            last_word = self._suspected(request, own or failure.error, own, now)
            return last_word and last_word._replace(error=_of_all(last_word.error, different))
        if isinstance(verdict, RowError):
            return Verdict(verdict, stops_all=False)
        self._wait(request, now + verdict)
        return None

    def _may_be_dead(self, form: WireFormatNegotiation, error: RowError) -> bool:
        """Return whether a fault may be that of an endpoint which never worked, or is no model's."""
        never = (error.kind in _NEVER_REACHED and self._answered_at is None) or (
            error.kind == "invalid_response" and not form.answered
        )
        return never and not _is_ours(error)

    def is_decisive(self, request: Request) -> bool:
        """Return whether a refusal of this request, which is in flight, would be the last that can be heard."""
        return self._suspects[request.form].convicts(request) or self._is_left_alone(request.form, out=1)

    def _is_left_alone(self, form: WireFormatNegotiation, out: int) -> bool:
        """Return whether nothing is in line, and no more than so many requests are in flight."""
        return form.out <= out and not any(request.form is form for request in self._in_line())

    def _suspected(self, request: Request, error: RowError, own: RowError | None, now: float) -> Verdict | None:
        """End the task where there are witnesses enough; else let the request wait for its verdict."""
        suspects = self._suspects[request.form]
        if not suspects.convicts(request):
            for other in suspects.hold(request, error, own):
                self._release(other, None, now)
            return None
        suspects.convict()
        return Verdict(error, stops_all=True)

    def judged(self, now: float, asks_for_more: Callable[[Any], bool]) -> list[tuple[Request, Verdict]]:
        """Return the requests whose refusal was found to be their own, or that nothing is left to judge by.

        `asks_for_more` asks an owner for another request, and returns whether there may be one.
        """
        for form, suspects in self._suspects.items():
            if suspects.held and self._is_left_alone(form, out=0):
                owners = {suspect.request.owner for suspect in suspects.held}
                if any(asks_for_more(owner) for owner in owners):
                    continue
                again = suspects.last_look() if self._renews else None
                if again is not None:  # the last one that is refused renews the token
                    self._wait(again, now)
                else:
                    for suspect in suspects.left_alone():
                        error = suspect.own if suspect.is_contradicted else suspect.own and suspect.error
                        self._release(suspect, error, now)
        judged, self._judged = self._judged, []
        return judged

    def _release(self, suspect: Suspect, error: RowError | None, now: float) -> None:
        """End a request with its own error; several inputs are asked apart, and what has none is asked again."""
        request = suspect.request
        if error is None:
            self._wait(request, now)
        elif len(request.inputs) > 1:
            request.form.ask_alone()
            self._ask_apart(request, now)
        else:
            self._judged.append((request, Verdict(error, stops_all=False)))

    def _in_line(self) -> Iterator[Request]:
        yield from self._fresh
        yield from (request for _, _, request in self._waiting)

    def cancelled(self, request: Request) -> None:
        """Take note that a request was called off; one that is not in flight holds no slot to give back."""
        if request.sent is None:
            return
        request.sent = None
        self._back(request)
        self.limit.failed()
        self._budget.refused(probe=request.probe)

    def _wait(self, request: Request, due: float) -> None:
        self._serial += 1
        heapq.heappush(self._waiting, (due, self._serial, request))

    def drop(self, owner: object) -> list[Request]:
        """Take every request of `owner` that is not in flight out, and return them."""
        dropped = [request for request in self._in_line() if request.owner is owner]
        for suspects in self._suspects.values():
            dropped += suspects.drop(owner)
        self._fresh = deque(request for request in self._fresh if request.owner is not owner)
        self._waiting = [entry for entry in self._waiting if entry[2].owner is not owner]
        heapq.heapify(self._waiting)
        return dropped

    def __len__(self) -> int:
        """Return how many requests stand in line, in flight not counted."""
        return len(self._fresh) + len(self._waiting)


def _is_ours(error: RowError) -> bool:
    """Return whether this process failed, and not the endpoint: nothing came back that could be judged."""
    return error.kind == "invalid_response" and error.status is None and not error.retryable


def _of_all(error: RowError, inputs: int) -> RowError:
    who = "every request" if inputs == 1 else f"{inputs} different inputs"
    why = f"{who} got this error and none succeeded, so the rest were not sent"
    return error._replace(message=f"{error.message} ({why})")


def _of_the_row(error: RowError) -> RowError:
    """Return the error of a row that alone is refused: it says nothing of the token or the address."""
    if error.kind not in ("unauthorized", "not_found"):
        return error
    return error._replace(kind="invalid_request", message=f"{error.message} (this row only; others were answered)")


def _sent(request: Request) -> Permit:
    """Return what the limit wants back of a request that is in flight."""
    if request.sent is None:
        raise ValueError("The request was never sent.")
    return request.sent
