"""The scheduler of one endpoint: which request goes next and when, and what follows from its outcome.

New requests wait in a queue. Retries wait in a heap, where they hold no slot, and go first when they are due. A batch
with a bad input is halved until that input stands alone, and so is one with too large a body, before it is sent. As
long as nothing was ever answered one input is sent alone first, so that a request that is wrong as a whole shows
itself. A refusal that may concern every row waits until there are enough witnesses (`flow.judge`).

In an outage every second probe is a new row, the first one too. The rows that failed may fail by themselves, and their
retries alone would never end it.

It decides and never acts: `now` and `draw` are arguments, and the caller sends.
"""

import math
from collections import defaultdict
from collections.abc import Callable

from spark_llm.flow.batcher import Indexed
from spark_llm.flow.controller import Controller
from spark_llm.flow.judge import RefusalJudge, Verdict, row_error_of, task_error_of
from spark_llm.flow.limiter import Permit
from spark_llm.flow.negotiation import Doubt, NextStep, WireFormatNegotiation, witness_keys
from spark_llm.flow.request import Request
from spark_llm.flow.request_queue import RequestQueue
from spark_llm.flow.retry import is_of_row, is_own_mistake, never_worked, next_delay
from spark_llm.flow.suspects import Suspects
from spark_llm.policy import Policy
from spark_llm.protocol.values import Answer, Failure, RowError

WhyUnsendable = Callable[[Request], RowError | None]  # the error of a request that is not sent, or None
MAX_COUNTED = 64  # requests that wait to be sent


class RequestScheduler:
    """Schedules the requests of one endpoint: queue, retries, pauses and outages."""

    def __init__(
        self,
        controller: Controller,
        policy: Policy,
        why_unsendable: WhyUnsendable = lambda _: None,
        *,
        renews: bool = False,
    ) -> None:
        """Keep within `controller`, and retry as `policy` says; `renews`: a token that is refused can be replaced."""
        self.controller = controller
        self.unsendable: list[tuple[Request, RowError]] = []  # of one input each: they have ended
        self._why_unsendable = why_unsendable
        self._policy = policy
        self._counts_tokens = policy.tokens_per_minute is not None
        self._last_send_number = 0
        self._answered_at: float | None = None
        self._suspects: defaultdict[WireFormatNegotiation, Suspects] = defaultdict(Suspects)
        self._queue = RequestQueue(self._takes_last)
        self._probed_new = False  # by the last probe of an outage
        self.judge = RefusalJudge(self._suspects, self._queue, renews=renews)

    def add(self, owner: object, inputs: list[Indexed], negotiation: WireFormatNegotiation) -> None:
        """Append a request to the queue."""
        self._queue.new.append(Request(owner, inputs, negotiation))

    def ready(self, now: float) -> list[Request]:
        """Return the requests to send now; they count as in flight from here on."""
        requests: list[Request] = []
        while (request := self._next(now)) is not None:
            request.wire_format = request.negotiation.wire_format | request.format_flags
            if (error := self._why_unsendable(request)) is not None:
                self._on_unsendable(request, error, now)
                continue
            self._last_send_number += 1
            request.send_number = self._last_send_number
            request.permit = self.controller.acquire(now, request.characters if self._counts_tokens else 0)
            request.negotiation.on_send(now)
            self._suspects[request.negotiation].on_send(request)
            self._probed_new = self.controller.outage_since is not None and request.attempts.sent == 0
            request.attempts.sent += 1
            requests.append(request)
        return requests

    def sendable(self, now: float) -> tuple[Request | None, int]:
        """Return the next request, and how many could go now if the controller let them; at most 64 are counted."""
        due, head = self._head(now)
        if head is None or due > now or self._waits_for_outcome(head):
            return None, 0
        count = self._queue.due_count(now, MAX_COUNTED)
        max_in_flight = head.negotiation.max_in_flight(now)
        return head, count if max_in_flight is None else min(count, max(0, max_in_flight - head.negotiation.in_flight))

    def next_due(self, now: float) -> float | None:
        """Return when `ready` can next return a request; None where only an outcome will help."""
        due, head = self._head(now)
        if head is None:
            return None
        if self._waits_for_outcome(head):
            retry_at = self._queue.retry_due(now)  # a retry need not wait for it
            return retry_at if retry_at > now else None
        max_in_flight = head.negotiation.max_in_flight(now)
        negotiating = max_in_flight is not None and head.negotiation.in_flight >= max_in_flight
        resumes_at = self.controller.resumes_at(now) if negotiating else self.controller.opens_at(now)
        opens_at = head.negotiation.opens_at() if negotiating else now
        return None if opens_at is None or resumes_at is None else max(due, opens_at, resumes_at)

    def on_answer(self, request: Request, answer: Answer, now: float, latency_s: float | None) -> bool:
        """Count an answer; return whether it settles the request, which else is sent again."""
        tokens = None if answer.usage is None else answer.usage.total_tokens
        self.controller.on_answer(_permit(request), now, latency_s, tokens)
        request.permit = None
        self._answered_at = now
        negotiation = self._on_return(request)
        for suspect in self._suspects[negotiation].on_answer(request):
            self.judge.clear(suspect, request, now)
        fallback = None
        if answer.format_unsupported:
            fallback = negotiation.fallback_after_answer(request.wire_format, request.inputs)
        if fallback is None:
            confirms = answer.mismatched or any(result.error is None for result in answer.results)
            negotiation.on_answer(request.wire_format, request.inputs, request.doubt, confirms=confirms)
            if not answer.mismatched or request.reasks >= self._policy.reask:
                return True
            request.reask(negotiation.task, answer)
        else:
            request.format_flags |= fallback
        request.add_wasted_usage(answer.usage)
        self._queue.push_retry(request, now)
        return False

    def on_failure(self, request: Request, failure: Failure, now: float, draw: Callable[[], float]) -> Verdict | None:
        """Count a failure; return what the request ends with, or None where it is sent again or waits.

        `draw` returns a random number from [0, 1).
        """
        negotiation = self._on_return(request)
        request.add_wasted_usage(failure.usage)
        if failure.error.status is not None and failure.error.status >= 400:
            request.refusals += (failure.error.status,)
        if failure.throttled:
            return self._on_rate_limited(request, failure, now, draw)
        if failure.about_input or failure.format_unsupported or (failure.stops_all and not failure.stops_at_once):
            self.controller.on_answer(_permit(request), now)  # it is well, and had time to read what it refused
        elif failure.is_unsendable or is_own_mistake(failure.error):
            self.controller.on_inconclusive(_permit(request))
        else:
            self.controller.on_fault(_permit(request), now, draw())
        request.permit = None
        if failure.about_input:
            return self._on_bad_input(request, failure, now)
        if failure.format_unsupported:
            fallback = negotiation.fallback_after_answer(request.wire_format, request.inputs)
            if fallback is not None:
                request.format_flags |= fallback
                self._queue.push_retry(request, now)
                return None
        return self._on_fault(request, failure, now, draw)

    def on_cancel(self, request: Request) -> None:
        """Count a cancelled request; one that is not in flight holds no slot."""
        if request.permit is None:
            return
        self.controller.on_inconclusive(request.permit)
        request.permit = None
        self._on_return(request)

    def drop(self, owner: object) -> list[Request]:
        """Remove every request of a stream that is not in flight, and return them."""
        dropped = self._queue.drop(owner)
        for suspects in self._suspects.values():
            dropped += suspects.drop(owner)
        return dropped

    def __len__(self) -> int:
        """Return how many requests are queued, in flight not counted."""
        return len(self._queue)

    def _head(self, now: float) -> tuple[float, Request | None]:
        """Return the time and the request whose turn is next."""
        probes_new = self.controller.outage_since is not None and not self._probed_new
        return self._queue.head(now, takes_new=probes_new)

    def _next(self, now: float) -> Request | None:
        """Remove and return the next request, if one may go now."""
        due, request = self._head(now)
        if request is None or due > now:
            return None
        if self._waits_for_outcome(request):
            return None
        max_in_flight = request.negotiation.max_in_flight(now)
        if max_in_flight is not None:
            if request.negotiation.in_flight >= max_in_flight:
                return None
            self.controller.widen(max_in_flight)
        if not self.controller.available(now):
            return None
        self._queue.remove(request)
        return self._part_to_send(request, now)

    def _on_unsendable(self, request: Request, error: RowError, now: float) -> None:
        """End a request of one input before it is sent; cut one of several in two."""
        request.body = None
        if len(request.inputs) == 1:
            self.unsendable.append((request, error))
            return
        for part in request.split(len(request.inputs) // 2):
            self._queue.push_retry(part, now)

    def _waits_for_outcome(self, request: Request) -> bool:
        """Return whether only an outcome lets a request go: it may change the wire format, or clear a suspicion."""
        suspects = self._suspects[request.negotiation]
        fill_window = suspects.fill_window(self.controller.in_flight, self.controller.window)
        return fill_window or request.negotiation.waits_for_answer(request.format_flags)

    def _takes_last(self, negotiation: WireFormatNegotiation) -> bool:
        """Return whether the last new request is next: rows far from the refused ones are better witnesses."""
        return negotiation.takes_last or len(self._suspects[negotiation].waiting) % 2 == 1

    def _part_to_send(self, request: Request, now: float) -> Request:
        """Return the request, or as much of it as one may carry; the rest waits right behind it."""
        negotiation, count, has_bad_input = request.negotiation, len(request.inputs), request.has_bad_input
        max_inputs = negotiation.max_inputs_in(negotiation.wire_format | request.format_flags)
        if has_bad_input and negotiation.answered and count > 1:  # the whole would only be refused
            request, rest = request.split(count // 2)
        elif count <= max_inputs:
            return request
        elif negotiation.takes_last:
            rest, request = request.split(count - 1)
        else:
            request, rest = request.split(max_inputs)
        if negotiation.sends_inputs_alone:
            rest.has_bad_input = has_bad_input
        self._queue.push_retry(rest, now)
        return self._part_to_send(request, now)

    def _on_return(self, request: Request) -> WireFormatNegotiation:
        """Count a request as in flight no more."""
        request.negotiation.on_return()
        self._suspects[request.negotiation].on_return(request)
        return request.negotiation

    def _on_bad_input(self, request: Request, failure: Failure, now: float) -> Verdict | None:
        """Send the inputs in another wire format, or in two parts; an input that was refused alone is the bad one."""
        negotiation, inputs = request.negotiation, request.inputs
        fallback = negotiation.fallback_after_refusal(request.wire_format, inputs, failure.error)
        if fallback is not None:
            request.format_flags |= fallback
            request.doubt = request.doubt or Doubt(len(inputs), witness_keys(inputs))
            self._queue.push_retry(request, -math.inf)  # before all others: its outcome decides how they are sent
            return None
        formats = 1 + request.format_flags.bit_count() if request.doubt else 1
        next_step = negotiation.on_refusal(formats, inputs, failure.error)
        if next_step is NextStep.SPLIT:
            self._queue.push_split(request, now)
            return None
        if next_step is NextStep.FATAL:
            return Verdict(task_error_of(failure.error, negotiation.alike_refusals), stops_all=True)
        return Verdict(failure.error, stops_all=False)

    def _on_rate_limited(
        self, request: Request, failure: Failure, now: float, draw: Callable[[], float]
    ) -> Verdict | None:
        """Wait as long as the endpoint says, and retry; end a row that has waited for too long."""
        retry_after_s = failure.retry_after_s or 0.0
        paused = retry_after_s > 0 and failure.error.kind == "rate_limited"
        delay = next_delay(failure, request.attempts, self._policy, now, draw())
        is_too_long = isinstance(delay, RowError) and request.attempts.rate_limited == 1  # it never waited
        pause_s = 0.0 if is_too_long else min(retry_after_s, self._policy.give_up_after_s)
        if failure.short:
            self.controller.on_fault(_permit(request), now, draw(), short=True)
        else:
            self.controller.on_rate_limited(_permit(request), now, pause_s=pause_s, paused=paused)
        request.permit = None
        if isinstance(delay, RowError):
            if is_too_long:
                return self.judge.suspect(request, delay, delay, now)
            since = request.attempts.rate_limited_since
            return Verdict(delay, stops_all=self._answered_at is None or since is None or self._answered_at < since)
        self._queue.push_retry(request, now + delay)
        return None

    def _on_fault(self, request: Request, failure: Failure, now: float, draw: Callable[[], float]) -> Verdict | None:
        """End the task or the row, wait for a verdict or for the end of an outage, or retry."""
        error = failure.error
        if request.attempts.fault_since is None:
            request.attempts.fault_since = now
        if error.kind == "not_found" and (withdrawn := request.negotiation.withdraw(request.wire_format)):
            request.format_flags &= ~withdrawn
            self._queue.push_retry(request, now)
            return None
        if failure.stops_at_once:
            return Verdict(error, stops_all=True)
        if failure.stops_all:
            return self.judge.suspect(request, error, row_error_of(error), now)
        outage_at = self.controller.outage_since
        if outage_at is not None and self._answered_at is not None and error.retryable:
            if now - outage_at > self._policy.give_up_after_s:
                message = f"gave up after an outage of {now - outage_at:.0f} s; last: {error.message}"
                return Verdict(error._replace(message=message), stops_all=True)
            if not is_of_row(failure, request.attempts, self._answered_at, any_new=bool(self._queue.new)):
                self._queue.push_retry(request, now)  # when a probe may go: an outage spends no attempts
                return None
        return self._retry(request, failure, now, draw)

    def _retry(self, request: Request, failure: Failure, now: float, draw: Callable[[], float]) -> Verdict | None:
        """Retry as long as the row has attempts left, and the endpoint may be well."""
        delay = next_delay(failure, request.attempts, self._policy, now, draw())
        row_error = delay if isinstance(delay, RowError) else None
        suspects = self._suspects[request.negotiation]
        may_be_dead = never_worked(failure.error, self._answered_at, answered=request.negotiation.answered)
        if may_be_dead and (row_error is not None or suspects.waiting):
            inputs = suspects.distinct_inputs(request)
            verdict = self.judge.suspect(request, row_error or failure.error, row_error, now)
            return verdict and verdict._replace(error=task_error_of(verdict.error, inputs))
        if isinstance(delay, RowError):
            return Verdict(delay, stops_all=False)
        self._queue.push_retry(request, now + delay)
        return None


def _permit(request: Request) -> Permit:
    if request.permit is None:
        raise ValueError("The request is not in flight.")
    return request.permit
