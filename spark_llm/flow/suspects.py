"""The refused requests of one task that wait for a verdict: does the refusal concern one row, or every row?

A 401, 402, 403 or 404 mostly means that no request will pass. But a server may refuse one row for its content, its size
or its picture, so one row proves nothing about the others. A refused request waits, and others are sent meanwhile:

- An answer to a request that was sent after the refusal had come clears the endpoint: the refusal was the row's own.
- An answer to a later request that was in flight beside it is weaker evidence: a token may have ended between the two.
  It counts where no stronger evidence comes.
- Refusals of enough different inputs, with one token and no later request in flight, convict the endpoint: the task
  stops.

A request has a number, a higher one each time it is sent: so the numbers tell which of two was sent later. Waiting
requests keep their place in the window, so an endpoint that dies gets no more requests than fill it.
"""

import math
from collections.abc import Hashable
from typing import NamedTuple

from spark_llm.flow.negotiation import witness_keys, witness_weight
from spark_llm.flow.request import Request
from spark_llm.protocol.values import RowError

WITNESSES_BEFORE_ANSWERS = 3  # an endpoint that never answered is probably wrong as a whole
WITNESSES_AFTER_ANSWERS = 8  # at least
MAX_WITNESSES = 100
MAX_CHANCE = 1e-9  # of so many row refusals in a row, by the share of rows that were refused for themselves
PRIOR_ROWS = 2  # counted as refused, and as many as answered, before any is: few answers say little of that share


class Witness(NamedTuple):
    """One refusal as evidence against the endpoint: a later answer contradicts it."""

    send_number: int
    inputs: Hashable  # equal for equal inputs
    token: str | None


class Answered(NamedTuple):
    """The answered request that was sent last."""

    send_number: int = 0
    token: str | None = None


class Suspect(NamedTuple):
    """A refused request that waits for a verdict, with its error for either case."""

    request: Request
    task_error: RowError  # where every row is refused
    row_error: RowError | None  # where only this row is; None: it is sent again
    last_sent: int  # the highest send number when the refusal came: an answer to a higher one clears the endpoint
    answered_beside: bool = False  # whether a later request that was in flight beside it was answered

    @property
    def ends_with_row_error(self) -> bool:
        """Whether `row_error` ends the request; one of several inputs is split instead."""
        return self.row_error is not None and len(self.request.inputs) == 1


class Suspects:
    """The suspects of one task, and the evidence for and against its endpoint."""

    def __init__(self) -> None:
        """Begin without evidence."""
        self.waiting: list[Suspect] = []
        self._last_sent = 0  # the highest send number
        self._in_flight: set[int] = set()  # send numbers
        self._answer_count = 0
        self._last_answered = Answered()
        self._row_refusal_count = 0  # refusals that were found to be the row's own
        self._past_witnesses: list[Witness] = []  # refusals that ended without a verdict

    @property
    def required_witnesses(self) -> int:
        """How many witnesses convict the endpoint.

        After answers it is 8; more where rows are often refused for themselves, or may be: 23 after a single answer.
        """
        if not self._answer_count:
            return WITNESSES_BEFORE_ANSWERS
        share = (self._row_refusal_count + PRIOR_ROWS) / (self._row_refusal_count + self._answer_count + 2 * PRIOR_ROWS)
        by_chance = math.ceil(math.log(MAX_CHANCE) / math.log(share))
        return min(MAX_WITNESSES, max(WITNESSES_AFTER_ANSWERS, by_chance))

    def on_send(self, request: Request) -> None:
        """Count a request as in flight."""
        self._last_sent = request.send_number
        self._in_flight.add(request.send_number)

    def on_return(self, request: Request) -> None:
        """Count a request as in flight no more."""
        self._in_flight.discard(request.send_number)

    def fill_window(self, in_flight: int, window: int) -> bool:
        """Return whether suspects and requests in flight leave no slot for another request."""
        waiting = len(self.waiting) + len(self._past_witnesses)
        return bool(waiting and self._in_flight) and in_flight + waiting >= max(window, self.required_witnesses)

    def distinct_inputs(self, request: Request) -> int:
        """Return how many different inputs are witnesses, with those of this request."""
        return len({witness.inputs for witness in self._witnesses_with(request)})

    def would_convict(self, request: Request) -> bool:
        """Return whether one more refusal, of this request, convicts the endpoint."""
        found = self._witnesses_with(request)
        first = min(witness.send_number for witness in found)
        later_in_flight = any(number > first for number in self._in_flight - {request.send_number})
        return not later_in_flight and witness_weight([each.inputs for each in found]) >= self.required_witnesses

    def on_conviction(self) -> None:
        """Forget the past witnesses: before the next task the cause may have been removed."""
        self._past_witnesses = []

    def add(self, request: Request, task_error: RowError, row_error: RowError | None) -> list[Suspect]:
        """Let a refused request wait; return the suspects with another token, of which it proves nothing."""
        others = [suspect for suspect in self.waiting if suspect.request.token != request.token]
        self.waiting = [suspect for suspect in self.waiting if suspect.request.token == request.token]
        last = self._last_answered
        answered_beside = last.send_number > request.send_number and last.token == request.token
        self.waiting.append(Suspect(request, task_error, row_error, self._last_sent, answered_beside))
        return others

    def on_answer(self, request: Request) -> list[Suspect]:
        """Return the suspects that this answer clears: refused before it was sent, or with another token."""
        self._answer_count += 1
        if request.send_number > self._last_answered.send_number:
            self._last_answered = Answered(request.send_number, request.token)
        if not self.waiting and not self._past_witnesses:
            return []
        self._past_witnesses = [each for each in self._past_witnesses if each.send_number > request.send_number]
        cleared, self.waiting, waiting = [], [], self.waiting
        for suspect in waiting:
            if suspect.last_sent < request.send_number or suspect.request.token != request.token:
                cleared.append(suspect)
            elif suspect.request.send_number < request.send_number:
                self.waiting.append(suspect._replace(answered_beside=True))
            else:
                self.waiting.append(suspect)
        self._row_refusal_count += sum(
            suspect.row_error is not None and suspect.request.token == request.token for suspect in cleared
        )
        return cleared

    def pop_recheck(self) -> Request | None:
        """Remove and return the first suspect with a 401 or 403, to send it again; None after the first time.

        Its token may have ended: the answers beside it may be older than that.
        """
        refused = [index for index, each in enumerate(self.waiting) if each.task_error.kind == "unauthorized"]
        if not refused or any(suspect.request.is_recheck for suspect in self.waiting):
            return None
        request = self.waiting.pop(refused[0]).request
        request.is_recheck = True
        return request

    def pop_all(self) -> list[Suspect]:
        """Remove and return all suspects, where no further evidence will come; they stay witnesses."""
        suspects, self.waiting = self.waiting, []
        uncontradicted = (each for each in suspects if each.ends_with_row_error and not each.answered_beside)
        self._past_witnesses += [_witness(suspect.request) for suspect in uncontradicted]
        return suspects

    def drop(self, owner: object) -> list[Request]:
        """Remove the requests of a stream and return them."""
        dropped = [suspect.request for suspect in self.waiting if suspect.request.owner is owner]
        self.waiting = [suspect for suspect in self.waiting if suspect.request.owner is not owner]
        return dropped

    def _witnesses_with(self, request: Request) -> list[Witness]:
        """Return the witnesses with the token of this request, and this request as the last."""
        suspects = (_witness(suspect.request) for suspect in self.waiting if not suspect.answered_beside)
        witnesses = [*self._past_witnesses, *suspects]
        return [*(witness for witness in witnesses if witness.token == request.token), _witness(request)]


def _witness(request: Request) -> Witness:
    return Witness(request.send_number, witness_keys(request.inputs), request.token)
