"""Member of a host's group: the permits that the broker gave this worker, as a controller for its scheduler. Pure.

A permit is the right to have one request in flight. An answered request's permit may be used again at once for the next
request, where only the window decides: then no request waits for the broker, and the messages wait for each other.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from spark_llm.coordination.job_failures import UntoldRows
from spark_llm.coordination.messages import Kind, Message
from spark_llm.flow.limiter import Permit

MAX_WANTED = 64  # that a member asks for at once
_MEMBER = -1  # in place of a limiter's number of cuts: the permit is a broker's, and `level` is its number


class Demand(NamedTuple):
    """What a worker could send now if it had permits for it."""

    requests: int = 0
    characters: int = 0  # of one request
    streams: int = 0  # open


def is_brokered(permit: Permit) -> bool:
    """Return whether a permit was granted by a broker, in another worker."""
    return permit.cuts == _MEMBER


class PermitMember:
    """The permits of one worker, and the messages that it owes the broker."""

    def __init__(self, demand: Callable[[], Demand]) -> None:
        """Begin without permits; `demand` returns what the worker could send beyond them."""
        self.window = 1  # this worker's part
        self.in_flight = 0
        self.outage_since: float | None = None
        self.stopped: frozenset[int] = frozenset()  # jobs with too many failed rows
        self.keeps = False  # whether a permit may be used again without asking
        self.on_due: Callable[[], None] = lambda: None  # called when `flush` has work
        self._demand = demand
        self._free: list[int] = []
        self._used: set[int] = set()
        self._adopted: list[int] = []  # of requests that have another permit, of which the broker knows nothing
        self._answered: list[Message] = []  # whose permits are free, and not yet given back
        self._outbox: list[Message] = []
        self._untold_rows = UntoldRows()
        self._want = Message(Kind.WANT)  # that the broker knows
        self._granted = self._given_back = self._to_give_back = 0  # permits, in all since it joined
        self._lease_until = math.inf  # after it, the broker may have given these permits to others
        self._widened = 0
        self._gave_back = False  # whether the outbox has a permit that another worker may use

    # As the scheduler sees it.

    def available(self, now: float) -> int:
        """Return how many more requests may go now."""
        available = len(self._free) + len(self._answered) if now <= self._lease_until else 0
        if not available:
            self.on_due()
        return available

    def opens_at(self, now: float) -> float | None:
        """Return now where a permit is free; None where only a message of the broker will help."""
        return now if (self._free or self._answered) and now <= self._lease_until else None

    def resumes_at(self, now: float) -> float:
        """Return now: the broker gives no permit in a pause or an outage."""
        return now

    def widen(self, requests: int) -> None:
        """Ask that so many may go before any outcome."""
        if requests > self._widened:
            self._widened = requests
            self._outbox.append(Message(Kind.WIDEN, requests))

    def acquire(self, now: float, characters: int = 0) -> Permit:
        """Use a permit."""
        if self._free:
            number = self._free.pop()
        else:
            answered = self._answered.pop()
            number = answered.number
            self._outbox.append(answered._replace(kind=Kind.ANSWERED_AND_KEPT))
        if characters:
            self._outbox.append(Message(Kind.SENT, number, characters))
        self._used.add(number)
        self.in_flight += 1
        return Permit(now, number, _MEMBER, 0, False, characters, 0.0)

    def on_answer(
        self,
        permit: Permit,
        now: float,  # noqa: ARG002 -- a controller's method
        latency_s: float | None = None,
        tokens: float | None = None,
    ) -> None:
        """Give a permit back, or keep it for the next request."""
        answered = Message(
            Kind.ANSWERED,
            self._ended(permit),
            math.nan if latency_s is None else latency_s,
            math.nan if tokens is None else tokens,
        )
        if self.keeps and not self._to_return:
            self._answered.append(answered)
        else:
            self._give_back(answered)
        self.on_due()

    def on_fault(self, permit: Permit, now: float, random_value: float, *, short: bool = False) -> None:  # noqa: ARG002 -- a controller's method
        """Give back the permit of a request that failed."""
        self._give_back(Message(Kind.FAULT, self._ended(permit), float(short)))
        self.on_due()

    def on_inconclusive(self, permit: Permit) -> None:
        """Give back the permit of a request that says nothing of the endpoint."""
        self._give_back(Message(Kind.INCONCLUSIVE, self._ended(permit)))
        self.on_due()

    def on_rate_limited(self, permit: Permit, now: float, *, pause_s: float = 0.0, paused: bool = False) -> None:  # noqa: ARG002
        """Give back the permit of a request that was refused."""
        self._give_back(Message(Kind.RATE_LIMITED, self._ended(permit), pause_s, float(paused)))
        self.on_due()

    def count_rows(self, job: int, rows: int, failed: int, max_share: float) -> None:
        """Tell the broker of rows that have ended, with the messages that go next."""
        self._untold_rows.count(job, rows, failed, max_share)

    def adopt(self, in_flight: int) -> None:
        """Count the requests that this worker sent as a broker, under new numbers."""
        self.in_flight += in_flight
        self._adopted += range(1, in_flight + 1)
        self._used.update(self._adopted)

    def _ended(self, permit: Permit) -> int:
        """Count a request as in flight no more; return its permit's number."""
        known = is_brokered(permit) and permit.level in self._used
        number = permit.level if known or not self._adopted else self._adopted.pop()
        self._used.discard(number)
        if known and number in self._adopted:
            self._adopted.remove(number)
        self.in_flight -= 1
        return number

    def _give_back(self, outcome: Message) -> None:
        self._given_back += 1
        self._gave_back = True
        self._outbox.append(outcome)

    @property
    def _to_return(self) -> int:
        """How many permits not to keep."""
        return max(0, self._to_give_back - self._given_back)

    # As the broker sees it.

    @property
    def held(self) -> list[int]:
        """The permits in use, and those to use next."""
        return [*self._used, *self._free, *(answered.number for answered in self._answered)]

    @property
    def is_urgent(self) -> bool:
        """Whether the broker should hear at once: a permit came back, or nothing is wanted so far."""
        return self._gave_back or self._want.number <= self._granted

    def join(self, now: float) -> list[Message]:
        """Return the first messages to a broker, which may be a new one: the permits that are held."""
        self.leave(now)
        self._want, self._widened = Message(Kind.WANT), 0
        self._granted = self._given_back = self._to_give_back = 0
        held = self.held
        return [Message(Kind.HELLO, len(held)), *(Message(Kind.HELD, number) for number in held)]

    def leave(self, now: float) -> None:
        """Go on without a broker: permits are used again where only the window decided, and until they lapse."""
        self._outbox.clear()
        self._free += [answered.number for answered in self._answered]
        self._answered.clear()
        if now > self._lease_until:
            self.keeps = False  # nor is one whose request is still in flight used again
        if not self.keeps:
            self._free.clear()

    def renew(self, now: float, until: float) -> bool:
        """Use permits until then, as the broker hears from this worker; return whether one may go only now."""
        was_over, self._lease_until = now > self._lease_until, until
        return was_over and bool(self._free)

    def receive(self, messages: Iterable[Message], now: float) -> bool:
        """Take messages of the broker; return whether something may go that could not before, or no longer may."""
        before = self._granted, self.stopped
        for kind, number, a, b in messages:
            if kind == Kind.GRANT:
                self._granted += 1
                self._free.append(number)
                self.window, self.keeps = max(1, int(a)), b > 0
            elif kind == Kind.RETURN:
                self._to_give_back = number
            elif kind == Kind.STOP:
                self.stopped |= {number}
            elif kind == Kind.STATE:
                self.window, self.keeps = max(1, number), a > 0
                self.outage_since = None if math.isnan(b) else now - b
        while self._answered and (self._to_return or not self.keeps):
            self._give_back(self._answered.pop())
        return (self._granted, self.stopped) != before

    def flush(self) -> list[Message]:
        """Return the messages to send now: outcomes, permits that nothing needs, and what is wanted."""
        for answered in self._answered:
            self._give_back(answered)
        self._answered.clear()
        demand = self._demand()
        for _ in range(max(len(self._free) - demand.requests, min(self._to_return, len(self._free)))):
            self._give_back(Message(Kind.UNUSED, self._free.pop()))
        messages, self._outbox, self._gave_back = self._outbox, [], False
        messages += self._untold_rows.messages()
        wanted = min(MAX_WANTED, demand.requests - len(self._free))
        want = Message(Kind.WANT, self._granted + wanted, demand.characters, demand.streams)
        if want != self._want:
            self._want = want
            messages.append(want)
        return messages
