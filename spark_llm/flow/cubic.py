"""CUBIC growth for an unknown limit: double until the first rejection, then return to the remembered ceiling.

The curve is that of CUBIC (RFC 9438), in rounds and not in seconds: after a cut it comes back to just under the ceiling
it remembers, fast at first and slowly at the end, stays there, and then probes above it by steps that double. A ceiling
that is confirmed is left alone for longer. Plain additive growth would spend most of its time far below the ceiling or
run into it every few rounds. Where refusals have stopped, slow start begins again from the present value.
"""

RETURN_ROUNDS = 4.0  # from the cut back to the ceiling
HOLD_ROUNDS = 4.0  # at the ceiling before probing above it, and
LONGEST_HOLD_ROUNDS = 10.0  # after confirmations: each doubles the wait
BURST_LEAST = 0.5  # of the ceiling that a cut found: doubling overshoots by no more
SAME = 0.1  # two ceilings that differ by less are one that was confirmed
_DOUBLINGS_MOST = 40.0


class CubicWindow:
    """One quantity on its way up: `value`, from `least` to `most`; `ceiling` is where it was cut, None before."""

    def __init__(self, start: float, least: float, most: float, *, step: float, relative: bool = False) -> None:
        """Begin at `start`; probe above a ceiling by `step`, or by that share of it where the step is `relative`."""
        self.value = start
        self.ceiling: float | None = None
        self.rounds = 0.0  # since the last cut
        self._least = least
        self._most = most
        self._step = step
        self._relative = relative
        self._floor = start
        self._hold = 0.0
        self._found = 0.0  # the ceiling, as the last cut found it
        self._factor = 1.0  # of that cut
        self._doubles_from: float | None = None  # the value at which slow start began again

    @property
    def slow_start(self) -> bool:
        """Whether it still doubles with every round, up to the most."""
        return self.ceiling is None and self.value < self._most

    @property
    def slow_start_again(self) -> bool:
        """Whether it doubles past the ceiling that it remembers, until the next cut."""
        return self._doubles_from is not None

    def double(self) -> None:
        """Begin slow start again: the limit has grown since the ceiling was found."""
        if self.ceiling is not None and self._doubles_from is None:
            self._doubles_from = self.value

    def grow(self, rounds: float) -> None:
        """Take note that so many rounds went well; a round of a window is as many answers as it is wide."""
        self.rounds += rounds
        if self.ceiling is None or self.slow_start_again:
            self.value = min(self._most, self.value * (1 + rounds))
            return
        probing = self.rounds - RETURN_ROUNDS - self._hold
        if self.rounds < RETURN_ROUNDS:
            value = self.ceiling - (self.ceiling - self._floor) * (1 - self.rounds / RETURN_ROUNDS) ** 3
        elif probing < 0:
            value = self.ceiling
        else:
            step = self._step * (self.ceiling if self._relative else 1.0)
            value = self.ceiling + step * (2.0 ** min(_DOUBLINGS_MOST, probing) - 1)
        self.value = min(self._most, max(self._least, value))

    def cut(self, ceiling: float, factor: float) -> None:
        """Fall to `factor` of a ceiling that showed itself, and remember it.

        A ceiling that ends a second slow start is at least the value from which it began: that one was not refused.
        """
        ceiling = max(self._least, min(max(ceiling, self._doubles_from or 0.0), self.value))
        if self.ceiling is None:
            self._hold = 0.0  # the first one was met at full speed, so it is known roughly
        elif abs(ceiling - self.ceiling) <= max(1.0, SAME * self.ceiling):
            self._hold = min(LONGEST_HOLD_ROUNDS, max(HOLD_ROUNDS, 2 * self._hold))
        else:
            self._hold = HOLD_ROUNDS
        self.ceiling = self._found = ceiling
        self._factor = factor
        self._floor = self.value = max(self._least, ceiling * factor)
        self.rounds = 0.0
        self._doubles_from = None

    def lower(self) -> None:
        """Lower the ceiling by one request that was in flight at the cut, and was refused like those that caused it."""
        if self.ceiling is None or self.ceiling - 1 < max(self._least, BURST_LEAST * self._found):
            return
        self.ceiling -= 1
        self._floor = max(self._least, self.ceiling * self._factor)
        self.grow(0.0)
