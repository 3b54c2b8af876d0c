"""Forecasts of cost and time: tokens and dollars per row, seconds per chunk.

Knows no clock and no Spark: elapsed seconds are arguments.
"""

import math

MARGIN = 1.1  # the next rows may cost so much more than the rows before


def affordable_rows(left: float, per_row: float | None) -> float:
    """Return how many rows an amount pays for, with fractions; infinity where a row is free or its cost unknown."""
    if left <= 0 and per_row != 0:
        return 0
    return left / per_row if per_row else math.inf


class CostForecast:
    """The cost of a row: the mean of all rows, or of the last chunk where its rows cost more."""

    def __init__(self) -> None:
        """Begin with nothing spent."""
        self.spent = 0.0
        self._rows = 0.0
        self._last = 0.0

    @property
    def per_row(self) -> float | None:
        """The most that the next rows should cost, each; None before the first cost is known."""
        return MARGIN * max(self.spent / self._rows, self._last) if self._rows else None

    def add(self, rows: int, answered: float, amount: float) -> None:
        """Record a chunk: its rows, how many were answered, and its cost.

        Failed rows are often free, and the next ones may not be; so the cost is divided by the answered rows.
        """
        self.spent += amount
        if weight := answered or (rows if amount else 0):
            self._rows += weight
            self._last = amount / weight


class TimeForecast:
    """The time of a chunk: an unknown share for the chunk itself, and one for each of its rows."""

    def __init__(self) -> None:
        """Begin with no chunk."""
        self._rows = 0
        self._duration_s = 0.0
        self._shortest_s = math.inf

    def add(self, rows: int, duration_s: float) -> None:
        """Record the rows and the duration of a chunk."""
        if rows:
            self._rows, self._duration_s = rows, duration_s
            self._shortest_s = min(self._shortest_s, duration_s)

    def rows_in(self, left_s: float) -> float:
        """Return how many rows a chunk of that time may have, with fractions.

        A chunk larger than the last one takes longer in proportion at most. A smaller one takes no longer than the
        last one, nor than the shortest one plus the last one's time per row.
        """
        left_s /= MARGIN
        if not self._rows or not self._duration_s:
            return math.inf if left_s > 0 else 0
        return (
            max(0.0, left_s if left_s >= self._duration_s else left_s - self._shortest_s)
            * self._rows
            / self._duration_s
        )
