"""CUBIC growth for an unknown limit: double until the first rejection, then return to the remembered ceiling.

The curve is that of CUBIC (RFC 9438), in rounds and not in seconds. After a cut it comes back to just under the
remembered ceiling, fast at first and slowly at the end. It stays there, and then probes above it by steps that double.
A ceiling that is confirmed is left alone for longer. Additive growth would spend most of its time far below the
ceiling, or run into it every few rounds. Where refusals have stopped, slow start begins again from the present value.
"""

from typing import Any

from spark_llm.flow.snapshot import number, optional

RETURN_ROUNDS = 4.0  # from the cut back to the ceiling
HOLD_ROUNDS = 4.0  # at the ceiling before probing above it, and
MAX_HOLD_ROUNDS = 10.0  # after confirmations: each doubles the wait
MIN_BURST_SHARE = 0.5  # of the ceiling that a cut found: doubling overshoots by no more
SAME_CEILING_SHARE = 0.1  # two ceilings that differ by less are one that was confirmed
_MAX_DOUBLINGS = 40.0


class CubicWindow:
    """A quantity that grows towards an unknown limit; `ceiling` is where it was last cut, None before."""

    def __init__(self, start: float, minimum: float, maximum: float, *, step: float, relative: bool = False) -> None:
        """Begin at `start`; probe above a ceiling by `step`, or by that share of it where the step is `relative`."""
        self.value = start
        self.ceiling: float | None = None
        self.rounds = 0.0  # since the last cut
        self._min = minimum
        self.maximum = maximum
        self._step = step
        self._relative = relative
        self._floor = start
        self._hold_rounds = 0.0
        self._cut_ceiling = 0.0  # the ceiling, as the last cut found it
        self._backoff_ratio = 1.0  # of that cut
        self._slow_start_from: float | None = None  # the value at which slow start began again

    @property
    def slow_start(self) -> bool:
        """Whether it doubles with every round, as it does before the first cut and below the maximum."""
        return self.ceiling is None and self.value < self.maximum

    @property
    def slow_start_again(self) -> bool:
        """Whether it doubles past the remembered ceiling, until the next cut."""
        return self._slow_start_from is not None

    def restart_slow_start(self) -> None:
        """Begin slow start again: the limit has grown since the ceiling was found."""
        if self.ceiling is not None and self._slow_start_from is None:
            self._slow_start_from = self.value

    def grow(self, rounds: float) -> None:
        """Grow by so many rounds without a cut; a round of a window is as many answers as it is wide."""
        self.rounds += rounds
        if self.ceiling is None or self.slow_start_again:
            self.value = min(self.maximum, self.value * (1 + rounds))
            return
        probe_rounds = self.rounds - RETURN_ROUNDS - self._hold_rounds
        if self.rounds < RETURN_ROUNDS:
            value = self.ceiling - (self.ceiling - self._floor) * (1 - self.rounds / RETURN_ROUNDS) ** 3
        elif probe_rounds < 0:
            value = self.ceiling
        else:
            step = self._step * (self.ceiling if self._relative else 1.0)
            value = self.ceiling + step * (2.0 ** min(_MAX_DOUBLINGS, probe_rounds) - 1)
        self.value = min(self.maximum, max(self._min, value))

    def cut(self, ceiling: float, backoff_ratio: float) -> None:
        """Fall to a share of the ceiling that was found, and remember it.

        A ceiling that ends a second slow start is at least the value from which it began: that one was not refused.
        """
        ceiling = max(self._min, min(max(ceiling, self._slow_start_from or 0.0), self.value))
        if self.ceiling is None:
            self._hold_rounds = 0.0  # the first one was met at full speed, so it is known roughly
        elif abs(ceiling - self.ceiling) <= max(1.0, SAME_CEILING_SHARE * self.ceiling):
            self._hold_rounds = min(MAX_HOLD_ROUNDS, max(HOLD_ROUNDS, 2 * self._hold_rounds))
        else:
            self._hold_rounds = HOLD_ROUNDS
        self.ceiling = self._cut_ceiling = ceiling
        self._backoff_ratio = backoff_ratio
        self._floor = self.value = max(self._min, ceiling * backoff_ratio)
        self.rounds = 0.0
        self._slow_start_from = None

    def lower_ceiling(self) -> None:
        """Lower the ceiling by one, for a request that was in flight at the cut and was refused as well."""
        if self.ceiling is None or self.ceiling - 1 < max(self._min, MIN_BURST_SHARE * self._cut_ceiling):
            return
        self.ceiling -= 1
        self._floor = max(self._min, self.ceiling * self._backoff_ratio)
        self.grow(0.0)

    def snapshot(self) -> list[float | None]:
        """Return what it has learned, as JSON holds it."""
        return [
            *(self.value, self.ceiling, self.rounds, self._floor),
            *(self._hold_rounds, self._cut_ceiling, self._backoff_ratio, self._slow_start_from),
        ]

    def restore(self, snapshot: list[Any]) -> None:
        """Go on from a snapshot, within the present bounds."""
        value, ceiling, rounds, floor, hold_rounds, cut_ceiling, backoff_ratio, slow_start_from = snapshot
        self.value = min(self.maximum, max(self._min, number(value)))
        self.ceiling = optional(ceiling, self._min)
        self.rounds = number(rounds)
        self._floor = min(self.maximum, max(self._min, number(floor)))
        self._hold_rounds = number(hold_rounds, 0.0, MAX_HOLD_ROUNDS)
        self._cut_ceiling = number(cut_ceiling)
        self._backoff_ratio = number(backoff_ratio, 0.0, 1.0)
        self._slow_start_from = optional(slow_start_from)
