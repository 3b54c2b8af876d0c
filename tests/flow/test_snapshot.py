"""What a limiter has learned, written down and read by another process."""

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.flow.controller import FlowController
from spark_llm.flow.limiter import Permit
from spark_llm.policy import Policy
from tests.flow.test_simulation import FORTY, concurrency, fifty_a_second, metered, queue
from tests.support.simulation import Job

MALFORMED = (ValueError, TypeError, KeyError, IndexError, AttributeError)


def learned(endpoint: Any, policy: Policy | None = None) -> FlowController:  # noqa: ANN401 -- a function of the seed
    """Return a controller that has played a job."""
    controllers: list[FlowController] = []

    class Watched(Job):
        def _worker(self, rows: range) -> Any:  # noqa: ANN401 -- a worker
            worker = super()._worker(rows)
            controllers.append(worker.scheduler.controller)  # type: ignore[arg-type]
            return worker

    Watched(endpoint(0), 2_000, policy=policy or Policy())
    return controllers[0]


def restored(
    controller: FlowController, now: float, age_s: float = 0.0, policy: Policy | None = None
) -> FlowController:
    """Return a controller that goes on from another one's snapshot."""
    successor = FlowController(policy or Policy())
    successor.restore(json.loads(json.dumps(controller.snapshot(now))), age_s, now)
    return successor


@pytest.mark.parametrize(
    "endpoint",
    [concurrency(FORTY, median_s=0.2), metered(fifty_a_second, median_s=0.2), queue(FORTY, median_s=0.2)],
    ids=["concurrency", "quota", "queue"],
)
def test_a_restored_limiter_goes_on_where_the_other_ended(endpoint: Any) -> None:  # noqa: ANN401 -- a function of the seed
    """Window, rate, saturation and latency are the same, and so is what it learned of its ceilings."""
    before = learned(endpoint)
    after = restored(before, 100.0)

    assert before.window == after.window
    assert before.limiter.rate_per_s == after.limiter.rate_per_s
    assert before.limiter.saturation == after.limiter.saturation
    assert before.limiter.latency_s == after.limiter.latency_s
    assert before.snapshot(100.0) == after.snapshot(100.0)


def test_a_restored_limiter_grows_and_is_cut_as_the_other() -> None:
    """The same answers and refusals have the same effect."""
    before = learned(concurrency(FORTY, median_s=0.2))
    after, windows = restored(before, 100.0), []
    for controller in (before, after):
        dice, out, seen = random.Random(1), list[Permit](), list[int]()
        for step in range(3_000):
            now = 200.0 + step / 100
            while controller.available(now):
                out.append(controller.acquire(now))
            permit = out.pop(0)
            if len(out) >= 40 and dice.random() < 0.5:
                controller.on_rate_limited(permit, now)
            else:
                controller.on_answer(permit, now, 0.2)
            seen.append(controller.window)
        windows.append(seen)

    assert pytest.approx(sum(windows[0]), rel=0.03) == sum(windows[1])


def test_an_outage_and_a_pause_go_on() -> None:
    """The successor probes, and waits for the rest of the Retry-After."""
    controller = FlowController(Policy())
    for _ in range(8):
        controller.on_fault(controller.acquire(0.0), 10.0, 0.0)
    controller.on_rate_limited(controller.acquire(10.0), 10.0, pause_s=30.0, paused=True)
    successor = restored(controller, 15.0, age_s=5.0)

    assert (10.0, 35.0) == (successor.outage_since, successor.paused_until)
    assert 1 == successor.available(40.0)


@pytest.mark.parametrize("age_s", [0.0, 0.5, -5.0])
def test_quotas_begin_empty(age_s: float) -> None:
    """What the other process had left, it may have used; from then on its quota fills no more, so nothing is owed."""
    policy = Policy(requests_per_minute=600)
    controller = FlowController(policy)

    assert pytest.approx(0.1, abs=0.01) == restored(controller, 0.0, age_s, policy).opens_at(0.0)


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.just(10**400), st.just(math.nan)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=9), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


def snapshots() -> st.SearchStrategy[dict[str, Any]]:
    """Return what limiters have learned of a quota and of a queue."""
    endpoints = (metered(fifty_a_second, median_s=0.2), queue(FORTY, median_s=0.2))
    return st.sampled_from([learned(endpoint).snapshot(100.0) for endpoint in endpoints])


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # noqa: ANN401 -- JSON
    """Return the path of each value within a snapshot."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(each for key, inner in items for each in paths(inner, (*path, key)))]


@given(st.data(), st.deferred(snapshots), JSON)
def test_a_damaged_snapshot_raises_or_does_no_harm(data: st.DataObject, snapshot: dict[str, Any], damage: Any) -> None:  # noqa: ANN401
    """Any value anywhere is either refused, or within the bounds: the limiter works on."""
    damaged = json.loads(json.dumps(snapshot))
    path = data.draw(st.sampled_from(paths(snapshot)))
    if path:
        inner = damaged
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = damage
    else:
        damaged = damage
    policy = Policy(max_in_flight=64, tokens_per_minute=60_000)
    controller = FlowController(policy)
    try:
        controller.restore(json.loads(json.dumps(damaged)), 0.1, 1_000.0)
    except MALFORMED:
        return
    check_in_bounds(controller, 64)


@given(JSON)
def test_a_file_that_holds_anything_else_is_refused(anything: Any) -> None:  # noqa: ANN401
    """Where it is JSON at all; a file that was cut short is none."""
    with pytest.raises(MALFORMED):
        FlowController(Policy()).restore(anything, 0.1, 0.0)


def check_in_bounds(controller: FlowController, limit: int) -> None:
    """Let a controller work for a minute."""
    out: list[Permit] = []
    for step in range(600):
        now = 1_000.0 + step / 10
        while controller.available(now) > 0:
            out.append(controller.acquire(now, 10))
        assert len(out) <= limit
        assert 1 <= controller.window <= limit
        opens_at = controller.opens_at(now)
        assert opens_at is None or now <= opens_at < math.inf
        if out and step % 7:
            controller.on_answer(out.pop(0), now, 0.2, 30.0)
        elif out and step % 2:
            controller.on_rate_limited(out.pop(0), now)
        elif out:
            controller.on_fault(out.pop(0), now, 0.5)
    json.dumps(controller.snapshot(2_000.0), allow_nan=False)
