"""The judge: decides whether a refusal concerns one row or every row of its task, and what its requests end with."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from spark_llm.flow.negotiation import WireFormatNegotiation
from spark_llm.flow.request import Request
from spark_llm.flow.request_queue import RequestQueue
from spark_llm.flow.suspects import Suspect, Suspects
from spark_llm.protocol.values import RowError


class Verdict(NamedTuple):
    """The error that a request ends with."""

    error: RowError
    stops_all: bool  # whether every other row of the task would fail as well


class RefusalJudge:
    """Lets the refused requests of an endpoint wait until there is evidence enough; the evidence is in `Suspects`."""

    def __init__(
        self, suspects: Mapping[WireFormatNegotiation, Suspects], queue: RequestQueue, *, renews: bool
    ) -> None:
        """Judge the suspects of each task; `renews` says that a refused token can be replaced."""
        self._suspects = suspects
        self._queue = queue
        self._renews = renews
        self._verdicts: list[tuple[Request, Verdict]] = []

    def suspect(self, request: Request, error: RowError, row_error: RowError | None, now: float) -> Verdict | None:
        """Return the verdict where this refusal convicts the endpoint; else let the request wait for its own."""
        suspects = self._suspects[request.negotiation]
        if not suspects.would_convict(request):
            for other in suspects.add(request, error, row_error):
                self._release(other, None, now)
            return None
        suspects.on_conviction()
        return Verdict(error, stops_all=True)

    def is_decisive(self, request: Request) -> bool:
        """Return whether a refusal of this request, which is in flight, would be the last evidence to come."""
        return self._suspects[request.negotiation].would_convict(request) or self._is_idle(
            request.negotiation, in_flight=1
        )

    def clear(self, suspect: Suspect, answered: Request, now: float) -> None:
        """End a suspect that an answer cleared with its row's error; one with another token is sent again."""
        self._release(suspect, suspect.row_error if suspect.request.token == answered.token else None, now)

    def verdicts(self, now: float, request_row: Callable[[Any], bool]) -> list[tuple[Request, Verdict]]:
        """Return the requests that end now: their refusal was their own, or no further evidence will come.

        `request_row` asks a stream for another row, and returns whether there may be one.
        """
        for negotiation, suspects in self._suspects.items():
            if suspects.waiting and self._is_idle(negotiation, in_flight=0):
                owners = {suspect.request.owner for suspect in suspects.waiting}
                if any(request_row(owner) for owner in owners):
                    continue
                recheck = suspects.pop_recheck() if self._renews else None
                if recheck is not None:  # its refusal is decisive, and renews the token
                    self._queue.push_retry(recheck, now)
                    continue
                for suspect in suspects.pop_all():
                    error = suspect.row_error if suspect.answered_beside else suspect.row_error and suspect.task_error
                    self._release(suspect, error, now)
        verdicts, self._verdicts = self._verdicts, []
        return verdicts

    def _is_idle(self, negotiation: WireFormatNegotiation, in_flight: int) -> bool:
        """Return whether no request of a task is queued, and at most so many are in flight."""
        return negotiation.in_flight <= in_flight and not self._queue.holds(negotiation)

    def _release(self, suspect: Suspect, error: RowError | None, now: float) -> None:
        """End a request with this error, split one of several inputs, or without an error send it again."""
        request = suspect.request
        if error is None:
            self._queue.push_retry(request, now)
        elif len(request.inputs) > 1:
            request.negotiation.isolate_inputs()
            self._queue.push_split(request, now)
        else:
            self._verdicts.append((request, Verdict(error, stops_all=False)))


def task_error_of(error: RowError, inputs: int) -> RowError:
    """Return the error of all rows, after so many different inputs had it."""
    subject = "every request" if inputs == 1 else f"{inputs} different inputs"
    why = f"{subject} got this error and none succeeded, so the rest were not sent"
    return error._replace(message=f"{error.message} ({why})")


def row_error_of(error: RowError) -> RowError:
    """Return the error of a row that alone is refused: it says nothing of the token or the address."""
    if error.kind not in ("unauthorized", "not_found"):
        return error
    return error._replace(kind="invalid_request", message=f"{error.message} (this row only; others were answered)")
