"""What a controller says of an endpoint: whether a request may go, and what keeps more of them from going."""

from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.flow.controller import FlowController
from spark_llm.flow.limiter import Permit
from spark_llm.flow.retry_budget import BUDGET
from spark_llm.policy import Policy

LATENCY_S = 0.1


def fill(controller: FlowController, now: float) -> list[Permit]:
    """Send as much as may go."""
    sent = []
    while controller.available(now):
        sent.append(controller.acquire(now, characters=60))
    return sent


def grown(policy: Policy, answers: int) -> tuple[FlowController, float]:
    """Return a controller after so many answers, and the time."""
    controller, now = FlowController(policy), 0.0
    while answers > 0:
        sent = fill(controller, now)
        now += LATENCY_S
        for permit in sent:
            controller.on_answer(permit, now, LATENCY_S, tokens=60.0)
        answers -= len(sent)
        now = max(now, controller.opens_at(now) or now)
    return controller, now


def test_a_window_that_grows_is_the_limit_of_the_beginning() -> None:
    """With the window full and no refusal yet, only answers let more go."""
    controller, now = grown(Policy(), 20)
    fill(controller, now)

    assert "slow_start" == controller.limited_by(now, 1)


def test_max_in_flight_is_the_limit_once_it_is_reached() -> None:
    """It is named, not the window."""
    controller, now = grown(Policy(max_in_flight=4), 20)
    fill(controller, now)

    assert "max_in_flight" == controller.limited_by(now, 1)


@pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute"])
def test_a_quota_that_is_spent_is_named(name: str) -> None:
    """Slots are free, and the quota is not."""
    controller, now = grown(
        Policy(
            requests_per_minute=600 if name.startswith("r") else None,
            tokens_per_minute=600 if name.startswith("t") else None,
        ),
        12,
    )
    fill(controller, now)

    assert (name, None) == (controller.limited_by(now, 1), controller.limited_by(now, 0))


def test_the_quota_that_holds_for_longest_is_named() -> None:
    """Both are spent, the tokens by far."""
    controller, now = grown(Policy(requests_per_minute=600, tokens_per_minute=600), 12)
    controller.acquire(now, characters=6_000)

    assert "tokens_per_minute" == controller.limited_by(now, 1)


@given(st.integers(0, 200), st.integers(0, 64))
def test_nothing_limits_an_idle_window(answers: int, waiting: int) -> None:
    """More could go, whatever waits."""
    controller, now = grown(Policy(), answers)

    assert controller.limited_by(now, waiting) is None
    assert controller.available(now) > 0


def test_refusals_and_pauses_of_the_endpoint_are_named() -> None:
    """A refused window, a Retry-After and an outage each have their words."""
    controller, now = grown(Policy(), 60)
    for permit in fill(controller, now):
        controller.on_rate_limited(permit, now)
    assert 0 < len(fill(controller, now))
    assert ("refusals", 0.0) == (controller.limited_by(now, 1), controller.paused_until)

    controller.on_rate_limited(controller.acquire(now), now, pause_s=3.0, paused=True)
    assert ("retry_after", now + 3.0) == (controller.limited_by(now, 0), controller.resumes_at(now))
    assert "refusals" == controller.limited_by(now + 3.1, 1)  # the rate that it taught


def test_an_outage_lets_one_probe_go() -> None:
    """After as many faults as the budget has, one request looks for the end, and nothing goes beside it."""
    controller, now = grown(Policy(), 60)
    for permit in fill(controller, now)[:BUDGET]:
        controller.on_fault(permit, now, 0.5)

    assert ("outage", 0) == (controller.limited_by(now, 0), controller.available(now))
    now = controller.resumes_at(now) or 0.0
    assert 1 == controller.available(now)
    probe = controller.acquire(now)
    assert (True, None, 0) == (probe.is_probe, controller.resumes_at(now), controller.available(now))
    controller.on_inconclusive(probe)
    assert 1 == controller.available(now)


def reasons_of(
    controller: FlowController, answers: int, latency_of: Callable[[int], float], capacity: int
) -> list[str]:
    """Answer or refuse the oldest request and send the next, again and again; return what limited it, in order."""
    sent, now, reasons = deque[Permit](), 0.0, dict[str, None]()
    for _ in range(answers):
        sent.extend(fill(controller, now))
        if (reason := controller.limited_by(now, 1)) is not None:
            reasons[reason] = None
        if not sent:
            now = controller.opens_at(now) or now
            continue
        permit = sent.popleft()
        now += LATENCY_S / (len(sent) + 1)
        if permit.level > capacity:
            controller.on_rate_limited(permit, now)
        else:
            controller.on_answer(permit, now, latency_of(permit.level))
    return list(reasons)


def test_the_queue_of_an_endpoint_is_the_limit_where_more_would_wait_there() -> None:
    """Latency grows with each request in flight beyond ten."""
    reasons = reasons_of(FlowController(Policy()), 2_000, lambda level: LATENCY_S * max(1.0, level / 10), 512)

    assert ["slow_start", "queue"] == reasons


def test_refusals_that_have_stopped_are_no_limit_any_more() -> None:
    """A window that doubles past the ceiling that they taught is in slow start again."""
    controller = FlowController(Policy())
    assert ["slow_start", "refusals"] == reasons_of(controller, 2_000, lambda _: LATENCY_S, 20)
    learned = controller.snapshot(0.0)
    successors = [FlowController(Policy()), FlowController(Policy())]
    for successor, slow_start_from in zip(successors, (None, 4.0), strict=True):
        learned["limiter"]["cubic"][-1] = slow_start_from
        successor.restore(learned, 0.0, 0.0)
        fill(successor, 0.0)

    assert ["refusals", "slow_start"] == [successor.limited_by(0.0, 1) for successor in successors]


def test_the_peak_in_flight_is_that_since_the_last_look() -> None:
    """Requests that are over count for the look after them, those that go on for the next too."""
    controller = FlowController(Policy())
    controller.widen(5)
    permits = [controller.acquire(0.0) for _ in range(5)]
    for permit in permits[:3]:
        controller.on_answer(permit, 1.0, 1.0)

    assert (5, 2, 2) == tuple(controller.take_peak_in_flight() for _ in range(3))
