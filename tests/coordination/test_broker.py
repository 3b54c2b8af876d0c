"""The permits of a host, as the messages of its members change them."""

import json
import math
from collections.abc import Iterator

import pytest

from spark_llm.coordination.broker import PermitBroker
from spark_llm.coordination.fairness import SILENT_S
from spark_llm.coordination.member import Demand, PermitMember
from spark_llm.coordination.messages import Kind, Message
from spark_llm.flow.controller import FlowController
from spark_llm.policy import Policy

FIVE = Policy(max_in_flight=5)
NAN = math.nan


def opened(policy: Policy = FIVE, own: int = 0, connections: float = math.inf) -> PermitBroker:
    """Return a broker whose window is as wide as the policy allows, and whose own worker wants so many requests."""
    broker = PermitBroker(FlowController(policy), lambda: Demand(own, 0, 1), lambda: 0.0, connections)
    broker.widen(policy.ceiling)
    return broker


def joined(broker: PermitBroker, *keys: int) -> None:
    """Let members join that hold nothing."""
    for key in keys:
        broker.join(key, [], 0.0)


def want(broker: PermitBroker, key: int, requests: int, characters: int = 0, now: float = 0.0) -> None:
    """Let a member want so many permits in all."""
    broker.receive(key, [Message(Kind.WANT, requests, characters, 1)], now)


def begin_outage(broker: PermitBroker) -> None:
    """Let eight requests of an earlier time fail."""
    for _ in range(8):
        broker.controller.on_fault(broker.controller.acquire(0.0), 0.0, 0.0)


def permits(broker: PermitBroker, now: float = 0.0) -> dict[int, list[int]]:
    """Return the numbers of the permits that are granted now, by member."""
    granted = {
        key: [message.number for message in messages if message.kind == Kind.GRANT]
        for key, messages in broker.grants(now).items()
    }
    return {key: numbers for key, numbers in granted.items() if numbers}


def asked_back(broker: PermitBroker, now: float) -> set[int]:
    """Return the members that are asked for a permit now."""
    return {
        key for key, messages in broker.grants(now).items() if any(message.kind == Kind.RETURN for message in messages)
    }


def test_permits_are_handed_out_evenly_and_never_beyond_the_limit() -> None:
    """Five permits for three members are two, two and one."""
    broker = opened()
    joined(broker, 1, 2, 3)
    for key in (1, 2, 3):
        want(broker, key, 9)

    assert [1, 2, 2] == sorted(len(numbers) for numbers in permits(broker).values())
    assert {} == permits(broker)
    assert 5 == broker.controller.in_flight


def test_a_slow_first_answer_of_one_worker_does_not_hold_the_others() -> None:
    """The window is one request until it is answered; after a second without an outcome each worker may have one."""
    broker = PermitBroker(FlowController(Policy()), lambda: Demand(9, 0, 1), lambda: 0.0)
    joined(broker, 1, 2)
    broker.renew(0.0, math.inf)
    broker.acquire(0.0)
    for key in (1, 2):
        want(broker, key, 9)

    assert {} == permits(broker, 1.0)
    assert {1: 1, 2: 1} == {key: len(numbers) for key, numbers in permits(broker, 1.1).items()}
    assert {} == permits(broker, 9.0)


@pytest.mark.parametrize("outcome", ["answer", "fault", "refusal"])
def test_an_outcome_of_the_own_worker_says_that_answers_are_not_slow(outcome: str) -> None:
    """Whatever it is: the window does not grow before another second without one."""
    broker = PermitBroker(FlowController(Policy()), lambda: Demand(9, 0, 1), lambda: 0.0)
    joined(broker, 1)
    broker.renew(0.0, math.inf)
    broker.adopt(2, 0.0)
    permit = broker.acquire(0.0)
    want(broker, 1, 9)
    if outcome == "answer":
        broker.on_answer(permit, 0.9)
    elif outcome == "fault":
        broker.on_fault(permit, 0.9, 0.0)
    else:
        broker.on_rate_limited(permit, 0.9)

    assert {} == permits(broker, 1.5)
    assert {1: 1} == {key: len(numbers) for key, numbers in permits(broker, 2.0).items()}


@pytest.mark.parametrize("worker", ["its own", "a member"])
def test_a_tier_without_room_cuts_no_window_of_any_worker(worker: str) -> None:
    """A member's refusal is told to the broker as what it is; single requests look for the end of it."""
    broker = opened(Policy())
    joined(broker, 1)
    want(broker, 1, 8)
    if worker == "a member":
        member = PermitMember(lambda: Demand(8, 0, 1))
        member.receive([told for told in broker.grants(0.0)[1] if told.kind == Kind.GRANT], 0.0)
        for permit in [member.acquire(0.0) for _ in range(8)]:
            member.on_fault(permit, 0.0, 0.0, short=True)
        broker.receive(1, [told for told in member.flush() if told.kind == Kind.FAULT], 0.0)
    else:
        for permit in [broker.acquire(0.0) for _ in range(8)]:
            broker.on_fault(permit, 0.0, 0.0, short=True)

    assert "refusals" == broker.controller.limited_by(0.0, 9)
    assert (512, 0.0) == (broker.controller.window, broker.outage_since)


def test_a_want_that_crosses_a_grant_is_not_served_twice() -> None:
    """WANT names all grants since the connection began, with those that were on their way to the member."""
    broker = opened(Policy())
    joined(broker, 1)
    want(broker, 1, 1)
    assert 1 == len(permits(broker)[1])
    want(broker, 1, 1, now=0.1)  # it was sent before the grant arrived

    assert {} == permits(broker, 0.1)


def test_the_own_worker_waits_for_members_that_have_fewer() -> None:
    """It is told no time: it is woken when the member was served."""
    broker = opened(own=9)
    woken: list[bool] = []
    broker.on_due = lambda: woken.append(True)
    joined(broker, 1)
    broker.acquire(0.0)
    want(broker, 1, 9)

    assert (0, None) == (broker.available(0.0), broker.opens_at(0.0))
    assert [True] == woken
    assert 2 == len(permits(broker)[1])
    assert 2 == broker.available(0.0)


def test_the_own_worker_takes_turns_under_a_quota() -> None:
    """Permits that come one by one go to members too, though the own worker could take each one first."""
    broker = opened(Policy(requests_per_minute=60), own=9)
    joined(broker, 1, 2)
    served: list[int] = []
    for second in range(0, 60, 2):
        for key in (1, 2):
            want(broker, key, 99)
        granted = permits(broker, float(second))
        served += granted
        if not granted and broker.available(float(second)):
            broker.on_inconclusive(broker.acquire(float(second)))
            served.append(0)
        for key, numbers in granted.items():
            broker.receive(key, [Message(Kind.INCONCLUSIVE, number) for number in numbers], float(second))

    assert [10, 10, 10] == [served.count(key) for key in (0, 1, 2)]


def test_the_own_worker_opens_no_more_connections_than_it_may() -> None:
    """At its limit only an outcome helps."""
    broker = opened(own=9, connections=1)
    broker.acquire(0.0)

    assert (0, None) == (broker.available(0.0), broker.opens_at(0.0))


def test_the_own_worker_gets_a_permit_of_members_that_keep_theirs() -> None:
    """Members have all permits and use them again and again; then the own worker has rows."""
    wants: list[int] = [0]
    broker = PermitBroker(FlowController(FIVE), lambda: Demand(wants[0], 0, 1), lambda: 0.0)
    broker.widen(5)
    joined(broker, 1)
    want(broker, 1, 9)
    permits(broker)
    assert set() == asked_back(broker, 1.0)
    wants[0] = 9

    assert {1} == asked_back(broker, 1.1)


def test_a_member_without_a_permit_waits_for_no_slow_request() -> None:
    """Each member that has one is asked: the first answer of any of them frees it."""
    broker = opened()
    joined(broker, *range(1, 7))
    for key in range(1, 7):
        want(broker, key, 9)

    assert dict.fromkeys(range(1, 6), 1) == {key: len(numbers) for key, numbers in permits(broker).items()}
    assert {1, 2, 3, 4, 5} == {key for key, member in broker.members.items() if member.to_return}


def test_the_permits_of_a_member_that_leaves_are_back_at_once() -> None:
    """A killed worker's connection ends; others are served in its place."""
    broker = opened()
    joined(broker, 1, 2)
    want(broker, 1, 5)
    permits(broker)
    broker.leave(1)
    want(broker, 2, 5)

    assert 5 == len(permits(broker)[2])


def test_a_probe_whose_worker_died_is_sent_again() -> None:
    """An outage does not wait for an outcome that nobody will tell."""
    broker = opened()
    begin_outage(broker)
    joined(broker, 1, 2)
    want(broker, 1, 9)
    want(broker, 2, 9)
    assert {1: 1} == {key: len(numbers) for key, numbers in permits(broker, 1.0).items()}
    assert {} == permits(broker, 1.0)
    broker.leave(1)

    assert {2: 1} == {key: len(numbers) for key, numbers in permits(broker, 1.0).items()}


def test_requests_of_an_earlier_broker_are_no_probes() -> None:
    """In an outage they do not hold back the probe of the new one."""
    broker = opened()
    begin_outage(broker)
    broker.join(1, [7, 8], 1.0)
    want(broker, 1, 9, now=1.0)

    assert 1 == len(permits(broker, 1.0)[1])


def test_requests_of_an_earlier_broker_are_not_charged_again() -> None:
    """Its quotas were charged for them, and the new ones begin empty."""
    broker = opened(Policy(requests_per_minute=60, tokens_per_minute=6_000))
    broker.adopt(5, 0.0)
    broker.hand_over.reserve(5, 0.0)
    broker.join(1, [7, 8], 0.0)
    broker.receive(1, [Message(Kind.ANSWERED, 7, 0.5, 5_000)], 0.0)

    assert 0.0 == broker.controller.opens_at(0.0)
    assert 1.0 == broker.snapshot(0.0)["controller"]["limiter"]["tokens_per_character"]


def test_a_permit_that_was_not_used_is_not_charged() -> None:
    """The next one goes at once."""
    broker = opened(Policy(requests_per_minute=60, tokens_per_minute=6_000))
    joined(broker, 1)
    want(broker, 1, 1, characters=500)
    [number] = permits(broker)[1]
    assert 0 == broker.controller.available(0.5)
    broker.receive(1, [Message(Kind.UNUSED, number)], 0.0)

    assert 0.0 == broker.controller.opens_at(0.0)


def test_a_request_is_charged_for_its_own_characters() -> None:
    """It was longer than the one that was announced, or shorter."""
    longer, shorter = opened(Policy(tokens_per_minute=6_000)), opened(Policy(tokens_per_minute=6_000))
    for broker, characters in ((longer, 1_000), (shorter, 100)):
        joined(broker, 1)
        want(broker, 1, 1, characters=500)
        [number] = permits(broker)[1]
        broker.receive(1, [Message(Kind.SENT, number, characters)], 0.0)

    assert pytest.approx(9 * 100 / 98.34, rel=0.05) == longer.opens_at(0.0)
    assert pytest.approx(0.0, abs=0.1) == shorter.opens_at(0.0)


def test_a_second_outcome_of_a_permit_changes_nothing() -> None:
    """Nor does one of a permit that the member never had."""
    broker = opened()
    joined(broker, 1)
    want(broker, 1, 1)
    [number] = permits(broker)[1]
    for _ in range(3):
        broker.receive(1, [Message(Kind.ANSWERED, number, 0.5, NAN), Message(Kind.FAULT, 99)], 0.5)

    assert 0 == broker.controller.in_flight


def test_a_new_broker_waits_for_what_the_others_hold() -> None:
    """It grants nothing before its time is over, or all members of the earlier one have joined."""
    broker = opened(own=9)
    broker.hand_over.held_until = 0.3
    broker.join(1, [3, 4, 5], 0.1)
    want(broker, 1, 9)

    assert (0, 0.3, {}) == (broker.available(0.1), broker.opens_at(0.1), permits(broker, 0.1))
    assert 2 == broker.available(0.3)


def test_numbers_do_not_collide_after_a_hand_over() -> None:
    """New permits have higher numbers than all that members brought with them."""
    broker = opened()
    broker.join(1, [900, 7], 0.0)
    want(broker, 1, 9)

    assert [901, 902, 903] == permits(broker)[1]


def test_requests_in_flight_end_once_whatever_their_worker_was_before() -> None:
    """Member, broker, member and broker again: each outcome frees one slot of the present controller."""
    member = PermitMember(lambda: Demand(9))
    member.receive([Message(Kind.GRANT, 1, 1, 1)], 0.0)
    earlier, present = opened(), opened()
    in_flight = [member.acquire(0.0), earlier.acquire(1.0)]
    present.adopt(2, 2.0)
    in_flight.append(present.acquire(3.0))
    for permit in in_flight:
        present.on_answer(permit, 4.0, 0.5)

    assert (0, 0) == (present.in_flight, present.controller.in_flight)


def test_a_broker_that_stood_still_grants_nothing_before_it_knows_its_place() -> None:
    """Its lease is over, and only a sign of life renews it."""
    broker = opened(own=9)
    joined(broker, 1)
    broker.renew(0.0, 1.5)
    want(broker, 1, 9)

    assert ({}, 0, None) == (permits(broker, 2.0), broker.available(2.0), broker.opens_at(2.0))
    broker.renew(2.5, 4.0)
    assert 5 == len(permits(broker, 2.6)[1]) + broker.available(2.6)


def seconds(until: float) -> Iterator[float]:
    """Yield a time each half second."""
    yield from (step / 2 for step in range(int(until * 2) + 1))


def test_a_member_that_stands_still_loses_its_permits() -> None:
    """Its requests may be worked on for twice the mean latency, where others can go on without its permits."""
    alone, beside = opened(), opened()
    for broker in (alone, beside):
        broker.controller.limiter.latency_s = 3.0
        joined(broker, 1)
        want(broker, 1, 2)
        permits(broker)
    beside.acquire(0.0)

    assert SILENT_S + 0.5 == next(now for now in seconds(9.0) if alone.silent_members(now))
    assert 6.5 == next(now for now in seconds(9.0) if beside.silent_members(now))


def test_a_snapshot_is_json_and_a_successor_goes_on_from_it() -> None:
    """It has the window that was found, and what its own worker had in flight."""
    broker = opened(own=1)
    joined(broker, 1, 2)
    broker.acquire(0.0)
    state = json.loads(json.dumps(broker.snapshot(1.0)))
    successor = FlowController(FIVE)
    successor.restore(state["controller"], 0.2, 5.0)

    assert (5, 1) == (successor.window, state["own"])
