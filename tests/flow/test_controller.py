"""What a controller says of an endpoint: whether a request may go, and what keeps more of them from going."""

import pytest

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

    assert "a window that still grows" == controller.limited_by(now)


def test_max_in_flight_is_the_limit_once_it_is_reached() -> None:
    """It is named, not the window."""
    controller, now = grown(Policy(max_in_flight=4), 20)
    fill(controller, now)

    assert "max_in_flight" == controller.limited_by(now)


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

    assert name == controller.limited_by(now)


def test_rows_that_come_too_slowly_are_the_limit_of_an_idle_window() -> None:
    """More could go, and nothing waits."""
    controller, now = grown(Policy(), 20)

    assert "Spark: rows come too slowly" == controller.limited_by(now)


def test_refusals_and_pauses_of_the_endpoint_are_named() -> None:
    """A refused window, a Retry-After and an outage each have their words."""
    controller, now = grown(Policy(), 60)
    for permit in fill(controller, now):
        controller.on_rate_limited(permit, now)
    assert 0 < len(fill(controller, now))
    assert ("the endpoint's refusals", 0.0) == (controller.limited_by(now), controller.paused_until)

    controller.on_rate_limited(controller.acquire(now), now, pause_s=3.0, paused=True)
    assert ("the endpoint's Retry-After", now + 3.0) == (controller.limited_by(now), controller.resumes_at(now))


def test_an_outage_lets_one_probe_go() -> None:
    """After as many faults as the budget has, one request looks for the end, and nothing goes beside it."""
    controller, now = grown(Policy(), 60)
    for permit in fill(controller, now)[:BUDGET]:
        controller.on_fault(permit, now, 0.5)

    assert ("an outage of the endpoint", 0) == (controller.limited_by(now), controller.available(now))
    now = controller.resumes_at(now) or 0.0
    assert 1 == controller.available(now)
    probe = controller.acquire(now)
    assert (True, None, 0) == (probe.is_probe, controller.resumes_at(now), controller.available(now))
    controller.on_inconclusive(probe)
    assert 1 == controller.available(now)
