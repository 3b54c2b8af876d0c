"""Retry budget: after 8 more faults than answers, stop sending and probe with one request at a time.

Faults draw on the budget and answers fill it, as gRPC throttles retries (gRFC A6). Once it is spent, it is an outage:
only probes are sent, which grow rarer, until one is answered. No row spends its attempts on an outage.

A refusal for want of room at a service tier, as at OpenAI's flex tier, draws on it too, and is a `Shortage` besides. It
comes whoever else asks, so it is no sign that the window is too wide, and cuts neither window nor rate. It may be one
all the same: a tier may have so much room for a user. So each such refusal takes a quarter of a request from what may
be in flight, each answer gives one back, and half of the window always stays. Where less than four of five requests are
refused whatever the load, nothing changes; where all beyond a number are, about that number goes.
"""

import math
from typing import Any

from spark_llm.flow.snapshot import optional, whole

BUDGET = 8  # faults more than answers that begin an outage
FIRST_PROBE_S = 0.5
MAX_PROBE_S = 5.0
REFUSAL_COST = 0.25  # of a shortage, in requests in flight
MIN_SHARE = 0.5  # of the window when the shortage began
MIN_REQUESTS = 16.0


class RetryBudget:
    """The faults of one endpoint against its answers."""

    def __init__(self) -> None:
        """Begin full."""
        self.spent_at: float | None = None  # when the outage began; None while there is none
        self._left = BUDGET
        self._probes = 0
        self._probe_in_flight = False
        self._probe_at = 0.0

    def on_answer(self) -> None:
        """Count an answer, which ends an outage."""
        self._left = BUDGET if self.spent_at is not None else min(BUDGET, self._left + 1)
        self.spent_at = None
        self._probes = 0

    def on_fault(self, now: float, random_value: float, *, probe: bool) -> None:
        """Count a fault, of a probe or of another request; `random_value` is a random number from [0, 1)."""
        if self.spent_at is None:
            self._left -= 1
            if self._left > 0:
                return
            self.spent_at = now
        elif not probe:
            return  # it was sent before the outage was known
        self._probe_in_flight = False
        wait_s = min(MAX_PROBE_S, FIRST_PROBE_S * 2.0 ** min(self._probes, 30))
        self._probe_at = now + wait_s * (1 + random_value) / 2
        self._probes += 1

    def on_inconclusive(self, *, probe: bool) -> None:
        """Count a request that was rate limited or cancelled: neither an answer nor a fault."""
        if probe:
            self._probe_in_flight = False

    def on_send(self) -> bool:
        """Count a request as in flight; return whether it is a probe."""
        self._probe_in_flight = self.spent_at is not None
        return self._probe_in_flight

    def opens_at(self, now: float) -> float | None:
        """Return when a request may go: `now` or later; None while a probe is in flight."""
        if self.spent_at is None:
            return now
        return None if self._probe_in_flight else max(now, self._probe_at)

    def snapshot(self, now: float) -> list[float | None]:
        """Return its state, as JSON holds it, with times before `now`."""
        return [self._left, None if self.spent_at is None else now - self.spent_at, self._probes]

    def restore(self, snapshot: list[Any], now: float) -> None:
        """Go on from a snapshot; a probe that was in flight has no outcome any more."""
        left, spent_s, probes = snapshot
        spent_s = optional(spent_s)
        self.spent_at = None if spent_s is None else now - spent_s
        self._left = whole(left, 1 if spent_s is None else 0, BUDGET)
        self._probes = whole(probes)
        self._probe_in_flight = False


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
        self._most = max(self._least, self._most - REFUSAL_COST)

    def on_answer(self, window: int) -> None:
        """Count an answer; the shortage is over once the whole window may be in flight."""
        if self._most is not None:
            self._most = None if self._most + 1 >= window else self._most + 1
