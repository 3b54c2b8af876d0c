"""What rows cost so far, and how many more an amount allows: tokens and dollars by the row, seconds by the chunk.

Knows no clock, no Spark: seconds that passed are arguments.
"""

import math

MARGIN = 1.1  # of what rows cost so far: what the next ones may cost


def fit(left: float, per_row: float | None) -> float:
    """Return how many rows an amount allows, with parts of one; any number where a row is free, or nobody knows."""
    if left <= 0 and per_row != 0:
        return 0
    return left / per_row if per_row else math.inf


class CostForecast:
    """What rows cost, by the row: the mean of all, or that of the last chunk where rows grow dearer."""

    def __init__(self) -> None:
        """Begin with nothing spent."""
        self.spent = 0.0
        self._rows = 0.0
        self._last = 0.0

    @property
    def per_row(self) -> float | None:
        """What the next rows may cost, each; None before anything is known."""
        return MARGIN * max(self.spent / self._rows, self._last) if self._rows else None

    def add(self, rows: int, answered: float, amount: float) -> None:
        """Take note of a chunk: its rows, how many were answered, and what all of it cost.

        Rows that failed are often free, and the next ones need not be: the cost is that of the rows that were answered.
        """
        self.spent += amount
        if weight := answered or (rows if amount else 0):
            self._rows += weight
            self._last = amount / weight


class TimeForecast:
    """How long chunks take: so much for each, which nobody tells, and so much for each of its rows."""

    def __init__(self) -> None:
        """Begin with no chunk."""
        self._rows = 0
        self._took_s = 0.0
        self._shortest_s = math.inf

    def add(self, rows: int, took_s: float) -> None:
        """Take note of a chunk and how long it took."""
        if rows:
            self._rows, self._took_s = rows, took_s
            self._shortest_s = min(self._shortest_s, took_s)

    def rows_in(self, left_s: float) -> float:
        """Return how many rows, or parts of one, a chunk may have that is to be over in that time.

        The last chunk bounds it from above. A larger one takes longer at most in proportion. A smaller one takes no
        longer than it, nor than the shortest chunk there was and the last one's share by the row on top.
        """
        left_s /= MARGIN
        if not self._rows or not self._took_s:
            return math.inf if left_s > 0 else 0
        return max(0.0, left_s if left_s >= self._took_s else left_s - self._shortest_s) * self._rows / self._took_s
