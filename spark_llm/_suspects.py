"""Whether a refusal is one row's or everybody's: one row is no witness for all. Knows no clock, no socket, no Spark.

A 401, 402, 403 or 404 mostly means that no request will pass; but a server may say so of one row's content, its size or
its picture. So the row waits, and others are asked. The answer to one that was sent later clears the endpoint: the
refusal was the row's. Refusals alone, of inputs that differ and with no later request still out, convict it: the task
stops. What waits keeps its place among the requests in flight, so an endpoint that dies is asked no more than fill it.
"""

import math
from collections.abc import Hashable
from typing import NamedTuple

from spark_llm._form import weight, witnesses
from spark_llm._request import Request
from spark_llm._values import RowError

AT_FIRST = 3  # witnesses where nothing was answered yet: an endpoint that never worked is the likelier cause
AFTER_ANSWERS = 8  # and where something was
AFTER_ANSWERS_MOST = 100
BY_CHANCE = 1e-9  # how likely so many in a row may be, by the share of rows that were refused for themselves


class Suspect(NamedTuple):
    """A request that was refused; the error for all if it is everybody's, and its own if it is not."""

    request: Request
    error: RowError
    own: RowError | None  # None: it goes on

    @property
    def is_settled(self) -> bool:
        """Whether its own error ends it: several inputs are asked apart."""
        return self.own is not None and len(self.request.inputs) == 1


class Suspects:
    """The refusals of one task that wait for their verdict."""

    def __init__(self) -> None:
        """Suspect nothing."""
        self.held: list[Suspect] = []
        self._out: set[int] = set()  # the numbers of requests in flight, in the order of their sending
        self._answered = 0
        self._of_rows = 0  # refusals that were the row's
        self._past: list[tuple[int, Hashable]] = []  # witnesses that wait no longer, each with its number

    @property
    def enough(self) -> int:
        """How many witnesses convict the endpoint."""
        if not self._answered:
            return AT_FIRST
        if not self._of_rows:
            return AFTER_ANSWERS
        share = self._of_rows / (self._of_rows + self._answered)
        return min(AFTER_ANSWERS_MOST, max(AFTER_ANSWERS, math.ceil(math.log(BY_CHANCE) / math.log(share))))

    def sent(self, request: Request) -> None:
        """Take note that a request is in flight."""
        self._out.add(request.number)

    def back(self, request: Request) -> None:
        """Take note that it is not any more."""
        self._out.discard(request.number)

    def fills(self, in_flight: int, window: int) -> bool:
        """Return whether those that wait and what is in flight leave no place for another request."""
        waiting = len(self.held) + len(self._past)
        return bool(waiting and self._out) and in_flight + waiting >= max(window, self.enough)

    def different(self, request: Request) -> int:
        """Return how many different inputs are witnesses, those of this request among them."""
        return len({who for _, who in self._witnesses(request)})

    def _witnesses(self, request: Request) -> list[tuple[int, Hashable]]:
        held = [*(suspect.request for suspect in self.held), request]
        return self._past + [(each.number, witnesses(each.inputs)) for each in held]

    def convicts(self, request: Request) -> bool:
        """Return whether one more refusal, of this request, is the last that it takes."""
        found = self._witnesses(request)
        first = min(number for number, _ in found)
        later = any(number > first for number in self._out - {request.number})
        return not later and weight([who for _, who in found]) >= self.enough

    def convict(self) -> None:
        """Begin anew: what comes next may be asked when the cause was mended."""
        self._past = []

    def hold(self, suspect: Suspect) -> None:
        """Let a refusal wait."""
        self.held.append(suspect)

    def answered(self, request: Request) -> list[Suspect]:
        """Return those whom an answer clears the endpoint of: they were sent before its request."""
        self._answered += 1
        self._past = [witness for witness in self._past if witness[0] > request.number]
        cleared = [suspect for suspect in self.held if suspect.request.number < request.number]
        self.held = [suspect for suspect in self.held if suspect.request.number > request.number]
        self._of_rows += sum(suspect.own is not None for suspect in cleared)
        return cleared

    def left_alone(self) -> list[Suspect]:
        """Return those who wait where nothing will come that could clear the endpoint; they stay witnesses."""
        alone, self.held = self.held, []
        self._past += [
            (suspect.request.number, witnesses(suspect.request.inputs)) for suspect in alone if suspect.is_settled
        ]
        return alone

    def drop(self, owner: object) -> list[Request]:
        """Take the requests of `owner` out, and return them."""
        dropped = [suspect.request for suspect in self.held if suspect.request.owner is owner]
        self.held = [suspect for suspect in self.held if suspect.request.owner is not owner]
        return dropped
