"""When nothing but faults comes back: the queue waits, and one request at a time looks."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_llm.errors import Kind
from spark_llm.flow.request import Request
from spark_llm.flow.retry_budget import RetryBudget
from spark_llm.flow.scheduler import RequestScheduler
from spark_llm.policy import Policy
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Failure, Outcome, RowError, Usage
from tests.support.play import (
    BAD_INPUT,
    BROKEN,
    CHAT,
    EMBED,
    GARBAGE,
    REFUSED,
    Play,
    Server,
    answer,
    begun,
    pack,
    texts,
)

SEEDS = st.integers(0, 2**32)
DICE = st.floats(0.0, 1.0, exclude_max=True)
UNAVAILABLE = Failure(RowError("unavailable", 500, "internal error", retryable=True))
UNREACHABLE: list[Kind] = ["connection", "timeout", "unavailable"]


def spent(now: float = 0.0) -> RetryBudget:
    """Return a budget that eight faults have used up."""
    budget = RetryBudget()
    for _ in range(8):
        budget.on_fault(now, 0.0, probe=False)
    return budget


def in_outage() -> tuple[RequestScheduler, list[Request]]:
    """Return a scheduler in an outage that began at time 0, and the requests in flight from before."""
    scheduler, negotiation = begun(Policy())
    for number in range(1, 200):
        scheduler.add("task", pack(number), negotiation)
    out: list[Request] = []
    while len(out) < 32:
        out += scheduler.ready(0.0)
        request = out.pop()
        scheduler.on_answer(request, answer(request), 0.0, 1.0)
    for _ in range(8):
        scheduler.on_failure(out.pop(), BROKEN, 0.0, lambda: 0.0)
    return scheduler, out


@given(st.lists(st.booleans(), max_size=200))
def test_an_outage_is_eight_faults_more_than_answers(answers: list[bool]) -> None:
    """Answers make up for faults one for one, and are not saved up; the eighth fault too many begins an outage."""
    budget, left = RetryBudget(), 8
    for answered in answers:
        if answered:
            budget.on_answer()
            left = min(8, left + 1)
        else:
            budget.on_fault(1.0, 0.0, probe=False)
            left -= 1
        assert (None if left else 1.0) == budget.spent_at
        if not left:
            break


@given(st.lists(DICE, min_size=1, max_size=40))
def test_probes_become_rarer(dice: list[float]) -> None:
    """Half a second after the first fault, then twice as late each time, up to 5 s; half of that is random."""
    budget, now = spent(), 0.0
    for probe, draw in enumerate(dice):
        opens_at = budget.opens_at(now)
        assert opens_at is not None
        assert budget.on_send()
        assert None is budget.opens_at(opens_at)
        now = opens_at + 1.0
        budget.on_fault(now, draw, probe=True)
        longest = min(5.0, 0.5 * 2.0 ** (probe + 1))

        assert now + longest * (1 + draw) / 2 == budget.opens_at(now)


def test_the_first_answer_ends_an_outage() -> None:
    """All may go at once; the next outage takes eight faults again, and its first probe goes soon."""
    budget = spent()
    for now in (1.0, 3.0):
        budget.on_send()
        budget.on_fault(now, 0.0, probe=True)
    budget.on_answer()
    for _ in range(7):
        budget.on_fault(9.0, 0.0, probe=False)
    before = (budget.spent_at, budget.opens_at(9.0))
    budget.on_fault(9.0, 0.0, probe=False)

    assert (None, 9.0) == before
    assert (9.0, 9.25) == (budget.spent_at, budget.opens_at(9.0))


def test_a_rate_limited_probe_lets_another_go() -> None:
    """It was neither an answer nor a fault: the outage goes on, and so do the probes."""
    budget = spent()
    budget.on_send()
    budget.on_inconclusive(probe=True)

    assert (0.0, 3.0) == (budget.spent_at, budget.opens_at(3.0))


def test_one_probe_is_in_flight_at_a_time() -> None:
    """In an outage one request goes, and the next only after its outcome."""
    scheduler, _ = in_outage()

    assert [] == scheduler.ready(0.24)
    assert 0.25 == scheduler.next_due(0.0)
    assert 1 == len(scheduler.ready(0.25))
    assert [] == scheduler.ready(100.0)
    assert None is scheduler.next_due(100.0)


def test_a_request_from_before_the_outage_is_not_a_probe() -> None:
    """Requests in flight when it began fail one by one; no further probe goes for that."""
    scheduler, out = in_outage()
    scheduler.ready(0.25)
    scheduler.on_failure(out.pop(), BROKEN, 1.0, lambda: 0.0)

    assert [] == scheduler.ready(100.0)


def test_a_cancelled_request_is_not_a_probe() -> None:
    """A request in flight since before the outage that is cancelled says nothing of the probe."""
    scheduler, out = in_outage()
    scheduler.ready(0.25)
    scheduler.on_cancel(out.pop())

    assert [] == scheduler.ready(100.0)


@pytest.mark.waits
@settings(max_examples=settings().max_examples // 5)  # of 5,000 rows each
@given(st.floats(2.0, 50.0), st.sampled_from([(0.9, 1.1), (0.5, 2.0)]), st.integers(0, 2**32))
def test_an_outage_loses_no_row(begins: float, latency_s: tuple[float, float], seed: int) -> None:
    """20 s away in the midst of 5,000 rows with 64 in flight: all are answered, for at most a tenth more requests."""
    server = Server(outage=(begins, begins + 20.0))
    play = Play(texts(5_000), server, Policy(max_in_flight=64), CHAT, seed=seed, latency_s=latency_s)

    assert {} == play.errors
    assert len(play.sent) <= 5_500


def test_an_outage_spends_no_attempts() -> None:
    """However long it is, no row loses more than the one attempt that showed it."""
    server = Server(outage=(10.0, 300.0))
    play = Play(texts(1_000), server, Policy(max_in_flight=64, max_tries=4), CHAT)

    assert {} == play.errors
    assert play.now > 300.0


def test_an_outage_beyond_the_time_budget_stops_the_task() -> None:
    """After `give_up_after_s` without an answer the other rows get a retryable error."""
    server = Server(outage=(10.0, 1e9))
    play = Play(texts(5_000), server, Policy(max_in_flight=64, give_up_after_s=60.0), CHAT)
    last = play.results[4_999].error

    assert last is not None
    assert ("connection", True) == (last.kind, last.retryable)
    assert "gave up after an outage of" in last.message
    assert "reset by peer" in last.message
    assert 70.0 <= play.now <= 85.0


@pytest.mark.parametrize("kind", UNREACHABLE)
@given(max_tries=st.integers(1, 12), rows=st.integers(1, 300))
def test_an_unreachable_endpoint_ends_with_the_first_rows_attempts(kind: Kind, max_tries: int, rows: int) -> None:
    """A wrong address costs `max_tries` requests and one of each of two other rows, not that for every row."""
    failure = Failure(RowError(kind, None, "nobody there", retryable=True))
    play = Play(texts(rows), lambda request, now, dice: failure, Policy(max_tries=max_tries), CHAT)

    assert max_tries + 2 == len(play.sent) or rows < 3
    assert {kind} == {error.kind for error in play.errors.values()}
    assert rows == len(play.errors)


def test_an_endpoint_that_comes_up_in_time_loses_no_row() -> None:
    """Where the first row is answered within its attempts, nothing was lost."""
    play = Play(texts(100), Server(outage=(0.0, 1.0)), Policy(), CHAT, latency_s=(0.3, 0.3))

    assert {} == play.errors


def test_a_broken_row_is_not_an_outage() -> None:
    """A row that always ends in a fault spends its own attempts, and the others are answered."""

    def endpoint(request: Request, now: float, dice: random.Random) -> Outcome:
        return BROKEN if request.inputs[0][0] == 50 else Server()(request, now, dice)

    play = Play(texts(300), endpoint, Policy(max_in_flight=4), CHAT)

    assert [50] == list(play.errors)
    assert 4 == play.results[50].attempts


@pytest.mark.waits
@pytest.mark.parametrize("behind", [2, 30], ids=["near the end", "with many rows behind them"])
@settings(max_examples=settings().max_examples // 3)
@given(bad=st.integers(1, 60), window=st.sampled_from([4, 8, 64, 512]), seed=SEEDS)
def test_broken_rows_side_by_side_are_not_an_outage(behind: int, bad: int, window: int, seed: int) -> None:
    """A sorted table has its broken rows together: each spends its own attempts, and all others are answered soon."""
    broken = set(range(30, 30 + bad))

    def endpoint(request: Request, now: float, dice: random.Random) -> Outcome:
        return UNAVAILABLE if request.inputs[0][0] in broken else Server()(request, now, dice)

    policy = Policy(max_in_flight=window, max_tries=3)
    play = Play(texts(30 + bad + behind * bad), endpoint, policy, CHAT, seed=seed, latency_s=(0.05, 0.2))

    assert broken == play.errors.keys()
    assert not any("gave up" in error.message for error in play.errors.values())
    assert all(play.results[row].attempts >= 3 for row in broken)
    assert play.now < 60 + 10 * bad


@pytest.mark.parametrize("first", [20, 290])
@given(bad=st.integers(1, 10), window=st.sampled_from([1, 8, 64]), seed=SEEDS)
def test_rows_that_are_billed_without_an_answer_spend_their_attempts(
    first: int, bad: int, window: int, seed: int
) -> None:
    """The model ran, so it is no outage that ends: also where they are the last rows, none is sent for ever."""
    broken = set(range(first, first + bad))
    empty = Failure(RowError("invalid_response", 200, "no text", retryable=True), usage=Usage(9, 1, 10), served=True)

    def endpoint(request: Request, now: float, dice: random.Random) -> Outcome:
        return empty if request.inputs[0][0] in broken else Server()(request, now, dice)

    play = Play(texts(300), endpoint, Policy(max_in_flight=window, max_tries=4), CHAT, seed=seed, latency_s=(0.1, 0.1))

    assert broken == play.errors.keys()
    assert {4} == {play.results[row].attempts for row in broken}
    assert 4 * bad == sum(sent.outcome is empty for sent in play.sent)


def test_a_model_that_answers_nothing_any_more_stops_the_task() -> None:
    """Each such request is billed: the task ends after `give_up_after_s`, for a probe every few seconds until then."""
    empty = Failure(RowError("invalid_response", 200, "no text", retryable=True), usage=Usage(9, 1, 10), served=True)

    def endpoint(request: Request, now: float, dice: random.Random) -> Outcome:
        return empty if now > 10.0 else Server()(request, now, dice)

    play = Play(texts(5_000), endpoint, Policy(max_in_flight=64, give_up_after_s=60.0), CHAT)

    assert play.stopped is not None
    assert "gave up after an outage of" in play.stopped.message
    assert 70.0 <= play.now <= 85.0
    assert (
        sum(sent.outcome is empty for sent in play.sent) <= 150
    )  # as with any other fault: those in flight, and probes


def test_a_refused_input_shows_that_the_endpoint_is_there() -> None:
    """A probe that is refused for its input ends the outage as an answer does."""
    scheduler, _ = in_outage()
    (probe,) = scheduler.ready(0.25)
    scheduler.on_failure(probe, BAD_INPUT, 1.0, lambda: 0.0)

    assert 1 < len(scheduler.ready(1.0))


@pytest.mark.parametrize("kind", ["not_found", "unauthorized", "quota"])
def test_a_permanent_error_of_the_endpoint_stops_the_task(kind: Kind) -> None:
    """A wrong path, a refused token or a used-up quota concerns all rows: three requests show it."""
    failure = Failure(RowError(kind, 400, "no", retryable=False))
    play = Play(texts(1_000), lambda request, now, dice: failure, Policy(), EMBED)

    assert 3 == len(play.sent)
    assert {failure.error} == set(play.errors.values())


@pytest.mark.waits
@pytest.mark.parametrize(
    "failure",
    [
        Failure(
            RowError("unauthorized", 400, "requesting a token at https://login: invalid_client", retryable=False),
            never_sent=True,
        ),
        Failure(RowError("connection", None, "certificate verify failed", retryable=True), final=True),
    ],
    ids=["no token", "no trust"],
)
def test_an_error_before_any_input_needs_one_witness(failure: Failure) -> None:
    """Without a token or a trusted connection no input was read, so one row is evidence for all."""
    play = Play(texts(1_000), lambda request, now, dice: failure, Policy(), CHAT)

    assert 1 == len(play.sent)
    assert {failure.error} == set(play.errors.values())


@pytest.mark.parametrize("failure", [BROKEN, UNAVAILABLE, GARBAGE], ids=lambda failure: failure.error.kind)
@pytest.mark.parametrize("task", [CHAT, EMBED], ids=lambda task: task.name)
def test_a_first_row_that_breaks_the_server_ends_nothing(failure: Failure, task: Task) -> None:
    """Where the first row never gets an answer, and the next does, the row is at fault."""

    def endpoint(request: Request, now: float, dice: random.Random) -> Outcome:
        return failure if request.inputs[0][0] == 0 else answer(request)

    play = Play(texts(100), endpoint, Policy(batch_size=1), task)

    assert {0: failure.error.kind} == {number: error.kind for number, error in play.errors.items()}
    assert 4 + 99 == len(play.sent)


@pytest.mark.parametrize("kind", ["unavailable", "connection"])
@given(answers=st.integers(0, 300))
@settings(max_examples=20)
def test_an_error_that_a_person_must_mend_is_not_retried(kind: Kind, answers: int) -> None:
    """A stopped endpoint or an untrusted certificate ends the task after 8 refusals, after few answers up to 23."""
    failure = Failure(RowError(kind, 400, "stopped", retryable=True), final=True)

    def endpoint(request: Request, now: float, dice: random.Random) -> Outcome:
        return failure if request.inputs[0][0] >= answers else answer(request)

    play = Play(texts(answers + 500), endpoint, Policy(max_in_flight=8), CHAT)

    assert {failure.error} == set(play.errors.values())
    assert 500 == len(play.errors)
    assert len(play.sent) <= answers + (8 if answers >= 24 else 23)


def test_rate_limiting_is_not_an_outage() -> None:
    """However many requests are rate limited, there are no probes, and no attempts are spent."""
    play = Play(texts(300), Server(refused=0.5), Policy(max_tries=1), CHAT)

    assert {} == play.errors
    assert REFUSED in {sent.outcome for sent in play.sent if isinstance(sent.outcome, Failure)}
