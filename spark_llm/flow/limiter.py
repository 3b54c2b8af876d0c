"""Concurrency limiter: finds how much may be in flight to one endpoint, and how fast, from answers and refusals alone.

The window of requests in flight doubles from one until the endpoint refuses; then `CubicWindow` keeps it just under the
ceiling that showed. A refusal or two are noise: it takes a share of the last requests to cut the window. A burst cuts
it once; the other requests of the burst only lower the ceiling, by one each, since they too were in flight and were not
served. Refusals that go on although the window was cut are not about its width. Then `LearnedRate` keeps the rate at
which requests were accepted, and pauses between attempts double, since refused attempts may count against a quota.
Where refusals stop (`Silence`), window and rate double again: workers that shared the limit may be gone. An endpoint
that queues never refuses: `SaturationDetector` finds where more in flight buys nothing.

Each worker finds this alone. The constants were chosen by simulation (`tests/support/simulation.py`), among others of
eight workers that share one hidden capacity without knowing of each other. Knows no clock, no socket, no Spark.
"""

import math
from typing import NamedTuple

from spark_llm.flow.cubic import CubicWindow
from spark_llm.flow.rate import AdaptiveRate, TokenBucket
from spark_llm.flow.saturation import SaturationDetector
from spark_llm.flow.silence import Silence
from spark_llm.policy import Policy

BACKOFF_RATIO = 0.9  # of the requests that were in flight and not refused
REFUSED_SHARE = 0.25  # of the last requests: fewer refusals are noise
MEMORY_LEAST, MEMORY_MOST = 12.0, 24.0  # the last requests: half a window, within these
PAUSE_REQUESTS = 2.0  # the first pause, in requests at the learned rate
LONGEST_PAUSE_S = 10.0
SAME_LEVEL = 0.025  # two refusals at levels that differ by less come from one limit of requests in flight
SAME_LEVEL_ROUNDS = 1.5  # of accepted requests between them


class Permit(NamedTuple):
    """What the limit must know of a request when its outcome comes."""

    at: float
    level: int  # how many were in flight with it
    cuts: int  # how many cuts came before it
    generation: int  # of the knee
    paced: bool  # whether it is the rate that held it back
    characters: int  # how long its inputs are
    tokens: float  # what the quota of tokens was charged, by that length


class ConcurrencyLimiter:
    """The window, the pace and the quotas of one endpoint, and what is out in them."""

    def __init__(self, policy: Policy, connections: int | None = None) -> None:
        """Start at one request, never to pass what `policy` says, nor the `connections` that the process may open."""
        ceiling = policy.ceiling if connections is None else min(policy.ceiling, connections)
        self.in_flight = 0
        self.window = 1  # the most requests that may be out now
        self._climb = CubicWindow(1.0, 1.0, float(ceiling), step=1.0)
        self._knee = SaturationDetector()
        self._rate: AdaptiveRate | None = None
        self.ceiling = ceiling  # of the window
        self._requests = _quota(policy.requests_per_minute, policy.tasks)
        self._tokens = _quota(policy.tokens_per_minute, policy.tasks)
        self._quotas = [bucket for bucket in (self._requests, self._tokens) if bucket is not None]
        self._tokens_a_letter = 1.0  # of the question and its answer; learned
        self._latency_s: float | None = None
        self._cuts = 0
        self._series = 0  # cuts since a request that was sent after the last of them was answered
        self._paused_until = 0.0
        self._recent = self._recent_refused = 0.0  # requests sent, fading
        self._since_cut = self._refused_since_cut = 0
        self._accepted_per_s = 0.0
        self._accepted_at = 0.0
        self._refused_at_level: float | None = None
        self._silence = Silence()

    @property
    def per_s(self) -> float | None:
        """The rate that refusals taught, in requests a second; None where none is needed."""
        return None if self._rate is None else self._rate.per_s

    @property
    def saturation(self) -> float | None:
        """The requests in flight beyond which throughput does not grow; None where it grows with each."""
        return None if math.isinf(self._knee.level) else self._knee.level

    def room(self, now: float) -> int:
        """Return how many more requests may go out now."""
        room = self.window - self.in_flight
        if room <= 0 or now < self._paused_until:
            return 0
        for bucket in self._quotas:
            room = min(room, 1) if bucket.opens_at(now) <= now else 0
        if self._rate is None or not room:
            return room
        if not self._rate.grow(now, self._unit_s):
            self._rate = None
            return room
        return self._rate.allows(now, room)

    def opens_at(self, now: float) -> float | None:
        """Return when `room` can next be more than none; None where only an outcome will help."""
        if self.window <= self.in_flight:
            return None
        at = max(now, self._paused_until)
        for bucket in self._quotas:
            at = max(at, bucket.opens_at(now))
        return at if self._rate is None else max(at, self._rate.opens_at())

    def widen(self, requests: int) -> None:
        """Let so many out at least, though nothing has come back yet: a slow first answer must not hold all others."""
        if self._climb.slow_start:
            self._climb.value = max(self._climb.value, min(float(requests), float(self.ceiling)))
            self._resize()

    def sent(self, now: float, characters: int = 0) -> Permit:
        """Count a request out, of so many letters; hand what this returns to the method of its outcome."""
        self.in_flight += 1
        fading = 1 - 1 / min(MEMORY_MOST, max(MEMORY_LEAST, self.window / 2))
        self._recent = self._recent * fading + 1
        self._recent_refused *= fading
        self._since_cut += 1
        self._accept(1.0, now)
        paced = False
        if self._rate is not None:
            paced = self._rate.binds(now)
            self._rate.sent()
        if self._requests is not None:
            self._requests.take(1.0, now)
        tokens = characters * self._tokens_a_letter
        if self._tokens is not None:
            self._tokens.take(tokens, now)
        return Permit(now, self.in_flight, self._cuts, self._knee.generation, paced, characters, tokens)

    def answered(self, sent: Permit, now: float, latency_s: float | None = None, tokens: float | None = None) -> None:
        """Count a request in that the endpoint served, and grow where the window was in use.

        Without `latency_s` the answer says nothing of the endpoint's speed: it refused an input, say.
        """
        if latency_s is not None:
            usual = latency_s if self._latency_s is None else self._latency_s
            self._latency_s = usual + (latency_s - usual) / 16
            self._knee.answered(sent.level, sent.generation, latency_s, self.window, doubling=self._climb.slow_start)
        if tokens is not None and self._tokens is not None:
            self._tokens.take(tokens - sent.tokens, now)
            self._tokens_a_letter += (tokens / max(1, sent.characters) - self._tokens_a_letter) / 8
        in_use = self.in_flight * 2 >= self.window and self._climb.value <= self._knee.level
        held_back = in_use or (self._rate is not None and self._rate.binds(now))
        if held_back and self._silence.answered(self.in_flight):
            self._climb.double()
            if self._rate is not None:
                self._rate.double()
        self.in_flight -= 1
        if sent.cuts == self._cuts:
            self._series = 0
        if in_use:
            self._climb.grow(1 / max(1.0, self._climb.value))
        self._resize()

    def failed(self) -> None:
        """Count a request in that came to nothing: a fault says nothing about the endpoint's capacity."""
        self.in_flight -= 1

    def refused(self, sent: Permit, now: float, *, told_when: bool = False) -> None:
        """Count a request in that the endpoint told to wait, and cut what was too much.

        `told_when` says that sending is held back for a time that the endpoint named: each refusal then costs so much
        that the first one counts.
        """
        self.in_flight -= 1
        self._accept(-math.exp((sent.at - now) / self._unit_s), now)
        self._silence.refused(self.in_flight)
        if sent.cuts != self._cuts:
            if sent.cuts == self._cuts - 1 and self._rate is None:
                self._climb.lower()
                self._resize()
            return
        self._recent_refused += 1
        self._refused_since_cut += 1
        in_vain = self._series > 0 and 2 * self._refused_since_cut >= self._since_cut
        noise = self._recent_refused < REFUSED_SHARE * max(self._recent, MEMORY_LEAST)
        if noise and not in_vain and not told_when:
            return
        accepted = self._since_cut - self._refused_since_cut
        self._cuts += 1
        self._series += 1
        self._recent = self._recent_refused = 0.0
        self._since_cut = self._refused_since_cut = 0
        self._cut(sent, now, accepted, told_when=told_when)
        self._resize()

    def _cut(self, sent: Permit, now: float, accepted: int, *, told_when: bool) -> None:
        """Cut the window or the rate, whichever let too much out."""
        level = max(1.0, float(self.in_flight))
        before, self._refused_at_level = self._refused_at_level, level
        same_level = before is not None and abs(level - before) <= max(1.0, SAME_LEVEL * level)
        first = self._series == 1
        if self._rate is None:
            if told_when or not first:
                served_per_s = level / (self._latency_s or 1.0)  # Little's law; accepted_per_s lags while it doubles
                self._rate = AdaptiveRate(max(0.2, self._accepted_per_s, served_per_s), now)
            if first:
                self._climb.cut(level, BACKOFF_RATIO)
        elif (sent.paced and level + 2 < self._climb.value) or 2 * level < self._climb.value:
            if first or told_when:
                self._rate.cut(self._accepted_per_s)
            if same_level and accepted >= SAME_LEVEL_ROUNDS * level:
                self._climb.cut(level, BACKOFF_RATIO)
        elif first:
            self._climb.cut(level, BACKOFF_RATIO)
        if self._rate is not None:
            if not told_when:
                pause_s = PAUSE_REQUESTS / max(0.2, self._rate.per_s) * 2.0 ** min(30, self._series - 1)
                self._paused_until = now + min(LONGEST_PAUSE_S, pause_s)
            self._rate.resume_at(max(now, self._paused_until))

    def _resize(self) -> None:
        self.window = max(1, int(min(self._climb.value, self._knee.level) + 1e-9))

    @property
    def _unit_s(self) -> float:
        """Return the time of a round: a mean latency, a second at the least."""
        return max(1.0, self._latency_s or 1.0)

    def _accept(self, requests: float, now: float) -> None:
        """Count requests that were not refused, or take back one that was, in a rate that fades over a round."""
        unit_s = self._unit_s
        self._accepted_per_s *= math.exp((self._accepted_at - now) / unit_s)
        self._accepted_per_s += requests / unit_s
        self._accepted_at = now


def _quota(per_minute: float | None, tasks: int) -> TokenBucket | None:
    return None if per_minute is None else TokenBucket(per_minute / tasks)
