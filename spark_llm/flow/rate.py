"""How fast requests may go: the quotas that the user sets, and the rate that refusals taught.

Requests in flight are the wrong quantity for an endpoint that counts requests or tokens a minute: it refuses at any
width of the window. Where refused attempts count as well, a window alone never recovers. So there the sending itself is
paced: evenly, as by a token bucket of a few requests. Refusals that are about requests in flight after all are told by
the number in flight at which they come (`RefusedLevel`). All times are in seconds.
"""

from typing import Any, Literal

from spark_llm.flow.cubic import RETURN_ROUNDS, CubicWindow

BURST_REQUESTS = 2  # that may go at once after a pause of the sender's own
BURST_S = 1.0  # of a quota a minute, that may go at once
CEILING_SHARE = 0.97  # the ceiling to remember, of the rate that was refused
UNCONFIRMED_SHARE = 0.8  # as long as no rate has lasted: the first one is an estimate, and may be far too high
BACKOFF_RATIO = 0.95  # of that ceiling
FIRST_BACKOFF_RATIO = 0.9  # of the estimate
PROBE_STEP = 0.02  # of the ceiling
MIN_REQUESTS_PER_S = 0.05
MIN_PER_MINUTE = 0.001  # of a quota whose share is none
_UNBOUND = 1e9
_IDLE_ROUNDS = 16.0  # after which a rate that held nothing back is forgotten
SAME_LEVEL_SHARE = 0.025  # two refusals at levels that differ by less come from one limit of requests in flight
SAME_LEVEL_ROUNDS = 1.5  # of answers between them

_Quota = Literal["requests_per_minute", "tokens_per_minute"]


class TokenBucket:
    """A quota over any minute: a token bucket that holds a second's worth and may go into debt."""

    def __init__(self, per_minute: float) -> None:
        """Begin full."""
        self._capacity = self._per_s = 0.0
        self._filled_at: float | None = None
        self._set_rate(per_minute)
        self._left = self._capacity

    def opens_at(self, now: float) -> float:
        """Return when something may next be taken: `now`, or later."""
        self._fill(now)
        missing = min(1.0, self._capacity) - self._left
        return now if missing <= 1e-9 else now + missing / self._per_s

    def set_per_minute(self, per_minute: float, now: float) -> None:
        """Change the quota; what may go at once does not grow by it."""
        self._fill(now)
        self._set_rate(per_minute)
        self._left = min(self._capacity if per_minute else 0.0, self._left)

    def empty(self, now: float) -> None:
        """Take what is left: another process may have sent that much, and fills its own quota no more."""
        self._fill(now)
        self._left = min(0.0, self._left)

    def take(self, amount: float, now: float) -> None:
        """Take an amount, or give back a negative one."""
        self._fill(now)
        self._left = min(self._capacity, self._left - amount)

    def _set_rate(self, per_minute: float) -> None:
        per_minute = max(MIN_PER_MINUTE, per_minute)
        self._capacity = max(1.0, per_minute / 60 * BURST_S)
        self._per_s = max(per_minute - self._capacity, per_minute / 2) / 60  # no minute sees more than its quota

    def _fill(self, now: float) -> None:
        if self._filled_at is not None:
            self._left = min(self._capacity, self._left + (now - self._filled_at) * self._per_s)
        self._filled_at = now


class Quotas:
    """The requests and tokens a minute that the user allows, where there is such a limit."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None, tasks: int) -> None:
        """Begin full, with an equal part of `tasks`."""
        limits: dict[_Quota, float | None] = {
            "requests_per_minute": requests_per_minute,
            "tokens_per_minute": tokens_per_minute,
        }
        self._buckets = {name: TokenBucket(limit / tasks) for name, limit in limits.items() if limit is not None}
        self.are_set = bool(self._buckets)
        self.count_tokens = tokens_per_minute is not None
        self.used_requests = self.used_tokens = 0.0  # in all

    def opens_at(self, now: float) -> float:
        """Return when a request may go: `now`, or later."""
        return max((bucket.opens_at(now) for bucket in self._buckets.values()), default=now)

    def limited_by(self, now: float) -> _Quota | None:
        """Return the limit that keeps a request from going for longest; None where none does."""
        opens_at = {name: bucket.opens_at(now) for name, bucket in self._buckets.items()}
        name = max(opens_at, key=opens_at.__getitem__, default=None)
        return None if name is None or opens_at[name] <= now else name

    def take(self, requests: float, tokens: float, now: float) -> None:
        """Charge for requests and tokens, or give negative ones back."""
        self.used_requests += requests
        self.used_tokens += tokens
        for name, amount in (("requests_per_minute", requests), ("tokens_per_minute", tokens)):
            if amount and name in self._buckets:
                self._buckets[name].take(amount, now)

    def set_per_minute(self, requests: float | None, tokens: float | None, now: float) -> None:
        """Change the limits that there are."""
        for name, per_minute in (("requests_per_minute", requests), ("tokens_per_minute", tokens)):
            if per_minute is not None and name in self._buckets:
                self._buckets[name].set_per_minute(per_minute, now)

    def empty(self, now: float) -> None:
        """Take what is left of each."""
        for bucket in self._buckets.values():
            bucket.empty(now)


class AdaptiveRate:
    """A rate of requests that an endpoint with a hidden quota accepts; found as the window is."""

    def __init__(self, accepted_per_s: float, now: float) -> None:
        """Begin just under the estimated rate of requests that were not refused."""
        self._cubic = CubicWindow(_UNBOUND, MIN_REQUESTS_PER_S, _UNBOUND, step=PROBE_STEP, relative=True)
        self._cubic.cut(accepted_per_s, FIRST_BACKOFF_RATIO)
        self._confirmed = False
        self._next_at = now
        self._grown_at = now
        self._held_back_at = now

    @property
    def per_s(self) -> float:
        """Requests a second."""
        return self._cubic.value

    def opens_at(self) -> float:
        """Return when the next request may go."""
        return self._next_at

    def available(self, now: float, wanted: int) -> int:
        """Return how many of the wanted requests may go now."""
        interval_s = 1 / self.per_s
        self._next_at = max(self._next_at, now - BURST_REQUESTS * interval_s)
        allowed = int((now - self._next_at) / interval_s + 1e-6) + 1 if now >= self._next_at else 0
        if not allowed:
            self._held_back_at = now
        return min(allowed, wanted)

    def on_send(self) -> None:
        """Count a request."""
        self._next_at += 1 / self.per_s

    def on_unused(self) -> None:
        """Take back a request that was counted and not sent."""
        self._next_at -= 1 / self.per_s

    def is_limiting(self, now: float) -> bool:
        """Return whether this rate held requests back a moment ago."""
        return self._held_back_at >= now - 3 / self.per_s

    def restart_slow_start(self) -> None:
        """Begin slow start again: refusals have stopped, so the limit has grown."""
        self._cubic.restart_slow_start()

    def grow(self, now: float, round_s: float) -> bool:
        """Grow by the time that has passed; return False where the rate has held nothing back for long."""
        rounds = (now - self._grown_at) / round_s
        self._grown_at = now
        if self.is_limiting(now):
            self._cubic.grow(rounds)
        return now - self._held_back_at <= _IDLE_ROUNDS * round_s

    def cut(self, accepted_per_s: float) -> None:
        """Fall below a rate at which requests were refused; so many a second were accepted."""
        if self._cubic.slow_start_again:
            self._cubic.cut(max(MIN_REQUESTS_PER_S, accepted_per_s), BACKOFF_RATIO)
            return
        self._confirmed = self._confirmed or self._cubic.rounds >= RETURN_ROUNDS
        self._cubic.cut((CEILING_SHARE if self._confirmed else UNCONFIRMED_SHARE) * self.per_s, BACKOFF_RATIO)

    def resume_at(self, at: float) -> None:
        """Send nothing before this time."""
        self._next_at = at

    def snapshot(self) -> list[object]:
        """Return what it has learned, as JSON holds it."""
        return [self._confirmed, self._cubic.snapshot()]

    def restore(self, snapshot: list[Any]) -> None:
        """Go on from a snapshot."""
        confirmed, cubic = snapshot
        self._confirmed = confirmed is True
        self._cubic.restore(cubic)


class RefusedLevel:
    """Whether refusals come from a limit of requests in flight: all at one level, with answers below it and none above.

    A level is a number of requests in flight. A quota refuses at any level, and answers at higher ones.
    """

    def __init__(self) -> None:
        """Begin without a refusal."""
        self._level: float | None = None
        self._cuts = 0  # before the first refusals at this level
        self._answered = 0  # of the requests sent since

    def on_answer(self, level: int, cuts: int) -> None:
        """Count an answer to a request that was sent as one of so many in flight, after so many cuts."""
        if self._level is None or cuts < self._cuts:
            return
        self._answered += 1
        if level > self._level + self._tolerance(self._level):
            self._level = None

    def on_cut(self, level: float, cuts: int) -> bool:
        """Count the latest of so many cuts, with so many in flight; return whether more than these are refused."""
        if self._level is None or abs(level - self._level) > self._tolerance(self._level):
            self._level, self._cuts, self._answered = level, cuts, 0
        return self._answered >= SAME_LEVEL_ROUNDS * self._level

    @staticmethod
    def _tolerance(level: float) -> float:
        return max(1.0, SAME_LEVEL_SHARE * level)
