"""What a fault is of: of its row alone, of an endpoint that never worked, or of spark_llm itself. Pure."""

from spark_llm.flow.retry import Attempts
from spark_llm.protocol.values import Failure, RowError

_NEVER_REACHED = ("connection", "timeout", "unavailable")


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
