"""Failed rows of the jobs that the workers of a host work on: which of them have more than they allow. Pure.

A job is a number that all its tasks have: the same stage of Spark, the same task and the same allowed share. So a later
job is never stopped by the failures of an earlier one.
"""

from collections.abc import Iterable, Iterator

from spark_llm.coordination.messages import Kind, Message
from spark_llm.flow.retry import FAILURE_ROWS, FailureRate

MAX_JOBS = 16  # that a host counts at once; the one that was counted longest ago is forgotten
ROWS_A_MESSAGE = 20  # answered rows, of which the broker need not hear at once
_DIGITS = 6  # of a share, in the single precision of a message


class JobFailures:
    """The jobs of a host, counted by the broker."""

    def __init__(self, counted: Iterable[Iterable[float]] = ()) -> None:
        """Go on from a snapshot; raises an error where it is malformed."""
        self.stopped: frozenset[int] = frozenset()
        self._rates: dict[int, FailureRate] = {}  # the one that was counted last is last
        for job, rows, failed, max_share in counted:
            self.count(int(job), min(int(rows), FAILURE_ROWS), int(failed), float(max_share))

    def count(self, job: int, rows: int, failed: int, max_share: float) -> bool:
        """Count rows that have ended; return whether this stops the job, of which no row is counted any more."""
        if job in self.stopped:
            return False
        rate = self._rates[job] = self._rates.pop(job, FailureRate(max_share))
        if len(self._rates) > MAX_JOBS:
            forgotten = next(iter(self._rates))
            del self._rates[forgotten]
            self.stopped -= {forgotten}
        for at in range(rows):  # failed rows are spread over the others
            if rate.is_exceeded_by(failed=(at + 1) * failed // rows > at * failed // rows):
                self.stopped |= {job}
                return True
        return False

    def snapshot(self) -> list[list[float]]:
        """Return each job, its last rows, those that failed, and the share that may."""
        return [[job, rate.rows, rate.failed, rate.max_share or 0.0] for job, rate in self._rates.items()]


class UntoldRows:
    """The rows of a member that have ended, and of which the broker has not heard."""

    def __init__(self) -> None:
        """Begin without rows."""
        self._rows: dict[int, tuple[int, int, float]] = {}

    def count(self, job: int, rows: int, failed: int, max_share: float) -> None:
        """Count rows that have ended."""
        untold = self._rows.get(job, (0, 0))
        self._rows[job] = untold[0] + rows - failed, untold[1] + failed, max_share

    def messages(self) -> Iterator[Message]:
        """Yield what the broker should hear now: failed rows, and answered ones where there are many."""
        for job, (answered, failed, max_share) in list(self._rows.items()):
            if failed or answered >= ROWS_A_MESSAGE:
                del self._rows[job]
                if answered:
                    yield Message(Kind.ANSWERED_ROWS, job, answered, max_share)
                if failed:
                    yield Message(Kind.FAILED_ROWS, job, failed, max_share)


def count_told(failures: JobFailures, told: Message) -> bool:
    """Count the rows that a member tells of; return whether this stops the job."""
    rows, max_share = min(int(told.a), FAILURE_ROWS), round(told.b, _DIGITS)
    return failures.count(told.number, rows, rows if told.kind == Kind.FAILED_ROWS else 0, max_share)
