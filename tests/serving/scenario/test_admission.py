"""Admission control on a simulated clock: which requests start, wait or are refused."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.serving import After, Capacity, Fault, Quota
from spark_llm.serving.scenario.admission import Admission

ADMITTED, REFUSED = Fault(), Fault("429")

# Events: the seconds since the event before, and None for an arrival or the number of the request that leaves.
_EVENTS = st.lists(st.tuples(st.integers(0, 4), st.none() | st.integers(0, 9)), max_size=60)
_LIMITS = st.integers(0, 4)
_AFTER = st.builds(After, elapsed_s=st.integers(0, 60)) | st.builds(After, requests=st.integers(0, 30))


@dataclass
class Outcome:
    """The outcome of a simulation; requests have the numbers of their events."""

    arrivals: list[tuple[int, int, Fault]] = field(default_factory=list)  # time, requests in work before it, fault
    begun: list[int] = field(default_factory=list)
    left_queue: set[int] = field(default_factory=set)
    states: list[tuple[int, int]] = field(default_factory=list)  # in work, in the queue

    @property
    def faults(self) -> list[Fault]:
        """The faults of the requests, in order of arrival."""
        return [fault for _, _, fault in self.arrivals]


def simulate(capacity: Capacity, events: list[tuple[int, int | None]]) -> Outcome:
    """Return the outcome of these arrivals and departures; requests start as soon as they can."""
    admission, outcome, now = Admission[int](capacity), Outcome(), 0
    for number, (wait_s, departure) in enumerate(events):
        now += wait_s
        present = [*sorted(admission.in_work), *admission.queue]
        if departure is None:
            outcome.arrivals.append((now, len(admission.in_work), admission.arrive(number, now)))
        elif present:
            request = present[departure % len(present)]
            outcome.left_queue |= {request} & admission.queue.keys()
            admission.leave(request)
        outcome.begun += admission.start(now)
        outcome.states.append((len(admission.in_work), len(admission.queue)))
    return outcome


def admitted_at(capacity: Capacity, *times: float) -> list[bool]:
    """Return for each time whether a request is admitted then; each leaves before the next arrives."""
    admission, admitted = Admission[float](capacity), []
    for now in times:
        admitted.append(admission.arrive(now, now) == ADMITTED)
        admission.start(now)
        admission.leave(now)
    return admitted


@given(limit=_LIMITS, events=_EVENTS)
def test_above_the_concurrency_requests_are_refused(limit: int, events: list[tuple[int, int | None]]) -> None:
    """A request is refused exactly if all slots are taken; none waits, and never more are in work."""
    outcome = simulate(Capacity(concurrency=limit), events)

    assert [REFUSED if in_work == limit else ADMITTED for _, in_work, _ in outcome.arrivals] == outcome.faults
    assert all(in_work <= limit and in_queue == 0 for in_work, in_queue in outcome.states)


@given(limit=_LIMITS, events=_EVENTS)
def test_a_queue_is_first_in_first_out(limit: int, events: list[tuple[int, int | None]]) -> None:
    """Queued requests start in order, none is refused, and none waits while a slot is free."""
    outcome = simulate(Capacity(concurrency=limit, queue=True), events)

    assert [ADMITTED] * len(outcome.arrivals) == outcome.faults
    assert sorted(outcome.begun) == outcome.begun
    assert outcome.left_queue.isdisjoint(outcome.begun)
    assert all(in_work == limit if in_queue else in_work <= limit for in_work, in_queue in outcome.states)


@given(limits=st.lists(_LIMITS, min_size=1), steps=st.lists(_AFTER, max_size=4), events=_EVENTS)
def test_without_a_queue_admitted_requests_start_at_once(
    limits: list[int], steps: list[After], events: list[tuple[int, int | None]]
) -> None:
    """Without a queue no request waits, for any steps of the capacity."""
    first, *later = [Capacity(concurrency=limit) for limit in limits]
    outcome = simulate(replace(first, steps=tuple(zip(steps, later, strict=False))), events)

    assert all(in_queue == 0 for _, in_queue in outcome.states)
    assert len(outcome.begun) == outcome.faults.count(ADMITTED)


@given(limit=_LIMITS, window_s=st.integers(1, 9), refusals_count=st.booleans(), events=_EVENTS)
def test_a_quota_applies_to_the_window_before_a_request(
    limit: int, window_s: int, events: list[tuple[int, int | None]], *, refusals_count: bool
) -> None:
    """A request is refused exactly if the window that ends with it is spent; refusals count only if so set."""
    quota = Quota(requests=limit, window_s=window_s, refusals_count=refusals_count)
    spent: list[int] = []
    for now, _, fault in simulate(Capacity(quota=quota), events).arrivals:
        in_window = sum(now - window_s < time for time in spent)
        assert (REFUSED if in_window >= limit else ADMITTED) == fault
        if refusals_count or fault == ADMITTED:
            spent.append(now)


@given(limit=_LIMITS, window_s=st.integers(1, 9), refusals_count=st.booleans(), events=_EVENTS)
def test_no_window_admits_more_than_its_quota(
    limit: int, window_s: int, events: list[tuple[int, int | None]], *, refusals_count: bool
) -> None:
    """No window of any start admits more requests than the quota."""
    quota = Quota(requests=limit, window_s=window_s, refusals_count=refusals_count)
    admitted = [now for now, _, fault in simulate(Capacity(quota=quota), events).arrivals if fault == ADMITTED]

    assert all(sum(begin <= now < begin + window_s for now in admitted) <= limit for begin in admitted)


def test_refusals_that_count_extend_the_refusals() -> None:
    """A client that retries every second is admitted once a window, or never if refusals count."""
    every_second = range(25)

    without_count = admitted_at(Capacity(quota=Quota(requests=1, window_s=10)), *every_second)
    with_count = admitted_at(Capacity(quota=Quota(requests=1, window_s=10, refusals_count=True)), *every_second)
    assert [0, 10, 20] == [now for now in every_second if without_count[now]]
    assert [0] == [now for now in every_second if with_count[now]]


def test_refusals_above_the_concurrency_spend_the_quota() -> None:
    """With `refusals_count`, requests above the concurrency spend the quota."""
    quota = Quota(requests=2, refuse_as="503", refusals_count=True)
    admission = Admission[int](Capacity(concurrency=0, quota=quota))

    assert [REFUSED, REFUSED, Fault("503")] == [admission.arrive(number, 0) for number in range(3)]


def test_tokens_are_spent_when_the_answer_is_made() -> None:
    """Requests are admitted until answers spend the window's tokens, and again after the window."""
    admission = Admission[int](Capacity(quota=Quota(tokens=10, window_s=60)))
    admission.spend(6, now=1)
    assert ADMITTED == admission.arrive(0, now=2)
    admission.spend(4, now=3)

    assert [REFUSED, REFUSED, ADMITTED] == [admission.arrive(number, now) for number, now in ((1, 3), (2, 60), (3, 61))]


def test_a_later_step_counts_earlier_requests() -> None:
    """A step with a longer window counts the requests before it, over its whole window."""
    later = Capacity(quota=Quota(requests=4, window_s=100))
    capacity = Capacity(quota=Quota(requests=9, window_s=1), steps=((After(requests=3), later),))

    assert [True, True, True, True, False, True] == admitted_at(capacity, 0, 10, 20, 30, 40, 100)


@pytest.mark.parametrize("after", [After(elapsed_s=5), After(requests=2)])
def test_a_step_takes_effect_at_its_time_or_its_request(after: After) -> None:
    """Seconds count from the first request, and `requests` is the number of requests before."""
    steps = ((After(requests=0), Capacity()), (after, Capacity(concurrency=0)), (After(elapsed_s=20), Capacity()))

    assert [True, True, False, True] == admitted_at(Capacity(concurrency=0, steps=steps), 100, 104, 105, 120)


def test_a_queue_survives_a_step_without_one() -> None:
    """Queued requests stay when the capacity changes, and start under the new one."""
    closed = Capacity(concurrency=0, queue=True, steps=((After(elapsed_s=5), Capacity(concurrency=2)),))
    admission = Admission[str](closed)
    assert [ADMITTED] * 3 == [admission.arrive(name, 0) for name in "abc"]

    assert ([], 1) == (admission.start(4), admission.next_step_s(4))
    assert REFUSED == admission.arrive("d", 5)
    assert (["a", "b"], None) == (admission.start(5), admission.next_step_s(5))
    admission.leave("a")
    assert ["c"] == admission.start(6)


def test_only_a_queue_waits_for_a_timed_step() -> None:
    """The next step has no time without a queue, or if it counts requests."""
    timed = Admission[str](Capacity(steps=((After(elapsed_s=5), Capacity()),)))
    counted = Admission[str](Capacity(concurrency=0, queue=True, steps=((After(requests=5), Capacity()),)))
    counted.arrive("a", 0)
    assert (None, None) == (timed.next_step_s(0), counted.next_step_s(0))

    timed.arrive("a", 0)
    assert (5, ["a"], None) == (timed.next_step_s(0), timed.start(0), timed.next_step_s(0))


def test_a_new_capacity_begins_unspent() -> None:
    """A new capacity has nothing spent and no step passed; requests in work or in the queue stay."""
    first = Capacity(concurrency=1, queue=True, quota=Quota(requests=3), steps=((After(requests=9), Capacity()),))
    admission = Admission[str](first)
    assert [ADMITTED] * 3 + [REFUSED] == [admission.arrive(name, 0) for name in "abcd"]
    assert ["a"] == admission.start(0)
    admission.reset(Capacity(concurrency=3, queue=True, quota=Quota(requests=1)), now=0)

    assert [ADMITTED, REFUSED] == [admission.arrive(name, 0) for name in "ef"]
    assert ["b", "c"] == admission.start(0)


def test_steps_begin_again_with_a_reset() -> None:
    """Steps count from the first request after the reset, or from the reset if there is a queue."""
    closes_later = Capacity(queue=True, steps=((After(elapsed_s=5), Capacity(concurrency=0, queue=True)),))
    admission = Admission[str](closes_later)
    admission.arrive("a", 0)
    assert (["a"], []) == (admission.start(0), admission.start(9))
    admission.reset(closes_later, now=10)
    admission.arrive("b", 20)
    assert ["b"] == admission.start(20)

    admission.arrive("c", 25)
    assert [] == admission.start(25)
    admission.reset(replace(closes_later, concurrency=0), now=30)
    assert (5, []) == (admission.next_step_s(30), admission.start(30))
