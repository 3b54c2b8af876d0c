"""Whether a refusal is one row's or everybody's: one row is no witness for all. Knows no clock, no socket, no Spark.

A 401, 402, 403 or 404 mostly means that no request will pass; but a server may say so of one row's content, its size or
its picture. So the row waits, and others are asked. An answer to a request that was sent after the refusal had come
clears the endpoint: the refusal was the row's. An answer to one that was in flight beside it may only be older than the
end of a token; it counts where no other comes. Refusals alone, of inputs that differ, with one token and no later
request still out, convict the endpoint: the task stops. What waits keeps its place among the requests in flight, so an
endpoint that dies is asked no more than fill it.
"""

import math
from collections.abc import Hashable
from operator import itemgetter
from typing import NamedTuple

from spark_llm.flow.negotiation import weight, witnesses
from spark_llm.flow.request import Request
from spark_llm.protocol.values import RowError

AT_FIRST = 3  # witnesses where nothing was answered yet: an endpoint that never worked is the likelier cause
AFTER_ANSWERS = 8  # and where something was
AFTER_ANSWERS_MOST = 100
BY_CHANCE = 1e-9  # how likely so many in a row may be, by the share of rows that were refused for themselves


class Witness(NamedTuple):
    """What a refusal has to say: which inputs were refused, and with which token."""

    number: int  # of the request: only a later one contradicts it
    inputs: Hashable
    token: str | None


class Suspect(NamedTuple):
    """A request that was refused; the error for all if it is everybody's, and its own if it is not."""

    request: Request
    error: RowError
    own: RowError | None  # None: it goes on
    heard: int  # the number of the last request that was sent before the refusal came
    is_contradicted: bool = False  # whether a later one, in flight beside it, was answered

    @property
    def is_settled(self) -> bool:
        """Whether its own error ends it: several inputs are asked apart."""
        return self.own is not None and len(self.request.inputs) == 1


class Suspects:
    """The refusals of one task that wait for their verdict."""

    def __init__(self) -> None:
        """Suspect nothing."""
        self.held: list[Suspect] = []
        self._sent = 0  # the number of the last request
        self._out: set[int] = set()  # the numbers of requests in flight, in the order of their sending
        self._answered = 0
        self._latest: tuple[int, str | None] = (0, None)  # of those answered, the number and the token
        self._of_rows = 0  # refusals that were the row's
        self._past: list[Witness] = []  # that wait no longer

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
        self._sent = request.number
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
        return len({witness.inputs for witness in self._with(request)})

    def _with(self, request: Request) -> list[Witness]:
        """Return the witnesses of the same token, this request as the last: another token may be let in."""
        held = (_witness(suspect.request) for suspect in self.held if not suspect.is_contradicted)
        before = [*self._past, *held]
        return [*(witness for witness in before if witness.token == request.token), _witness(request)]

    def convicts(self, request: Request) -> bool:
        """Return whether one more refusal, of this request, is the last that it takes."""
        found = self._with(request)
        first = min(witness.number for witness in found)
        later = any(number > first for number in self._out - {request.number})
        return not later and weight([witness.inputs for witness in found]) >= self.enough

    def convict(self) -> None:
        """Begin anew: what comes next may be asked when the cause was mended."""
        self._past = []

    def hold(self, request: Request, error: RowError, own: RowError | None) -> list[Suspect]:
        """Let a refusal wait; return those that were refused with another token, for which it says nothing."""
        others = [suspect for suspect in self.held if suspect.request.token != request.token]
        self.held = [suspect for suspect in self.held if suspect.request.token == request.token]
        number, token = self._latest
        self.held.append(Suspect(request, error, own, self._sent, number > request.number and token == request.token))
        return others

    def answered(self, request: Request) -> list[Suspect]:
        """Return those that wait no longer: they were refused before this was sent, or with another token."""
        self._answered += 1
        self._latest = max(self._latest, (request.number, request.token), key=itemgetter(0))
        self._past = [witness for witness in self._past if witness.number > request.number]
        cleared, self.held, held = [], [], self.held
        for suspect in held:
            if suspect.heard < request.number or suspect.request.token != request.token:
                cleared.append(suspect)
            else:
                contradicted = suspect.is_contradicted or suspect.request.number < request.number
                self.held.append(suspect._replace(is_contradicted=contradicted))
        self._of_rows += sum(suspect.own is not None and suspect.request.token == request.token for suspect in cleared)
        return cleared

    def last_look(self) -> Request | None:
        """Return a request to ask again before those that wait are given up: their token may have ended; once for all.

        What was in flight beside them, and was answered, may have been let in before.
        """
        waits = [number for number, suspect in enumerate(self.held) if suspect.error.kind == "unauthorized"]
        if not waits or any(suspect.request.last_look for suspect in self.held):
            return None
        again = self.held.pop(waits[0]).request
        again.last_look = True
        return again

    def left_alone(self) -> list[Suspect]:
        """Return those who wait where nothing will come that could clear the endpoint; they stay witnesses."""
        alone, self.held = self.held, []
        witnesses = (suspect for suspect in alone if suspect.is_settled and not suspect.is_contradicted)
        self._past += [_witness(suspect.request) for suspect in witnesses]
        return alone

    def drop(self, owner: object) -> list[Request]:
        """Take the requests of `owner` out, and return them."""
        dropped = [suspect.request for suspect in self.held if suspect.request.owner is owner]
        self.held = [suspect for suspect in self.held if suspect.request.owner is not owner]
        return dropped


def _witness(request: Request) -> Witness:
    return Witness(request.number, witnesses(request.inputs), request.token)
