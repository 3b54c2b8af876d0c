"""Whose a refusal is: endpoints that answer some rows with 401, 402, 403 or 404, and some that answer all so."""

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spark_llm.errors import Kind
from spark_llm.flow.controller import FlowController
from spark_llm.flow.negotiation import WireFormatNegotiation
from spark_llm.flow.request import Request
from spark_llm.flow.scheduler import RequestScheduler
from spark_llm.flow.suspects import MAX_WITNESSES, WITNESSES_AFTER_ANSWERS, WITNESSES_BEFORE_ANSWERS
from spark_llm.policy import Policy
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Answer, Failure, Outcome, RowError
from tests.support.play import CHAT, COMPLETE, EMBED, Endpoint, Play, answer, begun, pack, texts

STATUSES: dict[int, Kind] = {401: "unauthorized", 402: "quota", 403: "unauthorized", 404: "not_found"}
OWN: dict[int, Kind] = {401: "invalid_request", 402: "quota", 403: "invalid_request", 404: "invalid_request"}
EACH_STATUS = pytest.mark.parametrize("status", STATUSES)
EACH_TASK = pytest.mark.parametrize("task", [CHAT, COMPLETE, EMBED], ids=lambda task: task.name)
WINDOWS = st.sampled_from([1, 2, 16, 64])
SEEDS = st.integers(0, 2**32)
FEW_ANSWERS, WITNESSES_AFTER_FEW_ANSWERS = 24, 23


def refusal(status: int) -> Failure:
    """Make the refusal of a status."""
    return Failure(RowError(STATUSES[status], status, "no", retryable=False))


def refusing(status: int, bad: set[int], dies_at: float = 1e18) -> Endpoint:
    """Make an endpoint that refuses these rows, and from a moment on all."""

    def endpoint(request: Request, now: float, dice: random.Random) -> Outcome:
        refused = now >= dies_at or any(number in bad for number, _ in request.inputs)
        return refusal(status) if refused else answer(request)

    return endpoint


def drawn(rows: int, share: float, seed: int) -> set[int]:
    """Draw a share of the rows, the first of which is sound."""
    dice = random.Random(seed)
    return {number for number in range(1, rows) if dice.random() < share}


def nothing_more(owner: object) -> bool:
    """Whether an owner may soon add requests: none does."""
    return False


@pytest.mark.waits
@EACH_STATUS
@given(share=st.sampled_from([0.005, 0.02, 0.1, 0.3]), window=WINDOWS, seed=SEEDS)
@example(share=0.3, window=2, seed=1634179933)  # eight refused rows follow the first five answers
def test_refused_rows_end_nothing(status: int, share: float, window: int, seed: int) -> None:
    """Up to three in ten: all others are answered, each is sent once, and the refused ones fail by themselves."""
    bad = drawn(300, share, seed)
    play = Play(texts(300), refusing(status, bad), Policy(max_in_flight=window), CHAT, seed=seed)
    kinds = {error.kind for error in play.errors.values()}

    assert bad == play.errors.keys()
    assert {OWN[status], STATUSES[status]} >= kinds  # the last rows have nobody to judge them by
    assert sum(error.kind != OWN[status] for error in play.errors.values()) < 20
    assert 300 == len(play.sent)


@pytest.mark.waits
@EACH_STATUS
@EACH_TASK
@given(bad=st.sets(st.integers(0, 199), max_size=2), seed=SEEDS)
def test_a_refused_row_is_found_in_its_batch(status: int, task: Task, bad: set[int], seed: int) -> None:
    """Up to two bad rows, even the first ones, fail alone, for at most their halvings."""
    play = Play(texts(200), refusing(status, bad), Policy(max_in_flight=8), task, seed=seed)

    assert bad == play.errors.keys()
    assert len(play.sent) <= -(-200 // task.max_inputs(0, 64)) + 14 * len(bad) + WITNESSES_BEFORE_ANSWERS


@EACH_STATUS
@EACH_TASK
@given(window=WINDOWS, rows=st.integers(1, 300), seed=SEEDS)
def test_an_endpoint_that_refuses_all_gets_three_requests(
    status: int, task: Task, window: int, rows: int, seed: int
) -> None:
    """Three different requests show it, and the other rows get their error without a request."""
    play = Play(texts(rows), refusing(status, set(), 0.0), Policy(max_in_flight=window, batch_size=4), task, seed=seed)

    assert {refusal(status).error} == set(play.errors.values())
    assert rows == len(play.errors)
    assert len(play.sent) <= 2 * WITNESSES_BEFORE_ANSWERS


@pytest.mark.waits
@EACH_STATUS
@given(share=st.sampled_from([0.0, 0.02, 0.3]), dies_at=st.floats(1.0, 20.0), window=WINDOWS, seed=SEEDS)
def test_an_endpoint_that_dies_gets_a_few_more_requests(
    status: int, share: float, dies_at: float, window: int, seed: int
) -> None:
    """As many requests as may be in flight, or eight; up to 23 after a few answers, and 100 after refused rows."""
    bad = drawn(1_000, share, seed)
    play = Play(texts(1_000), refusing(status, bad, dies_at), Policy(max_in_flight=window), CHAT, seed=seed)
    late = [sent for sent in play.sent if sent.at >= dies_at]
    answers = sum(isinstance(sent.outcome, Answer) for sent in play.sent)
    witnesses = WITNESSES_AFTER_ANSWERS if answers >= FEW_ANSWERS else WITNESSES_AFTER_FEW_ANSWERS

    unsent = set(range(1_000)).difference(*(sent.rows for sent in play.sent))

    assert 1_000 == len(play.results)
    assert len(late) <= max(window, MAX_WITNESSES if share else witnesses)
    if unsent or len(late) >= max(window, witnesses):
        assert play.stopped == refusal(status).error


@EACH_STATUS
def test_bad_rows_side_by_side_end_nothing(status: int) -> None:
    """A sorted table has its bad rows together: rows from the end of the queue are sent between them."""
    bad = set(range(100, 140))
    play = Play(texts(400), refusing(status, bad), Policy(max_in_flight=4), CHAT)

    assert bad == play.errors.keys()


def test_equal_inputs_are_not_different_witnesses() -> None:
    """One text that is refused eight times counts as two witnesses; a table of that text alone still ends."""
    mixed = Play(["bad"] * 8 + ["good"] * 20, refusing(403, set(range(8))), Policy(), CHAT)
    alone = Play(["bad"] * 1_000, refusing(403, set(), 0.0), Policy(), CHAT)

    assert set(range(8)) == mixed.errors.keys()
    assert len(alone.sent) <= 16


@EACH_STATUS
def test_rows_that_come_one_by_one_are_witnesses_together(status: int) -> None:
    """Where the queue is empty a row gets its error at once, and the third in a row ends the task."""
    scheduler, negotiation = RequestScheduler(FlowController(Policy()), Policy()), WireFormatNegotiation(CHAT, 1)
    ends = []
    for number in range(WITNESSES_BEFORE_ANSWERS):
        scheduler.add("task", pack(number), negotiation)
        (request,) = scheduler.ready(float(number))
        ends += [scheduler.on_failure(request, refusal(status), float(number), lambda: 0.0)]
        ends += [verdict for _, verdict in scheduler.judge.verdicts(float(number), nothing_more)]
    stops = [verdict.stops_all for verdict in ends if verdict is not None]

    assert [False] * (WITNESSES_BEFORE_ANSWERS - 1) + [True] == stops


def test_an_answer_with_another_token_is_no_evidence() -> None:
    """A row refused with a token that was replaced since is sent again with the new one."""
    scheduler, negotiation = begun(Policy(max_in_flight=2))
    scheduler.add("task", pack(1), negotiation)
    scheduler.add("task", pack(2), negotiation)
    refused, later = scheduler.ready(1.0)
    refused.token, later.token = "old", "new"

    assert None is scheduler.on_failure(refused, refusal(403), 2.0, lambda: 0.0)
    assert scheduler.on_answer(later, answer(later), 3.0, 1.0)
    assert [] == scheduler.judge.verdicts(3.0, nothing_more)
    assert [refused] == scheduler.ready(3.0)


def test_refusals_of_an_old_token_are_no_witnesses_of_the_new() -> None:
    """One row that is refused with the new token does not end the task: those of the old are asked again with it."""
    scheduler, negotiation = begun(Policy(max_in_flight=16))
    for number in range(WITNESSES_AFTER_ANSWERS):
        scheduler.add("task", pack(number), negotiation)
    *old, new = scheduler.ready(1.0)
    for request in old:
        request.token = "old"
        assert None is scheduler.on_failure(request, refusal(403), 2.0, lambda: 0.0)
    new.token = "new"

    assert None is scheduler.on_failure(new, refusal(403), 3.0, lambda: 0.0)
    assert old == scheduler.ready(3.0)[: len(old)]


def test_a_later_request_that_was_answered_before_counts_too() -> None:
    """The answer may come first: the row is refused alone, and its error says so."""
    scheduler, negotiation = begun(Policy(max_in_flight=2))
    scheduler.add("task", pack(1), negotiation)
    scheduler.add("task", pack(2), negotiation)
    refused, later = scheduler.ready(1.0)
    scheduler.on_answer(later, answer(later), 2.0, 1.0)
    scheduler.on_failure(refused, refusal(403), 3.0, lambda: 0.0)

    assert [(refused, "invalid_request")] == [
        (each, word.error.kind) for each, word in scheduler.judge.verdicts(4.0, nothing_more)
    ]


@pytest.mark.parametrize("renews", [True, False])
def test_the_last_refused_row_is_sent_again_where_a_token_can_be_renewed(renews: bool) -> None:  # noqa: FBT001 -- a table
    """Answers beside it may be older than the end of the token; one such attempt is enough."""
    policy = Policy(max_in_flight=2)
    scheduler, negotiation = (
        RequestScheduler(FlowController(policy), policy, renews=renews),
        WireFormatNegotiation(CHAT, 1),
    )
    scheduler.add("task", pack(0), negotiation)
    (first,) = scheduler.ready(0.0)
    scheduler.on_answer(first, answer(first), 1.0, 1.0)
    scheduler.add("task", pack(1), negotiation)
    scheduler.add("task", pack(2), negotiation)
    refused, beside = scheduler.ready(1.0)
    scheduler.on_failure(refused, refusal(403), 2.0, lambda: 0.0)
    scheduler.on_answer(beside, answer(beside), 3.0, 1.0)
    if renews:
        assert [] == scheduler.judge.verdicts(3.0, nothing_more)
        assert [refused] == scheduler.ready(3.0)
        assert scheduler.judge.is_decisive(refused)
        scheduler.on_failure(refused, refusal(403), 4.0, lambda: 0.0)

    assert [refused] == [request for request, _ in scheduler.judge.verdicts(4.0, nothing_more)]
    assert [] == scheduler.ready(5.0)


def test_an_answer_to_an_older_request_clears_nothing() -> None:
    """It may be older than the end of the token: the row goes on waiting for a later one."""
    scheduler, negotiation = begun(Policy(max_in_flight=2))
    for number in (1, 2, 3):
        scheduler.add("task", pack(number), negotiation)
    older, refused = scheduler.ready(1.0)
    scheduler.on_failure(refused, refusal(403), 2.0, lambda: 0.0)
    scheduler.on_answer(older, answer(older), 3.0, 2.0)
    before = scheduler.judge.verdicts(3.0, nothing_more)
    (later,) = scheduler.ready(3.0)
    scheduler.on_answer(later, answer(later), 4.0, 1.0)

    assert [] == before
    assert [(refused, "invalid_request")] == [
        (each, word.error.kind) for each, word in scheduler.judge.verdicts(4.0, nothing_more)
    ]


def test_the_error_of_one_row_says_so() -> None:
    """Its status stays, its kind no longer means all rows, and it is not retryable."""
    play = Play(texts(50), refusing(403, {20}), Policy(), CHAT)
    error = play.errors[20]

    assert ("invalid_request", 403, False) == (error.kind, error.status, error.retryable)
    assert "no (this row only; others were answered)" == error.message
