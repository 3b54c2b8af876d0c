"""The rule behind a capacity, on a made-up clock: who begins, who waits, who is refused."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.serving import After, Capacity, Fault, Quota
from spark_llm.serving.scenario.admission import Admission

ADMITTED, REFUSED = Fault(), Fault("429")

# What happens, and how many seconds after what was before: one arrives (None), or one of those that are there leaves.
_EVENTS = st.lists(st.tuples(st.integers(0, 4), st.none() | st.integers(0, 9)), max_size=60)
_LIMITS = st.integers(0, 4)
_AFTER = st.builds(After, elapsed_s=st.integers(0, 60)) | st.builds(After, requests=st.integers(0, 30))


@dataclass
class Played:
    """What became of the requests, which have the numbers of their events."""

    arrivals: list[tuple[int, int, Fault]] = field(default_factory=list)  # when, how many were in work, what it met
    begun: list[int] = field(default_factory=list)
    left_line: set[int] = field(default_factory=set)
    states: list[tuple[int, int]] = field(default_factory=list)  # in work, in line

    @property
    def faults(self) -> list[Fault]:
        """What the requests met, in the order of their arrival."""
        return [fault for _, _, fault in self.arrivals]


def play(capacity: Capacity, events: list[tuple[int, int | None]]) -> Played:
    """Let requests arrive and leave as `events` say, and begin as soon as they may."""
    admission, played, now = Admission[int](capacity), Played(), 0
    for number, (wait_s, leaver) in enumerate(events):
        now += wait_s
        present = [*sorted(admission.in_work), *admission.queue]
        if leaver is None:
            played.arrivals.append((now, len(admission.in_work), admission.arrive(number, now)))
        elif present:
            who = present[leaver % len(present)]
            played.left_line |= {who} & admission.queue.keys()
            admission.leave(who)
        played.begun += admission.start(now)
        played.states.append((len(admission.in_work), len(admission.queue)))
    return played


def polled(capacity: Capacity, *times: float) -> list[bool]:
    """Tell for each time whether a request that arrives then is admitted; each has left before the next."""
    admission, admitted = Admission[float](capacity), []
    for now in times:
        admitted.append(admission.arrive(now, now) == ADMITTED)
        admission.start(now)
        admission.leave(now)
    return admitted


@given(limit=_LIMITS, events=_EVENTS)
def test_above_the_concurrency_requests_are_refused(limit: int, events: list[tuple[int, int | None]]) -> None:
    """A request is refused if, and only if, as many are in work as may be; nobody waits, and never are more in work."""
    played = play(Capacity(concurrency=limit), events)

    assert [REFUSED if in_work == limit else ADMITTED for _, in_work, _ in played.arrivals] == played.faults
    assert all(in_work <= limit and in_line == 0 for in_work, in_line in played.states)


@given(limit=_LIMITS, events=_EVENTS)
def test_a_line_is_served_first_come_first_served(limit: int, events: list[tuple[int, int | None]]) -> None:
    """Nobody in line is refused or passed by; who leaves gives way, and nobody waits while there is a place."""
    played = play(Capacity(concurrency=limit, queue=True), events)

    assert [ADMITTED] * len(played.arrivals) == played.faults
    assert sorted(played.begun) == played.begun
    assert played.left_line.isdisjoint(played.begun)
    assert all(in_work == limit if in_line else in_work <= limit for in_work, in_line in played.states)


@given(limits=st.lists(_LIMITS, min_size=1), steps=st.lists(_AFTER, max_size=4), events=_EVENTS)
def test_who_is_admitted_begins_at_once(
    limits: list[int], steps: list[After], events: list[tuple[int, int | None]]
) -> None:
    """However the capacity changes, nobody waits where there is no line."""
    first, *later = [Capacity(concurrency=limit) for limit in limits]
    played = play(replace(first, steps=tuple(zip(steps, later, strict=False))), events)

    assert all(in_line == 0 for _, in_line in played.states)
    assert len(played.begun) == played.faults.count(ADMITTED)


@given(limit=_LIMITS, window_s=st.integers(1, 9), refusals_count=st.booleans(), events=_EVENTS)
def test_a_quota_is_held_in_every_window(
    limit: int, window_s: int, events: list[tuple[int, int | None]], *, refusals_count: bool
) -> None:
    """A request is refused if, and only if, the window that ends with it is spent; refusals are spent if they count."""
    quota = Quota(requests=limit, window_s=window_s, refusals_count=refusals_count)
    spent: list[int] = []
    for now, _, fault in play(Capacity(quota=quota), events).arrivals:
        in_window = sum(now - window_s < time for time in spent)
        assert (REFUSED if in_window >= limit else ADMITTED) == fault
        if refusals_count or fault == ADMITTED:
            spent.append(now)


@given(limit=_LIMITS, window_s=st.integers(1, 9), refusals_count=st.booleans(), events=_EVENTS)
def test_no_window_admits_more_than_its_quota(
    limit: int, window_s: int, events: list[tuple[int, int | None]], *, refusals_count: bool
) -> None:
    """Wherever a window begins, no more requests are admitted in it than the quota has."""
    quota = Quota(requests=limit, window_s=window_s, refusals_count=refusals_count)
    admitted = [now for now, _, fault in play(Capacity(quota=quota), events).arrivals if fault == ADMITTED]

    assert all(sum(begin <= now < begin + window_s for now in admitted) <= limit for begin in admitted)


def test_refusals_that_count_prolong_the_trouble() -> None:
    """Who asks on and on is answered again when the window has passed; or never, where refusals count."""
    every_second = range(25)

    forgiving = polled(Capacity(quota=Quota(requests=1, window_s=10)), *every_second)
    honest = polled(Capacity(quota=Quota(requests=1, window_s=10, refusals_count=True)), *every_second)
    assert [0, 10, 20] == [now for now in every_second if forgiving[now]]
    assert [0] == [now for now in every_second if honest[now]]


def test_a_refusal_for_want_of_a_place_is_spent_as_well() -> None:
    """With `refusals_count`, requests above the concurrency spend the quota."""
    quota = Quota(requests=2, refuse_as="503", refusals_count=True)
    admission = Admission[int](Capacity(concurrency=0, quota=quota))

    assert [REFUSED, REFUSED, Fault("503")] == [admission.arrive(number, 0) for number in range(3)]


def test_tokens_are_spent_when_they_are_known() -> None:
    """Requests are admitted until answers have spent the tokens of the window, and again when it has passed."""
    admission = Admission[int](Capacity(quota=Quota(tokens=10, window_s=60)))
    admission.spend(6, now=1)
    assert ADMITTED == admission.arrive(0, now=2)
    admission.spend(4, now=3)

    assert [REFUSED, REFUSED, ADMITTED] == [admission.arrive(number, now) for number, now in ((1, 3), (2, 60), (3, 61))]


def test_what_was_spent_is_known_to_a_later_step() -> None:
    """A step with a longer window counts what came before it, as far back as that window looks."""
    later = Capacity(quota=Quota(requests=4, window_s=100))
    capacity = Capacity(quota=Quota(requests=9, window_s=1), steps=((After(requests=3), later),))

    assert [True, True, True, True, False, True] == polled(capacity, 0, 10, 20, 30, 40, 100)


@pytest.mark.parametrize("after", [After(elapsed_s=5), After(requests=2)])
def test_a_step_comes_at_its_time_or_its_request(after: After) -> None:
    """Seconds count from the first request, and a number is that of the requests before it."""
    steps = ((After(requests=0), Capacity()), (after, Capacity(concurrency=0)), (After(elapsed_s=20), Capacity()))

    assert [True, True, False, True] == polled(Capacity(concurrency=0, steps=steps), 100, 104, 105, 120)


def test_a_line_outlives_the_step_that_ends_it() -> None:
    """Who is in line when the capacity changes stays there, and is served as the new one says."""
    shut = Capacity(concurrency=0, queue=True, steps=((After(elapsed_s=5), Capacity(concurrency=2)),))
    admission = Admission[str](shut)
    assert [ADMITTED] * 3 == [admission.arrive(who, 0) for who in "abc"]

    assert ([], 1) == (admission.start(4), admission.next_step_s(4))
    assert REFUSED == admission.arrive("d", 5)
    assert (["a", "b"], None) == (admission.start(5), admission.next_step_s(5))
    admission.leave("a")
    assert ["c"] == admission.start(6)


def test_time_is_waited_for_only_by_a_line() -> None:
    """No step needs to be looked at in its time where nobody waits, or where no time is told."""
    timed = Admission[str](Capacity(steps=((After(elapsed_s=5), Capacity()),)))
    counted = Admission[str](Capacity(concurrency=0, queue=True, steps=((After(requests=5), Capacity()),)))
    counted.arrive("a", 0)
    assert (None, None) == (timed.next_step_s(0), counted.next_step_s(0))

    timed.arrive("a", 0)
    assert (5, ["a"], None) == (timed.next_step_s(0), timed.start(0), timed.next_step_s(0))


def test_a_capacity_that_is_set_anew_begins_unspent() -> None:
    """With a new capacity nothing is spent and no step has come, but who is in work or in line is still there."""
    first = Capacity(concurrency=1, queue=True, quota=Quota(requests=3), steps=((After(requests=9), Capacity()),))
    admission = Admission[str](first)
    assert [ADMITTED] * 3 + [REFUSED] == [admission.arrive(who, 0) for who in "abcd"]
    assert ["a"] == admission.start(0)
    admission.reset(Capacity(concurrency=3, queue=True, quota=Quota(requests=1)), now=0)

    assert [ADMITTED, REFUSED] == [admission.arrive(who, 0) for who in "ef"]
    assert ["b", "c"] == admission.start(0)


def test_steps_begin_again_with_a_reset() -> None:
    """Steps count from the first request after the reset; where a line is there already, from the reset."""
    shut_later = Capacity(queue=True, steps=((After(elapsed_s=5), Capacity(concurrency=0, queue=True)),))
    admission = Admission[str](shut_later)
    admission.arrive("a", 0)
    assert (["a"], []) == (admission.start(0), admission.start(9))
    admission.reset(shut_later, now=10)
    admission.arrive("b", 20)
    assert ["b"] == admission.start(20)

    admission.arrive("c", 25)
    assert [] == admission.start(25)
    admission.reset(replace(shut_later, concurrency=0), now=30)
    assert (5, []) == (admission.next_step_s(30), admission.start(30))
