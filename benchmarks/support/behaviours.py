"""How an endpoint may behave: what becomes of a request, decided when it comes in. Knows no socket and no clock.

A behaviour travels in the first segment of the URL's path, as its name and its numbers, so that each measurement
chooses its own, and two of them on one endpoint do not meet.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

import msgspec


class Arrival(NamedTuple):
    """A request as it comes in."""

    now: float
    in_flight: int  # others that are not answered
    texts: Sequence[str]
    dice: random.Random


class Fate(NamedTuple):
    """What becomes of it."""

    after_s: float = 0.0
    status: int = 200
    ending: Literal["whole", "cut", "never"] = "whole"
    service_s: float = 0.0  # the part of `after_s` in which it was worked on


@dataclass(kw_only=True)
class Steady:
    """Answers everything, at once or after a lognormal latency; the other behaviours are this one and a difficulty."""

    median_s: float = 0.0
    sigma: float = 0.5

    def fate(self, arrival: Arrival) -> Fate:
        """Decide about one request."""
        latency_s = arrival.dice.lognormvariate(math.log(self.median_s), self.sigma) if self.median_s else 0.0
        return Fate(latency_s, service_s=latency_s)

    @property
    def mean_s(self) -> float:
        """The mean latency."""
        return self.median_s * math.exp(self.sigma**2 / 2)

    @property
    def segment(self) -> str:
        """The behaviour as the first segment of a path."""
        return ":".join([type(self).__name__.lower(), *(f"{name}={value}" for name, value in asdict(self).items())])


@dataclass(kw_only=True)
class Capacity(Steady):
    """Works on so many at once and refuses the next one on the spot, without a hint."""

    places: int = 40

    def fate(self, arrival: Arrival) -> Fate:
        """Refuse what comes when all places are taken."""
        return Fate(status=429) if arrival.in_flight >= self.places_at(arrival.now) else super().fate(arrival)

    def places_at(self, now: float) -> int:  # noqa: ARG002 -- for the one whose places come and go
        """Return how many places there are at this moment."""
        return self.places


@dataclass(kw_only=True)
class Steps(Capacity):
    """A capacity that falls for one step of time, and comes back: `places`, `low`, `places`."""

    low: int = 10
    step_s: float = 30.0

    def __post_init__(self) -> None:
        """Begin with the first request."""
        self._began: float | None = None

    def places_at(self, now: float) -> int:
        """Return how many places there are at this moment."""
        self._began = now if self._began is None else self._began
        return self.low if self.step_s <= now - self._began < 2 * self.step_s else self.places


@dataclass(kw_only=True)
class Quota(Steady):
    """Takes so many requests in any second and refuses the next; what it refuses spends the quota too."""

    per_s: int = 50

    def __post_init__(self) -> None:
        """Begin with the whole quota."""
        self._spent: deque[float] = deque()

    def fate(self, arrival: Arrival) -> Fate:
        """Look one second back."""
        while self._spent and self._spent[0] <= arrival.now - 1.0:
            self._spent.popleft()
        self._spent.append(arrival.now)
        return Fate(status=429) if len(self._spent) > self.per_s else super().fate(arrival)


@dataclass(kw_only=True)
class Backlog(Steady):
    """Works on so many at once and lets the others wait in line, however many: it never refuses."""

    places: int = 40

    def __post_init__(self) -> None:
        """Begin with every place free."""
        self._free_at = [0.0] * self.places

    def fate(self, arrival: Arrival) -> Fate:
        """Take the place that is free first."""
        service_s = super().fate(arrival).service_s
        ends = max(arrival.now, self._free_at[0]) + service_s
        heapq.heapreplace(self._free_at, ends)
        return Fate(ends - arrival.now, service_s=service_s)


@dataclass(kw_only=True)
class Weather(Steady):
    """Goes wrong by chance: a 503, an answer cut in mid-body, no answer for ever."""

    unavailable: float = 0.05
    cut: float = 0.01
    hung: float = 0.01

    def fate(self, arrival: Arrival) -> Fate:
        """Throw the dice."""
        thrown = arrival.dice.random()
        if thrown < self.unavailable:
            return Fate(status=503)
        fate = super().fate(arrival)
        if thrown < self.unavailable + self.cut:
            return fate._replace(ending="cut")
        return fate._replace(ending="never") if thrown < self.faults else fate

    @property
    def faults(self) -> float:
        """The share of requests that go wrong."""
        return self.unavailable + self.cut + self.hung


@dataclass(kw_only=True)
class Picky(Steady):
    """Takes no request in which `word` stands: a poisoned input, or with an empty word every request there is."""

    word: str = "poison"

    def fate(self, arrival: Arrival) -> Fate:
        """Look for the word."""
        refused = any(self.word in text for text in arrival.texts)
        return Fate(status=400) if refused else super().fate(arrival)


_KINDS: dict[str, type[Steady]] = {
    kind.__name__.lower(): kind for kind in (Steady, Capacity, Steps, Quota, Backlog, Weather, Picky)
}


def behaviour(segment: str) -> Steady:
    """Return the behaviour that the first segment of a path names. Raises `KeyError` where there is none."""
    name, *numbers = segment.split(":")
    return msgspec.convert(dict(number.split("=", 1) for number in numbers), _KINDS[name], strict=False)
