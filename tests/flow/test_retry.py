"""Whether a failed try is followed by another, and when; and how many rows of a task may fail."""

from collections.abc import Iterable
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import Kind
from spark_llm.flow.retry import FAILURE_ROWS, Attempts, FailureRate, next_delay
from spark_llm.policy import Policy
from spark_llm.protocol.values import Failure, RowError

DICE = st.floats(0.0, 1.0, exclude_max=True)
REFUSED = Failure(RowError("rate_limited", 429, "Too many requests", retryable=True), throttled=True)
BROKEN = Failure(RowError("connection", None, "reset by peer", retryable=True))


def refused(retry_after_s: float | None) -> Failure:
    """Return a refusal that names a time."""
    return Failure(REFUSED.error, throttled=True, retry_after_s=retry_after_s)


@given(st.integers(1, 10_000), DICE, st.one_of(st.none(), st.floats(0, 60)))
def test_a_refused_request_waits_within_bounds(earlier: int, dice: float, retry_after_s: float | None) -> None:
    """Retry-After is waited out in full; the jitter on top doubles from a quarter of a second, and ends at 30."""
    tries = Attempts(refusals=earlier - 1, refused_since=0.0)
    wait = next_delay(refused(retry_after_s), tries, Policy(give_up_after_s=1e6), 1.0, dice)
    least = retry_after_s or 0.0

    assert isinstance(wait, float)
    assert least <= wait <= least + min(30.0, 0.25 * 2.0 ** min(earlier - 1, 20))


@given(st.integers(1, 999), DICE)
def test_a_broken_request_waits_within_bounds(earlier: int, dice: float) -> None:
    """After a fault the jitter doubles from half a second, and ends at 30."""
    wait = next_delay(BROKEN, Attempts(faults=earlier - 1), Policy(max_tries=1_000), 1.0, dice)

    assert isinstance(wait, float)
    assert 0.0 <= wait <= min(30.0, 0.5 * 2.0 ** min(earlier - 1, 20))


def test_two_draws_give_two_waits() -> None:
    """A thousand refused requests do not come back together: the wait follows the dice."""
    waits = [next_delay(REFUSED, Attempts(), Policy(), 0.0, dice) for dice in (0.0, 0.25, 0.5, 0.75)]

    assert [0.0, 0.0625, 0.125, 0.1875] == waits


@given(st.integers(1, 30), DICE)
def test_faults_end_after_exactly_max_tries(max_tries: int, dice: float) -> None:
    """`max_tries` tries are made, the first one counted; then the last error is the row's."""
    tries = Attempts()
    verdicts = [next_delay(BROKEN, tries, Policy(max_tries=max_tries), 0.0, dice) for _ in range(max_tries)]
    last = verdicts.pop()

    assert all(isinstance(wait, float) for wait in verdicts)
    assert isinstance(last, RowError)
    assert BROKEN.error == last._replace(message=BROKEN.error.message)
    assert "reset by peer" in last.message


def test_the_last_word_says_how_often_it_was_tried() -> None:
    """A row's error tells that the fault came again, and how many tries that took."""
    tries = Attempts(faults=3)

    assert RowError("connection", None, "reset by peer (after 4 tries)", retryable=True) == next_delay(
        BROKEN, tries, Policy(), 0.0, 0.5
    )


@given(st.lists(st.tuples(st.floats(0, 20), DICE, st.one_of(st.none(), st.floats(0, 90))), max_size=60))
def test_no_wait_ends_after_the_patience(steps: list[tuple[float, float, float | None]]) -> None:
    """A row may be told to wait for `give_up_after_s`, counted from the first refusal: no try begins later."""
    policy, tries, now = Policy(give_up_after_s=100.0), Attempts(), 50.0
    first = None
    for served_in, dice, retry_after_s in steps:
        now += served_in
        first = now if first is None else first
        wait = next_delay(refused(retry_after_s), tries, policy, now, dice)
        if isinstance(wait, RowError):
            break
        now += wait

        assert now - first <= 100.0


@given(st.integers(1, 2_000), DICE)
def test_being_told_to_wait_spends_no_tries(refusals: int, dice: float) -> None:
    """However often a request was refused, it has all its tries left for faults."""
    policy, tries = Policy(max_tries=2, give_up_after_s=1e9), Attempts()
    for _ in range(refusals):
        next_delay(REFUSED, tries, policy, 0.0, dice)

    assert isinstance(next_delay(BROKEN, tries, policy, 0.0, dice), float)
    assert isinstance(next_delay(BROKEN, tries, policy, 0.0, dice), RowError)


def test_faults_spend_no_patience() -> None:
    """The time that a request was told to wait begins with the first refusal, and not with a fault before it."""
    policy, tries = Policy(give_up_after_s=10.0), Attempts()
    next_delay(BROKEN, tries, policy, 0.0, 0.5)

    assert 0.125 == next_delay(REFUSED, tries, policy, 1_000.0, 0.5)


def test_a_retry_after_beyond_the_patience_ends_at_once() -> None:
    """A row is not kept waiting for a try that will not be made; its error says what it waited for."""
    verdict = next_delay(refused(3_600.0), Attempts(), Policy(), 5.0, 0.0)

    assert isinstance(verdict, RowError)
    assert ("rate_limited", 429, True) == (verdict.kind, verdict.status, verdict.retryable)
    assert "Too many requests" in verdict.message


def test_a_fault_that_names_a_time_waits_no_longer_than_the_patience() -> None:
    """A broken server that says "tomorrow" is asked again when the patience would end, and not tomorrow."""
    down = Failure(RowError("unavailable", 500, "down for the day", retryable=True), retry_after_s=86_400.0)

    assert [3.0, 600.0] == [
        next_delay(failure, Attempts(), Policy(give_up_after_s=600.0), 5.0, 0.0)
        for failure in (replace(down, retry_after_s=3.0), down)
    ]


def test_no_patience_means_no_second_try() -> None:
    """With `give_up_after_s=0` a refused row fails, whatever the dice."""
    verdicts = [next_delay(REFUSED, Attempts(), Policy(give_up_after_s=0), 5.0, dice) for dice in (0.01, 0.5, 0.99)]

    assert [RowError] * 3 == [type(verdict) for verdict in verdicts]


@pytest.mark.parametrize("kind", get_args(Kind))
def test_what_would_not_fare_better_is_not_tried_again(kind: Kind) -> None:
    """An error that no second try can mend is the last word at once, unchanged."""
    error = RowError(kind, 400, "no", retryable=False)

    assert error == next_delay(Failure(error), Attempts(), Policy(max_tries=9), 0.0, 0.5)


def first_exceeded(most: float | None, failed: Iterable[bool]) -> int | None:
    """Return after how many rows the rate is exceeded; None if it never is."""
    rate = FailureRate(most)
    return next((at for at, bad in enumerate(failed, 1) if rate.is_exceeded_by(failed=bad)), None)


@given(
    st.sampled_from([0.001, 0.01, 0.07, 0.29, 0.5, 1.0]),
    st.lists(st.tuples(st.booleans(), st.integers(1, 700)), max_size=12),
)
def test_the_failure_rate_is_exact(most: float, runs: list[tuple[bool, int]]) -> None:
    """It is exceeded by the first failed row that makes the share of the last 1,000 rows what it may not be."""
    failed = [bad for bad, length in runs for _ in range(length)]
    naive = (
        at
        for at in range(1, len(failed) + 1)
        if failed[at - 1] and sum(failed[max(0, at - 1_000) : at]) >= 1_000 * most
    )

    assert next(naive, None) == first_exceeded(most, failed)


@pytest.mark.parametrize(("most", "rows"), [(0.001, 1), (0.05, 50), (1.0, 1_000)])
def test_rows_that_have_not_come_yet_count_as_answered(most: float, rows: int) -> None:
    """A table's first failures weigh no more than others: the share is of 1,000 rows from the beginning."""
    assert rows == first_exceeded(most, [True] * FAILURE_ROWS)


def test_failures_that_are_long_past_count_no_more() -> None:
    """A task of any length may fail up to the share in every 1,000 rows."""
    almost = ([True] * 99 + [False] * 901) * 5

    assert None is first_exceeded(0.1, almost)
    assert len(almost) + 100 == first_exceeded(0.1, [*almost, *[True] * 100])


def test_without_a_rate_all_rows_may_fail() -> None:
    """Who names none has every row asked."""
    assert None is first_exceeded(None, [True] * 3_000)
