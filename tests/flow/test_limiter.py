"""How much may be out, and how fast: what makes the window grow, what cuts it, and what is about the rate instead."""

from collections import deque
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from spark_llm.flow.limiter import (
    BACKOFF_RATIO,
    MAX_PAUSE_S,
    MIN_MEMORY_REQUESTS,
    REFUSED_SHARE,
    ConcurrencyLimiter,
    Limits,
    Permit,
)
from spark_llm.policy import MAX_IN_FLIGHT, Policy

ROUND_S = 0.5
BURST = 12  # refused requests, enough to be no noise at any width below
EVENTS = st.tuples(
    st.sampled_from(("fill", "send", "answered", "refused", "told when", "failed", "later", "widen")),
    st.integers(0, 50),
)


def fill(limiter: ConcurrencyLimiter, now: float) -> list[Permit]:
    """Send as many requests as have room."""
    sent = []
    while limiter.available(now):
        sent.append(limiter.acquire(now, characters=4))
    return sent


def grown(answers: int, policy: Policy | None = None) -> tuple[ConcurrencyLimiter, float]:
    """Return a limiter after so many answers, with every freed slot taken at once; what is then in flight fails."""
    limiter, now, out = ConcurrencyLimiter(policy or Policy()), 0.0, deque[Permit]()
    for _ in range(answers):
        out += fill(limiter, now)
        now = max(now, out[0].sent_at + ROUND_S)
        limiter.on_answer(out.popleft(), now, ROUND_S)
    for _ in range(limiter.in_flight):
        limiter.on_failure()
    return limiter, now


def keeps_refusing(limiter: ConcurrencyLimiter, now: float, rounds: int) -> list[float]:
    """Refuse every request, and return how long each pause was."""
    pauses = []
    for _ in range(rounds):
        for sent in fill(limiter, now):
            limiter.on_rate_limited(sent, now)
        opens_at = limiter.opens_at(now)
        assert opens_at is not None
        pauses.append(opens_at - now)
        now = opens_at
    return pauses


def test_the_first_request_goes_alone() -> None:
    """Before any answer one request is in flight, and only its outcome lets the next one go."""
    limiter = ConcurrencyLimiter(Policy())
    sent = fill(limiter, 0.0)

    assert 1 == len(sent)
    assert 0 == limiter.available(0.0)
    assert None is limiter.opens_at(0.0)


def test_the_window_doubles_with_every_round_of_answers() -> None:
    """A round is as many answers as the window is wide: 1 + 2 + 4 of them make it eight wide."""
    assert [1, 2, 4, 8, 16, 32, 64] == [grown(2**rounds - 1)[0].window for rounds in range(7)]


def test_the_window_stops_at_the_ceiling() -> None:
    """However many answers come, no more requests are in flight than the policy allows."""
    policies = [Policy(max_in_flight=10), Policy(max_in_flight=10, tasks=4), Policy()]

    assert [10, 2, MAX_IN_FLIGHT] == [grown(2_000, policy)[0].window for policy in policies]


@given(
    st.integers(1, 40),
    st.lists(EVENTS, max_size=120),
    st.sampled_from((None, 60.0, 6_000.0)),
    st.sampled_from((None, 600.0)),
)
@example(4, [("fill", 0), ("answered", 0), ("fill", 0), ("told when", 0), ("fill", 0)], None, None)
def test_the_window_keeps_its_bounds(
    ceiling: int, events: list[tuple[str, int]], requests: float | None, tokens: float | None
) -> None:
    """It is from one to the ceiling, requests in flight are counted exactly, and room comes when it was due."""
    limiter = ConcurrencyLimiter(Policy(max_in_flight=ceiling, requests_per_minute=requests, tokens_per_minute=tokens))
    out, now = list[Permit](), 0.0
    for event, amount in events:
        if event in ("fill", "send"):
            out += fill(limiter, now) if event == "fill" else [limiter.acquire(now)] if limiter.available(now) else []
        elif event == "later":
            now += amount / 4
        elif event == "widen":
            limiter.widen(amount)
        elif out:
            sent = out.pop(amount % len(out))
            if event == "answered":
                limiter.on_answer(sent, now, now - sent.sent_at, amount)
            elif event == "failed":
                limiter.on_failure()
            else:
                limiter.on_rate_limited(sent, now, paused=event == "told when")
        opens_at = limiter.opens_at(now)

        assert 1 <= limiter.window <= ceiling
        assert len(out) == limiter.in_flight
        assert 0 <= limiter.available(now) <= max(0, limiter.window - len(out))
        assert (opens_at is None) == (limiter.window <= len(out))
        if opens_at is not None:
            assert (limiter.available(now) > 0) == (opens_at <= now)
            assert 1 <= limiter.available(opens_at + 1e-6)


@given(st.integers(30, 300))
def test_a_burst_of_refusals_cuts_the_window_once(answers: int) -> None:
    """Requests in flight together that are all refused cut it once; the rest lower the ceiling, to half at most."""
    limiter, now = grown(answers)
    sent = fill(limiter, now)
    windows = [limiter.window]
    for one in sent:
        limiter.on_rate_limited(one, now)
        windows.append(limiter.window)
    falls = [before - after for before, after in pairwise(windows)]

    assert 1 == sum(fall > 2 for fall in falls)
    assert 0 <= min(falls)
    assert BACKOFF_RATIO * (len(sent) - BURST) / 2 - 1 <= limiter.window < len(sent)
    assert (0, None) == (limiter.in_flight, limiter.rate_per_s)


@given(st.integers(20, 60), st.integers(8, 20))
def test_the_ceiling_is_what_was_in_flight_and_not_refused(capacity: int, extra: int) -> None:
    """Refusals of one burst come back one by one: when the last one has, the window is a share of what was served."""
    limiter, now = grown(capacity + extra)
    sent = fill(limiter, now)
    while limiter.in_flight > capacity + extra:
        limiter.on_failure()
    sent = sent[: limiter.in_flight]
    for one in sent[capacity:]:
        limiter.on_rate_limited(one, now)

    assert capacity == limiter.in_flight
    assert int(BACKOFF_RATIO * capacity) == limiter.window


@given(st.integers(8, 60), st.integers(10, 400))
def test_a_refusal_now_and_then_is_noise(apart: int, answers: int) -> None:
    """One refused request in eight, or fewer, is sent again and cuts nothing."""
    limiter, now = grown(answers)
    before = limiter.window
    for number in range(600):
        now += 0.01
        sent = limiter.acquire(now)
        limiter.on_rate_limited(sent, now) if number % apart == apart - 1 else limiter.on_answer(sent, now, ROUND_S)

    assert before <= limiter.window
    assert None is limiter.rate_per_s


def test_a_share_of_the_last_requests_refused_is_no_noise() -> None:
    """Of a few requests it takes three refused ones, so that a single 503 never halves a small window."""
    limiter, now = grown(15)
    sent = fill(limiter, now)
    windows = []
    for one in sent[:3]:
        limiter.on_rate_limited(one, now)
        windows.append(limiter.window)

    assert 3.0 == REFUSED_SHARE * MIN_MEMORY_REQUESTS
    assert [16, 16, int(BACKOFF_RATIO * 13)] == windows


def test_after_a_cut_the_window_returns_to_the_ceiling() -> None:
    """Four rounds of answers bring it back to what was in flight and not refused; then it probes beyond."""
    limiter, now = grown(63)
    out = deque(fill(limiter, now))
    while limiter.window == 64:
        limiter.on_rate_limited(out.popleft(), now)
    ceiling, windows = limiter.in_flight, [limiter.window]
    for _ in range(6):
        for _ in range(limiter.window):
            out += fill(limiter, now)
            now = max(now, out[0].sent_at + ROUND_S)
            limiter.on_answer(out.popleft(), now, ROUND_S)
        windows.append(limiter.window)

    assert 54 <= ceiling <= 60
    assert int(BACKOFF_RATIO * ceiling) == windows[0]
    assert sorted(windows) == windows
    assert abs(windows[4] - ceiling) <= 1
    assert ceiling < windows[6] <= ceiling + 8


def test_a_window_that_is_not_in_use_does_not_grow() -> None:
    """Answers to fewer requests than half the window say nothing about more."""
    limiter, now = grown(63)
    for _ in range(1_000):
        limiter.on_answer(limiter.acquire(now), now, ROUND_S)

    assert 64 == limiter.window


def test_a_fault_says_nothing_about_capacity() -> None:
    """A cut or a time-out frees its slot, and neither widens nor narrows the window."""
    limiter, now = grown(63)
    for _ in fill(limiter, now):
        limiter.on_failure()

    assert (64, 0, None) == (limiter.window, limiter.in_flight, limiter.rate_per_s)


def test_a_refusal_with_retry_after_counts_at_once() -> None:
    """No request goes before that time, so its first refusal cuts the window and teaches a rate."""
    limiter, now = grown(63)
    first, second, *_ = fill(limiter, now)
    limiter.on_rate_limited(first, now, paused=True)
    after_one = limiter.window
    limiter.on_rate_limited(second, now, paused=True)

    assert 64 > after_one == limiter.window
    assert limiter.rate_per_s is not None


def test_a_rate_is_learned_only_when_refusals_go_on() -> None:
    """One cut of the window may be enough; where refusals go on, the rate is too high."""
    limiter, now = grown(63)
    for sent in fill(limiter, now):
        limiter.on_rate_limited(sent, now)
    after_one = limiter.rate_per_s
    for sent in fill(limiter, now):
        limiter.on_rate_limited(sent, now)

    assert None is after_one
    assert limiter.rate_per_s is not None
    assert 0.5 * 64 / ROUND_S < limiter.rate_per_s < 2 * 64 / ROUND_S


def test_requests_beyond_the_window_say_nothing_about_its_last_cut() -> None:
    """Workers that do not know of it yet send them: refused, they lower the ceiling like those sent before it."""
    limiter, now = grown(63)
    sent, whole = deque(fill(limiter, now)), limiter.window
    while limiter.window == whole:
        limiter.on_rate_limited(sent.popleft(), now)
    after_cut = limiter.window
    assert limiter.in_flight > after_cut + 3
    for _ in range(3):
        limiter.on_answer(sent.popleft(), now, ROUND_S)
        limiter.on_rate_limited(limiter.acquire(now), now)

    assert after_cut - 3 <= limiter.window <= after_cut
    assert limiter.rate_per_s is None


def test_pauses_between_attempts_double_while_everything_is_refused() -> None:
    """Refused attempts may count against the quota, so there are fewer and fewer, up to one in ten seconds."""
    limiter, now = grown(63)
    pauses = [pause for pause in keeps_refusing(limiter, now, 25) if pause > 0]
    doubling = pauses[: next(place for place, pause in enumerate(pauses) if pause > MAX_PAUSE_S / 2.5)]

    assert len(doubling) >= 5
    assert all(1.7 < after / before < 2.3 for before, after in pairwise(doubling))
    assert MAX_PAUSE_S <= pauses[-1] <= MAX_PAUSE_S + 1


def test_an_answer_ends_the_pauses() -> None:
    """Once something was answered that was sent after the last cut, the next pause is a short one again."""
    limiter, now = grown(63)
    keeps_refusing(limiter, now, 20)
    now = 1_000.0
    limiter.on_answer(limiter.acquire(now), now, ROUND_S)

    assert 1 <= limiter.available(now + 1)
    assert max(keeps_refusing(limiter, now + 1, 3)) < 1


def test_an_answer_ends_the_pauses_although_more_was_refused_since() -> None:
    """A burst may be shorter than its answers take: those that come during the pause after it count as well."""
    limiter, now = grown(63)
    keeps_refusing(limiter, now, 20)
    now = 1_000.0
    accepted = limiter.acquire(now)
    now += keeps_refusing(limiter, now + 1, 3)[0]
    limiter.on_answer(accepted, now, ROUND_S)

    assert max(keeps_refusing(limiter, now + 60, 3)) < 1


def test_a_limit_that_fell_far_is_found_by_the_level_of_its_refusals() -> None:
    """Of 64 requests at once 10 are left: the window falls to them, and the rate that was learned is forgotten."""
    limiter, now = grown(63)
    keeps_refusing(limiter, now, 3)
    learned, now, cuts = limiter.rate_per_s, now + 10.0, 0
    while limiter.rate_per_s is not None:
        out = list[Permit]()
        while limiter.opens_at(now) is not None and len(out) < 14:
            now = max(now, limiter.opens_at(now) or 0.0)
            out += [limiter.acquire(now)] if limiter.available(now) else []
        for sent in out[10:]:
            limiter.on_rate_limited(sent, now)
        for sent in out[:10]:
            limiter.on_answer(sent, now, ROUND_S)
        now, cuts = now + ROUND_S, cuts + 1
        assert cuts < 20

    assert learned is not None
    assert 8 <= limiter.window <= 11


def test_an_idle_rate_is_forgotten() -> None:
    """Another task may find the endpoint in another state: after an idle minute the rate is gone."""
    limiter, now = grown(63)
    keeps_refusing(limiter, now, 3)
    learned = limiter.rate_per_s
    limiter.available(now + 60)

    assert learned is not None
    assert None is limiter.rate_per_s


def test_silence_widens_the_window_only_before_anything_was_refused() -> None:
    """While a first answer is waited for some more may go out, up to the ceiling; never fewer than before."""
    limiter = ConcurrencyLimiter(Policy(max_in_flight=8))
    windows = []
    for requests in (4, 2, 16):
        limiter.widen(requests)
        windows.append(limiter.window)
    cut, now = grown(63)
    for sent in fill(cut, now):
        cut.on_rate_limited(sent, now)
    before = cut.window
    cut.widen(100)

    assert [4, 4, 8] == windows
    assert before == cut.window


def refused_in_a_rhythm(rounds: int = 6) -> tuple[ConcurrencyLimiter, float]:
    """Return a limiter that others keep small: each 60 answers, what is out is refused as often as it takes to cut."""
    limiter, now = grown(7)
    for _ in range(rounds):
        now = serve(limiter, now, 60)
        before = limiter.window
        for sent in fill(limiter, now):
            limiter.on_rate_limited(sent, now)
        assert limiter.window < before
    return limiter, now


def serve(limiter: ConcurrencyLimiter, now: float, answers: int) -> float:
    """Answer so many requests, as many at a time as may be out; return when that was done."""
    while answers > 0:
        sent = fill(limiter, now)
        now = max(now + ROUND_S, limiter.opens_at(now + ROUND_S) or 0.0)
        for one in sent:
            limiter.on_answer(one, now, ROUND_S)
        answers -= len(sent)
    return now


def test_where_refusals_stop_the_window_doubles_again() -> None:
    """Workers that shared the limiter are gone: the window grows manifold in a few rounds, until the next refusal."""
    limiter, now = refused_in_a_rhythm()
    small = limiter.window
    now = serve(limiter, now, 150)
    grown_to = limiter.window
    for sent in fill(limiter, now):
        limiter.on_rate_limited(sent, now)
    cut = limiter.window
    serve(limiter, now, 2 * cut)

    assert small < 12
    assert 4 * small < grown_to
    assert cut < grown_to
    assert cut <= limiter.window <= grown_to


def test_a_pause_of_an_hour_is_not_silence() -> None:
    """A stream without rows is not refused either: its window stays as it was."""
    limiter, now = refused_in_a_rhythm()
    limit_that_goes_on, _ = refused_in_a_rhythm()
    serve(limiter, now + 3_600, 30)
    serve(limit_that_goes_on, now, 30)

    assert limit_that_goes_on.window == limiter.window


def test_a_quota_of_requests_is_kept_in_every_minute() -> None:
    """300 a minute over three tasks: each sends at most 100 in any minute, and hardly fewer."""
    limiter, now = ConcurrencyLimiter(Policy(requests_per_minute=300, tasks=3)), 0.0
    times = list[float]()
    while now < 600:
        for sent in fill(limiter, now):
            times.append(now)
            limiter.on_answer(sent, now, ROUND_S)
        now = max(now, limiter.opens_at(now) or 0.0)

    assert all(after - before >= 60 for before, after in zip(times, times[100:], strict=False))
    assert 950 <= len(times) <= 1_000


def test_a_quota_of_tokens_is_kept_by_what_answers_report() -> None:
    """A request's tokens are estimated by its length, corrected by its answer, and estimated better then."""
    limiter, now = ConcurrencyLimiter(Policy(tokens_per_minute=6_000, max_in_flight=4)), 0.0
    spent = list[tuple[float, float]]()
    while now < 600:
        for sent in fill(limiter, now):
            spent.append((now, 50))
            limiter.on_answer(sent, now + 0.01, ROUND_S, 50)
        now = max(now + 0.01, limiter.opens_at(now) or 0.0)
    minutes = [sum(tokens for at, tokens in spent if begin <= at < begin + 60) for begin in range(0, 540, 7)]

    assert max(minutes) <= 6_000 + 50
    assert min(minutes[1:]) >= 0.9 * 6_000


def test_limits_that_change_hold_at_once() -> None:
    """The window falls to a smaller share, requests in flight are not replaced, and it grows back to a larger one."""
    limiter, now = grown(200, Policy(max_in_flight=64))
    sent = fill(limiter, now)
    limiter.set_limits(Limits(16), now)
    assert (64, 16, 0) == (len(sent), limiter.window, limiter.available(now))
    while limiter.in_flight > 10:
        limiter.on_answer(sent.pop(), now, ROUND_S)
    assert 6 == limiter.available(now)
    limiter.set_limits(Limits(32), now)
    for _ in range(60):
        sent += fill(limiter, now)
        limiter.on_answer(sent.pop(), now, ROUND_S)

    assert 32 == limiter.window


def test_a_share_of_nothing_lets_nothing_go() -> None:
    """A host without a share waits for the next one; answers to its requests still count."""
    limiter, now = grown(200)
    sent = fill(limiter, now)
    limiter.set_limits(Limits(0), now)
    for permit in sent:
        limiter.on_answer(permit, now, ROUND_S)
    limiter.widen(8)
    assert (0, 0, None) == (limiter.window, limiter.available(now), limiter.opens_at(now))
    limiter.set_limits(Limits(4), now)

    assert 1 <= limiter.available(now) <= 4


def test_a_quota_that_changes_paces_from_then_on() -> None:
    """600 a minute, then 60; a limit that the policy does not set stays unset."""
    limiter = ConcurrencyLimiter(Policy(requests_per_minute=600))
    limiter.set_limits(Limits(None, 60.0, 60.0), 0.0)
    limiter.acquire(0.0)

    limiter.widen(8)

    assert 1.0 < (limiter.opens_at(0.0) or 0.0) < 1.1


def test_a_limiter_is_paced_by_quotas_and_learned_rates() -> None:
    """A window alone lets a permit be used again without asking."""
    limiter, now = grown(200)
    assert not limiter.is_paced
    keeps_refusing(limiter, now, 3)

    assert limiter.is_paced
    assert ConcurrencyLimiter(Policy(tokens_per_minute=600)).is_paced
