"""Being rate limited: it spends time and no attempts, and holds back all of a worker's requests."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.flow.request import Request
from spark_llm.policy import Policy
from spark_llm.protocol.values import Failure, Outcome, RowError
from tests.support.play import CHAT, REFUSED, Endpoint, Play, answer, begun, pack, rate_limited, texts

ROW, NEXT_ROW, LAST_ROW = pack(1), pack(2), pack(3)
AWAY = Failure(RowError("unavailable", 503, "starting", retryable=True), throttled=True)


def between(begins: float, ends: float, failure: Failure, rows: range = range(10_000)) -> Endpoint:
    """Make an endpoint that answers these rows with this failure, and all others normally."""

    def endpoint(request: Request, now: float, dice: random.Random) -> Outcome:
        refused = begins <= now < ends and request.inputs[0][0] in rows
        return failure if refused else answer(request)

    return endpoint


@pytest.mark.parametrize("failure", [REFUSED, AWAY, rate_limited(2.0)], ids=["429", "503", "Retry-After"])
@given(begins=st.sampled_from([0.0, 5.0]), seed=st.integers(0, 2**32))
def test_rate_limiting_spends_no_attempts(failure: Failure, begins: float, seed: int) -> None:
    """A minute of nothing but refusals loses no row, with a single try for each, from the first row on or later."""
    endpoint = between(begins, begins + 60.0, failure)
    play = Play(texts(100), endpoint, Policy(max_tries=1), CHAT, seed=seed)

    assert {} == play.errors
    assert len(play.sent) <= 100 * 10


@pytest.mark.waits
@pytest.mark.parametrize("failure", [REFUSED, AWAY, rate_limited(20.0)], ids=["429", "503", "Retry-After"])
@pytest.mark.parametrize("begins", [0.0, 5.0])
def test_rate_limiting_without_an_answer_stops_the_task(failure: Failure, begins: float) -> None:
    """The first row that gives up ends the others: they would fail as well, and all are retryable."""
    endpoint = between(begins, 1e9, failure)
    play = Play(texts(10_000), endpoint, Policy(give_up_after_s=60.0), CHAT)

    assert play.stopped is not None
    assert play.stopped.retryable
    assert {failure.error.kind} == {error.kind for error in play.errors.values()}
    assert begins + 15.0 <= play.now <= begins + 60.0 + 15.0


def test_a_row_that_gives_up_alone_stops_no_other() -> None:
    """Where others are answered meanwhile, it fails alone."""
    endpoint = between(0.0, 1e9, REFUSED, range(50, 51))
    play = Play(texts(300), endpoint, Policy(give_up_after_s=5.0, max_in_flight=4), CHAT)

    assert [50] == list(play.errors)
    assert "s of rate limiting (" in play.errors[50].message


def test_retry_after_holds_back_everything() -> None:
    """After a Retry-After no request of the worker goes before that time."""
    scheduler, negotiation = begun(Policy())
    scheduler.add("task", ROW, negotiation)
    scheduler.add("another task", NEXT_ROW, negotiation)
    first, second = scheduler.ready(0.0)
    scheduler.add("another task", LAST_ROW, negotiation)
    scheduler.on_answer(second, answer(second), 0.9, 0.9)
    scheduler.on_failure(first, rate_limited(9.0), 1.0, lambda: 0.0)

    assert [] == scheduler.ready(9.9)
    assert 10.0 == scheduler.next_due(1.0)
    assert scheduler.ready(10.0)


@pytest.mark.parametrize("give_up_after_s", [0.0, 60.0])
def test_a_retry_after_of_a_day_ends_its_row_alone(give_up_after_s: float) -> None:
    """A Retry-After beyond `give_up_after_s` ends its row; while others are answered, none waits for it."""
    failure = rate_limited(86_400.0) if give_up_after_s else REFUSED
    endpoint = between(0.0, 1e9, failure, range(50, 51))
    play = Play(texts(300), endpoint, Policy(give_up_after_s=give_up_after_s, max_in_flight=4), CHAT)

    assert {50: "rate_limited"} == {number: error.kind for number, error in play.errors.items()}
    assert 300 == len(play.sent)
    assert play.now < 300.0


@pytest.mark.parametrize("begins", [0.0, 5.0])
def test_a_retry_after_of_a_day_for_all_rows_stops_the_task(begins: float) -> None:
    """After three such responses, or up to 23 where a few rows were answered before, the other rows end with it."""
    endpoint = between(begins, 1e9, rate_limited(86_400.0))
    play = Play(texts(300), endpoint, Policy(max_in_flight=4), CHAT)

    assert 300 == len(play.results)
    assert len(play.sent) - (300 - len(play.errors)) <= (23 if begins else 3)
    assert all(error.retryable for error in play.errors.values())


def test_retry_after_does_not_hold_back_the_controller() -> None:
    """Answers during the pause still widen the window: it holds back requests, not the controller."""
    scheduler, negotiation = begun(Policy(max_in_flight=64))
    for number in range(100):
        scheduler.add("task", pack(number), negotiation)
    out = scheduler.ready(0.0)
    while scheduler.controller.window < 16:
        first = out.pop()
        scheduler.on_answer(first, answer(first), 0.0, 1.0)
        out += scheduler.ready(0.0)
    scheduler.on_failure(out.pop(), rate_limited(9.0), 0.0, lambda: 0.0)
    cut = scheduler.controller.window
    for request in out:
        scheduler.on_answer(request, answer(request), 1.0, 1.0)

    assert [] == scheduler.ready(1.0)
    assert cut < scheduler.controller.window
