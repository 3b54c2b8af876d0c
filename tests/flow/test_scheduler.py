"""What to send next, and when: whole tasks against a simulated endpoint, on a simulated clock."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_llm.flow.controller import FlowController
from spark_llm.flow.negotiation import WireFormatNegotiation
from spark_llm.flow.scheduler import RequestScheduler
from spark_llm.policy import Policy
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Failure
from tests.support.play import (
    BAD_FORMAT,
    BROKEN,
    CHAT,
    COMPLETE,
    EMBED,
    GARBAGE,
    REFUSED,
    WRONG_COUNT,
    Play,
    Server,
    begun,
    pack,
    rate_limited,
    texts,
)

SHARES = st.sampled_from((0.0, 0.0, 0.05, 0.3))
SERVERS = st.builds(
    Server,
    bad_rows=st.frozensets(st.integers(0, 59), max_size=6),
    refused_formats=st.sampled_from([(), (), (0,), (0, 1)]),
    format_failure=st.sampled_from([BAD_FORMAT, WRONG_COUNT]),
    refused=SHARES,
    broken=SHARES,
    garbage=SHARES,
    outage=st.sampled_from([(0.0, 0.0), (0.0, 5.0), (3.0, 20.0), (10.0, 60.0)]),
)
POLICIES = st.builds(
    Policy,
    max_in_flight=st.integers(1, 24),
    max_tries=st.integers(1, 5),
    give_up_after_s=st.sampled_from((0.0, 1.0, 30.0)),
    batch_size=st.integers(1, 16),
    requests_per_minute=st.sampled_from([None, None, 30.0, 600.0]),
    tokens_per_minute=st.sampled_from([None, None, 100.0, 6_000.0]),
)
TASKS = st.sampled_from([CHAT, COMPLETE, EMBED])
JOURNEYS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32),
        "start": st.floats(0, 1e6),
        "latency_s": st.sampled_from([(0.05, 2.0), (0.0, 0.0), (5.0, 5.0), (1.0, 30.0)]),
    }
)
ROW, NEXT_ROW, LAST_ROW = pack(1), pack(2), pack(3)


@settings(max_examples=settings().max_examples * 3)
@given(st.integers(0, 60), SERVERS, POLICIES, TASKS, JOURNEYS)
def test_every_row_is_settled_once_whatever_the_endpoint_does(
    rows: int, server: Server, policy: Policy, task: Task, journey: dict[str, Any]
) -> None:
    """No row is lost or sent after its answer, and each gets its own; tokens and requests add up."""
    play = Play(texts(rows), server, policy, task, **journey)
    answers = {number: result.text for number, result in play.results.items() if result.error is None}

    assert list(range(rows)) == sorted(play.results)
    assert {number: f"answer {number}" for number in answers} == answers
    assert not set(server.bad_rows) & answers.keys()
    assert play.billed == play.received
    assert len(play.sent) == sum(result.requests for result in play.results.values())
    assert (0, 0) == (play.controller.in_flight, len(play.scheduler))


@given(st.integers(1, 60), SERVERS, POLICIES, TASKS, st.integers(0, 2**32))
def test_the_number_of_requests_is_bounded(rows: int, server: Server, policy: Policy, task: Task, seed: int) -> None:
    """Without refusals and outages a row costs its attempts and its halvings, in either wire format, and no more."""
    calm = replace(server, refused=0.0, outage=(0.0, 0.0))
    play = Play(texts(rows), calm, policy, task, seed=seed)

    assert len(play.sent) <= 2 * rows * (policy.max_tries + 2)


@given(st.integers(0, 200), st.integers(1, 70), st.integers(1, 64), TASKS)
def test_a_sound_endpoint_is_asked_once_a_batch(rows: int, batch_size: int, ceiling: int, task: Task) -> None:
    """Where nothing goes wrong, a request is sent once, and no row is tried twice."""
    most = task.max_inputs(0, batch_size)
    play = Play(texts(rows), Server(), Policy(max_in_flight=ceiling, batch_size=batch_size), task)

    assert [list(range(rows))[at : at + most] for at in range(0, rows, most)] == sorted(s.rows for s in play.sent)
    assert {1} >= {result.attempts for result in play.results.values()}


@given(st.sampled_from([1.0, 7.0, 30.0, 90.0]), st.integers(0, 2**32))
def test_no_minute_sees_more_requests_than_its_quota(per_minute: float, seed: int) -> None:
    """Whatever minute is looked at, no more requests begin in it than the user allows, attempts included."""
    server = Server(broken=0.2, refused=0.1)
    play = Play(texts(100), server, Policy(requests_per_minute=per_minute), CHAT, seed=seed)
    begins = [sent.at for sent in play.sent]

    assert max(sum(at <= other < at + 60 for other in begins) for at in begins) <= per_minute


@pytest.mark.parametrize("answered", [True, False], ids=["answered", "nothing answered"])
@pytest.mark.parametrize(
    "failure", [REFUSED, rate_limited(3.0), BROKEN, GARBAGE], ids=lambda failure: failure.error.kind
)
def test_what_is_not_the_inputs_fault_never_splits_a_batch(failure: Failure, *, answered: bool) -> None:
    """A batch that was rate limited, or broke off, is sent again whole."""
    policy = Policy()
    fresh = RequestScheduler(FlowController(policy), policy), WireFormatNegotiation(EMBED, 64)
    scheduler, negotiation = begun(policy, EMBED) if answered else fresh
    inputs = pack(*range(8))
    scheduler.add("task", inputs, negotiation)
    for try_ in range(3):
        (request,) = scheduler.ready(100.0 * try_)
        assert None is scheduler.on_failure(request, failure, 100.0 * try_, lambda: 0.5)
        assert inputs == request.inputs
        assert 1 == len(scheduler)


def test_a_waiting_retry_holds_no_slot() -> None:
    """While one request waits out a refusal, another may start."""
    scheduler, negotiation = begun(Policy(max_in_flight=1))
    scheduler.add("task", ROW, negotiation)
    scheduler.add("task", NEXT_ROW, negotiation)
    (first,) = scheduler.ready(0.0)
    scheduler.on_failure(first, REFUSED, 0.0, lambda: 0.8)

    assert [NEXT_ROW] == [request.inputs for request in scheduler.ready(0.0)]
    assert [] == scheduler.ready(0.2)


def test_a_retry_whose_time_has_come_goes_first() -> None:
    """A row that was rate limited is not put behind all those that were never sent."""
    scheduler, negotiation = begun(Policy(max_in_flight=1))
    for row in (ROW, NEXT_ROW, LAST_ROW):
        scheduler.add("task", row, negotiation)
    (first,) = scheduler.ready(0.0)
    scheduler.on_failure(first, REFUSED, 0.0, lambda: 0.8)

    assert [first] == scheduler.ready(0.2)
    assert 2 == first.attempts.sent


def test_before_the_first_answer_a_new_row_waits_for_the_retry() -> None:
    """As long as nothing was answered, the row that was asked first is asked again before any other."""
    scheduler, negotiation = RequestScheduler(FlowController(Policy()), Policy()), WireFormatNegotiation(CHAT, 1)
    scheduler.add("task", ROW, negotiation)
    scheduler.add("task", NEXT_ROW, negotiation)
    (first,) = scheduler.ready(0.0)
    scheduler.on_failure(first, BROKEN, 0.0, lambda: 0.8)

    assert [] == scheduler.ready(0.3)
    assert 0.4 == scheduler.next_due(0.3)
    assert [first] == scheduler.ready(0.4)


def test_no_time_is_named_where_only_an_outcome_helps() -> None:
    """With every slot taken, or nothing in the queue, there is no next time."""
    scheduler, negotiation = begun(Policy(max_in_flight=1))
    before = scheduler.next_due(0.0)
    scheduler.add("task", ROW, negotiation)
    scheduler.add("task", NEXT_ROW, negotiation)
    scheduler.ready(0.0)

    assert [None, None] == [before, scheduler.next_due(0.0)]


def test_one_tasks_silence_does_not_hide_anothers_retry() -> None:
    """The time returned is the earliest of all: a retry's, where the first new request has to wait."""
    scheduler, negotiation = begun(Policy(), owner="known")
    silent = WireFormatNegotiation(CHAT, 1)
    scheduler.add("known", ROW, negotiation)
    (known,) = scheduler.ready(0.0)
    scheduler.add("silent", ROW, silent)
    scheduler.add("silent", NEXT_ROW, silent)
    scheduler.ready(0.0)
    scheduler.on_failure(known, BROKEN, 0.0, lambda: 0.8)

    assert 0.4 == scheduler.next_due(0.0)
    assert [known] == scheduler.ready(0.4)


def test_drop_removes_the_requests_of_one_owner() -> None:
    """A task that ends removes its own requests from the queue, sent before or not, and nothing else."""
    scheduler, negotiation = begun(Policy(max_in_flight=1))
    scheduler.add("leaves", ROW, negotiation)
    scheduler.add("stays", NEXT_ROW, negotiation)
    scheduler.add("leaves", LAST_ROW, negotiation)
    (waiting,) = scheduler.ready(0.0)
    scheduler.on_failure(waiting, BROKEN, 0.0, lambda: 0.9)
    dropped = scheduler.drop("leaves")

    assert [ROW, LAST_ROW] == sorted(request.inputs for request in dropped)
    assert [NEXT_ROW] == [request.inputs for request in scheduler.ready(100.0)]
    assert 0 == len(scheduler)


def test_a_cancelled_request_frees_its_slot() -> None:
    """A cancelled request is not in flight any more, and says nothing about the endpoint."""
    scheduler, negotiation = begun(Policy())
    window = scheduler.controller.window
    scheduler.add("task", ROW, negotiation)
    (request,) = scheduler.ready(0.0)
    scheduler.on_cancel(request)

    assert (0, window, 0) == (scheduler.controller.in_flight, scheduler.controller.window, negotiation.in_flight)
