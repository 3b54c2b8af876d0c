"""Operations: requests whose answer or error a row has, in histograms of durations and tokens that can be added.

A bucket ends at its bound, and includes it; the last one has no end. The bounds are those of OpenTelemetry's
conventions for generative AI.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce

DURATION_BOUNDS_MS = tuple(10.0 * 2**step for step in range(14))
TOKEN_BOUNDS = tuple(float(4**step) for step in range(14))
BUCKETS = 15  # of a histogram: one more than it has bounds
ANSWERED = ""  # in place of the kind of an error


@dataclass(frozen=True)
class Histogram:
    """Counts of values by bucket, and the sum of the values."""

    buckets: tuple[int, ...] = (0,) * BUCKETS
    sum: float = 0

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.buckets)

    def plus(self, other: "Histogram") -> "Histogram":
        """Return the histogram of all values of both."""
        pairs = zip(self.buckets, other.buckets, strict=True)
        return Histogram(tuple(one + more for one, more in pairs), self.sum + other.sum)

    def minus(self, earlier: "Histogram") -> "Histogram":
        """Return the histogram of the values that came after an earlier one."""
        pairs = zip(self.buckets, earlier.buckets, strict=True)
        return Histogram(tuple(one - less for one, less in pairs), self.sum - earlier.sum)

    def at_least(self, earlier: "Histogram") -> "Histogram":
        """Return this histogram with no number less than in an earlier one."""
        return Histogram(tuple(map(max, self.buckets, earlier.buckets)), max(self.sum, earlier.sum))


EMPTY = Histogram()


@dataclass(frozen=True)
class Operations:
    """The operations of one column.

    Attributes:
        durations_ms: Their durations by the kind of error that they ended with, and `ANSWERED`. A duration is that of
            the row's last request, from sending to the whole response. Rows that shared a request count once.
        prompt_tokens: Tokens of each row's prompt, over all its requests; a row's share where several rows share one.
        completion_tokens: The same of its answer.
        refusals: HTTP responses that held no answer, by their status.
    """

    durations_ms: Mapping[str, Histogram] = field(default_factory=dict)
    prompt_tokens: Histogram = EMPTY
    completion_tokens: Histogram = EMPTY
    refusals: Mapping[int, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """The number of operations."""
        return sum(durations.count for durations in self.durations_ms.values())

    def plus(self, other: "Operations") -> "Operations":
        """Return the sum of both."""
        kinds = dict.fromkeys((*self.durations_ms, *other.durations_ms))
        return Operations(
            {kind: self.durations_ms.get(kind, EMPTY).plus(other.durations_ms.get(kind, EMPTY)) for kind in kinds},
            self.prompt_tokens.plus(other.prompt_tokens),
            self.completion_tokens.plus(other.completion_tokens),
            dict(Counter(self.refusals) + Counter(other.refusals)),
        )


def operations_total(parts: Iterable[Operations]) -> Operations:
    """Return the sum of operations; zeros where there are none."""
    return reduce(Operations.plus, parts, Operations())
