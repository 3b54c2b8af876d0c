"""The share of one host in the limits that a user set for a whole job. It is pure: time is an argument.

The driver (`allotter`) allots shares to hosts, for a few seconds at a time. A share ends on the host before it ends on
the driver, because the host counts from the moment when it asked. So the driver may give it to another host then.
"""

from collections import deque
from collections.abc import Mapping
from typing import Literal, NamedTuple

from spark_llm.policy import Policy

ASK_INTERVAL_S = 1.0  # between two needs of a host
MIN_ASK_INTERVAL_S = 0.1  # where its share has changed, and in the beginning as long as it has none
BEGINNING_S = 2.0
VALID_S = 5.0  # of a share
FLOOR_VALID_S = 30.0  # of the floor that came with it
FIRST_ANSWER_S = 0.5  # a host sends nothing so long, because the answer to its first need is on its way
UNHEARD_S = 10.0  # after which a host that never heard the driver goes by `Policy.tasks`
RATE_WINDOW_S = 5.0  # over which a host measures what it uses

Source = Literal["driver", "floor", "waiting", "tasks"]
SOURCES: Mapping[Source, str] = {
    "driver": "its limits are shared over the cluster by the driver",
    "floor": "the driver is not heard: the host keeps a part of its last share of the limits",
    "waiting": "the driver is not heard: the host sends one request at a time",
    "tasks": "the driver was never heard: its limits hold per host, by tasks=",
}
"""What decides what a host may use, and how the log says it."""


class HardLimits(NamedTuple):
    """Limits that a user set, or numbers of the same three kinds; None where there is no limit."""

    max_in_flight: int | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    @classmethod
    def of(cls, policy: Policy) -> "HardLimits":
        """Return the limits of a policy."""
        return cls(policy.max_in_flight, policy.requests_per_minute, policy.tokens_per_minute)

    @property
    def are_set(self) -> bool:
        """Whether there is a limit at all."""
        return any(limit is not None for limit in self)


class Usage(NamedTuple):
    """What a host has used: requests in flight and waiting now, and totals that only grow."""

    in_flight: int
    waiting: int
    requests: int
    tokens: float


class Need(NamedTuple):
    """What a host tells the driver once a second.

    Attributes:
        host: The host's identity, unique in the job.
        key: The endpoint and policy that the limits belong to.
        limits: The limits of the whole job.
        asked_at: The time on the host's clock. A later holder of the host's limiter has a greater one.
        serial: The last allotment that the host took; 0 for none.
        wanted: Requests in flight or waiting.
        used: Requests in flight, and requests and tokens a minute over the last seconds.
        leaves: Whether the host stops sending.
    """

    host: str
    key: str
    limits: HardLimits
    asked_at: float
    serial: int
    wanted: int
    used: HardLimits
    leaves: bool = False


class Allotment(NamedTuple):
    """The driver's answer to a need: the host's share, and what is left of it when the driver falls silent."""

    host: str
    key: str
    serial: int
    asked_at: float  # of the need
    share: HardLimits
    floor: HardLimits


class HostShare:
    """The host's end: what it may use now, by the allotments that it has heard."""

    def __init__(self, host: str, key: str, limits: HardLimits, now: float) -> None:
        """Begin without a share of the job's limits."""
        self._host, self._key, self._limits = host, key, limits
        self._began_at = now
        self._allotment: Allotment | None = None
        self._used: deque[tuple[float, int, float]] = deque()

    def need(self, usage: Usage, now: float, *, leaves: bool = False) -> Need:
        """Return what to tell the driver."""
        wanted = usage.in_flight + usage.waiting
        serial = 0 if self._allotment is None else self._allotment.serial
        used = HardLimits(usage.in_flight, *self._rates(usage, now))
        return Need(self._host, self._key, self._limits, now, serial, wanted, used, leaves)

    def on_allotment(self, allotment: Allotment) -> bool:
        """Take an allotment; return False where it answers another one's need, or is not newer than the last one."""
        serial = 0 if self._allotment is None else self._allotment.serial
        ours = (allotment.host, allotment.key) == (self._host, self._key) and allotment.asked_at >= self._began_at
        if not ours or allotment.serial <= serial:
            return False
        self._allotment = allotment
        return True

    def limits(self, now: float) -> HardLimits | None:
        """Return what the host may use; None where the driver cannot be heard, so that `static_share` decides."""
        source = self.source(now)
        if source == "tasks":
            return None
        if self._allotment is None:
            return one_request(self._limits) if now >= self._began_at + FIRST_ANSWER_S else nothing(self._limits)
        if source == "driver":
            return self._allotment.share
        return self._allotment.floor if source == "floor" else one_request(self._limits)

    def source(self, now: float) -> Source:
        """Return what decides: an allotment, its floor, nothing for the moment, or `Policy.tasks`."""
        if self._allotment is None:
            return "waiting" if now < self._began_at + UNHEARD_S else "tasks"
        if now < self._allotment.asked_at + VALID_S:
            return "driver"
        return "floor" if now < self._allotment.asked_at + FLOOR_VALID_S else "waiting"

    def is_lost(self, now: float) -> bool:
        """Return whether the driver was heard, and not for so long that its allotments have ended."""
        return self._allotment is not None and now >= self._allotment.asked_at + FLOOR_VALID_S

    def asks_again_s(self, now: float) -> float:
        """Return how long after one need the next one is due."""
        has_share = self._allotment is not None and all(limit != 0 for limit in self._allotment.share)
        return ASK_INTERVAL_S if has_share or now >= self._began_at + BEGINNING_S else MIN_ASK_INTERVAL_S

    def next_change_at(self, now: float) -> float | None:
        """Return when `limits` changes if nothing is heard; None for never."""
        if self._allotment is None:
            changes = [self._began_at + FIRST_ANSWER_S, self._began_at + UNHEARD_S]
        else:
            changes = [self._allotment.asked_at + VALID_S, self._allotment.asked_at + FLOOR_VALID_S]
        return min((at for at in changes if at > now), default=None)

    def _rates(self, usage: Usage, now: float) -> tuple[float, float]:
        """Return requests and tokens a minute, over `RATE_WINDOW_S` at least where there is so much to look at."""
        self._used.append((now, usage.requests, usage.tokens))
        while len(self._used) > 2 and self._used[1][0] <= now - RATE_WINDOW_S:
            self._used.popleft()
        since, requests, tokens = self._used[0]
        minutes = max(ASK_INTERVAL_S, now - since) / 60
        return (usage.requests - requests) / minutes, (usage.tokens - tokens) / minutes


def one_request(limits: HardLimits) -> HardLimits:
    """Return what a host may use that the driver does not count: one request in flight, and one a minute."""
    return HardLimits(1, *(None if limit is None else min(1.0, limit) for limit in limits[1:]))


def nothing(limits: HardLimits) -> HardLimits:
    """Return these limits at zero."""
    return HardLimits(0, *(None if limit is None else 0.0 for limit in limits[1:]))


def static_share(limits: HardLimits, tasks: int, working: int) -> HardLimits:
    """Return the share of a host without a driver: `working` of the job's `tasks` are at work on it.

    A worker that shares with no other is alone: 1 is at work. One request in flight is the least, so more hosts than
    `max_in_flight` pass it.
    """
    share = min(1.0, working / tasks)
    in_flight, *rates = limits
    whole = None if in_flight is None else max(1, in_flight * min(working, tasks) // tasks)
    return HardLimits(whole, *(None if rate is None else rate * share for rate in rates))
