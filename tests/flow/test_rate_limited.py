"""Being told to wait: it spends time and no tries, and holds back all of a worker's requests."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.flow.request import Request
from spark_llm.policy import Policy
from spark_llm.protocol.values import Failure, Outcome, RowError
from tests.support.play import CHAT, REFUSED, Endpoint, Play, answer, begun, pack, texts, told

ROW, NEXT_ROW, LAST_ROW = pack(1), pack(2), pack(3)
AWAY = Failure(RowError("unavailable", 503, "starting", retryable=True), throttled=True)


def between(begins: float, ends: float, failure: Failure, rows: range = range(10_000)) -> Endpoint:
    """Make an endpoint that tells these rows to wait for a time."""

    def endpoint(request: Request, now: float, dice: random.Random) -> Outcome:
        refused = begins <= now < ends and request.inputs[0][0] in rows
        return failure if refused else answer(request)

    return endpoint


@pytest.mark.parametrize("failure", [REFUSED, AWAY, told(2.0)], ids=["429", "503", "Retry-After"])
@given(begins=st.sampled_from([0.0, 5.0]), seed=st.integers(0, 2**32))
def test_being_told_to_wait_spends_no_tries(failure: Failure, begins: float, seed: int) -> None:
    """A minute of nothing but refusals loses no row, with a single try for each, from the first row on or later."""
    endpoint = between(begins, begins + 60.0, failure)
    play = Play(texts(100), endpoint, Policy(max_tries=1), CHAT, seed=seed)

    assert {} == play.errors
    assert len(play.sent) <= 100 * 10


@pytest.mark.parametrize("failure", [REFUSED, AWAY, told(20.0)], ids=["429", "503", "Retry-After"])
@pytest.mark.parametrize("begins", [0.0, 5.0])
def test_when_nothing_is_answered_for_all_the_patience_the_rest_is_stopped(failure: Failure, begins: float) -> None:
    """The first row that gives up takes the others with it: none of them would fare better, and all can come again."""
    endpoint = between(begins, 1e9, failure)
    play = Play(texts(10_000), endpoint, Policy(give_up_after_s=60.0), CHAT)

    assert play.stopped is not None
    assert play.stopped.retryable
    assert {failure.error.kind} == {error.kind for error in play.errors.values()}
    assert begins + 15.0 <= play.now <= begins + 60.0 + 15.0


def test_a_row_that_gives_up_alone_stops_nobody() -> None:
    """Where others are answered meanwhile, its end is its own."""
    endpoint = between(0.0, 1e9, REFUSED, range(50, 51))
    play = Play(texts(300), endpoint, Policy(give_up_after_s=5.0, max_in_flight=4), CHAT)

    assert [50] == list(play.errors)
    assert "s of rate limiting (" in play.errors[50].message


def test_retry_after_holds_back_everything() -> None:
    """A server that names a time is left alone until then, by every request of the worker."""
    schedule, form = begun(Policy())
    schedule.add("task", ROW, form)
    schedule.add("another task", NEXT_ROW, form)
    first, second = schedule.ready(0.0)
    schedule.add("another task", LAST_ROW, form)
    schedule.answered(second, answer(second), 0.9, 0.9)
    schedule.failed(first, told(9.0), 1.0, lambda: 0.0)

    assert [] == schedule.ready(9.9)
    assert 10.0 == schedule.next_due(1.0)
    assert schedule.ready(10.0)


@pytest.mark.parametrize("give_up_after_s", [0.0, 60.0])
def test_a_row_that_is_sent_away_until_tomorrow_holds_back_nobody(give_up_after_s: float) -> None:
    """A Retry-After beyond the patience ends the row that has it; while others are answered, none waits for it."""
    failure = told(86_400.0) if give_up_after_s else REFUSED
    endpoint = between(0.0, 1e9, failure, range(50, 51))
    play = Play(texts(300), endpoint, Policy(give_up_after_s=give_up_after_s, max_in_flight=4), CHAT)

    assert {50: "rate_limited"} == {number: error.kind for number, error in play.errors.items()}
    assert 300 == len(play.sent)
    assert play.now < 300.0


@pytest.mark.parametrize("begins", [0.0, 5.0])
def test_an_endpoint_that_sends_all_away_until_tomorrow_is_asked_a_few_times(begins: float) -> None:
    """Once three rows had such an answer, or eight after others were answered, the rest ends with it, unasked."""
    endpoint = between(begins, 1e9, told(86_400.0))
    play = Play(texts(300), endpoint, Policy(max_in_flight=4), CHAT)

    assert 300 == len(play.results)
    assert len(play.sent) - (300 - len(play.errors)) <= (8 if begins else 3)
    assert all(error.retryable for error in play.errors.values())


def test_retry_after_does_not_hold_back_the_controller() -> None:
    """Answers that come in while sending is held still widen the window: the hold is on sending, not on learning."""
    schedule, form = begun(Policy(max_in_flight=64))
    for number in range(100):
        schedule.add("task", pack(number), form)
    out = schedule.ready(0.0)
    while schedule.limit.window < 16:
        first = out.pop()
        schedule.answered(first, answer(first), 0.0, 1.0)
        out += schedule.ready(0.0)
    schedule.failed(out.pop(), told(9.0), 0.0, lambda: 0.0)
    cut = schedule.limit.window
    for request in out:
        schedule.answered(request, answer(request), 1.0, 1.0)

    assert [] == schedule.ready(1.0)
    assert cut < schedule.limit.window
