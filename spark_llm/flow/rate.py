"""How fast requests may go out: the quotas that the user names, and the rate that refusals taught.

Requests in flight are the wrong quantity for an endpoint that counts requests or tokens a minute: it refuses at any
width of the window, and where refused attempts count as well, a window alone never gets out of trouble. So there the
sending itself is paced: evenly, as in a token bucket of a few requests.

Knows no clock, no socket, no Spark: `now` is an argument, in seconds.
"""

from spark_llm.flow.cubic import RETURN_ROUNDS, CubicWindow

BURST_REQUESTS = 2  # that may go at once after a pause of the sender's own
BURST_S = 1.0  # of a quota a minute, that may go at once
CEILING_SHARE = 0.97  # the ceiling to remember, of the rate that was refused
UNPROVEN_SHARE = 0.8  # as long as no rate has lasted: the first one is an estimate, and may be far too high
BACKOFF_RATIO = 0.95  # of that ceiling
FIRST_BACKOFF_RATIO = 0.9  # of the estimate
PROBE_STEP = 0.02  # of the ceiling
SLOWEST = 0.05  # requests a second
_UNBOUND = 1e9
_IDLE_UNITS = 16.0  # after which a rate that held nothing back is forgotten


class TokenBucket:
    """A quota by the minute, over any minute: a token bucket that holds a second's worth and may go into debt."""

    def __init__(self, per_minute: float) -> None:
        """Begin full."""
        self._most = max(1.0, per_minute / 60 * BURST_S)
        self._per_s = max(per_minute - self._most, per_minute / 2) / 60  # so that no minute sees more than its quota
        self._left = self._most
        self._at: float | None = None

    def opens_at(self, now: float) -> float:
        """Return when something may next be taken: `now`, or later."""
        self._fill(now)
        missing = min(1.0, self._most) - self._left
        return now if missing <= 1e-9 else now + missing / self._per_s

    def take(self, amount: float, now: float) -> None:
        """Take an amount, or give back a negative one."""
        self._fill(now)
        self._left = min(self._most, self._left - amount)

    def _fill(self, now: float) -> None:
        if self._at is not None:
            self._left = min(self._most, self._left + (now - self._at) * self._per_s)
        self._at = now


class AdaptiveRate:
    """The rate at which an endpoint with a hidden quota was last content; probed like the window."""

    def __init__(self, accepted_per_s: float, now: float) -> None:
        """Begin just under the rate of requests that were not refused, as it was estimated."""
        self._climb = CubicWindow(_UNBOUND, SLOWEST, _UNBOUND, step=PROBE_STEP, relative=True)
        self._climb.cut(accepted_per_s, FIRST_BACKOFF_RATIO)
        self._proven = False
        self._next_at = now
        self._grown_at = now
        self._held_back_at = now

    @property
    def per_s(self) -> float:
        """Requests a second."""
        return self._climb.value

    def opens_at(self) -> float:
        """Return when the next request may go."""
        return self._next_at

    def allows(self, now: float, wanted: int) -> int:
        """Return how many of the requests that are wanted may go now."""
        gap = 1 / self.per_s
        self._next_at = max(self._next_at, now - BURST_REQUESTS * gap)
        allowed = int((now - self._next_at) / gap + 1e-6) + 1 if now >= self._next_at else 0
        if not allowed:
            self._held_back_at = now
        return min(allowed, wanted)

    def sent(self) -> None:
        """Count a request."""
        self._next_at += 1 / self.per_s

    def binds(self, now: float) -> bool:
        """Return whether requests were held back by this rate a moment ago."""
        return self._held_back_at >= now - 3 / self.per_s

    def double(self) -> None:
        """Begin slow start again: refusals have stopped, so the limit has grown."""
        self._climb.double()

    def grow(self, now: float, unit_s: float) -> bool:
        """Let time pass, of which `unit_s` is a round; return False when the rate has not mattered for long."""
        rounds = (now - self._grown_at) / unit_s
        self._grown_at = now
        if self.binds(now):
            self._climb.grow(rounds)
        return now - self._held_back_at <= _IDLE_UNITS * unit_s

    def cut(self, accepted_per_s: float) -> None:
        """Take note that requests at this rate were refused, and how many a second were accepted."""
        if self._climb.slow_start_again:
            self._climb.cut(max(SLOWEST, accepted_per_s), BACKOFF_RATIO)
            return
        self._proven = self._proven or self._climb.rounds >= RETURN_ROUNDS
        self._climb.cut((CEILING_SHARE if self._proven else UNPROVEN_SHARE) * self.per_s, BACKOFF_RATIO)

    def resume_at(self, at: float) -> None:
        """Send nothing before this time."""
        self._next_at = at
