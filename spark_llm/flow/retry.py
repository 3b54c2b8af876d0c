"""What a fault is of, and whether a failed attempt is followed by another, and after which delay.

There are two budgets. A rate limit (429, 503) spends time: a row may meet it for `give_up_after_s`. A fault spends one
of `max_tries` attempts. Delays double with full jitter (Brooker, "Exponential backoff and jitter", AWS, 2015), so that
a thousand rate-limited rows do not come back together.
"""

import math
from collections import deque
from dataclasses import dataclass

from spark_llm.policy import Policy
from spark_llm.protocol.values import Failure, RowError

FIRST_RATE_LIMITED_DELAY_S = 0.25
FIRST_FAULT_DELAY_S = 0.5
MAX_DELAY_S = 30.0
FAILURE_ROWS = 1_000  # over which a failure rate is taken
_NEVER_REACHED = ("connection", "timeout", "unavailable")


@dataclass(slots=True)
class Attempts:
    """The attempts of one request so far."""

    sent: int = 0
    faults: int = 0
    rate_limited: int = 0
    rate_limited_since: float | None = None
    fault_since: float | None = None  # when it failed first


def next_delay(
    failure: Failure, attempts: Attempts, policy: Policy, now: float, random_value: float
) -> float | RowError:
    """Count a failure into `attempts`; return the seconds before the next attempt, or the error to end with.

    `random_value` is a random number from [0, 1). A server's Retry-After is waited for in full, plus the jitter.
    """
    error = failure.error
    retry_after_s = failure.retry_after_s or 0.0
    if failure.throttled:
        attempts.rate_limited += 1
        if attempts.rate_limited_since is None:
            attempts.rate_limited_since = now
        spent_s = now - attempts.rate_limited_since
        delay_s = retry_after_s + random_value * _backoff(FIRST_RATE_LIMITED_DELAY_S, attempts.rate_limited)
        if spent_s + delay_s <= policy.give_up_after_s:
            return delay_s
        responses = "1 response" if attempts.rate_limited == 1 else f"{attempts.rate_limited} responses"
        why = f"gave up after {spent_s:.0f} s of rate limiting ({responses})"
        return error._replace(message=f"{why}; last: {error.message}")
    if not error.retryable:
        return error
    attempts.faults += 1
    if attempts.faults < policy.max_tries:
        jitter_s = random_value * _backoff(FIRST_FAULT_DELAY_S, attempts.faults)
        return min(retry_after_s, policy.give_up_after_s) + jitter_s
    if attempts.faults == 1:
        return error
    return error._replace(message=f"{error.message} (after {attempts.faults} attempts)")


def _backoff(first_s: float, failures: int) -> float:
    """Return the longest delay after so many failures: twice as long each time, up to `MAX_DELAY_S`."""
    return min(MAX_DELAY_S, first_s * 2.0 ** min(failures - 1, 30))


def is_of_row(failure: Failure, attempts: Attempts, answered_at: float | None, *, any_new: bool) -> bool:
    """Return whether a fault in an outage is of its row alone, which then spends an attempt.

    The model answered it; or others were answered after the row had failed first, and no new row is left that could
    tell.
    """
    since = attempts.fault_since
    failed_among_others = answered_at is not None and since is not None and since < answered_at
    return failure.served or (failed_among_others and not any_new)


def never_worked(error: RowError, answered_at: float | None, *, answered: bool) -> bool:
    """Return whether a fault may mean that the endpoint never worked, or serves no model.

    `answered_at` is the time of the last answer of any task, and `answered` is whether this task had one.
    """
    is_unreached = error.kind in _NEVER_REACHED and answered_at is None
    return (is_unreached or (error.kind == "invalid_response" and not answered)) and not is_own_mistake(error)


def is_own_mistake(error: RowError) -> bool:
    """Return whether spark_llm failed, and not the endpoint: no response came that could be judged."""
    return error.kind == "invalid_response" and error.status is None and not error.retryable


class FailureRate:
    """The share of the last rows that failed, of a task or of a host's tasks."""

    def __init__(self, max_share: float | None) -> None:
        """Allow this share of the last `FAILURE_ROWS` rows to fail; None allows all."""
        self.max_share = max_share
        self.failed = 0  # of the last rows
        self._last: deque[bool] = deque()

    @property
    def max_failed(self) -> int:
        """How many failed rows of the last `FAILURE_ROWS` are too many."""
        return FAILURE_ROWS + 1 if self.max_share is None else math.ceil(self.max_share * FAILURE_ROWS)

    @property
    def rows(self) -> int:
        """How many rows it is taken over, up to `FAILURE_ROWS`."""
        return len(self._last)

    def is_exceeded_by(self, *, failed: bool) -> bool:
        """Count a row; return whether too many have failed, however the rows to come may end."""
        if self.max_share is None:
            return False
        self._last.append(failed)
        self.failed += failed
        if len(self._last) > FAILURE_ROWS:
            self.failed -= self._last.popleft()
        return failed and self.failed >= self.max_failed
