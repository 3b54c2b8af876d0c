"""Calls of a Batch API: attempts, the waits between them, and the error that ends them."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from spark_llm.auth.tokens import SignInError
from spark_llm.endpoint.client import BlockingClient, run_outside_loop
from spark_llm.errors import HINT, JobFailedError, Kind
from spark_llm.flow.retry import Attempts, next_delay
from spark_llm.policy import Policy
from spark_llm.protocol.batches.objects import is_missing_message, is_quota_message
from spark_llm.protocol.failures import failure_of, invalid_response_failure
from spark_llm.protocol.urls import masked_url
from spark_llm.protocol.values import Failure, Response, RowError

_MOMENT_S = 1.0  # at least, before a file that is not there yet is asked for again
_HINTS: dict[Kind, str] = {
    "not_found": "it is gone, or belongs to another project or key; run the job with the key that it began with.",
    "rate_limited": "run the job again later; what was submitted is found again, and nothing is asked twice.",
    "timeout": "run the job again: what was submitted is found again, and nothing is asked twice.",
}
_OTHER_HINT = "see what the message names; the next run of the job goes on from here, and nothing is asked twice."
T = TypeVar("T")


class BatchRequestError(JobFailedError):
    """A request to a Batch API that failed for good.

    Attributes:
        error: The error of the last attempt: its kind, its status and its message.
        unclear: Whether the request may have taken effect nevertheless.
    """

    def __init__(self, what: str, hint: str, error: RowError, *, unclear: bool = False) -> None:
        """Make an exception of the error; `what` and `hint` are its message for people."""
        super().__init__(what, hint)
        self.error = error
        self.unclear = unclear

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.what, self.hint, self.error), {"unclear": self.unclear}

    @property
    def is_quota(self) -> bool:
        """Whether too much is waiting already, or was sent lately: the same request passes later."""
        return self.error.kind == "rate_limited" or is_quota_message(self.error.message)


class Calls:
    """Sends requests until one succeeds, as `flow.retry` decides."""

    def __init__(
        self,
        client: BlockingClient,
        policy: Policy,
        now: Callable[[], float],
        sleep: Callable[[float], object],
        dice: Callable[[], float],
    ) -> None:
        """Send nothing yet."""
        self._client = client
        self._policy = policy
        self._now = now
        self._sleep = sleep
        self._dice = dice

    def call(
        self,
        send: Callable[[], Response],
        read: Callable[[Response], T | None],
        url: str,
        *,
        may_be_missing: bool = False,
    ) -> T:
        """Return what `read` finds in the answer, after as many attempts as the policy allows.

        An answer in which it finds None is a fault. With `may_be_missing`, what is not found may be there in a moment.
        Raises `BatchRequestError`.
        """
        attempts = Attempts()
        while True:
            outcome = self.attempt(send, read)
            if not isinstance(outcome, Failure):
                return outcome
            self.wait(outcome, attempts, url, may_be_missing=may_be_missing)

    def attempt(self, send: Callable[[], Response], read: Callable[[Response], T | None]) -> T | Failure:
        """Send a request once, and return what `read` finds in the answer, or the failure."""
        try:
            response = run_outside_loop(send)
        except SignInError as error:
            return error.failure
        if not response.succeeded:
            return failure_of(response)
        found = read(response)
        return invalid_response_failure(response, "the answer is not understood") if found is None else found

    def wait(
        self, failure: Failure, attempts: Attempts, url: str, *, may_be_missing: bool = False, least_s: float = 0.0
    ) -> None:
        """Count a failure, and wait at least so long before the next attempt. Raises `BatchRequestError` at the end."""
        error = failure.error
        if may_be_missing and _is_missing(error):
            failure = replace(failure, error=error._replace(retryable=True))
            least_s = max(least_s, _MOMENT_S)
        if failure.final or is_quota_message(error.message):  # there is room when other batches have ended
            raise self._error(error, url)
        delay = next_delay(failure, attempts, self._policy, self._now(), self._dice())
        if isinstance(delay, RowError):
            raise self._error(delay, url)
        self._sleep(max(delay, least_s))

    def _error(self, error: RowError, url: str) -> BatchRequestError:
        """Return the exception for the error of a last attempt."""
        hint = _HINTS.get(error.kind)
        message = "" if hint else self._client.message_of(error, url)
        if HINT not in message:
            message = f"{error.message.rstrip('. ')} (at {masked_url(url)}).{HINT}{hint or _OTHER_HINT}"
        what, _, hint = message.partition(HINT)
        return BatchRequestError(what, hint, error)


def _is_missing(error: RowError) -> bool:
    """Return whether a file or a batch was not found, by the status or by the message."""
    return error.status == 404 or (error.status in (400, 409) and is_missing_message(error.message))
