"""Whether a failed try is followed by another, and when. Knows no clock, no dice, no socket: both are arguments.

Two budgets. A rate limit (429, 503) spends time: a row may meet it for `give_up_after_s`. A real fault spends one of
`max_tries`. Waits grow twofold with full jitter (Brooker, "Exponential backoff and jitter", AWS, 2015), so that
a thousand refused rows do not come back together.
"""

from collections import deque
from dataclasses import dataclass

from spark_llm.policy import Policy
from spark_llm.protocol.values import Failure, RowError

FIRST_REFUSED_WAIT_S = 0.25
FIRST_FAULT_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
FAILURE_ROWS = 1_000  # over which a failure rate is taken


@dataclass(slots=True)
class Attempts:
    """What became of one request's tries so far."""

    sent: int = 0
    faults: int = 0
    refusals: int = 0
    refused_since: float | None = None


def next_delay(failure: Failure, tries: Attempts, policy: Policy, now: float, random_value: float) -> float | RowError:
    """Count a failure into `tries`; return the seconds to wait before the next try, or the error to end with.

    `dice` is one draw from [0, 1). A server's Retry-After is waited out in full, with the jitter on top.
    """
    error = failure.error
    told_s = failure.retry_after_s or 0.0
    if failure.throttled:
        tries.refusals += 1
        if tries.refused_since is None:
            tries.refused_since = now
        refused_s = now - tries.refused_since
        wait_s = told_s + random_value * _backoff(FIRST_REFUSED_WAIT_S, tries.refusals)
        if refused_s + wait_s <= policy.give_up_after_s:
            return wait_s
        responses = "1 response" if tries.refusals == 1 else f"{tries.refusals} responses"
        why = f"gave up after {refused_s:.0f} s of rate limiting ({responses})"
        return error._replace(message=f"{why}; last: {error.message}")
    if not error.retryable:
        return error
    tries.faults += 1
    if tries.faults < policy.max_tries:
        return min(told_s, policy.give_up_after_s) + random_value * _backoff(FIRST_FAULT_WAIT_S, tries.faults)
    return error._replace(message=f"{error.message} (after {tries.faults} tries)") if tries.faults > 1 else error


def _backoff(first_s: float, times: int) -> float:
    """Return the longest wait after so many failures: twice as long each time, up to `LONGEST_WAIT_S`."""
    return min(LONGEST_WAIT_S, first_s * 2.0 ** min(times - 1, 30))


class FailureRate:
    """How many of a task's last rows failed."""

    def __init__(self, most: float | None) -> None:
        """Allow this share of the last `FAILURE_ROWS` rows to fail; None allows all."""
        self._most = most
        self._last: deque[bool] = deque()
        self._failed = 0

    def is_exceeded_by(self, *, failed: bool) -> bool:
        """Take note of a row; return whether more have failed than may, whatever became of rows still to come."""
        if self._most is None:
            return False
        self._last.append(failed)
        self._failed += failed
        if len(self._last) > FAILURE_ROWS:
            self._failed -= self._last.popleft()
        return failed and self._failed >= self._most * FAILURE_ROWS
