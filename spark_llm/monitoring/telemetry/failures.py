"""Which failed rows become spans, and what is known of them. It is pure."""

from collections.abc import Mapping
from typing import NamedTuple

ALL_UP_TO = 100  # failed rows of a job, each of which becomes a span
ONE_IN = 1_000  # of those after them


class FailedRow(NamedTuple):
    """A row that was asked and not answered: everything of it but its content, its key and its message.

    Attributes:
        column: The column that it has no answer in.
        kind: The kind of its error.
        status: The HTTP status of the last response; None without one.
        attempts: Requests that carried it.
        latency_ms: The duration of the last request; None where none was timed.
        model: The model that the response named.
        request_id: The response's ID.
        finish_reason: Why the model stopped.
        usage: Tokens by the names of `protocol.values.Usage`, as far as the server reported them.
    """

    column: str
    kind: str
    status: int | None
    attempts: int
    latency_ms: float | None
    model: str | None
    request_id: str | None
    finish_reason: str | None
    usage: Mapping[str, int]


class FailureSample:
    """Counts the failed rows of a job, and says how many of the next ones become spans.

    >>> sample = FailureSample()
    >>> [sample.take(failed) for failed in (60, 60, 1_999, 1)]
    [60, 40, 2, 0]
    """

    def __init__(self) -> None:
        """Begin with no failed row."""
        self._seen = self._taken = 0

    def take(self, failed: int) -> int:
        """Count failed rows; return how many of them become spans."""
        self._seen += failed
        wanted = min(self._seen, ALL_UP_TO) + max(0, self._seen - ALL_UP_TO) // ONE_IN
        taken, self._taken = wanted - self._taken, wanted
        return taken
