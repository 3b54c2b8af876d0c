"""Behaviours of the benchmark endpoint: each plans the response of an arriving request. No socket, no clock.

The first segment of a URL's path holds the behaviour, as its name and its numbers. So each measurement chooses its
own, and two on one endpoint are independent.
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
    """An arriving request."""

    now: float
    in_flight: int  # other requests without a response
    texts: Sequence[str]
    rng: random.Random


class ResponsePlan(NamedTuple):
    """The planned response."""

    after_s: float = 0.0
    status: int = 200
    ending: Literal["whole", "cut", "never"] = "whole"
    service_s: float = 0.0  # the part of `after_s` in work, without queueing


@dataclass(kw_only=True)
class Steady:
    """Answers every request, at once or after a lognormal latency; the other behaviours add a difficulty."""

    median_s: float = 0.0
    sigma: float = 0.5

    def plan(self, arrival: Arrival) -> ResponsePlan:
        """Return the response plan of one request."""
        latency_s = arrival.rng.lognormvariate(math.log(self.median_s), self.sigma) if self.median_s else 0.0
        return ResponsePlan(latency_s, service_s=latency_s)

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
    """Serves `slots` requests at once and refuses more with a 429, without a Retry-After."""

    slots: int = 40

    def plan(self, arrival: Arrival) -> ResponsePlan:
        """Refuse a request when all slots are taken."""
        return ResponsePlan(status=429) if arrival.in_flight >= self.slots_at(arrival.now) else super().plan(arrival)

    def slots_at(self, now: float) -> int:  # noqa: ARG002 -- `Steps` needs it
        """Return the number of slots at this time."""
        return self.slots


@dataclass(kw_only=True)
class Steps(Capacity):
    """A capacity that falls for one step of time and comes back: `slots`, `low`, `slots`."""

    low: int = 10
    step_s: float = 30.0

    def __post_init__(self) -> None:
        """Count time from the first request."""
        self._first_arrival: float | None = None

    def slots_at(self, now: float) -> int:
        """Return the number of slots at this time."""
        self._first_arrival = now if self._first_arrival is None else self._first_arrival
        return self.low if self.step_s <= now - self._first_arrival < 2 * self.step_s else self.slots


@dataclass(kw_only=True)
class Quota(Steady):
    """Takes `per_s` requests a second over any `window_s`, and refuses more; refused requests spend the quota too."""

    per_s: int = 50
    window_s: float = 1.0

    def __post_init__(self) -> None:
        """Begin with nothing spent."""
        self._spent: deque[float] = deque()

    def plan(self, arrival: Arrival) -> ResponsePlan:
        """Refuse a request if the last window has spent the quota."""
        while self._spent and self._spent[0] <= arrival.now - self.window_s:
            self._spent.popleft()
        self._spent.append(arrival.now)
        return ResponsePlan(status=429) if len(self._spent) > self.per_s * self.window_s else super().plan(arrival)


@dataclass(kw_only=True)
class Backlog(Steady):
    """Serves `slots` requests at once and queues all others; it never refuses."""

    slots: int = 40

    def __post_init__(self) -> None:
        """Begin with every slot free."""
        self._free_at = [0.0] * self.slots

    def plan(self, arrival: Arrival) -> ResponsePlan:
        """Take the slot that is free first."""
        service_s = super().plan(arrival).service_s
        end = max(arrival.now, self._free_at[0]) + service_s
        heapq.heapreplace(self._free_at, end)
        return ResponsePlan(end - arrival.now, service_s=service_s)


@dataclass(kw_only=True)
class RandomFaults(Steady):
    """Random faults: a 503, a response cut in its body, or no response at all."""

    unavailable: float = 0.05
    cut: float = 0.01
    hung: float = 0.01

    def plan(self, arrival: Arrival) -> ResponsePlan:
        """Draw a fault or none."""
        draw = arrival.rng.random()
        if draw < self.unavailable:
            return ResponsePlan(status=503)
        plan = super().plan(arrival)
        if draw < self.unavailable + self.cut:
            return plan._replace(ending="cut")
        return plan._replace(ending="never") if draw < self.fault_rate else plan

    @property
    def fault_rate(self) -> float:
        """The share of requests with a fault."""
        return self.unavailable + self.cut + self.hung


@dataclass(kw_only=True)
class WordRefusal(Steady):
    """Refuses requests with `word` in a text: a poisoned input, or every request for an empty word."""

    word: str = "poison"

    def plan(self, arrival: Arrival) -> ResponsePlan:
        """Refuse a request with the word."""
        refused = any(self.word in text for text in arrival.texts)
        return ResponsePlan(status=400) if refused else super().plan(arrival)


_BEHAVIOURS: dict[str, type[Steady]] = {
    kind.__name__.lower(): kind for kind in (Steady, Capacity, Steps, Quota, Backlog, RandomFaults, WordRefusal)
}


def parse_behaviour(segment: str) -> Steady:
    """Return the behaviour in the first segment of a path. Raises `KeyError` for an unknown one."""
    name, *numbers = segment.split(":")
    return msgspec.convert(dict(number.split("=", 1) for number in numbers), _BEHAVIOURS[name], strict=False)
