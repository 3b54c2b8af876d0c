"""The permits of one worker, as the broker's messages change them."""

import math
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spark_llm.coordination.member import Demand, PermitMember
from spark_llm.coordination.messages import Kind, Message
from spark_llm.flow.controller import FlowController
from spark_llm.policy import Policy

if TYPE_CHECKING:
    from spark_llm.flow.limiter import Permit

NAN = math.nan


class Wants:
    """A worker's demand, which a test sets."""

    def __init__(self, requests: int = 0, characters: int = 0) -> None:
        """Want so many requests."""
        self.requests, self.characters = requests, characters

    def __call__(self) -> Demand:
        """Return the demand."""
        return Demand(self.requests, self.characters, 1)


def granted(member: PermitMember, *numbers: int, keeps: bool = True) -> None:
    """Give a member permits."""
    assert member.receive([Message(Kind.GRANT, number, 4, keeps) for number in numbers], 0.0)


def kinds(messages: list[Message]) -> list[tuple[int, int]]:
    """Return the kinds and numbers of messages."""
    return [(message.kind, message.number) for message in messages]


def test_what_a_worker_could_send_is_asked_for_once() -> None:
    """The same demand is not told twice."""
    wants = Wants(5)
    member = PermitMember(wants)

    assert [(Kind.WANT, 5)] == kinds(member.flush())
    assert [] == member.flush()


def test_what_is_wanted_is_right_though_a_grant_crosses_it() -> None:
    """WANT names all grants since the connection began, so two that were on their way count as part of it."""
    wants = Wants(5)
    member = PermitMember(wants)
    member.flush()
    wants.requests = 6
    assert [(Kind.WANT, 6)] == kinds(member.flush())

    granted(member, 1, 2)  # sent before that WANT arrived

    assert [] == member.flush()  # six in all, of which two have come


def test_an_answered_permit_is_used_again_without_asking() -> None:
    """The answer and the next request are one message."""
    member = PermitMember(Wants(1))
    granted(member, 7)
    first = member.acquire(0.0)
    member.on_answer(first, 1.0, 0.5, 30.0)

    assert 1 == member.available(1.0)
    member.acquire(1.0)
    assert [(Kind.ANSWERED_AND_KEPT, 7), (Kind.WANT, 2)] == kinds(member.flush())


def test_an_answered_permit_goes_back_where_time_decides() -> None:
    """Paced by a quota, each permit is a new decision of the broker."""
    member = PermitMember(Wants(1))
    granted(member, 7, keeps=False)
    member.on_answer(member.acquire(0.0), 1.0, 0.5, 30.0)

    assert 0 == member.available(1.0)
    assert (Kind.ANSWERED, 7) == kinds(member.flush())[0]


def test_permits_that_wait_for_the_next_request_go_back_when_pacing_begins() -> None:
    """One that was answered just before is not used again."""
    member = PermitMember(Wants(1))
    granted(member, 7)
    member.on_answer(member.acquire(0.0), 1.0, 0.5)
    member.receive([Message(Kind.STATE, 4, 0.0, NAN)], 1.0)

    assert 0 == member.available(1.0)


def test_a_permit_that_was_asked_back_is_not_kept() -> None:
    """And only as many go back as were asked for, though the message comes twice."""
    member = PermitMember(Wants(9))
    granted(member, 1, 2)
    permits = [member.acquire(0.0), member.acquire(0.0)]
    member.receive([Message(Kind.RETURN, 1), Message(Kind.RETURN, 1)], 0.0)
    for permit in permits:
        member.on_answer(permit, 1.0, 0.5)
    member.receive([Message(Kind.RETURN, 1)], 1.0)  # sent before the first arrived

    assert 1 == member.available(1.0)


def test_a_permit_given_back_by_itself_counts_as_asked_back() -> None:
    """The request of one failed while the broker asked for one."""
    member = PermitMember(Wants(9))
    granted(member, 1, 2)
    first, second = member.acquire(0.0), member.acquire(0.0)
    member.on_fault(first, 1.0, 0.0)
    member.receive([Message(Kind.RETURN, 1)], 1.0)
    member.on_answer(second, 1.0, 0.5)

    assert 1 == member.available(1.0)


def test_a_permit_that_nothing_needs_goes_back_unused() -> None:
    """So that a quota is not charged for it."""
    wants = Wants(2)
    member = PermitMember(wants)
    granted(member, 1, 2)
    wants.requests = 1

    assert [(Kind.UNUSED, 2), (Kind.WANT, 2)] == kinds(member.flush())
    assert 1 == member.available(0.0)


def test_the_characters_of_each_request_are_told() -> None:
    """The next request may be longer than the one that was announced."""
    member = PermitMember(Wants(1, 100))
    granted(member, 1, keeps=False)
    member.acquire(0.0, 900)

    assert Message(Kind.SENT, 1, 900) == member.flush()[0]


def test_permits_outlive_the_broker_where_only_the_window_decided() -> None:
    """The next broker is told of those in use and of those to use next."""
    member = PermitMember(Wants(9))
    granted(member, 1, 2, 3)
    member.acquire(0.0)
    member.on_answer(member.acquire(0.0), 1.0, 0.5)
    member.leave(1.0)

    assert [(Kind.HELLO, 3), (Kind.HELD, 3), (Kind.HELD, 1), (Kind.HELD, 2)] == kinds(member.join(1.0))
    assert 2 == member.available(1.0)


def test_only_permits_in_use_outlive_the_broker_where_time_decides() -> None:
    """A paced permit that waits is given up."""
    member = PermitMember(Wants(9))
    granted(member, 1, 2, keeps=False)
    member.acquire(0.0)

    assert [(Kind.HELLO, 1), (Kind.HELD, 2)] == kinds(member.join(1.0))


def test_a_worker_that_stood_still_uses_no_permit_before_it_is_heard_again() -> None:
    """The broker may have given them to others, so what it holds beside its requests is given up."""
    member = PermitMember(Wants(9))
    granted(member, 1, 2)
    member.renew(0.0, 1.5)
    member.acquire(0.0)

    assert (0, None) == (member.available(3.0), member.opens_at(3.0))
    assert member.renew(3.0, 4.5)
    assert 1 == member.available(3.0)
    assert [(Kind.HELLO, 1), (Kind.HELD, 2)] == kinds(member.join(5.0))


def test_a_worker_that_stood_still_does_not_use_the_permits_of_its_requests_again() -> None:
    """They are answered after it has left, before the next broker knows of them: nothing goes in their place."""
    member = PermitMember(Wants(9))
    granted(member, 1, 2)
    member.renew(0.0, 1.5)
    permit = member.acquire(0.0)
    member.leave(3.0)
    member.renew(3.0, 3.5)
    member.on_answer(permit, 3.0, 3.0)

    assert 0 == member.available(3.0)


def test_requests_of_earlier_roles_end_one_by_one() -> None:
    """A worker that was a member, then the broker, then a member again gives every permit back once."""
    old = PermitMember(Wants(9))
    granted(old, 2, 900)
    permits = [old.acquire(0.0), old.acquire(0.0), FlowController(Policy()).acquire(0.0)]
    member = PermitMember(Wants())
    member.adopt(3)
    for permit in permits:
        member.on_answer(permit, 1.0, 0.5)

    assert ([], 0) == (member.held, member.in_flight)
    assert [1, 2, 3] == sorted(number for kind, number in kinds(member.flush()) if kind == Kind.ANSWERED)


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens, every permit is free or in use or was given back, once."""

    def __init__(self) -> None:
        """Begin without permits."""
        super().__init__()
        self.wants = Wants()
        self.member = PermitMember(self.wants)
        self.in_flight: list[Permit] = []
        self.owned: set[int] = set()  # as the broker sees it
        self.last_number = 0

    @rule(keeps=st.booleans())
    def grant(self, *, keeps: bool) -> None:
        """The broker grants one."""
        self.last_number += 1
        self.owned.add(self.last_number)
        granted(self.member, self.last_number, keeps=keeps)

    @rule(requests=st.integers(0, 5), characters=st.integers(0, 5))
    def want(self, requests: int, characters: int) -> None:
        """The worker's demand changes."""
        self.wants.requests, self.wants.characters = requests, characters

    @rule(total=st.integers(0, 5))
    def ask_back(self, total: int) -> None:
        """The broker asks for permits."""
        self.member.receive([Message(Kind.RETURN, total)], 0.0)

    @rule(keeps=st.booleans())
    def change(self, *, keeps: bool) -> None:
        """Pacing begins or ends."""
        self.member.receive([Message(Kind.STATE, 4, keeps, NAN)], 0.0)

    @precondition(lambda self: self.member.available(0.0))
    @rule()
    def send(self) -> None:
        """A request goes."""
        self.in_flight.append(self.member.acquire(0.0, self.wants.characters))

    @precondition(lambda self: self.in_flight)
    @rule()
    def answer(self) -> None:
        """A request is answered."""
        self.member.on_answer(self.in_flight.pop(), 0.0, 0.1)

    @precondition(lambda self: self.in_flight)
    @rule()
    def refuse(self) -> None:
        """A request is refused."""
        self.member.on_rate_limited(self.in_flight.pop(), 0.0, pause_s=1.0)

    @rule()
    def lose_the_broker(self) -> None:
        """A new broker knows only what it is told."""
        held = [message.number for message in self.member.join(0.0)[1:]]
        assert self.owned >= set(held)
        assert len(set(held)) == len(held)
        self.owned = set(held)

    @rule()
    def flush(self) -> None:
        """The broker hears what came back."""
        for message in self.member.flush():
            assert message.number >= 0
            if message.kind in (Kind.ANSWERED, Kind.RATE_LIMITED, Kind.UNUSED):
                self.owned.remove(message.number)

    @invariant()
    def counts_agree(self) -> None:
        """What is held is what was granted."""
        assert len(self.in_flight) == self.member.in_flight
        assert self.owned >= set(self.member.held)

    def teardown(self) -> None:
        """At the end all are back."""
        self.wants.requests = 0
        while self.in_flight:
            self.answer()
        self.flush()
        assert (set(), []) == (self.owned, self.member.held)


TestAnyOrder = AnyOrder.TestCase
