"""The driver allots shares of a job's limits to its hosts. It is pure: time is an argument.

The sum of what hosts may use never passes a limit, whatever datagram is lost, late, duplicated or overtaken. The driver
counts for each host the greatest share that it may hold: of the last allotment that it told back, and of each later
one. A share counts until it has expired, then its floor until that has expired. What is left of the limit may be given.

Not counted is a host that the driver has not heard, or not for `FLOOR_VALID_S`: such a host has one request in flight
at most, and one a minute. A host that never heard the driver goes by `Policy.tasks` after `UNHEARD_S`. Not counted
either are requests that are still in flight when the share ends of a host that has fallen silent.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from spark_llm.coordination.allotment import FLOOR_VALID_S, VALID_S, Allotment, HardLimits, Need

SLACK_S = 0.25  # for which the driver counts longer than a host: their clocks may differ in speed
PLAN_S = 0.1  # for which targets are kept, so that hundreds of hosts cost the driver little
LEAST = (1.0, 4.0, 0.0)  # of a share, by the kind of limit: a host's token bucket keeps a request a minute back
TURN_S = (20.0, 120.0, 120.0)  # for which a host keeps the one that not every host can have, by the kind of limit
IN_FLIGHT, REQUESTS, TOKENS = KINDS = range(3)
_HELD_BACK_SHARE = 0.85  # of its rate: a host that uses so much would use more
_HEADROOM = 1.3  # times the rate that a host uses is what it wants
_FADING = 0.8  # of what a host wanted, from one need to the next: it comes in bursts


class Allotter:
    """Answers the needs of hosts; each key has limits of its own."""

    def __init__(self) -> None:
        """Begin with no host known."""
        self.hosts: set[str] = set()  # that ever took an allotment
        self._divisions: dict[str, _Division] = {}
        self._serial = 0

    def on_need(self, need: Need, now: float) -> Allotment | None:
        """Return the host's allotment; None where the host leaves, or where it has said something newer."""
        if need.serial:
            self.hosts.add(need.host)
        division = self._divisions.setdefault(need.key, _Division(need.limits))
        self._serial += 1
        return division.on_need(need, self._serial, now)

    def is_needed(self, now: float) -> bool:
        """Return whether a host has wanted to send lately, so that it waits for an answer."""
        return any(division.is_needed(now) for division in self._divisions.values())


class _Grant(NamedTuple):
    """An allotment that was sent; the host may hold it."""

    serial: int
    sent_at: float
    share: list[float]
    floor: list[float]

    def possible(self, kind: int, now: float) -> float:
        """Return how much a host may use by it."""
        age_s = now - self.sent_at - SLACK_S
        return self.share[kind] if age_s < VALID_S else self.floor[kind] if age_s < FLOOR_VALID_S else 0.0


@dataclass
class _Host:
    """What the driver knows of a host."""

    asked_at: float = -math.inf  # on its own clock
    heard_at: float = -math.inf
    in_flight: int = 0
    wanted: list[float] = field(default_factory=lambda: [0.0] * len(KINDS))
    grants: list[_Grant] = field(default_factory=list)  # the last that it took, and all later ones
    changed_at: list[float] = field(default_factory=lambda: [-math.inf] * len(KINDS))  # from nothing, or to it

    def possible(self, kind: int, now: float) -> float:
        """Return the most that it may be using; after a cut, requests are in flight that its share had let go."""
        told = self.in_flight if kind == IN_FLIGHT and now - self.heard_at - SLACK_S < VALID_S else 0
        return max(told, *(grant.possible(kind, now) for grant in self.grants), 0)

    def on_need(self, need: Need, even: list[float], now: float) -> None:
        """Note what it told; `even` is an even share of each limit."""
        self.asked_at, self.heard_at, self.in_flight = need.asked_at, now, need.used.max_in_flight or 0
        self.grants = [grant for grant in self.grants if grant.serial >= need.serial and not need.leaves]
        held = next((grant.share for grant in self.grants if grant.serial == need.serial), [0.0] * len(KINDS))
        for kind, wanted in enumerate(_wanted(need, held, even)):
            self.wanted[kind] = max(wanted, _FADING * self.wanted[kind]) if need.wanted and not need.leaves else 0.0

    def on_grant(self, grant: _Grant) -> None:
        """Count an allotment that is sent to it."""
        for kind in KINDS:
            if self._has(kind) != (grant.share[kind] > 0):
                self.changed_at[kind] = grant.sent_at
        self.grants.append(grant)

    def is_forgotten(self, now: float) -> bool:
        """Drop the grants that have ended, and return whether nothing is left to be known."""
        self.grants = [grant for grant in self.grants if now - grant.sent_at - SLACK_S < FLOOR_VALID_S]
        return not self.grants and now - self.heard_at - SLACK_S >= FLOOR_VALID_S

    def turn(self, kind: int, now: float) -> tuple[int, float]:
        """Return its place where not all can have one: those in their turn, those that wait, those after their turn."""
        since = self.changed_at[kind]
        return (1 if not self._has(kind) else 0 if now - since < TURN_S[kind] else 2), since

    def _has(self, kind: int) -> bool:
        return bool(self.grants) and self.grants[-1].share[kind] > 0


class _Division:
    """The limits of one key, and the hosts that share them."""

    def __init__(self, limits: HardLimits) -> None:
        self._limits = limits
        self._hosts: dict[str, _Host] = {}
        self._counted: dict[str, list[float]] = {}  # what each host may be using; an old figure is never too low
        self._targets: list[dict[str, float]] = []
        self._plans_at = -math.inf

    def on_need(self, need: Need, serial: int, now: float) -> Allotment | None:
        """Do what `Allotter.on_need` does."""
        host = self._hosts.setdefault(need.host, _Host())
        if need.asked_at <= host.asked_at:
            return None
        before = [wanted > 0 for wanted in host.wanted]
        host.on_need(need, [(limit or 0.0) / len(self._hosts) for limit in self._limits], now)
        if now >= self._plans_at or before != [wanted > 0 for wanted in host.wanted]:
            self._plan(now)
        if need.leaves:
            return None
        self._counted[need.host] = [0.0] * len(KINDS)
        shares, floors = zip(*(self._share(need.host, kind) for kind in KINDS), strict=True)
        host.on_grant(_Grant(serial, now, list(shares), list(floors)))
        self._counted[need.host] = [host.possible(kind, now) for kind in KINDS]
        return Allotment(need.host, need.key, serial, need.asked_at, self._limited(shares), self._limited(floors))

    def is_needed(self, now: float) -> bool:
        """Do what `Allotter.is_needed` does."""
        return any(host.wanted[IN_FLIGHT] and now - host.heard_at < VALID_S for host in self._hosts.values())

    def _plan(self, now: float) -> None:
        """Count what each host may be using, and divide the limits by what each wants."""
        self._plans_at = now + PLAN_S
        self._hosts = {name: host for name, host in self._hosts.items() if not host.is_forgotten(now)}
        self._counted = {name: [host.possible(kind, now) for kind in KINDS] for name, host in self._hosts.items()}
        self._targets = []
        for kind in KINDS:
            wanted = [(host.turn(kind, now), name) for name, host in self._hosts.items() if host.wanted[kind] > 0]
            in_turn = {name: self._hosts[name].wanted[kind] for _, name in sorted(wanted)}
            self._targets.append(divided(self._limits[kind] or 0.0, in_turn, LEAST[kind]))

    def _share(self, name: str, kind: int) -> tuple[float, float]:
        """Return a host's share of a limit, and its floor."""
        limit, targets = self._limits[kind], self._targets[kind]
        if limit is None or name not in targets:
            return 0.0, 0.0
        free = max(0.0, limit - sum(counted[kind] for counted in self._counted.values()))
        target, whole = targets[name], LEAST[kind] > 0
        share = target if target <= free else math.floor(free) if whole else free
        floor = max(1, limit // len(targets)) if whole else limit / len(targets)
        return share, min(share, floor)

    def _limited(self, numbers: tuple[float, ...]) -> HardLimits:
        """Return numbers where there is a limit."""
        in_flight, *rates = (
            None if limit is None else number for limit, number in zip(self._limits, numbers, strict=True)
        )
        return HardLimits(None if in_flight is None else int(in_flight), *rates)


def divided(limit: float, wanted: Mapping[str, float], least: float) -> dict[str, float]:
    """Return max-min fair shares of all of a limit: none gets more than another that wants more.

    What nobody wants is given out evenly. With a `least`, shares are whole numbers, because no host sends half a
    request: the remainder goes to those that come first in `wanted`. Where not each can have the least, they have all.
    """
    if least and limit < least * len(wanted):
        able = max(1, int(limit // least))
        wanted = {name: limit + 1 if index < able else 0.0 for index, name in enumerate(wanted)}
    amounts = {
        name: math.ceil(amount) if least and math.isfinite(amount) else amount for name, amount in wanted.items()
    }
    left = limit
    for index, amount in enumerate(sorted(amounts.values())):
        level = left / (len(amounts) - index)
        if amount > level:
            break
        left -= amount
    else:
        surplus = divided(left, dict.fromkeys(wanted, left + 1), 1.0 if least else 0.0) if wanted else {}
        return {name: amounts[name] + extra for name, extra in surplus.items()}
    shares = {name: min(amount, math.floor(level) if least else level) for name, amount in amounts.items()}
    remainder = limit - sum(shares.values())
    for name in amounts if least else ():
        if amounts[name] > shares[name]:
            shares[name] += min(1.0, remainder)
            remainder -= min(1.0, remainder)
    return shares


def _wanted(need: Need, held: list[float], even: list[float]) -> Iterator[float]:
    """Yield how much of each limit a host wants: of a rate, more than it uses, and twice of what holds it back."""
    yield need.wanted
    requests, tokens = need.used.requests_per_minute or 0.0, need.used.tokens_per_minute or 0.0
    least = need.wanted * tokens / requests if requests else 0.0
    for kind, used, fewest in ((REQUESTS, requests, need.wanted), (TOKENS, tokens, least)):
        is_held_back = used >= _HELD_BACK_SHARE * held[kind]
        yield max(fewest, _HEADROOM * used, (2 * held[kind] or even[kind]) if is_held_back else 0.0)
