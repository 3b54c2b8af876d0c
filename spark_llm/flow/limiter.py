"""Concurrency limiter: finds how much may be in flight to one endpoint, and how fast, from answers and refusals alone.

A refusal here is a rate-limited response (429, 503). The window of requests in flight doubles from one until the first
refusals; then `CubicWindow` keeps it just under the ceiling that was found. A refusal or two are noise: it takes a
share of the last requests to cut the window. A burst cuts it once. Each further refusal of the burst lowers the ceiling
by one, since that request too was in flight and was not served.

Refusals that go on although the window was cut are about the rate, and `AdaptiveRate` keeps that which was accepted.
Pauses between attempts double while all are refused: refused ones may count against a quota. If all refusals come at
one number in flight (`RefusedLevel`), the window was too wide after all: it falls to it, and the rate is forgotten.
Where refusals stop (`Silence`), what is in use of the two doubles again: workers that shared the limit may be gone. An
endpoint that queues never refuses: `SaturationDetector` finds where more in flight buys nothing.

The workers of a host share one limiter (`coordination`). The constants were chosen by simulation
(`tests/support/simulation.py`), among others of eight workers that cannot share, and do not know of each other.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from spark_llm.flow.cubic import CubicWindow
from spark_llm.flow.rate import AdaptiveRate, Quotas, RefusedLevel
from spark_llm.flow.reasons import Reason
from spark_llm.flow.saturation import SaturationDetector
from spark_llm.flow.silence import Silence
from spark_llm.flow.snapshot import number, optional
from spark_llm.policy import Policy

BACKOFF_RATIO = 0.9  # of the requests that were in flight and not refused
REFUSED_SHARE = 0.25  # of the last requests: fewer refusals are noise
MIN_MEMORY_REQUESTS, MAX_MEMORY_REQUESTS = 12.0, 24.0  # the last requests: half a window, within these
PAUSE_REQUESTS = 2.0  # the first pause, in requests at the learned rate
MAX_PAUSE_S = 10.0
UNKNOWN = -1  # characters of a request that another process let go and charged to its quotas


class Permit(NamedTuple):
    """The state of the limiter when it let a request go; its outcome is counted against it."""

    sent_at: float
    level: int  # requests in flight, this one included
    cuts: int  # of the window, before it was sent
    generation: int  # of the saturation's level
    paced: bool  # whether the learned rate held it back
    characters: int  # of its inputs; -1 where they are unknown
    tokens: float  # charged to the quota, by the characters
    is_probe: bool = False  # whether it looks for the end of an outage


class Limits(NamedTuple):
    """Limits that users set; 0 is none at all, and None leaves a limit as it is."""

    max_in_flight: int | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


class ConcurrencyLimiter:
    """The window, the rate and the quotas of one endpoint, and the requests in flight."""

    def __init__(self, policy: Policy) -> None:
        """Begin with one request; never pass the policy's limits."""
        self.ceiling = policy.ceiling  # of the window
        self.in_flight = 0
        self.window = 1  # the most requests that may be in flight now
        self._cubic = CubicWindow(1.0, 1.0, float(self.ceiling), step=1.0)
        self._detector = SaturationDetector()
        self._rate: AdaptiveRate | None = None
        self._quotas = Quotas(policy.requests_per_minute, policy.tokens_per_minute, policy.tasks)
        self._tokens_per_character = 1.0  # of a prompt, with those of its answer; learned
        self.latency_s: float | None = None  # a running mean of answers
        self._cuts = 0
        self._cuts_in_row = 0  # no request that was sent after the first of them was answered
        self._paused_until = 0.0
        self._recent = self._recent_refused = 0.0  # requests sent, fading
        self._since_cut = self._refused_since_cut = 0
        self._accepted_per_s = self._accepted_at = 0.0
        self._refused_level = RefusedLevel()
        self._silence = Silence()

    @property
    def rate_per_s(self) -> float | None:
        """The rate that refusals taught, in requests a second; None where none is needed."""
        return None if self._rate is None else self._rate.per_s

    @property
    def saturation(self) -> float | None:
        """The requests in flight beyond which throughput does not grow; None where it grows with each."""
        return None if math.isinf(self._detector.level) else self._detector.level

    @property
    def used(self) -> tuple[float, float]:
        """How many requests and tokens the quotas were charged, in all."""
        return self._quotas.used_requests, self._quotas.used_tokens

    @property
    def is_paced(self) -> bool:
        """Whether a quota or a learned rate decides when a request may go, and not only the window."""
        return self._rate is not None or self._quotas.are_set

    def available(self, now: float) -> int:
        """Return how many more requests may go now."""
        available = self.window - self.in_flight
        if available <= 0 or now < self._paused_until:
            return 0
        if self._quotas.are_set:
            available = 1 if self._quotas.opens_at(now) <= now else 0
        if self._rate is None or not available:
            return available
        if not self._rate.grow(now, self._round_s):
            self._rate = None
            return available
        return self._rate.available(now, available)

    def limited_by(self, now: float, waiting: int) -> Reason | None:
        """Return what keeps more requests from going now, where so many wait; None where nothing does."""
        if self.in_flight < self.window:
            if now < self._paused_until:
                return "refusals"
            is_slowed = self._rate is not None and self._rate.is_limiting(now)
            return (self._quotas.limited_by(now) or ("refusals" if is_slowed else None)) if waiting else None
        if self.window >= self.ceiling:
            return "max_in_flight"
        if self._detector.level < self._cubic.value:
            return "queue"
        return "slow_start" if self._cubic.ceiling is None or self._cubic.slow_start_again else "refusals"

    def opens_at(self, now: float) -> float | None:
        """Return when `available` can next be more than none; None where only an outcome will help."""
        if self.window <= self.in_flight:
            return None
        at = max(self._paused_until, self._quotas.opens_at(now))
        return at if self._rate is None else max(at, self._rate.opens_at())

    def widen(self, requests: int) -> None:
        """Let at least so many go before any outcome: a slow first answer must not hold all others."""
        if self._cubic.slow_start:
            self._cubic.value = max(self._cubic.value, min(float(requests), float(self.ceiling)))
            self._resize()

    def set_limits(self, limits: Limits, now: float) -> None:
        """Change the user's limits; what is in flight beyond them is not replaced. Afterwards more may go at once."""
        if limits.max_in_flight is not None:
            self.ceiling = limits.max_in_flight
            self._cubic.maximum = max(1.0, self.ceiling)
            self._cubic.value = min(self._cubic.value, self._cubic.maximum)
        self._quotas.set_per_minute(limits.requests_per_minute, limits.tokens_per_minute, now)
        self._resize()

    def acquire(self, now: float, characters: int = 0, *, is_probe: bool = False) -> Permit:
        """Count a request of so many characters as in flight; its outcome's method takes the permit."""
        cuts, paced = self._count(now), False
        if self._rate is not None:
            paced = self._rate.is_limiting(now)
            self._rate.on_send()
        tokens = characters * self._tokens_per_character
        if self._quotas.are_set:
            self._quotas.take(1.0, tokens, now)
        return Permit(now, self.in_flight, cuts, self._detector.generation, paced, characters, tokens, is_probe)

    def adopt(self, now: float) -> Permit:
        """Count a request as in flight that another process let go: it is not charged again."""
        return Permit(now, self.in_flight + 1, self._count(now), self._detector.generation, False, UNKNOWN, 0.0)

    def _count(self, now: float) -> int:
        """Count a request as in flight; return after how many cuts it was sent."""
        self.in_flight += 1
        fading = 1 - 1 / min(MAX_MEMORY_REQUESTS, max(MIN_MEMORY_REQUESTS, self.window / 2))
        self._recent = self._recent * fading + 1
        self._recent_refused *= fading
        self._accept(1.0, now)
        if self.in_flight > self.window:
            return self._cuts - 1  # by a worker that does not know of the last one yet
        self._since_cut += 1
        return self._cuts

    def recharge(self, permit: Permit, now: float, characters: int) -> Permit:
        """Charge the quota for so many characters in place of those that the permit was acquired for."""
        if permit.characters == UNKNOWN:
            return permit
        tokens = characters * self._tokens_per_character
        self._quotas.take(0.0, tokens - permit.tokens, now)
        return permit._replace(characters=characters, tokens=tokens)

    def on_answer(
        self, permit: Permit, now: float, latency_s: float | None = None, tokens: float | None = None
    ) -> None:
        """Count a request that the endpoint served, and grow where the window was in use.

        Without `latency_s` the answer says nothing of the endpoint's speed: it refused an input, say.
        """
        if latency_s is not None:
            mean_s = latency_s if self.latency_s is None else self.latency_s
            self.latency_s = mean_s + (latency_s - mean_s) / 16
            doubling = self._cubic.slow_start
            window = max(1, self.window)
            self._detector.on_answer(permit.level, permit.generation, latency_s, window, doubling=doubling)
        if tokens is not None and self._quotas.count_tokens and permit.characters != UNKNOWN:
            self._quotas.take(0.0, tokens - permit.tokens, now)
            self._tokens_per_character += (tokens / max(1, permit.characters) - self._tokens_per_character) / 8
        in_use = self.in_flight * 2 >= self.window and self._cubic.value <= self._detector.level
        held_back = in_use or (self._rate is not None and self._rate.is_limiting(now))
        if held_back and self._silence.on_answer(self.in_flight):
            if in_use:
                self._cubic.restart_slow_start()
            if self._rate is not None:
                self._rate.restart_slow_start()
        self.in_flight -= 1
        self._refused_level.on_answer(permit.level, permit.cuts)
        if self._cuts - permit.cuts < max(1, self._cuts_in_row):
            self._cuts_in_row = 0
        if in_use:
            self._cubic.grow(1 / max(1.0, self._cubic.value))
        self._resize()

    def on_failure(self) -> None:
        """Count a request that had no response or was cancelled: it says nothing of the endpoint's capacity."""
        self.in_flight -= 1

    def on_unused(self, permit: Permit, now: float) -> None:
        """Take back a permit that no request was sent with, and what it was charged."""
        self.in_flight -= 1
        if permit.characters == UNKNOWN:
            return
        if self._rate is not None:
            self._rate.on_unused()
        self._quotas.take(-1.0, -permit.tokens, now)

    def on_rate_limited(self, permit: Permit, now: float, *, paused: bool = False) -> None:
        """Count a request that was refused, and cut the window or the rate where it is no noise.

        `paused` says that a Retry-After holds back sending: each refusal then costs so much that the first one counts.
        """
        self.in_flight -= 1
        self._accept(-math.exp((permit.sent_at - now) / self._round_s), now)
        self._silence.on_refusal(self.in_flight)
        if permit.cuts != self._cuts:
            if permit.cuts == self._cuts - 1 and self._rate is None:
                self._cubic.lower_ceiling()
                self._resize()
            return
        self._recent_refused += 1
        self._refused_since_cut += 1
        cut_was_useless = self._cuts_in_row > 0 and 2 * self._refused_since_cut >= self._since_cut
        is_noise = self._recent_refused < REFUSED_SHARE * max(self._recent, MIN_MEMORY_REQUESTS)
        if is_noise and not cut_was_useless and not paused:
            return
        self._cuts += 1
        self._cuts_in_row += 1
        self._recent = self._recent_refused = 0.0
        self._since_cut = self._refused_since_cut = 0
        self._cut(permit, now, paused=paused)
        self._resize()

    def snapshot(self) -> dict[str, Any]:
        """Return what it has learned, as JSON holds it; requests in flight are not part of it."""
        return {
            "cubic": self._cubic.snapshot(),
            "rate": None if self._rate is None else self._rate.snapshot(),
            "saturation": self.saturation,
            "silence": self._silence.snapshot(),
            "tokens_per_character": self._tokens_per_character,
            "latency_s": self.latency_s,
        }

    def restore(self, snapshot: Mapping[str, Any], now: float) -> None:
        """Go on from a snapshot of another process. The quotas begin empty: it may have used them up since."""
        self._cubic.restore(snapshot["cubic"])
        if snapshot["rate"] is not None:
            self._rate = AdaptiveRate(1.0, now)
            self._rate.restore(snapshot["rate"])
        if snapshot["saturation"] is not None:
            self._detector.restore(snapshot["saturation"])
        self._silence.restore(snapshot["silence"])
        self._tokens_per_character = number(snapshot["tokens_per_character"])
        self.latency_s = optional(snapshot["latency_s"])
        self._quotas.empty(now)
        self._resize()

    def _cut(self, permit: Permit, now: float, *, paused: bool) -> None:
        """Cut the window or the rate, whichever was too high."""
        level = max(1.0, float(self.in_flight))
        is_limit = self._refused_level.on_cut(level, self._cuts)
        is_first = self._cuts_in_row == 1
        rate, window = self._rate, self._cubic.value
        if rate is not None and ((permit.paced and level + 2 < window) or 2 * level < window):
            if is_first or paused:
                rate.cut(self._accepted_per_s)
            if is_limit:
                self._cubic.cut(level, BACKOFF_RATIO)
                if not paused:
                    self._rate, self._refused_level = None, RefusedLevel()
        else:
            if rate is None and (paused or not is_first):
                served_per_s = level / (self.latency_s or 1.0)  # Little's law; accepted_per_s lags while it doubles
                self._rate = AdaptiveRate(max(0.2, self._accepted_per_s, served_per_s), now)
            if is_first:
                self._cubic.cut(level, BACKOFF_RATIO)
        if self._rate is not None:
            if not paused:
                pause_s = PAUSE_REQUESTS / max(0.2, self._rate.per_s) * 2.0 ** min(30, self._cuts_in_row - 1)
                self._paused_until = now + min(MAX_PAUSE_S, pause_s)
            self._rate.resume_at(max(now, self._paused_until))

    def _resize(self) -> None:
        self.window = min(self.ceiling, max(1, int(min(self._cubic.value, self._detector.level) + 1e-9)))

    @property
    def _round_s(self) -> float:
        """The time of a round: the mean latency, at least a second."""
        return max(1.0, self.latency_s or 1.0)

    def _accept(self, requests: float, now: float) -> None:
        """Count requests as accepted, or take back one that was refused, in a rate that fades over a round."""
        round_s = self._round_s
        self._accepted_per_s *= math.exp((self._accepted_at - now) / round_s)
        self._accepted_per_s += requests / round_s
        self._accepted_at = now
