"""Broker of a host's group: grants the permits of one flow controller to all workers of a host. Pure.

One worker of the host holds the controller; its own scheduler uses the broker as its controller. A permit counts as in
flight from the moment it is granted, so the limits hold however many workers there are. It goes to the worker that has
fewest (max-min fairness), so that tasks end together.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from spark_llm.coordination.fairness import MemberState, Rotation, silent_members
from spark_llm.coordination.hand_over import HandOver
from spark_llm.coordination.job_failures import JobFailures, count_told
from spark_llm.coordination.member import Demand
from spark_llm.coordination.messages import MAX_NUMBER, Kind, Message
from spark_llm.coordination.outcomes import apply_outcome
from spark_llm.flow.controller import FlowController
from spark_llm.flow.limiter import Limits, Permit

SLOW_ANSWER_S = 1.0  # without an outcome, in which the window does not grow
_OWN = -1  # the broker's own worker, in a list of members


class PermitBroker:
    """The controller of a host, and the permits that its members have; a controller for its own worker."""

    def __init__(
        self,
        controller: FlowController,
        demand: Callable[[], Demand],
        draw: Callable[[], float],
        connections: float = math.inf,
    ) -> None:
        """Begin without members; `demand` is that of its own worker, which may open so many `connections`."""
        self.controller = controller
        self.hand_over = HandOver(controller)
        self.failures = JobFailures()
        self.in_flight = 0  # of its own worker
        self.on_due: Callable[[], None] = lambda: None  # called when `grants` has work
        self.members: dict[int, MemberState] = {}
        self._demand = demand
        self._draw = draw
        self._connections = connections
        self._lease_until = math.inf  # after it, another worker may be the broker
        self._outcome_at = math.inf  # of the last request
        self._hungry: set[int] = set()  # members that want permits
        self._serial = self._served = 0  # the number of the last permit; requests of its own worker
        self._rotation = Rotation()

    # As its own worker's scheduler sees it.

    @property
    def window(self) -> int:
        """The part of its own worker."""
        return self.controller.window if not self.members else max(self._part(), self.in_flight)

    @property
    def outage_since(self) -> float | None:
        """When the outage began; None while there is none."""
        return self.controller.outage_since

    def available(self, now: float) -> int:
        """Return how many more requests of its own worker may go now."""
        if not self.hand_over.held_until <= now <= self._lease_until or self.in_flight >= self._connections:
            return 0
        if (available := self.controller.available(now)) and self._is_others_turn:
            self.on_due()
            return 0
        return available

    def opens_at(self, now: float) -> float | None:
        """Return when `available` can next be more than none; None where only an outcome will help."""
        opens_at = self.controller.opens_at(now)
        if opens_at is None or now > self._lease_until or self.in_flight >= self._connections:
            return None
        at = max(opens_at, self.hand_over.held_until)
        return None if at <= now and self._is_others_turn else at

    @property
    def _is_others_turn(self) -> bool:
        """Whether a member that wants permits has fewer than its own worker."""
        return any(self.members[key].turn < (self.in_flight, self._served) for key in self._hungry)

    def resumes_at(self, now: float) -> float | None:
        """Return when neither a pause nor an outage stops a request; None while a probe is in flight."""
        return self.controller.resumes_at(now)

    def widen(self, requests: int) -> None:
        """Let at least so many go before any outcome."""
        self.controller.widen(requests)

    def acquire(self, now: float, characters: int = 0) -> Permit:
        """Count a request of its own worker as in flight."""
        self.in_flight += 1
        self._served += 1
        return self.controller.acquire(now, characters)

    def on_answer(
        self, permit: Permit, now: float, latency_s: float | None = None, tokens: float | None = None
    ) -> None:
        """Count a request that the endpoint served."""
        self._outcome_at = now
        self.controller.on_answer(self._ended(permit), now, latency_s, tokens)

    def on_fault(self, permit: Permit, now: float, random_value: float, *, short: bool = False) -> None:
        """Count a request that failed in a way that an outage would explain."""
        self._outcome_at = now
        self.controller.on_fault(self._ended(permit), now, random_value, short=short)

    def on_inconclusive(self, permit: Permit) -> None:
        """Count a request that says nothing of the endpoint."""
        self.controller.on_inconclusive(self._ended(permit))

    def on_rate_limited(self, permit: Permit, now: float, *, pause_s: float = 0.0, paused: bool = False) -> None:
        """Count a request that was refused."""
        self._outcome_at = now
        self.controller.on_rate_limited(self._ended(permit), now, pause_s=pause_s, paused=paused)

    @property
    def stopped(self) -> frozenset[int]:
        """The jobs that have too many failed rows."""
        return self.failures.stopped

    def count_rows(self, job: int, rows: int, failed: int, max_share: float) -> None:
        """Count rows of its own worker that have ended."""
        if self.failures.count(job, rows, failed, max_share):
            self.on_due()

    def _ended(self, permit: Permit) -> Permit:
        self.in_flight -= 1
        if self.members:
            self.on_due()
        return self.hand_over.own(permit)

    # As the members see it.

    @property
    def working(self) -> int:
        """How many streams are open on this host."""
        return self._demand().streams + sum(member.demand.streams for member in self.members.values())

    @property
    def is_idle(self) -> bool:
        """Whether its own worker has nothing to do, and another one has."""
        return not self._demand().streams and any(member.demand.streams for member in self.members.values())

    @property
    def waiting(self) -> int:
        """How many requests would go now if there were permits for them; no more than 64 of each worker are counted."""
        return self._demand().requests + sum(max(0, member.wanted - member.granted) for member in self.members.values())

    def set_limits(self, limits: Limits, now: float) -> None:
        """Change the user's limits of this host."""
        self.controller.set_limits(limits, now)
        self.on_due()

    def join(self, key: int, held: Sequence[int], now: float) -> None:
        """Add a member, with the permits that an earlier broker gave it."""
        self._serial = max(self._serial, *held, 0)
        served = min([self._served, *(member.served for member in self.members.values())])
        self.members[key] = MemberState({number: self.controller.adopt(now) for number in held}, served, now)

    def leave(self, key: int) -> None:
        """Take back the permits of a member that has gone."""
        member = self.members.pop(key, None)
        self._hungry.discard(key)
        for permit in member.out.values() if member else ():
            self.controller.on_inconclusive(permit)

    def receive(self, key: int, messages: Iterable[Message], now: float) -> bool:
        """Count what a member did with its permits; return whether this stops a job."""
        member, stopped = self.members[key], self.stopped
        member.heard_at = now
        for message in messages:
            kind, number, a, b = message
            if kind == Kind.WANT:
                member.wanted, member.demand = number, Demand(0, int(a), int(b))
                (self._hungry.add if member.is_hungry else self._hungry.discard)(key)
            elif kind in (Kind.ANSWERED_ROWS, Kind.FAILED_ROWS):
                count_told(self.failures, message)
            elif kind == Kind.WIDEN:
                self.controller.widen(number)
            elif kind == Kind.SENT and number in member.out:
                member.out[number] = self.controller.recharge(member.out[number], now, int(a))
            elif (permit := member.out.pop(number, None)) is not None:
                self._count(member, permit, message, now)
        return self.stopped != stopped

    def _count(self, member: MemberState, permit: Permit, outcome: Message, now: float) -> None:
        self._outcome_at = now
        apply_outcome(self.controller, permit, outcome, now, self._draw)
        if outcome.kind == Kind.ANSWERED_AND_KEPT:
            member.out[outcome.number] = self.controller.acquire(now, member.demand.characters)
            member.served += 1
        else:
            member.returned += 1

    def grants(self, now: float) -> dict[int, list[Message]]:
        """Grant what may go now; return the messages for each member that has some."""
        messages: dict[int, list[Message]] = {}
        if self.hand_over.held_until <= now <= self._lease_until:
            own_demand, keeps = self._demand().requests, self._keeps(now)
            self._widen_for_slow_answers(now, own_demand)
            for key, number in self._granted(now, own_demand):
                messages.setdefault(key, []).append(Message(Kind.GRANT, number, self._part(), keeps))
            for key in self._to_ask_back(now, own_demand) if keeps else ():
                messages.setdefault(key, []).append(Message(Kind.RETURN, self.members[key].to_return_in_all))
        message = self._state_message(now)
        state = message.number, message.a > 0, self.outage_since
        for key, member in self.members.items():
            if state != member.told:
                member.told = state
                messages.setdefault(key, []).append(message)
            if stops := self.stopped - member.stopped:
                member.stopped = self.stopped
                messages.setdefault(key, []).extend(Message(Kind.STOP, job) for job in stops)
        return messages

    def _widen_for_slow_answers(self, now: float, own_demand: int) -> None:
        """Let each worker send its first request, where the answers to those of others are slow."""
        if not self.controller.in_flight:
            self._outcome_at = now
        if now - self._outcome_at > SLOW_ANSWER_S:
            waiting = sum(not self.members[key].out for key in self._hungry)
            waiting += bool(own_demand and not self.in_flight)
            self.controller.widen(self.controller.in_flight + waiting)

    def heartbeat(self, now: float) -> dict[int, list[Message]]:
        """Return the messages that each member gets from time to time, so that it knows that the broker lives."""
        asks = {key: Message(Kind.RETURN, member.to_return_in_all) for key, member in self.members.items()}
        return {key: [self._state_message(now), ask] for key, ask in asks.items()}

    def next_due(self, now: float) -> float | None:
        """Return when `grants` can next do something by itself; None where only a message will help."""
        opens_at = self.controller.opens_at(now)
        return max(opens_at, self.hand_over.held_until) if self._hungry and opens_at is not None else None

    def silent_members(self, now: float) -> list[int]:
        """Return the members that stand still, whose permits others need."""
        return silent_members(self.members, self.in_flight, self.controller.limiter.latency_s or 0.0, now)

    # When another worker was the broker before.

    def snapshot(self, now: float) -> dict[str, Any]:
        """Return what a successor has to know, as JSON holds it."""
        return {
            "controller": self.controller.snapshot(now),
            "own": self.in_flight,
            "failures": self.failures.snapshot(),
        }

    def adopt(self, held: int, now: float) -> None:
        """Count the requests that its own worker had in flight as a member."""
        self.hand_over.adopt(held, now)
        self.in_flight += held

    def renew(self, now: float, until: float) -> None:
        """Grant permits until then; a broker that stands still for longer is replaced."""
        self._outcome_at = min(self._outcome_at, now)
        self._lease_until = until

    def _keeps(self, now: float) -> bool:
        """Return whether members may use a permit again without asking: where only the window decides."""
        return not self.controller.is_paced and now >= self.controller.paused_until

    def _part(self) -> int:
        """Return the part of the window that one worker has."""
        return -(-self.controller.window // (len(self.members) + 1))

    def _state_message(self, now: float) -> Message:
        outage_s = math.nan if self.outage_since is None else now - self.outage_since
        return Message(Kind.STATE, self._part(), self._keeps(now), outage_s)

    def _granted(self, now: float, own_demand: int) -> Iterable[tuple[int, int]]:
        """Grant permits, each to the worker that has fewest; leave for its own worker what is its turn."""
        line = [(*self.members[key].turn, key) for key in self._hungry]
        if not line:
            return
        own_turns = 0
        if own_demand:
            line.append((self.in_flight, self._served, _OWN))
        heapq.heapify(line)
        while line and self.controller.available(now) > own_turns:
            out, served, key = line[0]
            if key == _OWN:
                own_turns += 1
                more = own_turns < own_demand
            else:
                more = self._grant(key, now)
                yield key, self._serial
            if more:
                heapq.heapreplace(line, (out + 1, served + 1, key))
            else:
                heapq.heappop(line)

    def _grant(self, key: int, now: float) -> bool:
        """Grant a permit, which has the last serial number; return whether the member wants more."""
        member = self.members[key]
        self._serial = (self._serial + 1) & MAX_NUMBER
        member.out[self._serial] = self.controller.acquire(now, member.demand.characters)
        member.granted += 1
        member.served += 1
        if not member.is_hungry:
            self._hungry.discard(key)
        return member.is_hungry

    def _to_ask_back(self, now: float, own_demand: int) -> set[int]:
        """Return the members that are to give back one permit more, so that all have as many."""
        excess = self.controller.in_flight - self.controller.window
        needy = [len(self.members[key].out) for key in self._hungry]
        if excess >= 0 and own_demand:
            needy.append(self.in_flight)
        return self._rotation.ask_back(self.members, excess, needy, now)
