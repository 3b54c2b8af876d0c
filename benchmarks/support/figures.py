"""The results of a benchmark, and their table: a ratio against a baseline of the same run, or a count.

A measurement with several results has several rows; those after the first begin with "…".
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True)
class Goal:
    """A bound that a figure should keep."""

    at_least: float | None = None
    at_most: float | None = None

    def __str__(self) -> str:
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"

    def is_reached_by(self, value: float) -> bool:
        """Return whether this value keeps the bound."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True)
class Figure:
    """One row of the table: the values of all rounds, whose median counts, and both sides of the ratio."""

    name: str
    values: Sequence[float]
    ours: str = ""
    baseline: str = ""
    goal: Goal | None = None
    unit: str = "×"
    digits: int = 2  # after the point
    note: str = ""  # the method, for the page
    picture: str = ""  # an SVG, for the page

    @property
    def value(self) -> float:
        """The median over the rounds."""
        return median(self.values)

    def cells(self) -> list[str]:
        """Return the row's cells, in the order of `HEADINGS`."""
        unit = f" {self.unit}" if self.unit not in ("", "×") else self.unit
        goal = "" if self.goal is None else f"{self.goal}{unit}"
        if not self.values:
            return [self.name, self.ours, self.baseline, "not measured", goal, ""]
        spread = ""
        if len(self.values) > 1:
            spread = f" ({self._formatted(min(self.values))} to {self._formatted(max(self.values))})"
        reached = "" if self.goal is None else "yes" if self.goal.is_reached_by(self.value) else "**no**"
        return [self.name, self.ours, self.baseline, f"{self._formatted(self.value)}{unit}{spread}", goal, reached]

    def _formatted(self, value: float) -> str:
        return f"{value:,.{self.digits}f}"


@dataclass
class Rounds:
    """One contender's rounds: the rows of each, and the seconds of each; no seconds if it was not measured."""

    rows: int
    seconds: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.rows / median(self.seconds):,.0f} rows/s" if self.seconds else ""


def speed_ratio(name: str, ours: Rounds, theirs: Rounds, goal: Goal | None = None, note: str = "") -> Figure:
    """Return the ratio of our rows a second to theirs, round by round."""
    pairs = zip(ours.seconds, theirs.seconds, strict=True) if theirs.seconds else ()
    ratios = [(ours.rows / our_s) / (theirs.rows / their_s) for our_s, their_s in pairs]
    return Figure(name, ratios, str(ours), str(theirs), goal, note=note)


HEADINGS = ["measurement", "spark_llm", "baseline", "result", "goal", "reached"]


def table(figures: Sequence[Figure]) -> str:
    """Return a Markdown table of the figures, padded to read well as text."""
    rows = [HEADINGS, *(figure.cells() for figure in figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)
