"""Made-up endpoints on a simulated clock: what may hide behind a URL, as far as a sender can tell.

Each answers one question: what becomes of a request that arrives now, and when. What it could do at best (`per_s`) is
known here and only here. Latencies are log-normal, as those of language models about are.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from spark_llm.protocol.values import Failure, RowError

CUT = Failure(RowError("connection", None, "reset by peer", retryable=True))
HUNG = Failure(RowError("timeout", None, "no answer in time", retryable=True))
OVERLOADED = Failure(RowError("unavailable", 503, "overloaded", retryable=True), throttled=True)
REFUSAL_S = 0.02  # the latency of a refusal

SHORT_S = 0.3  # the latency of a refusal for want of room at a tier
SHORT = Failure(RowError("rate_limited", 429, "Resource Unavailable", retryable=True), throttled=True, short=True)

Steps = Sequence[tuple[float, float]]  # values by the second from which they hold, beginning with 0


def at(steps: Steps, now: float) -> float:
    """Return the value that holds now."""
    return [value for begin, value in steps if begin <= now][-1]


def refusal(retry_after_s: float | None = None) -> Failure:
    """Return a 429, with or without a Retry-After."""
    error = RowError("rate_limited", 429, "slower", retryable=True)
    return Failure(error, throttled=True, retry_after_s=retry_after_s)


class Reply(NamedTuple):
    """The time and the failure of an outcome; without a failure it is an answer."""

    at: float
    failure: Failure | None = None


class Endpoint(Protocol):
    """A simulated endpoint."""

    def reply(self, now: float) -> Reply:
        """Take a request that arrives now."""

    def per_s(self, now: float) -> float:
        """Return how many requests a second it can answer at best."""


class Latency:
    """The seconds of one answer: log-normal, times the factor `slower`."""

    def __init__(self, seed: int, median_s: float = 1.0, sigma: float = 0.5, slower: Steps = ((0, 1),)) -> None:
        """Draw from a random generator of its own."""
        self._dice = random.Random(seed)
        self._median_s, self._sigma, self._slower = median_s, sigma, slower

    def draw(self, now: float) -> float:
        """Return the seconds of an answer that begins now."""
        return at(self._slower, now) * self._median_s * math.exp(self._dice.gauss(0, self._sigma))

    def mean(self, now: float) -> float:
        """Return the mean seconds of an answer."""
        return at(self._slower, now) * self._median_s * math.exp(self._sigma**2 / 2)


class Concurrency:
    """Refuses requests beyond a hidden number at once."""

    def __init__(
        self, latency: Latency, limit: Steps, retry_after_s: float | None = None, *, short: bool = False
    ) -> None:
        """Work on at most `limit` requests at once; with `short` it is a tier's room for this user."""
        self._latency, self._limit = latency, limit
        self._refusal = SHORT if short else refusal(retry_after_s)
        self._busy_until: list[float] = []

    def reply(self, now: float) -> Reply:
        """Answer a request, or refuse it."""
        while self._busy_until and self._busy_until[0] <= now:
            heapq.heappop(self._busy_until)
        if len(self._busy_until) >= at(self._limit, now):
            return Reply(now + REFUSAL_S, self._refusal)
        done = now + self._latency.draw(now)
        heapq.heappush(self._busy_until, done)
        return Reply(done)

    def per_s(self, now: float) -> float:
        """Return its rate at full load."""
        return at(self._limit, now) / self._latency.mean(now)


class Flex:
    """Has room for a share of the requests at times, whatever the load, and says so of the others."""

    def __init__(self, behind: Endpoint, short: Steps, seed: int) -> None:
        """Refuse the share `short` of the requests to another endpoint."""
        self._behind, self._short, self._dice = behind, short, random.Random(seed)

    def reply(self, now: float) -> Reply:
        """Refuse a request, or pass it on."""
        if self._dice.random() < at(self._short, now):
            return Reply(now + SHORT_S, SHORT)
        return self._behind.reply(now)

    def per_s(self, now: float) -> float:
        """Return the rate of the endpoint behind; refusals take no part of it."""
        return self._behind.per_s(now) * (at(self._short, now) < 1)


class Picky:
    """An endpoint that refuses a part of its rows for good."""

    def __init__(self, endpoint: Endpoint, share: float, seed: int) -> None:
        """Refuse this share of what `endpoint` answers."""
        self.refused = 0
        self._endpoint, self._share, self._dice = endpoint, share, random.Random(seed)

    def reply(self, now: float) -> Reply:
        """Answer a request, or refuse its row."""
        reply = self._endpoint.reply(now)
        if reply.failure is not None or self._dice.random() >= self._share:
            return reply
        self.refused += 1
        message = f"row {self.refused} is too long"
        return reply._replace(failure=Failure(RowError("invalid_request", 400, message, retryable=False)))

    def per_s(self, now: float) -> float:
        """Return its rate, refusals and all."""
        return self._endpoint.per_s(now)


class Queue:
    """Never refuses: some servers work on the requests in the order they came, however many wait."""

    def __init__(self, latency: Latency, servers: Steps) -> None:
        """Begin with an empty queue."""
        self._latency, self._servers = latency, servers
        self._free_at: list[float] = []  # each server

    def reply(self, now: float) -> Reply:
        """Give a request to the first free server."""
        servers = at(self._servers, now)
        while len(self._free_at) > servers:
            heapq.heappop(self._free_at)
        while len(self._free_at) < servers:
            heapq.heappush(self._free_at, now)
        done = max(now, heapq.heappop(self._free_at)) + self._latency.draw(now)
        heapq.heappush(self._free_at, done)
        return Reply(done)

    def per_s(self, now: float) -> float:
        """Return the rate of all servers together."""
        return at(self._servers, now) / self._latency.mean(now)


class Batching:
    """Never refuses or queues: each request slows down all others, as on a GPU."""

    def __init__(self, latency: Latency, slope: float) -> None:
        """Take longer by the share `slope` for each other request."""
        self._latency, self._slope = latency, slope
        self._busy_until: list[float] = []

    def reply(self, now: float) -> Reply:
        """Answer a request."""
        while self._busy_until and self._busy_until[0] <= now:
            heapq.heappop(self._busy_until)
        done = now + self._latency.draw(now) * (1 + self._slope * len(self._busy_until))
        heapq.heappush(self._busy_until, done)
        return Reply(done)

    def per_s(self, now: float) -> float:
        """Return the rate of infinitely many requests at once."""
        return 1 / (self._slope * self._latency.mean(now))


class Quota(Protocol):
    """A quota that counts requests, refused ones too."""

    per_s: float

    def admits(self, now: float) -> bool:
        """Count a request; return whether it is within the quota."""


class SlidingWindow:
    """So many requests in any interval."""

    def __init__(self, per_s: float, over_s: float) -> None:
        """Begin at zero."""
        self.per_s, self._over_s = per_s, over_s
        self._counted: deque[float] = deque()

    def admits(self, now: float) -> bool:
        """Count a request among those of the last interval."""
        while self._counted and self._counted[0] <= now - self._over_s:
            self._counted.popleft()
        self._counted.append(now)
        return len(self._counted) <= self.per_s * self._over_s


class FixedWindow:
    """So many requests in each fixed interval."""

    def __init__(self, per_s: float, over_s: float) -> None:
        """Begin at zero."""
        self.per_s, self._over_s = per_s, over_s
        self._window = self._counted = 0

    def admits(self, now: float) -> bool:
        """Count a request in the present interval."""
        window = int(now / self._over_s)
        self._counted = self._counted + 1 if window == self._window else 1
        self._window = window
        return self._counted <= self.per_s * self._over_s


class TokenBucket:
    """Refills evenly, holds one interval's worth, and may go into debt."""

    def __init__(self, per_s: float, over_s: float) -> None:
        """Begin full."""
        self.per_s, self._capacity = per_s, per_s * over_s
        self._left, self._at = self._capacity, 0.0

    def admits(self, now: float) -> bool:
        """Take a token, even if there is none left."""
        self._left = min(self._capacity, self._left + (now - self._at) * self.per_s)
        self._at = now
        self._left -= 1
        return self._left >= 0


class Metered:
    """Refuses requests beyond a quota, and has no other limit."""

    def __init__(self, latency: Latency, quota: Quota, retry_after_s: float | None = None) -> None:
        """Count requests by `quota`."""
        self._latency, self._quota, self._refusal = latency, quota, refusal(retry_after_s)

    def reply(self, now: float) -> Reply:
        """Answer a request, or refuse it."""
        if not self._quota.admits(now):
            return Reply(now + REFUSAL_S, self._refusal)
        return Reply(now + self._latency.draw(now))

    def per_s(self, now: float) -> float:
        """Return the quota."""
        return self._quota.per_s


class Noisy:
    """One in twenty requests meets a 503, one in a hundred is cut off and one in a hundred hangs, whatever the load."""

    SHARE = 0.07

    def __init__(self, behind: Endpoint, seed: int, hangs_s: float = 30.0) -> None:
        """Stand in front of another endpoint."""
        self._behind, self._hangs_s = behind, hangs_s
        self._dice = random.Random(seed)

    def reply(self, now: float) -> Reply:
        """Fail a request, or pass it on."""
        draw = self._dice.random()
        if draw < 0.05:
            return Reply(now + REFUSAL_S, OVERLOADED)
        if draw < 0.06:
            return Reply(now + 0.5, CUT)
        if draw < self.SHARE:
            return Reply(now + self._hangs_s, HUNG)
        return self._behind.reply(now)

    def per_s(self, now: float) -> float:
        """Return the rate of the endpoint behind."""
        return self._behind.per_s(now)


class Gone:
    """Is down for a time: requests in flight are cut, and so are those that arrive."""

    def __init__(self, behind: Endpoint, begin: float, end: float) -> None:
        """Stand in front of another endpoint."""
        self._behind, self._begin, self._end = behind, begin, end

    def reply(self, now: float) -> Reply:
        """Cut a request, or pass it on."""
        if self._begin <= now < self._end:
            return Reply(now + REFUSAL_S, CUT)
        reply = self._behind.reply(now)
        return Reply(self._begin, CUT) if now < self._begin < reply.at else reply

    def per_s(self, now: float) -> float:
        """Return the rate of the endpoint behind, 0 while it is down."""
        return 0.0 if self._begin <= now < self._end else self._behind.per_s(now)
