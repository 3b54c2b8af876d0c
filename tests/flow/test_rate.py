"""How fast requests may go: a quota that the user named, and a rate that refusals taught."""

import math
from collections import deque

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spark_llm.flow.cubic import RETURN_ROUNDS
from spark_llm.flow.rate import (
    BACKOFF_RATIO,
    BURST_REQUESTS,
    CEILING_SHARE,
    FIRST_BACKOFF_RATIO,
    MIN_REQUESTS_PER_S,
    SAME_LEVEL_ROUNDS,
    SAME_LEVEL_SHARE,
    UNCONFIRMED_SHARE,
    AdaptiveRate,
    RefusedLevel,
    TokenBucket,
)

QUOTAS = st.floats(1, 1e5)
GAPS = st.lists(st.sampled_from((0.0, 0.0, 0.001, 0.3, 1.0, 7.0, 59.0, 200.0)), min_size=1, max_size=40)


def sent_when_due(bucket: TokenBucket, pauses: list[float], amounts: list[float], most: int = 400) -> list[float]:
    """Take as soon as it may be, but for the pauses of the sender's own, and return when."""
    now, taken = 0.0, list[float]()
    for number in range(most):
        now = max(now, bucket.opens_at(now))
        assert bucket.opens_at(now) == now, "it opens when it said"
        bucket.take(amounts[number % len(amounts)], now)
        taken.append(now)
        if number % (most // len(pauses) + 1) == 0:
            now += pauses[number // (most // len(pauses) + 1)]
    return taken


def hold_back(rate: AdaptiveRate, now: float) -> None:
    """Send as much as may go now, and want more."""
    while rate.available(now, 1):
        rate.on_send()


@given(QUOTAS, GAPS)
@example(1.0, [0.0])
@example(60.0, [61.0, 0.0])
def test_no_minute_sees_more_than_its_quota(per_minute: float, pauses: list[float]) -> None:
    """Whenever a minute begins, and whatever the pause before, requests stay within the quota."""
    taken = sent_when_due(TokenBucket(per_minute), pauses, [1.0])
    minute: deque[float] = deque()
    for now in taken:
        minute.append(now)
        while minute[0] <= now - 60:
            minute.popleft()

        assert len(minute) <= max(1.0, per_minute + 1e-6)


@given(st.floats(60, 1e5), st.lists(st.floats(0, 3), min_size=1, max_size=20))
def test_no_minute_sees_more_than_its_quota_and_one_debt(per_minute: float, amounts: list[float]) -> None:
    """What is larger than the bucket goes into debt, so a minute may see one such amount more than its quota."""
    amounts = [share * per_minute / 60 for share in amounts]
    taken = sent_when_due(TokenBucket(per_minute), [0.0], amounts)
    minute: deque[tuple[float, float]] = deque()
    for number, now in enumerate(taken):
        minute.append((now, amounts[number % len(amounts)]))
        while minute[0][0] <= now - 60:
            minute.popleft()

        assert sum(amount for _, amount in minute) <= per_minute + max(amounts) + 1e-6


@given(st.floats(60, 1e5))
def test_nearly_the_whole_quota_may_be_used(per_minute: float) -> None:
    """Over ten minutes at least 96 % go out: what is held back is the second's worth that may go at once."""
    bucket, per_s = TokenBucket(per_minute), per_minute / 60
    now, amount, taken = 0.0, max(1.0, per_s / 4), 0.0
    while now < 600:
        bucket.take(amount, now)
        taken += amount
        now = max(now, bucket.opens_at(now))

    assert 0.96 * 10 * per_minute <= taken + amount


def test_a_second_of_the_quota_may_go_at_once() -> None:
    """600 a minute are ten at once, and then one after another."""
    bucket = TokenBucket(600)
    burst = 0
    while bucket.opens_at(5.0) == 5.0:
        bucket.take(1, 5.0)
        burst += 1
    opens_at = bucket.opens_at(5.0)

    assert 10 == burst
    assert 5.1 == pytest.approx(opens_at, abs=0.01)


def test_a_debt_is_worked_off_and_what_was_too_much_is_given_back() -> None:
    """An answer that took more tokens than were estimated delays the next; one that took fewer brings it forward."""
    bucket = TokenBucket(6_000)
    bucket.take(1_000, 0.0)
    owing = bucket.opens_at(0.0)
    bucket.take(-500, 0.0)
    forgiven = bucket.opens_at(0.0)
    bucket.take(-1e9, 0.0)

    assert 9.0 == pytest.approx(owing, abs=0.3)
    assert 4.0 == pytest.approx(forgiven, abs=0.3)
    assert 0.0 == bucket.opens_at(0.0)


@given(st.floats(0.1, 1e4), st.floats(0, 1e6))
def test_requests_at_a_learned_rate_go_evenly(accepted_per_s: float, now: float) -> None:
    """One after another, each when it may: the gaps are the rate's, which begins just below what was accepted."""
    rate = AdaptiveRate(accepted_per_s, now)
    times = []
    for _ in range(20):
        now = max(now, rate.opens_at())
        assert 1 <= rate.available(now, 1)
        rate.on_send()
        times.append(now)
    mean_gap = (times[-1] - times[0]) / 19

    assert math.isclose(FIRST_BACKOFF_RATIO * accepted_per_s, rate.per_s)
    assert math.isclose(1 / rate.per_s, mean_gap, rel_tol=1e-3, abs_tol=1e-6)


@given(st.floats(0.1, 1e3), st.floats(0, 1e5), st.integers(1, 500))
def test_after_an_idle_time_only_a_burst_may_go(accepted_per_s: float, pause_s: float, wanted: int) -> None:
    """However long the sender was idle, at most a burst goes at once: unused time is not saved up."""
    rate = AdaptiveRate(accepted_per_s, 0.0)
    allowed = rate.available(pause_s, wanted)

    assert min(1, wanted) <= allowed <= min(wanted, BURST_REQUESTS + 1)


def test_nothing_goes_before_the_rate_resumes() -> None:
    """A pause that was imposed is kept to the end, and then one request goes."""
    rate = AdaptiveRate(10.0, 0.0)
    rate.resume_at(5.0)

    assert 5.0 == rate.opens_at()
    assert [0, 1] == [rate.available(now, 10) for now in (4.99, 5.0)]


@given(st.floats(MIN_REQUESTS_PER_S * 4, 1e4))
def test_a_rate_that_was_refused_at_once_is_cut_more_than_one_that_lasted(per_s: float) -> None:
    """The first rate is an estimate; one that went well for some rounds is known, and is cut to just below."""
    estimate, lasted = AdaptiveRate(per_s, 0.0), AdaptiveRate(per_s, 0.0)
    estimate.cut(per_s)
    hold_back(lasted, RETURN_ROUNDS)
    lasted.grow(RETURN_ROUNDS, 1.0)
    back = lasted.per_s
    lasted.cut(per_s)

    assert math.isclose(FIRST_BACKOFF_RATIO * UNCONFIRMED_SHARE * BACKOFF_RATIO * per_s, estimate.per_s)
    assert math.isclose(per_s, back)
    assert math.isclose(CEILING_SHARE * BACKOFF_RATIO * per_s, lasted.per_s)


def test_a_rate_never_falls_to_zero() -> None:
    """However often it is refused, one request in twenty seconds still goes."""
    rate = AdaptiveRate(1.0, 0.0)
    for _ in range(1_000):
        rate.cut(1.0)

    assert MIN_REQUESTS_PER_S == rate.per_s


def test_a_rate_that_holds_nothing_back_is_forgotten_and_does_not_grow() -> None:
    """Where fewer requests wait than it allows, their answers teach nothing; after a while it is forgotten."""
    rate = AdaptiveRate(10.0, 0.0)
    kept = [(rate.available(now, 1), rate.grow(now, 1.0)) for now in map(float, range(1, 40))]

    assert FIRST_BACKOFF_RATIO * 10.0 == rate.per_s
    assert kept[0] == (1, True)
    assert kept[-1] == (1, False)


def test_a_rate_that_holds_requests_back_is_probed() -> None:
    """As long as more are wanted than may go, and nothing is refused, it climbs back and then above its ceiling."""
    rate, now = AdaptiveRate(10.0, 0.0), 0.0
    while now < 20:
        now = max(now, rate.opens_at())
        assert rate.grow(now, 1.0)
        hold_back(rate, now)

    assert 15 < rate.per_s


@given(st.floats(MIN_REQUESTS_PER_S * 4, 1e4), st.floats(0.1, 1.5))
def test_a_rate_that_doubles_again_is_cut_to_what_was_accepted(per_s: float, accepted: float) -> None:
    """And never below the rate at which it began, which was not refused for long."""
    rate, now = AdaptiveRate(per_s, 0.0), 0.0
    begun = rate.per_s
    rate.restart_slow_start()
    while now < 2:
        now += 0.1
        rate.resume_at(now + 1)
        rate.available(now, 1)
        rate.grow(now, 1.0)
    tried = rate.per_s
    rate.cut(accepted * per_s)

    assert 4 * begun < tried
    assert math.isclose(BACKOFF_RATIO * max(begun, accepted * per_s), rate.per_s)


SHARES = st.lists(
    st.tuples(st.floats(0.5, 40.0), st.floats(0.1, 0.9)),  # for so many seconds, the first of two has this part
    min_size=1,
    max_size=12,
)


@given(st.sampled_from((60.0, 600.0)), SHARES)
def test_no_minute_sees_more_than_a_quota_whose_shares_change(
    per_minute: float, shares: list[tuple[float, float]]
) -> None:
    """Two senders that take all they may, while their shares change again and again."""
    buckets, begin = (TokenBucket(per_minute / 2), TokenBucket(per_minute / 2)), 0.0
    taken: list[float] = []
    for seconds, part in [*shares, (60.0, 0.5)]:
        for bucket, own_part in zip(buckets, (part, 1 - part), strict=True):
            bucket.set_per_minute(per_minute * own_part, begin)
            while (opens_at := bucket.opens_at(begin)) < begin + seconds:
                bucket.take(1.0, opens_at)
                taken.append(opens_at)
        begin += seconds
    taken.sort()
    minutes = (sum(1 for at in taken[first:] if at < begin + 60) for first, begin in enumerate(taken))

    assert per_minute >= max(minutes)


def test_a_share_of_nothing_waits_for_the_next_share() -> None:
    """It opens at some time, half an hour away, and soon where the share grows again."""
    bucket = TokenBucket(60.0)
    bucket.take(1.0, 0.0)
    bucket.set_per_minute(0.0, 1.0)

    assert 1_800 < bucket.opens_at(1.0) < math.inf
    bucket.set_per_minute(60.0, 2.0)
    assert 3.5 > bucket.opens_at(2.0)


def refused_at(level: int, answers: int) -> RefusedLevel:
    """Return what is known after a cut at a level, and then so many answers from below it."""
    refused = RefusedLevel()
    assert not refused.on_cut(level, 1)
    for _ in range(answers):
        refused.on_answer(level, 1)
    return refused


@given(st.integers(1, 500), st.integers(0, 1_000))
def test_refusals_at_one_level_are_a_limit_after_enough_answers(level: int, answers: int) -> None:
    """A round and a half of answers lie between them; without answers an endpoint that is closed looks the same."""
    assert (answers >= SAME_LEVEL_ROUNDS * level) == refused_at(level, answers).on_cut(level, 2)


@given(st.integers(1, 500))
def test_cuts_in_a_row_count_the_answers_between_all_of_them(level: int) -> None:
    """A limit that is run into every few requests is found too."""
    refused, found, cuts = RefusedLevel(), False, 0
    while not found:
        cuts += 1
        found = refused.on_cut(level, cuts)
        refused.on_answer(level, cuts)

    assert cuts - 1 == math.ceil(SAME_LEVEL_ROUNDS * level)


@given(st.integers(1, 500), st.integers(1, 500))
def test_refusals_at_two_levels_are_no_limit(level: int, more: int) -> None:
    """As under a quota, which refuses at any number in flight; the answers before say nothing of the new level."""
    other = level + 1 + math.ceil(SAME_LEVEL_SHARE * level) + more
    refused = refused_at(level, 2_000)

    assert not refused.on_cut(other, 2)
    assert not refused.on_cut(other, 3)


@given(st.integers(1, 500), st.integers(1, 500))
def test_an_answer_from_above_the_level_says_that_it_is_no_limit(level: int, more: int) -> None:
    """One that was sent before the refusals says nothing: the limit may have fallen since."""
    above = level + 1 + math.ceil(SAME_LEVEL_SHARE * level) + more
    old, new = refused_at(level, 2_000), refused_at(level, 2_000)
    old.on_answer(above, 0)
    new.on_answer(above, 1)

    assert old.on_cut(level, 2)
    assert not new.on_cut(level, 2)
