"""What a benchmark reports, and how it is written down: a ratio against a baseline of the same run."""

from collections.abc import Sequence
from dataclasses import dataclass
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
    note: str = ""  # how it was measured, for the page

    @property
    def value(self) -> float:
        """The median over the rounds."""
        return median(self.values)

    def cells(self) -> list[str]:
        """Return the row's cells, in the order of `HEADINGS`."""
        unit = self.unit if self.unit == "×" else f" {self.unit}"
        spread = f" ({min(self.values):.2f} to {max(self.values):.2f})" if len(self.values) > 1 else ""
        goal, reached = ("", "")
        if self.goal is not None:
            goal, reached = f"{self.goal}{unit}", "yes" if self.goal.reached_by(self.value) else "**no**"
        return [self.what, self.ours, self.baseline, f"{self.value:.2f}{unit}{spread}", goal, reached]


HEADINGS = ["measurement", "spark_llm", "baseline", "ratio", "goal", "reached"]


def rate(rows: int, seconds: Sequence[float]) -> str:
    """Return the median rows a second, in words."""
    return f"{rows / median(seconds):,.0f} rows/s"


def table(figures: Sequence[Figure]) -> str:
    """Lay figures out as a Markdown table that also reads well as text."""
    rows = [HEADINGS, *(figure.cells() for figure in figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)
