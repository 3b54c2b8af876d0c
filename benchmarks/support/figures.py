"""What a benchmark reports, and how it is written down: a ratio against a baseline of the same run, or a count.

What has several goals takes several lines: those after the first begin with "…".
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True)
class Goal:
    """A figure to reach."""

    at_least: float | None = None
    at_most: float | None = None

    def __str__(self) -> str:
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"

    def reached_by(self, value: float) -> bool:
        """Return whether this value will do."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True)
class Figure:
    """One row of the table: the values of all rounds, of which the median counts, and the two sides they came from."""

    what: str
    values: Sequence[float]
    ours: str = ""
    baseline: str = ""
    goal: Goal | None = None
    unit: str = "×"
    digits: int = 2  # after the point
    note: str = ""  # how it was measured, for the page
    picture: str = ""  # an SVG that shows it, for the page

    @property
    def value(self) -> float:
        """The median over the rounds."""
        return median(self.values)

    def cells(self) -> list[str]:
        """Return the row's cells, in the order of `HEADINGS`."""
        unit = f" {self.unit}" if self.unit not in ("", "×") else self.unit
        goal = "" if self.goal is None else f"{self.goal}{unit}"
        if not self.values:
            return [self.what, self.ours, self.baseline, "not measured", goal, ""]
        spread = ""
        if len(self.values) > 1:
            spread = f" ({self._written(min(self.values))} to {self._written(max(self.values))})"
        reached = "" if self.goal is None else "yes" if self.goal.reached_by(self.value) else "**no**"
        return [self.what, self.ours, self.baseline, f"{self._written(self.value)}{unit}{spread}", goal, reached]

    def _written(self, value: float) -> str:
        return f"{value:,.{self.digits}f}"


@dataclass
class Rounds:
    """One contender's rounds: the rows of each, and the seconds that each took; none where it could not be measured."""

    rows: int
    seconds: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.rows / median(self.seconds):,.0f} rows/s" if self.seconds else ""


def against(what: str, ours: Rounds, theirs: Rounds, goal: Goal | None = None, note: str = "") -> Figure:
    """Return how many times as many rows a second we answer as they do, round by round."""
    pairs = zip(ours.seconds, theirs.seconds, strict=True) if theirs.seconds else ()
    ratios = [(ours.rows / our_s) / (theirs.rows / their_s) for our_s, their_s in pairs]
    return Figure(what, ratios, str(ours), str(theirs), goal, note=note)


HEADINGS = ["measurement", "spark_llm", "baseline", "result", "goal", "reached"]


def table(figures: Sequence[Figure]) -> str:
    """Lay figures out as a Markdown table that also reads well as text."""
    rows = [HEADINGS, *(figure.cells() for figure in figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)
