"""Whether a task's requests are understood at all, and in which wire form. Knows no clock, no socket, no Spark.

Nobody tells us whether a server knows base64 vectors, takes a list of prompts, or refuses a parameter: the first
answers do. So until one of a task's requests was answered they go one by one, each with what the one before has taught;
a request that is refused as a whole then costs a handful of refusals and not one for every row. A refusal may be about
the form or about an input: a request that was refused in one form is asked in the next, and only if it is answered
there was it the form.
"""

import math
from enum import Enum

from spark_llm._pack import Numbered
from spark_llm._tasks import Task
from spark_llm._values import RowError

ALIKE_REFUSALS = 8  # of inputs alone, in the same words, and nothing answered: it is not the inputs
SILENCE_S = 2.0  # while the first request is silent, the number that may be out doubles after each such time, up to
SILENCE_MOST = 16


class Then(Enum):
    """What follows from a refusal."""

    AGAIN = "the same inputs are asked in another form"
    SPLIT = "they are asked in parts"
    END = "this input is refused"
    HOPELESS = "every input would be"


class Form:
    """What the answers have shown of one task at one endpoint."""

    def __init__(self, task: Task, batch_size: int) -> None:
        """Know nothing; the user allows `batch_size` inputs in a request."""
        self.task = task
        self.dialect = 0  # the wire form that requests take
        self.answered = False  # whether any request was
        self.proven = False  # whether the wire form is known to be understood
        self.out = 0  # requests in flight
        self._batch_size = batch_size
        self._suspicious = False
        self._in_doubt: int | None = None  # inputs of a refused request that were not answered in another form yet
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
    def most_inputs(self) -> int:
        """How many inputs one request may carry."""
        return 1 if self.alone else self.task.most_inputs(self.dialect, self._batch_size)

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

    def understood(self, dialect: int, count: int, *, in_doubt: bool) -> None:
        """Take note of an answer to `count` inputs; `in_doubt` says that they were refused in another form."""
        self.answered = True
        if self.proven or not self.task.proves(dialect, count):
            return
        if dialect > 0:  # what is answered in another form must be what the first one was refused for
            if self._in_doubt is None or not in_doubt:
                return
            self._in_doubt -= count
            if self._in_doubt > 0:
                return
        self._prove(dialect)

    def misunderstood(self, dialect: int) -> bool:
        """Take note that an answer shows that its wire form was not understood; return whether to ask in another."""
        if not self.proven and dialect + 1 < self.task.dialects:
            self._prove(dialect + 1)
        return dialect < self.dialect

    def refused(self, dialect: int, inputs: list[Numbered], error: RowError) -> Then:
        """Take note that inputs were refused in a wire form; return what follows."""
        count = len(inputs)
        if error.kind == "invalid_request":
            if dialect < self.dialect:
                return Then.AGAIN
            if not self.proven and self.task.proves(dialect, count) and dialect + 1 < self.task.dialects:
                self.dialect, self._in_doubt = dialect + 1, count
                return Then.AGAIN
            if not self.proven:
                self.dialect, self._in_doubt = 0, None  # it was refused in every form: the form was not the reason
        self._suspicious = True
        if count > 1:
            return Then.SPLIT
        if error.kind != "invalid_request":
            return Then.END
        [(number, item)] = inputs
        alike = self._alike(error.message, item if isinstance(item, str) else number)
        forms = sum(self.task.proves(each, 1) for each in range(self.task.dialects))  # each costs a refusal
        return Then.HOPELESS if alike >= ALIKE_REFUSALS // forms else Then.END

    def failed(self, error: RowError) -> bool:
        """Take note of an answer that was none; return whether so many came, and nothing else, that it is hopeless."""
        return error.kind == "invalid_response" and self._alike(error.kind, len(self._refused)) >= ALIKE_REFUSALS

    def _alike(self, words: str, what: object) -> int:
        """Count what failed in these words while nothing was answered, each input once; return how often it did."""
        if self.answered:
            return 0
        if words != self._words:
            self._words, self._refused = words, set()
        self._refused.add(what)
        return len(self._refused)

    def _prove(self, dialect: int) -> None:
        self.dialect, self.proven, self._in_doubt = dialect, True, None
