"""Negotiates the wire format of one task: which request encoding the endpoint accepts.

No server says whether it takes base64 vectors, a list of prompts or a parameter: its first answers show it. So until
one of a task's requests was answered they go one by one, each with what the one before has taught. A request that is
refused as a whole then costs a handful of refusals and not one for every row. A refusal may be about the format or
about an input: a request that was refused in one format is sent in the next, and an answer there shows that it was the
format. One input decides that for itself, three decide it for all.

A refusal that names another route is no matter of witnesses: all inputs go there at once, unless some were answered at
the first. If there is nothing at the other, the refusal may have quoted its input; then they go back.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, NamedTuple

from spark_llm.flow.batcher import Indexed
from spark_llm.protocol.task import ATTRIBUTION_FIELDS, PLAIN, RESPONSES, UNATTRIBUTED, UNSCORED, Task
from spark_llm.protocol.values import Item, RowError

ALIKE_REFUSALS = 8  # of inputs alone, with one message and before any answer: then every input would be refused
WITNESSES = 3  # inputs that were answered in another format only: then it is the format, for all
DOUBT_ANSWERS = 8  # in the present format, after which a doubt that no other input confirms ends
_TOO_LARGE = 413  # the status of a body that no format makes small enough
SILENCE_S = 2.0  # while the first request is silent, the number that may be in flight doubles after each such time, to
MAX_SILENT_REQUESTS = 16


class NextStep(Enum):
    """What follows from a refusal."""

    SPLIT = "the inputs are sent in two parts"
    END = "this input is refused"
    FATAL = "every input would be refused"


@dataclass(slots=True)
class Doubt:
    """Inputs that were refused in one wire format: if all of them are answered in another, it was the format."""

    unanswered: int  # how many were not answered yet
    witnesses: tuple[Hashable, ...]


class KnownFlags(NamedTuple):
    """Flags that are known before the first request: those of the format to begin with, and those that stay so."""

    wire_format: int = 0
    settled: int = 0


NOTHING_KNOWN = KnownFlags()


def known_route(api: Literal["chat", "responses"] | None, others: "Iterable[WireFormatNegotiation]") -> KnownFlags:
    """Return the route of a task's requests: that of the user's `api`, or else the one that other tasks have found."""
    if api is not None:
        return KnownFlags(RESPONSES if api == "responses" else 0, RESPONSES)
    return KnownFlags(RESPONSES, RESPONSES) if any(each.found_route for each in others) else NOTHING_KNOWN


class WireFormatNegotiation:
    """The wire format of one task at one endpoint, and the evidence for it."""

    def __init__(
        self, task: Task, batch_size: int | None, known: KnownFlags = NOTHING_KNOWN, *, attributed: bool = False
    ) -> None:
        """Begin with the best format; a request carries at most `batch_size` inputs, by default the task's own number.

        `attributed`: requests carry `ATTRIBUTION_FIELDS`, in each format but those without them.
        """
        self.task = task
        self._attributed = attributed
        self._known = known
        self.wire_format = known.wire_format  # of requests without flags of their own
        self.answered = False  # whether any request was
        self.in_flight = 0  # requests
        self.alike_refusals = 0  # inputs that were refused with one message, before any answer
        self._confirmed = known.settled  # flags of the wire format that are known to be needed, or not to be
        self._batch_size = batch_size or task.default_batch_size
        self._any_refused = False
        self._votes: dict[int, list[Hashable]] = {}  # by wire format, the inputs that were answered in it only
        self._doubt_answers_left = 0  # answers in the present format that end the doubt
        self._silent_since: float | None = None
        self._refusal_message = ""
        self._refused_inputs: set[object] = set()  # with that message

    @property
    def found_route(self) -> bool:
        """Whether requests were answered at the Responses route."""
        return self.answered and bool(self.wire_format & RESPONSES)

    @property
    def sends_inputs_alone(self) -> bool:
        """Whether each input has a request of its own: something was refused, and nothing was answered yet."""
        return self._any_refused and not self.answered

    @property
    def takes_last(self) -> bool:
        """Whether the next input to go alone is the last in the queue: a table's first rows may all be bad."""
        return self.sends_inputs_alone and len(self._refused_inputs) % 2 == 0

    @property
    def max_inputs(self) -> int:
        """How many inputs one request may carry."""
        return self.max_inputs_in(self.wire_format)

    def max_inputs_in(self, wire_format: int) -> int:
        """Return how many inputs one request may carry in a wire format."""
        return 1 if self.sends_inputs_alone else self.task.max_inputs(wire_format, self._batch_size)

    def max_in_flight(self, now: float) -> int | None:
        """Return how many requests may be in flight; None once one was answered."""
        if self.answered:
            return None
        if self._silent_since is None:
            return 1
        silent_s = now - self._silent_since + 2 * math.ulp(now)  # the time that `opens_at` returns is inclusive
        return min(MAX_SILENT_REQUESTS, 1 << int(min(30.0, max(0.0, silent_s / SILENCE_S))))

    def opens_at(self) -> float | None:
        """Return when silence lets one more request go; None where it will not."""
        if self._silent_since is None or self.in_flight >= MAX_SILENT_REQUESTS:
            return None
        return self._silent_since + SILENCE_S * self.in_flight.bit_length()

    def waits_for_answer(self, format_flags: int) -> bool:
        """Return whether a request waits for those in flight: they may show that its format is not understood."""
        return self._doubt_answers_left > 0 and self.in_flight > 0 and not format_flags

    def on_send(self, now: float) -> None:
        """Count a request as in flight."""
        self.in_flight += 1
        if self._silent_since is None:
            self._silent_since = now

    def on_return(self) -> None:
        """Count a request as in flight no more."""
        self.in_flight -= 1
        if not self.in_flight:
            self._silent_since = None

    def on_answer(self, wire_format: int, inputs: Sequence[Indexed], doubt: Doubt | None, *, confirms: bool) -> None:
        """Count an answer to inputs that had raised a `doubt`; `confirms` says that it has what was asked for."""
        self.answered = True
        if not confirms:
            self._doubt_answers_left -= 1
        elif doubt is not None:
            doubt.unanswered -= len(inputs)
            if not doubt.unanswered:
                self._vote(wire_format, doubt.witnesses)
        elif wire_format == self.wire_format:
            self._confirmed |= self.task.required_features(_items(inputs), wire_format)
            if self._attributed:
                self._confirmed |= UNATTRIBUTED & ~wire_format
            if self._votes:
                self._votes = {
                    vote: by for vote, by in self._votes.items() if not (vote ^ wire_format) & self._confirmed
                }
            self._doubt_answers_left = self._doubt_answers_left - 1 if self._votes else 0

    def fallback_after_answer(self, wire_format: int, inputs: Sequence[Indexed]) -> int | None:
        """Return the wire format for inputs whose answer shows that theirs was not understood; None: there is none."""
        if wire_format & PLAIN:
            return None
        if not self._confirmed & PLAIN:
            self._begin_doubt()
            self._vote(wire_format | PLAIN, witness_keys(inputs))
        elif not self.wire_format & PLAIN:
            return None
        return wire_format | PLAIN

    def fallback_after_refusal(self, wire_format: int, inputs: Sequence[Indexed], error: RowError) -> int | None:
        """Return the wire format for inputs that were refused in this one; None: there is none."""
        if error.kind != "invalid_request" or error.status == _TOO_LARGE:
            return None
        if self.wire_format & ~wire_format:
            return self.wire_format | wire_format
        fallback = self._fallback(inputs, wire_format, error.message)
        if fallback is None or (fallback & ~wire_format) & self._confirmed:
            return None
        if fallback & ~wire_format & RESPONSES:
            if not self.answered:
                self.wire_format |= RESPONSES
            return fallback
        self._begin_doubt()
        return fallback

    def withdraw(self, wire_format: int) -> int:
        """Return the flag of the route that is not there, and go back from it; 0 where that is no explanation."""
        stated = wire_format & RESPONSES & ~self._known.settled
        if self.found_route or not stated:
            return 0
        self.wire_format &= ~stated
        self._confirmed |= stated
        return stated

    def on_refusal(self, formats: int, inputs: Sequence[Indexed], error: RowError) -> NextStep:
        """Count inputs that were refused in each of so many wire formats; return what follows."""
        self._any_refused = True
        if len(inputs) > 1:
            return NextStep.SPLIT
        if error.kind != "invalid_request":
            return NextStep.END
        self._count_alike(error.message, witness_keys(inputs)[0])
        return NextStep.FATAL if self.alike_refusals >= max(WITNESSES, ALIKE_REFUSALS // formats) else NextStep.END

    def isolate_inputs(self) -> None:
        """Send inputs alone until one is answered: of several that were refused, one may be the bad one."""
        self._any_refused = True

    def _count_alike(self, message: str, witness: Hashable) -> None:
        """Count an input that was refused with this message before any answer; each input once."""
        if self.answered:
            self.alike_refusals = 0
            return
        if message != self._refusal_message:
            self._refusal_message, self._refused_inputs = message, set()
        self._refused_inputs.add(witness)
        self.alike_refusals = len(self._refused_inputs)

    def _fallback(self, inputs: Sequence[Indexed], wire_format: int, message: str) -> int | None:
        """Return the next wire format after a message: the one without attribution at once if it names that, else last.

        A message may name nothing; then it is the third format of an input at most, or the fourth without logprobs.
        """
        may_drop = self._attributed and not (wire_format | self._confirmed) & UNATTRIBUTED
        if may_drop and any(name in message for name in ATTRIBUTION_FIELDS):
            return wire_format | UNATTRIBUTED
        fallback = self.task.fallback_format(_items(inputs), wire_format, message)
        if fallback is None and may_drop and (wire_format & ~UNSCORED).bit_count() < 2:
            return wire_format | UNATTRIBUTED
        return fallback

    def _begin_doubt(self) -> None:
        self._doubt_answers_left = DOUBT_ANSWERS

    def _vote(self, wire_format: int, by: Sequence[Hashable]) -> None:
        """Count inputs that were answered in another wire format only; enough of them make it the task's."""
        flags = wire_format & ~self.wire_format
        if not flags or flags & self._confirmed:
            return
        votes = self._votes.setdefault(wire_format, [])
        votes += by
        if witness_weight(votes) >= WITNESSES:
            self.wire_format |= flags
            self._confirmed |= flags
            self._votes, self._doubt_answers_left = {}, 0


def witness_weight(witnesses: Sequence[Hashable]) -> int:
    """Return how many witnesses these count as: each that differs is one, and so are four that equal others."""
    different = len(set(witnesses))
    return different + (len(witnesses) - different) // 4


def witness_keys(inputs: Sequence[Indexed]) -> tuple[Hashable, ...]:
    """Return a key for each input, equal for equal ones; the key of a conversation is the number of its row."""
    return tuple(item if isinstance(item, (str, bytes)) else number for number, item in inputs)


def _items(inputs: Sequence[Indexed]) -> list[Item]:
    return [item for _, item in inputs]
