"""A service tier without room: rows wait as for a rate limit, and neither the window nor the job ends by it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.flow.controller import FlowController
from spark_llm.flow.retry_budget import MIN_REQUESTS, Shortage
from spark_llm.policy import Policy
from tests.support.play import CHAT, Endpoint, Play, answer, begun, pack, texts
from tests.support.servers import SHORT, Concurrency, Flex, Latency, Steps
from tests.support.simulation import Job


def tier(short: Steps, seed: int = 7) -> Flex:
    """Return a tier of a large endpoint that is short at times."""
    return Flex(Concurrency(Latency(seed), ((0, 200),)), short, seed)


def refusing(begins: float, ends: float) -> Endpoint:
    """Return an endpoint whose tier has no room between two times."""
    return lambda request, now, _: SHORT if begins <= now < ends else answer(request)


@pytest.mark.waits
@pytest.mark.parametrize(("short", "share"), [(0.3, 0.5), (0.6, 0.4)])
def test_a_tier_that_refuses_many_at_random_is_used_as_far_as_it_goes(short: float, share: float) -> None:
    """The window does not close (as it would for a rate limit: to a hundredth of this), and no row fails."""
    job = Job(tier(((0, short),)), 4_000)

    assert 0 == job.failed
    assert job.share(0.8) > share  # of all that the endpoint could do; the rest of the rows waits in its own pauses
    assert job.requests_per_row < 1.1 / (1 - short)


@pytest.mark.waits
@pytest.mark.parametrize("short", [((0, 1.0), (130, 0.0)), ((0, 0.0), (10, 1.0), (130, 0.0))])
def test_a_tier_that_is_gone_for_minutes_is_back_at_once(short: Steps) -> None:
    """Meanwhile single requests look for it; afterwards the window is as wide as before."""
    job = Job(tier(short), 10_000)

    assert 0 == job.failed
    assert job.requests_per_row < 1.25
    assert job.share(0.9) > 0.65


@pytest.mark.waits
def test_a_tier_with_room_for_a_number_is_not_stormed() -> None:
    """About that number is in flight, though no refusal says so."""
    job = Job(Concurrency(Latency(7, 2.0), ((0, 40),), short=True), 4_000)

    assert 0 == job.failed
    assert job.share(0.8) > 0.9
    assert job.requests_per_row < 7


def test_a_row_waits_for_the_tier_as_long_as_for_a_rate_limit() -> None:
    """No attempt is spent; after `give_up_after_s` without an answer the others end too, and all may be asked again."""
    passed = Play(texts(100), refusing(5.0, 65.0), Policy(max_tries=1), CHAT)
    stopped = Play(texts(1_000), refusing(5.0, 1e9), Policy(give_up_after_s=60.0), CHAT)

    assert {} == passed.errors
    assert stopped.stopped is not None
    assert stopped.stopped.retryable
    assert {"rate_limited"} == {error.kind for error in stopped.errors.values()}
    assert "s of rate limiting (" in stopped.stopped.message
    assert "Resource Unavailable" in stopped.stopped.message
    assert 65.0 <= stopped.now <= 90.0


def test_a_shortage_is_no_sign_that_the_window_is_too_wide() -> None:
    """After it the window is what it was, and the refusals are what limits the requests meanwhile."""
    scheduler, negotiation = begun(Policy())
    controller = scheduler.controller
    assert isinstance(controller, FlowController)
    for number in range(200):
        scheduler.add("task", pack(number), negotiation)
    now, out = 0.0, scheduler.ready(0.0)
    while controller.window < 64:
        now += 0.1
        request = out.pop(0)
        scheduler.on_answer(request, answer(request), now, 0.1)
        out += scheduler.ready(now)
    window = controller.window
    for request in out:
        scheduler.on_failure(request, SHORT, now, lambda: 0.5)

    assert window == controller.window
    assert ("refusals", 0) == (controller.limited_by(now, 100), controller.available(now))
    [probe] = scheduler.ready(now + 10.0)
    scheduler.on_answer(probe, answer(probe), now + 11.0, 1.0)
    assert controller.outage_since is None
    assert len(scheduler.ready(now + 11.0)) >= window // 2


OUTCOMES = st.lists(st.tuples(st.booleans(), st.integers(1, 600)), max_size=300)


@given(OUTCOMES)
def test_half_of_the_window_always_stays(outcomes: list[tuple[bool, int]]) -> None:
    """However many requests are refused; without refusals nothing is held back."""
    shortage, least = Shortage(), 0.0
    for answered, window in outcomes:
        if answered:
            shortage.on_answer(window)
        else:
            least = least if shortage.is_on else max(MIN_REQUESTS, window / 2)
            shortage.on_refusal(window)
        room = shortage.room(0)

        assert shortage.is_on == (room < math.inf)
        assert room >= least or not shortage.is_on
        assert shortage.room(10_000) in (0.0, math.inf)


@given(st.integers(33, 600), st.integers(1, 100))
def test_a_shortage_ends_with_a_quarter_as_many_answers(window: int, refusals: int) -> None:
    """Four refusals cost one request in flight, and an answer gives it back."""
    shortage = Shortage()
    for _ in range(refusals):
        shortage.on_refusal(window)
    needed = 0
    while shortage.is_on:
        shortage.on_answer(window)
        needed += 1

    assert min(math.ceil(refusals / 4), math.ceil(window / 2)) == needed
