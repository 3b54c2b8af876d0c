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
    """Return a rate-limited response with a Retry-After."""
    return Failure(REFUSED.error, throttled=True, retry_after_s=retry_after_s)


@given(st.integers(1, 10_000), DICE, st.one_of(st.none(), st.floats(0, 60)))
def test_a_rate_limited_request_waits_within_bounds(earlier: int, dice: float, retry_after_s: float | None) -> None:
    """Retry-After is waited for in full; the jitter on top doubles from a quarter of a second, up to 30."""
    attempts = Attempts(rate_limited=earlier - 1, rate_limited_since=0.0)
    wait = next_delay(refused(retry_after_s), attempts, Policy(give_up_after_s=1e6), 1.0, dice)
    least = retry_after_s or 0.0

    assert isinstance(wait, float)
    assert least <= wait <= least + min(30.0, 0.25 * 2.0 ** min(earlier - 1, 20))


@given(st.integers(1, 999), DICE)
def test_a_broken_request_waits_within_bounds(earlier: int, dice: float) -> None:
    """After a fault the jitter doubles from half a second, and ends at 30."""
    wait = next_delay(BROKEN, Attempts(faults=earlier - 1), Policy(max_tries=1_000), 1.0, dice)

    assert isinstance(wait, float)
    assert 0.0 <= wait <= min(30.0, 0.5 * 2.0 ** min(earlier - 1, 20))


def test_two_random_values_give_two_delays() -> None:
    """A thousand rate-limited requests do not come back together: the delay follows the random value."""
    waits = [next_delay(REFUSED, Attempts(), Policy(), 0.0, dice) for dice in (0.0, 0.25, 0.5, 0.75)]

    assert [0.0, 0.0625, 0.125, 0.1875] == waits


@given(st.integers(1, 30), DICE)
def test_faults_end_after_exactly_max_tries(max_tries: int, dice: float) -> None:
    """`max_tries` attempts are made, the first one counted; then the last error is the row's."""
    attempts = Attempts()
    verdicts = [next_delay(BROKEN, attempts, Policy(max_tries=max_tries), 0.0, dice) for _ in range(max_tries)]
    last = verdicts.pop()

    assert all(isinstance(wait, float) for wait in verdicts)
    assert isinstance(last, RowError)
    assert BROKEN.error == last._replace(message=BROKEN.error.message)
    assert "reset by peer" in last.message


def test_the_error_names_the_number_of_attempts() -> None:
    """A row's error says that the fault came again, and after how many attempts."""
    attempts = Attempts(faults=3)

    assert RowError("connection", None, "reset by peer (after 4 attempts)", retryable=True) == next_delay(
        BROKEN, attempts, Policy(), 0.0, 0.5
    )


@given(st.lists(st.tuples(st.floats(0, 20), DICE, st.one_of(st.none(), st.floats(0, 90))), max_size=60))
def test_no_delay_ends_after_the_time_budget(steps: list[tuple[float, float, float | None]]) -> None:
    """A row may be rate limited for `give_up_after_s`, from the first such response: no attempt begins later."""
    policy, attempts, now = Policy(give_up_after_s=100.0), Attempts(), 50.0
    first = None
    for served_in, dice, retry_after_s in steps:
        now += served_in
        first = now if first is None else first
        wait = next_delay(refused(retry_after_s), attempts, policy, now, dice)
        if isinstance(wait, RowError):
            break
        now += wait

        assert now - first <= 100.0


@given(st.integers(1, 2_000), DICE)
def test_rate_limiting_spends_no_attempts(rate_limited: int, dice: float) -> None:
    """However often a request was refused, it has all its attempts left for faults."""
    policy, attempts = Policy(max_tries=2, give_up_after_s=1e9), Attempts()
    for _ in range(rate_limited):
        next_delay(REFUSED, attempts, policy, 0.0, dice)

    assert isinstance(next_delay(BROKEN, attempts, policy, 0.0, dice), float)
    assert isinstance(next_delay(BROKEN, attempts, policy, 0.0, dice), RowError)


def test_faults_spend_no_time_budget() -> None:
    """The time that a request was rate limited begins with the first refusal, and not with a fault before it."""
    policy, attempts = Policy(give_up_after_s=10.0), Attempts()
    next_delay(BROKEN, attempts, policy, 0.0, 0.5)

    assert 0.125 == next_delay(REFUSED, attempts, policy, 1_000.0, 0.5)


def test_a_retry_after_beyond_the_time_budget_ends_at_once() -> None:
    """A row does not wait for an attempt that will not be made; its error names what it waited for."""
    verdict = next_delay(refused(3_600.0), Attempts(), Policy(), 5.0, 0.0)

    assert isinstance(verdict, RowError)
    assert ("rate_limited", 429, True) == (verdict.kind, verdict.status, verdict.retryable)
    assert "Too many requests" in verdict.message


def test_a_fault_with_retry_after_waits_no_longer_than_the_time_budget() -> None:
    """A broken server that says "tomorrow" gets the next attempt after `give_up_after_s`."""
    down = Failure(RowError("unavailable", 500, "down for the day", retryable=True), retry_after_s=86_400.0)

    assert [3.0, 600.0] == [
        next_delay(failure, Attempts(), Policy(give_up_after_s=600.0), 5.0, 0.0)
        for failure in (replace(down, retry_after_s=3.0), down)
    ]


def test_no_time_budget_means_no_second_attempt() -> None:
    """With `give_up_after_s=0` a rate-limited row fails, whatever the random value."""
    verdicts = [next_delay(REFUSED, Attempts(), Policy(give_up_after_s=0), 5.0, dice) for dice in (0.01, 0.5, 0.99)]

    assert [RowError] * 3 == [type(verdict) for verdict in verdicts]


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_permanent_error_is_not_retried(kind: Kind) -> None:
    """An error that no further attempt can mend is final at once, unchanged."""
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
    """A table's first failures weigh no more than others: the share is always of 1,000 rows."""
    assert rows == first_exceeded(most, [True] * FAILURE_ROWS)


def test_failures_that_are_long_past_count_no_more() -> None:
    """A task of any length may fail up to the share in every 1,000 rows."""
    almost = ([True] * 99 + [False] * 901) * 5

    assert None is first_exceeded(0.1, almost)
    assert len(almost) + 100 == first_exceeded(0.1, [*almost, *[True] * 100])


def test_without_a_rate_all_rows_may_fail() -> None:
    """Without a maximum share every row is sent."""
    assert None is first_exceeded(None, [True] * 3_000)
