"""What follows from the replies to a row's requests: its result, or its next request.

A row has one request in a batch at a time. Its outcome is a function of its input and of all replies so far, so a run
that was killed continues where it was, and no state of a row is written down but its replies. Knows no clock, no
socket and no Spark.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from spark_llm.errors import Kind
from spark_llm.flow.dedupe import shared_result
from spark_llm.metering.prices import BATCH
from spark_llm.policy import Policy
from spark_llm.protocol.batches.lines import CANCELLED, EXPIRED, LEFT_OUT, Reply
from spark_llm.protocol.task import PLAIN, Task
from spark_llm.protocol.values import Answer, Failure, Item, Outcome, Result, RowError, Usage

UNSENDABLE = "spark_llm_unsendable"  # the code of a request that was not sent, because no server would take it
_TOO_LARGE = 413
_KIND_OF_CODE: dict[str, Kind] = {EXPIRED: "timeout", LEFT_OUT: "invalid_response", "server_error": "unavailable"}
_WAITS = RowError("cancelled", None, "waits for the next batch", retryable=True)


@dataclass(slots=True)
class NextTry:
    """The next request of a row: its prompt and wire format, and what its earlier tries came to."""

    item: Item
    wire_format: int
    usage: Usage | None = None  # of all tries
    tries: int = 0

    def waiting(self) -> Result:
        """Return the result of a row that waits for its request to be sent and answered; it is none yet."""
        return Result(error=_WAITS)

    def plus(self, result: Result) -> Result:
        """Return the result of a single request that took the place of the next batch, with the cost of all tries.

        Its tier is that of the single request, which may be none: it has most of the tokens, and is not at half price.
        """
        single = result.usage
        if self.usage is not None:
            both = single and single.plus(self.usage)._replace(service_tier=single.service_tier)
            result.usage = both or self.usage
        result.attempts += self.tries
        result.requests += self.tries
        return result


def replay(task: Task, item: Item, replies: Iterable[Reply], policy: Policy, wire_format: int = 0) -> Result | NextTry:
    """Return a row's result, or its next request, after the replies to its earlier ones, the oldest first.

    `wire_format` is that of the first request. A request that was refused is sent once more in the next format; an
    answer that does not fit its type is asked again as often as the policy says; what may pass is tried again, up to
    `max_tries`. Tokens of all tries are the row's.
    """
    state = NextTry(item, wire_format)
    faults = reasks = 0
    mismatch: Result | None = None
    for reply in replies:
        if reply.code == CANCELLED:  # it was not tried
            continue
        state.tries += 1
        outcome = _outcome(task, state, reply)
        state.usage = _sum(state.usage, outcome.usage)
        if isinstance(outcome, Answer):
            if outcome.format_unsupported and not state.wire_format & PLAIN:
                state.wire_format |= PLAIN
                continue
            [result] = outcome.results
            if not outcome.mismatched or reasks == policy.reask:
                return _settled(result, state)
            mismatch, reasks = result, reasks + 1
            state.item = task.reask(state.item, result)
            continue
        fallback = _fallback(task, state, outcome)
        if fallback is not None:
            state.wire_format = fallback
            continue
        faults += 1
        if not outcome.error.retryable or faults >= policy.max_tries:
            return _settled(mismatch or Result(error=outcome.error), state)
    return state


def unbilled(result: Result) -> Result:
    """Return the result of a row that shares another one's request: the same, and no token, no try of its own."""
    copy = shared_result(result)
    copy.error = result.error
    return copy


def _outcome(task: Task, state: NextTry, reply: Reply) -> Outcome:
    if reply.response is None:
        kind = _KIND_OF_CODE.get(reply.code, "invalid_request")
        message = reply.message or reply.code
        return Failure(RowError(kind, None, message, retryable=kind != "invalid_request"))
    outcome = task.decode(reply.response, 1, state.wire_format)
    return task.parse_output(outcome, [state.item], state.wire_format)


def _fallback(task: Task, state: NextTry, failure: Failure) -> int | None:
    """Return the wire format in which a refused request is sent again; None where none would help."""
    error = failure.error
    if failure.format_unsupported and not state.wire_format & PLAIN:
        return state.wire_format | PLAIN
    if error.kind != "invalid_request" or error.status in (None, _TOO_LARGE):
        return None
    return task.fallback_format([state.item], state.wire_format, error.message)


def _sum(one: Usage | None, other: Usage | None) -> Usage | None:
    if other is None:
        return one
    billed = other._replace(service_tier=BATCH)
    return billed if one is None else one.plus(billed)


def _settled(result: Result, state: NextTry) -> Result:
    """Return a result with the cost of all tries; no latency, because a batch has none of single requests."""
    result.usage, result.attempts, result.requests = state.usage, state.tries, state.tries
    result.latency_ms = None
    return result
