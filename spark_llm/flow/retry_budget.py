"""When nothing but faults comes back, it is not the rows: the line waits, and one request at a time looks.

A retry budget, as gRPC throttles retries (gRFC A6): faults draw on it, answers fill it. Once it is spent, sending stops
but for probes, which grow rarer, until something is answered; no row spends its tries on an outage. Knows no clock, no
dice, no socket: both are arguments.
"""

BUDGET = 8  # faults more than answers, from which on it is an outage
FIRST_PROBE_S = 0.5
LONGEST_PROBE_S = 5.0


class RetryBudget:
    """Faults against answers of one endpoint."""

    def __init__(self) -> None:
        """Begin full."""
        self.spent_at: float | None = None  # when the outage began; None while there is none
        self._left = BUDGET
        self._probes = 0
        self._probing = False
        self._probe_at = 0.0

    def answered(self) -> None:
        """Take note of an answer: it ends an outage."""
        self._left = BUDGET if self.spent_at is not None else min(BUDGET, self._left + 1)
        self.spent_at = None
        self._probes = 0

    def failed(self, now: float, random_value: float, *, probe: bool) -> None:
        """Take note of a fault of a request that was a probe, or was not; `dice` is one draw from [0, 1)."""
        if self.spent_at is None:
            self._left -= 1
            if self._left > 0:
                return
            self.spent_at = now
        elif not probe:
            return  # it was sent before the outage was known
        self._probing = False
        wait_s = min(LONGEST_PROBE_S, FIRST_PROBE_S * 2.0 ** min(self._probes, 30))
        self._probe_at = now + wait_s * (1 + random_value) / 2
        self._probes += 1

    def opens_at(self, now: float) -> float | None:
        """Return when a request may go: `now` or later; None while a probe is out."""
        if self.spent_at is None:
            return now
        return None if self._probing else max(now, self._probe_at)

    def sent(self) -> bool:
        """Take note that a request goes out; return whether it is a probe."""
        self._probing = self.spent_at is not None
        return self._probing

    def refused(self, *, probe: bool) -> None:
        """Take note that a request was told to wait, or called off: neither an answer nor a fault."""
        if probe:
            self._probing = False
