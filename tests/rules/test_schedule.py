"""What to send next, and when: whole tasks against a made-up endpoint, on a made-up clock."""

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_llm._limit import Limit
from spark_llm._pack import Numbered
from spark_llm._schedule import Request, Schedule
from spark_llm._values import Answer, Failure, Outcome, Result, RowError, Usage
from spark_llm.errors import Kind
from spark_llm.policy import Policy

TASK = "one task"
BAD_INPUT = Failure(
    RowError("invalid_request", 400, "an input is not allowed", retryable=False), usage=Usage(3, None, 3)
)
BAD_FORM = Failure(RowError("invalid_request", 400, "unknown field", retryable=False))
REFUSED = Failure(RowError("rate_limited", 429, "slower", retryable=True), told_to_wait=True)
BROKEN = Failure(RowError("connection", None, "reset by peer", retryable=True))
GARBAGE = Failure(RowError("invalid_response", 200, "cut short", retryable=True), usage=Usage(5, 2, 7))
NOT_FOUND = Failure(RowError("not_found", 404, "no such endpoint", retryable=False))

Endpoint = Callable[[Request, random.Random], Outcome]


class Sent(NamedTuple):
    """One request that went out."""

    at: float
    rows: list[int]
    dialect: int
    outcome: Outcome


class Play:
    """A task played to its end against an endpoint, with every rule of the schedule checked on the way."""

    def __init__(
        self, packs: Iterable[list[Numbered]], endpoint: Endpoint, policy: Policy, dialects: int = 1, seed: int = 0
    ) -> None:
        """Send everything, and keep what was sent and what each row got."""
        self.sent: list[Sent] = []
        self.results: dict[int, Result] = {}
        self.now = 0.0
        self.limit = Limit(policy.ceiling)
        self.schedule = Schedule(self.limit, policy, dialects)
        self._endpoint, self._dice = endpoint, random.Random(seed)
        self._in_flight: list[tuple[float, int, Request, Outcome]] = []
        for pack in packs:
            self.schedule.add(TASK, pack)
        while len(self.schedule) or self._in_flight:
            self._send()
            self._wait()

    @property
    def billed(self) -> Usage:
        """The tokens that the endpoint reported."""
        return total(sent.outcome.usage for sent in self.sent)

    @property
    def received(self) -> Usage:
        """The tokens that the rows carry."""
        return total(result.usage for result in self.results.values())

    def _send(self) -> None:
        window = self.limit.window
        for request in self.schedule.ready(self.now):
            rows = [number for number, _ in request.inputs]
            assert not self.results.keys() & rows, "a row is not sent after it was settled"
            outcome = self._endpoint(request, self._dice)
            assert len(self.sent) < 20_000, "it comes to an end"
            self.sent.append(Sent(self.now, rows, request.dialect, outcome))
            due = self.now + self._dice.uniform(0.05, 2.0)
            heapq.heappush(self._in_flight, (due, len(self.sent), request, outcome))
            assert len(self._in_flight) <= window, "no more is in flight than the window allows"
        assert len(self._in_flight) == self.limit.in_flight, "what waits holds no slot"

    def _wait(self) -> None:
        due = self.schedule.next_due()
        if self._in_flight and (due is None or self._in_flight[0][0] <= due):
            self.now, _, request, outcome = heapq.heappop(self._in_flight)
            self._settle(request, outcome)
        else:
            assert due is not None, "what is left in line has a time"
            assert due > self.now, "time runs forward"
            self.now = due

    def _settle(self, request: Request, outcome: Outcome) -> None:
        last_word: Answer | RowError | None
        if isinstance(outcome, Answer):
            last_word = outcome
            self.schedule.answered(request)
        else:
            last_word = self.schedule.failed(request, outcome, self.now, self._dice.random)
        if last_word is not None:
            for number, result in request.settled(last_word, 1.0):
                assert number not in self.results, "a row is settled once"
                self.results[number] = result


def total(parts: Iterable[Usage | None]) -> Usage:
    """Add up tokens; None counts as none."""
    return Usage(
        *(sum(column) for column in zip(Usage(0, 0, 0, 0, 0), *[[n or 0 for n in p] for p in parts if p], strict=True))
    )


def answered(request: Request) -> Answer:
    """Answer every input of a request by its number, for a token a letter."""
    letters = sum(len(item) for _, item in request.inputs)
    results = [Result(text=f"answer {number}") for number, _ in request.inputs]
    return Answer(results, Usage(letters, 2 * len(results), letters + 2 * len(results)))


def refuses(poison: set[int]) -> Endpoint:
    """Make an endpoint that refuses what holds a poisoned row, and answers the rest."""
    return lambda request, _: BAD_INPUT if any(number in poison for number, _ in request.inputs) else answered(request)


def packs_of(size: int, rows: int) -> list[list[Numbered]]:
    """Pack so many rows, of lengths that differ."""
    numbered: list[Numbered] = [(number, "x" * (1 + number * 7 % 13)) for number in range(rows)]
    return [numbered[start : start + size] for start in range(0, rows, size)]


class Troubles(NamedTuple):
    """What an endpoint refuses, and how often it does what else."""

    poison: set[int]
    forms: set[int]
    refused: float = 0.0
    broken: float = 0.0
    garbage: float = 0.0


def with_troubles(troubles: Troubles) -> Endpoint:
    """Make an endpoint that does everything that endpoints do."""
    refused, broken, garbage = troubles[2:]

    def outcome(request: Request, dice: random.Random) -> Outcome:
        draw = dice.random()
        if draw < refused:
            return Failure(REFUSED.error, told_to_wait=True, retry_after_s=dice.choice((None, 0.4, 3.0)))
        if draw < refused + broken:
            return BROKEN
        if draw < refused + broken + garbage:
            return GARBAGE
        return BAD_FORM if request.dialect in troubles.forms else refuses(troubles.poison)(request, dice)

    return outcome


SHARES = st.sampled_from((0.0, 0.0, 0.05, 0.3))
TROUBLES = st.builds(
    Troubles,
    st.sets(st.integers(0, 59), max_size=6),
    st.sampled_from([set[int](), set[int](), {0}, {0, 1}]),
    SHARES,
    SHARES,
    SHARES,
)
POLICIES = st.builds(
    Policy,
    max_in_flight=st.integers(1, 24),
    max_tries=st.integers(1, 5),
    give_up_after_s=st.sampled_from((0.0, 1.0, 30.0)),
)


@settings(max_examples=200)
@given(st.integers(0, 60), st.integers(1, 16), TROUBLES, POLICIES, st.integers(0, 2**32))
def test_every_row_is_settled_once_whatever_the_endpoint_does(
    rows: int, size: int, troubles: Troubles, policy: Policy, seed: int
) -> None:
    """No row is lost, none is asked after its answer, a sound row fails only for its server, and the tokens add up."""
    play = Play(packs_of(size, rows), with_troubles(troubles), policy, dialects=2, seed=seed)
    answers = {number: result.text for number, result in play.results.items() if result.error is None}
    refused = {n for n, result in play.results.items() if result.error and result.error.kind == "invalid_request"}

    assert list(range(rows)) == sorted(play.results)
    assert answers == {number: f"answer {number}" for number in answers}
    assert not troubles.poison & answers.keys()
    assert troubles.forms == {0, 1} or refused <= troubles.poison
    assert play.billed == play.received
    assert all(result.attempts >= 1 for result in play.results.values())
    assert (0, 0) == (play.limit.in_flight, len(play.schedule))
    if not troubles.refused:
        requests = sum(2 * len(pack) - 1 for pack in packs_of(size, rows))
        assert len(play.sent) <= requests * (policy.max_tries + 2)


@given(rows=st.integers(0, 200), size=st.integers(1, 70), ceiling=st.integers(1, 64))
def test_a_sound_endpoint_is_asked_once_a_batch(rows: int, size: int, ceiling: int) -> None:
    """Where nothing goes wrong, a request is sent once, and no row is tried twice."""
    packs = packs_of(size, rows)
    play = Play(packs, refuses(set()), Policy(max_in_flight=ceiling), dialects=2)

    assert sorted([number for number, _ in pack] for pack in packs) == sorted(sent.rows for sent in play.sent)
    assert {1} >= {result.attempts for result in play.results.values()}


@given(st.data(), st.integers(1, 150))
def test_one_bad_input_is_found_by_halving(data: st.DataObject, inputs: int) -> None:
    """One bad input in n costs 1 + 2 log2 n requests at the most, and its neighbours are answered."""
    bad = data.draw(st.integers(0, inputs - 1))
    play = Play(packs_of(inputs, inputs), refuses({bad}), Policy())

    assert len(play.sent) <= 1 + 2 * math.ceil(math.log2(inputs))
    assert {bad: BAD_INPUT.error} == {n: result.error for n, result in play.results.items() if result.error}
    assert play.billed == play.received


@given(st.data(), st.integers(1, 100))
def test_a_bad_input_costs_no_more_where_the_wire_form_is_known(data: st.DataObject, inputs: int) -> None:
    """Once a form was answered, a refusal is the input's: it is not asked again in another form."""
    bad = 1 + data.draw(st.integers(0, inputs - 1))
    (first,), (batch,) = packs_of(1, 1), packs_of(inputs, inputs)
    play = Play([first, [(1 + number, item) for number, item in batch]], refuses({bad}), Policy(), dialects=2)

    assert len(play.sent) - 1 <= 1 + 2 * math.ceil(math.log2(inputs))
    assert {0} == {sent.dialect for sent in play.sent}


@given(st.data(), st.integers(1, 100), st.sampled_from([set[int](), {0}]))
def test_a_bad_input_in_the_first_request_of_all_costs_one_try_more_a_form(
    data: st.DataObject, inputs: int, forms: set[int]
) -> None:
    """Before any form was answered, each refusal may be the form's: that is found out once, and not at every half."""
    bad = data.draw(st.integers(0, inputs - 1))
    endpoint = with_troubles(Troubles({bad}, forms))
    play = Play(packs_of(inputs, inputs), endpoint, Policy(), dialects=2)

    assert {bad} == {number for number, result in play.results.items() if result.error}
    assert len(play.sent) <= 4 + 2 * math.ceil(math.log2(inputs))


def test_many_bad_inputs_are_all_found() -> None:
    """Every other input is refused, and every other one is answered."""
    play = Play(packs_of(64, 64), refuses(set(range(0, 64, 2))), Policy())

    assert set(range(0, 64, 2)) == {number for number, result in play.results.items() if result.error}


@pytest.mark.parametrize("failure", [REFUSED, BROKEN, GARBAGE], ids=lambda failure: str(failure.error.kind))
def test_what_is_not_the_inputs_fault_never_splits_a_batch(failure: Failure) -> None:
    """A batch that was told to wait, or broke off, is sent again whole."""
    schedule = Schedule(Limit(8), Policy())
    (pack,) = packs_of(8, 8)
    schedule.add(TASK, pack)
    for _ in range(3):
        (request,) = schedule.ready(1e6)
        assert None is schedule.failed(request, failure, 0.0, lambda: 0.5)
        assert pack == request.inputs
        assert 1 == len(schedule)


def test_a_waiting_retry_holds_no_slot() -> None:
    """While one request waits out a refusal, another may start."""
    schedule = Schedule(Limit(1), Policy())
    schedule.add(TASK, [(0, "a")])
    schedule.add(TASK, [(1, "b")])
    (first,) = schedule.ready(0.0)
    schedule.failed(first, REFUSED, 0.0, lambda: 0.8)

    assert [[(1, "b")]] == [request.inputs for request in schedule.ready(0.0)]
    assert [] == schedule.ready(0.2)


def test_a_retry_whose_time_has_come_goes_first() -> None:
    """A row that was told to wait is not put behind all those that were never sent."""
    schedule = Schedule(Limit(1), Policy())
    for number in range(3):
        schedule.add(TASK, [(number, "a")])
    (first,) = schedule.ready(0.0)
    schedule.failed(first, REFUSED, 0.0, lambda: 0.8)

    assert [first] == schedule.ready(0.2)
    assert 2 == first.tries.sent


def test_retry_after_holds_back_everything() -> None:
    """A server that names a time is left alone until then, by every request of the worker."""
    schedule = Schedule(Limit(8), Policy())
    schedule.add(TASK, [(0, "a")])
    schedule.add("another task", [(1, "b")])
    (first,) = schedule.ready(0.0)
    schedule.failed(first, Failure(REFUSED.error, told_to_wait=True, retry_after_s=9.0), 1.0, lambda: 0.0)

    assert [] == schedule.ready(9.9)
    assert 10.0 == schedule.next_due()
    assert 1 == len(schedule.ready(10.0))


def test_retry_after_never_holds_back_longer_than_the_patience() -> None:
    """A server that says "tomorrow" stops what waits for it, and not the worker until tomorrow."""
    schedule = Schedule(Limit(8), Policy(give_up_after_s=60.0))
    schedule.add(TASK, [(0, "a")])
    schedule.add(TASK, [(1, "b")])
    (first,) = schedule.ready(0.0)
    last_word = schedule.failed(
        first, Failure(REFUSED.error, told_to_wait=True, retry_after_s=86_400.0), 0.0, lambda: 0.0
    )

    assert isinstance(last_word, RowError)
    assert 60.0 == schedule.next_due()


def test_retry_after_does_not_hold_back_the_window() -> None:
    """Answers that come in while sending is held still widen the window: the hold is on sending and not on learning."""
    limit = Limit(64)
    schedule = Schedule(limit, Policy())
    for number in range(64):
        schedule.add(TASK, [(number, "a")])
    out = schedule.ready(0.0)
    while limit.window < 16:
        schedule.answered(out.pop())
        out += schedule.ready(0.0)
    held = Failure(REFUSED.error, told_to_wait=True, retry_after_s=9.0)
    schedule.failed(out.pop(), held, 0.0, lambda: 0.0)
    cut = limit.window
    while out:
        schedule.answered(out.pop())

    assert 8 == cut < limit.window


def test_no_time_is_named_where_only_a_free_slot_helps() -> None:
    """With every slot taken, or nothing in line, there is nothing to wait for."""
    schedule = Schedule(Limit(1), Policy())
    before = schedule.next_due()
    schedule.add(TASK, [(0, "a")])
    schedule.add(TASK, [(1, "b")])
    schedule.ready(0.0)

    assert [None, None] == [before, schedule.next_due()]


def test_a_refused_form_is_asked_in_the_next() -> None:
    """Where a server refuses the first form, the second is asked, and after its answer only the second."""
    play = Play(packs_of(4, 40), with_troubles(Troubles(set(), {0})), Policy(), dialects=2)

    assert 11 == len(play.sent)
    assert [0] + [1] * 10 == [sent.dialect for sent in play.sent]
    assert {None} == {result.error for result in play.results.values()}


@pytest.mark.parametrize("kind", ["context_length", "content_filter"])
def test_a_form_is_not_doubted_for_what_is_not_its_fault(kind: Kind) -> None:
    """An input that is too long, and a filter, are the input's: no other form is tried for it."""
    failure = Failure(RowError(kind, 400, "no", retryable=False))
    play = Play(packs_of(1, 1), lambda request, _: failure, Policy(), dialects=2)

    assert [0] == [sent.dialect for sent in play.sent]


def test_an_error_of_the_endpoint_is_the_last_word() -> None:
    """What no other row can fare better with is neither split nor tried again."""
    play = Play(packs_of(8, 8), lambda request, _: NOT_FOUND, Policy(), dialects=2)

    assert 1 == len(play.sent)
    assert {NOT_FOUND.error} == {result.error for result in play.results.values()}


@pytest.mark.parametrize(("dialects", "window"), [(1, 2), (2, 1)])
def test_a_refused_input_opens_the_window_like_an_answer(dialects: int, window: int) -> None:
    """A refused input shows a healthy endpoint; but while the form may be to blame, one request goes ahead alone."""
    limit = Limit(512)
    schedule = Schedule(limit, Policy(), dialects)
    schedule.add("task", [(0, "a")])
    [request] = schedule.ready(now=0.0)
    schedule.failed(request, BAD_INPUT, now=0.0, dice=lambda: 0.0)

    assert window == limit.window


def test_attempts_count_the_tries_of_every_batch_that_a_row_was_in() -> None:
    """A row that was in a refused batch of four, then in a pair, then alone, was asked three times."""
    play = Play(packs_of(4, 4), refuses({0}), Policy())

    assert Counter({2: 2, 3: 2}) == Counter(result.attempts for result in play.results.values())


def test_what_is_dropped_is_its_owners() -> None:
    """A task that ends takes out of the line what it put in, sent before or not, and nothing else."""
    schedule = Schedule(Limit(4), Policy())
    schedule.add("leaves", [(0, "a")])
    schedule.add("stays", [(0, "b")])
    schedule.add("leaves", [(1, "c")])
    (waiting,) = schedule.ready(0.0)
    schedule.failed(waiting, BROKEN, 0.0, lambda: 0.9)
    dropped = schedule.drop("leaves")

    assert [[(0, "a")], [(1, "c")]] == sorted(request.inputs for request in dropped)
    assert [[(0, "b")]] == [request.inputs for request in schedule.ready(100.0)]
    assert 0 == len(schedule)


def test_a_request_that_was_called_off_frees_its_slot() -> None:
    """What is cancelled in flight counts no longer, and says nothing about the endpoint."""
    limit = Limit(4)
    schedule = Schedule(limit, Policy())
    schedule.add(TASK, [(0, "a")])
    schedule.ready(0.0)
    schedule.cancelled()

    assert (0, 1) == (limit.in_flight, limit.window)
