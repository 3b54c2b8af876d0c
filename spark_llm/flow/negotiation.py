"""Whether a task's requests are understood at all, and in which wire form. Knows no clock, no socket, no Spark.

Nobody tells us whether a server knows base64 vectors, takes a list of prompts, or refuses a parameter: the first
answers do. So until one of a task's requests was answered they go one by one, each with what the one before has taught;
a request that is refused as a whole then costs a handful of refusals and not one for every row. A refusal may be about
the form or about an input: a request that was refused in one form is asked in the next, and only if it is answered
there was it the form. One input decides that for itself; it takes three to decide it for all.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum

from spark_llm.flow.batcher import Indexed
from spark_llm.protocol.task import PLAIN, Task
from spark_llm.protocol.values import Item, RowError

ALIKE_REFUSALS = 8  # of inputs alone, in the same words, and nothing answered: it is not the inputs
WITNESSES = 3  # inputs that were answered in another form only: it is the form, for all
DOUBT_ANSWERS = 8  # in the old form, after which a doubt that nobody shares holds up nothing any more
SILENCE_S = 2.0  # while the first request is silent, the number that may be out doubles after each such time, up to
SILENCE_MOST = 16


class NextStep(Enum):
    """What follows from a refusal."""

    AGAIN = "the same inputs are asked in another form"
    SPLIT = "they are asked in parts"
    END = "this input is refused"
    HOPELESS = "every input would be"


@dataclass(slots=True)
class Doubt:
    """Inputs that were refused in one wire form: if all of them are answered in another, it was the form."""

    left: int  # inputs that were not answered yet
    witnesses: tuple[Hashable, ...]


class WireFormatNegotiation:
    """What the answers have shown of one task at one endpoint."""

    def __init__(self, task: Task, batch_size: int) -> None:
        """Know nothing; the user allows `batch_size` inputs in a request."""
        self.task = task
        self.dialect = 0  # the wire form that requests take
        self.answered = False  # whether any request was
        self.out = 0  # requests in flight
        self.alike = 0  # inputs that were refused in the same words, as long as nothing was answered
        self._proven = 0  # flags of the wire form that are known to be needed, or not to be
        self._batch_size = batch_size
        self._suspicious = False
        self._votes: dict[int, list[Hashable]] = {}  # a wire form, and inputs that the present one did not do for
        self._in_doubt = 0  # answers in the present form that end the doubt
        self._silent_since: float | None = None
        self._words = ""
        self._refused: set[object] = set()  # inputs that were refused in these words

    @property
    def alone(self) -> bool:
        """Whether inputs go alone: something was refused, and nothing was answered yet."""
        return self._suspicious and not self.answered

    @property
    def from_the_end(self) -> bool:
        """Whether the next input to go alone is the last in line: a table's first rows may all be bad."""
        return self.alone and len(self._refused) % 2 == 0

    @property
    def max_inputs(self) -> int:
        """How many inputs one request may carry."""
        return self.most_inputs_in(self.dialect)

    def most_inputs_in(self, dialect: int) -> int:
        """How many inputs one request may carry in a wire form."""
        return 1 if self.alone else self.task.max_inputs(dialect, self._batch_size)

    def opened(self, now: float) -> int | None:
        """Return how many requests may be out now; None where there is no telling, nor a need."""
        if self.answered:
            return None
        if self._silent_since is None:
            return 1
        silent_s = now - self._silent_since + 2 * math.ulp(now)  # the time that `opens_at` names is one
        return min(SILENCE_MOST, 1 << int(min(30.0, max(0.0, silent_s / SILENCE_S))))

    def opens_at(self) -> float | None:
        """Return when silence lets one more go than are out; None where it will not."""
        if self._silent_since is None or self.out >= SILENCE_MOST:
            return None
        return self._silent_since + SILENCE_S * self.out.bit_length()

    def waits(self, flags: int) -> bool:
        """Return whether a request waits for those that are out: they may show that its form is not understood."""
        return self._in_doubt > 0 and self.out > 0 and not flags

    def sent(self, now: float) -> None:
        """Count a request out."""
        self.out += 1
        if self._silent_since is None:
            self._silent_since = now

    def back(self) -> None:
        """Count a request in; the silence is broken."""
        self.out -= 1
        if not self.out:
            self._silent_since = None

    def understood(self, dialect: int, inputs: Sequence[Indexed], doubt: Doubt | None, *, proves: bool = True) -> None:
        """Take note of an answer to inputs that had raised a `doubt`; `proves` says that it is what was asked for."""
        self.answered = True
        if not proves:
            self._in_doubt -= 1
        elif doubt is not None:
            doubt.left -= len(inputs)
            if not doubt.left:
                self._vote(dialect, doubt.witnesses)
        elif dialect == self.dialect:
            self._proven |= self.task.required_features(_items(inputs), dialect)
            self._votes = {form: by for form, by in self._votes.items() if not (form ^ dialect) & self._proven}
            self._in_doubt = self._in_doubt - 1 if self._votes else 0

    def misunderstood(self, dialect: int, inputs: Sequence[Indexed]) -> int | None:
        """Take note that an answer shows that its wire form was not understood; return the form to ask in, if any."""
        if dialect & PLAIN:
            return None
        if not self._proven & PLAIN:
            self._doubt()
            self._vote(dialect | PLAIN, witnesses(inputs))
        elif not self.dialect & PLAIN:
            return None
        return dialect | PLAIN

    def fallback_format(self, dialect: int, inputs: Sequence[Indexed], error: RowError) -> int | None:
        """Return the wire form in which to ask inputs that were refused in this one; None where there is none."""
        if error.kind != "invalid_request":
            return None
        if self.dialect & ~dialect:
            return self.dialect | dialect
        other = self.task.fallback_format(_items(inputs), dialect, error.message)
        if other is None or (other & ~dialect) & self._proven:
            return None
        self._doubt()
        return other

    def refused(self, forms: int, inputs: Sequence[Indexed], error: RowError) -> NextStep:
        """Take note that inputs were refused in each of so many wire forms; return what follows."""
        self._suspicious = True
        if len(inputs) > 1:
            return NextStep.SPLIT
        if error.kind != "invalid_request":
            return NextStep.END
        self._count_alike(error.message, witnesses(inputs)[0])
        return NextStep.HOPELESS if self.alike >= max(WITNESSES, ALIKE_REFUSALS // forms) else NextStep.END

    def ask_alone(self) -> None:
        """Take note that of several inputs one may be to blame."""
        self._suspicious = True

    def _count_alike(self, words: str, what: Hashable) -> None:
        """Count what failed in these words while nothing was answered, each input once."""
        if self.answered:
            self.alike = 0
            return
        if words != self._words:
            self._words, self._refused = words, set()
        self._refused.add(what)
        self.alike = len(self._refused)

    def _doubt(self) -> None:
        self._in_doubt = DOUBT_ANSWERS

    def _vote(self, dialect: int, by: Sequence[Hashable]) -> None:
        """Count inputs that were answered in another wire form only; enough of them decide for it."""
        flags = dialect & ~self.dialect
        if not flags or flags & self._proven:
            return
        votes = self._votes.setdefault(dialect, [])
        votes += by
        if weight(votes) >= WITNESSES:
            self.dialect |= flags
            self._proven |= flags
            self._votes, self._in_doubt = {}, 0


def weight(inputs: Sequence[Hashable]) -> int:
    """Return how many witnesses inputs are: each that differs is one, and so are four that are equal to others."""
    different = len(set(inputs))
    return different + (len(inputs) - different) // 4


def witnesses(inputs: Sequence[Indexed]) -> tuple[Hashable, ...]:
    """Return what equal inputs have in common, of each: a text, or else the number of its row."""
    return tuple(item if isinstance(item, str) else number for number, item in inputs)


def _items(inputs: Sequence[Indexed]) -> list[Item]:
    return [item for _, item in inputs]
