"""Shortage: how much may be in flight while the provider has no room left at a service tier, as at OpenAI's flex tier.

Such a refusal comes whoever else asks, so it is no sign that the window is too wide, and cuts neither window nor rate.
It may be one all the same: a tier may have so much room for a user. So each refusal takes a quarter of a request from
what may be in flight, each answer gives one back, and half of the window always stays. Where four of five requests are
refused for whatever reason, nothing changes; where more than a number at once are, about that number goes.
"""

import math

COST = 0.25  # of a refusal, in requests in flight
MIN_SHARE = 0.5  # of the window when the shortage began
MIN_REQUESTS = 16.0


class Shortage:
    """The requests that may be in flight during a shortage; it ends where answers have made up for the refusals."""

    def __init__(self) -> None:
        """Begin with enough room."""
        self._most: float | None = None
        self._least = 0.0

    @property
    def is_on(self) -> bool:
        """Whether requests were refused, and answers have not made up for it yet."""
        return self._most is not None

    def room(self, in_flight: int) -> float:
        """Return how many more requests may go, with a fraction; infinity without a shortage."""
        return math.inf if self._most is None else max(0.0, self._most - in_flight)

    def on_refusal(self, window: int) -> None:
        """Count a refusal, in a window that is so wide."""
        if self._most is None:
            self._most, self._least = float(window), max(MIN_REQUESTS, MIN_SHARE * window)
        self._most = max(self._least, self._most - COST)

    def on_answer(self, window: int) -> None:
        """Count an answer; the shortage is over once the whole window may be in flight."""
        if self._most is not None:
            self._most = None if self._most + 1 >= window else self._most + 1
