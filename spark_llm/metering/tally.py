"""Tallies: counts of rows, errors and tokens that can be added."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import reduce

from spark_llm.errors import Kind


@dataclass(frozen=True)
class Tally:
    """The counts of one column.

    Attributes:
        asked: Rows with a prompt.
        failed: Rows that were not answered, by the kind of their error.
        prompt_tokens: Tokens of the prompts, cached ones included.
        completion_tokens: Tokens of the answers.
        cached_tokens: Tokens of the prompts that the server had cached.
        total_tokens: All tokens, as the server added them up.
        requests: HTTP requests that were sent, retries included.
    """

    asked: int = 0
    failed: Mapping[Kind, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    total_tokens: int = 0
    requests: int = 0

    @property
    def answered(self) -> int:
        """Rows that were answered."""
        return self.asked - sum(self.failed.values())

    def plus(self, other: "Tally") -> "Tally":
        """Return the sum of two tallies."""
        sums = {
            part.name: getattr(self, part.name) + getattr(other, part.name)
            for part in fields(self)
            if part.name != "failed"
        }
        return Tally(failed=dict(Counter(self.failed) + Counter(other.failed)), **sums)


def total_of(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of tallies; zeros where there are none."""
    return reduce(Tally.plus, tallies, Tally())
