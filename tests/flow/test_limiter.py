"""How much may be out, and how fast: what makes the window grow, what cuts it, and what is about the rate instead."""

from collections import deque
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from spark_llm.flow.limiter import (
    BACKOFF_RATIO,
    LONGEST_PAUSE_S,
    MEMORY_LEAST,
    REFUSED_SHARE,
    ConcurrencyLimiter,
    Permit,
)
from spark_llm.policy import MAX_IN_FLIGHT, Policy

ROUND_S = 0.5
BURST = 12  # refused requests, enough to be no noise at any width below
EVENTS = st.tuples(
    st.sampled_from(("fill", "send", "answered", "refused", "told when", "failed", "later", "widen")),
    st.integers(0, 50),
)


def fill(limit: ConcurrencyLimiter, now: float) -> list[Permit]:
    """Send as many requests as have room."""
    sent = []
    while limit.room(now):
        sent.append(limit.sent(now, characters=4))
    return sent


def grown(answers: int, policy: Policy | None = None) -> tuple[ConcurrencyLimiter, float]:
    """Return a limit after so many answers, with every freed slot taken at once; what is out then comes to nothing."""
    limit, now, out = ConcurrencyLimiter(policy or Policy()), 0.0, deque[Permit]()
    for _ in range(answers):
        out += fill(limit, now)
        now = max(now, out[0].at + ROUND_S)
        limit.answered(out.popleft(), now, ROUND_S)
    for _ in range(limit.in_flight):
        limit.failed()
    return limit, now


def keeps_refusing(limit: ConcurrencyLimiter, now: float, rounds: int) -> list[float]:
    """Refuse all that goes out, and return how long it was waited each time until something went out again."""
    pauses = []
    for _ in range(rounds):
        for sent in fill(limit, now):
            limit.refused(sent, now)
        opens_at = limit.opens_at(now)
        assert opens_at is not None
        pauses.append(opens_at - now)
        now = opens_at
    return pauses


def test_the_first_request_goes_alone() -> None:
    """Nothing is known of an endpoint that answered nothing: one request goes out, and only its outcome helps."""
    limit = ConcurrencyLimiter(Policy())
    sent = fill(limit, 0.0)

    assert 1 == len(sent)
    assert 0 == limit.room(0.0)
    assert None is limit.opens_at(0.0)


def test_the_window_doubles_with_every_round_of_answers() -> None:
    """A round is as many answers as the window is wide: 1 + 2 + 4 of them make it eight wide."""
    assert [1, 2, 4, 8, 16, 32, 64] == [grown(2**rounds - 1)[0].window for rounds in range(7)]


def test_the_window_stops_at_the_ceiling() -> None:
    """However many answers come, no more goes out than the policy allows in this task."""
    policies = [Policy(max_in_flight=10), Policy(max_in_flight=10, tasks=4), Policy()]

    assert [10, 2, MAX_IN_FLIGHT] == [grown(2_000, policy)[0].window for policy in policies]


@given(
    st.integers(1, 40),
    st.lists(EVENTS, max_size=120),
    st.sampled_from((None, 60.0, 6_000.0)),
    st.sampled_from((None, 600.0)),
)
@example(4, [("fill", 0), ("answered", 0), ("fill", 0), ("told when", 0), ("fill", 0)], None, None)
def test_the_window_keeps_its_bounds_whatever_comes(
    ceiling: int, events: list[tuple[str, int]], requests: float | None, tokens: float | None
) -> None:
    """It is from one to the ceiling, what is out is counted exactly, and room comes when it was said to come."""
    limit = ConcurrencyLimiter(Policy(max_in_flight=ceiling, requests_per_minute=requests, tokens_per_minute=tokens))
    out, now = list[Permit](), 0.0
    for event, amount in events:
        if event in ("fill", "send"):
            out += fill(limit, now) if event == "fill" else [limit.sent(now)] if limit.room(now) else []
        elif event == "later":
            now += amount / 4
        elif event == "widen":
            limit.widen(amount)
        elif out:
            sent = out.pop(amount % len(out))
            if event == "answered":
                limit.answered(sent, now, now - sent.at, amount)
            elif event == "failed":
                limit.failed()
            else:
                limit.refused(sent, now, told_when=event == "told when")
        opens_at = limit.opens_at(now)

        assert 1 <= limit.window <= ceiling
        assert len(out) == limit.in_flight
        assert 0 <= limit.room(now) <= max(0, limit.window - len(out))
        assert (opens_at is None) == (limit.window <= len(out))
        if opens_at is not None:
            assert (limit.room(now) > 0) == (opens_at <= now)
            assert 1 <= limit.room(opens_at + 1e-6)


@given(st.integers(30, 300))
def test_a_burst_of_refusals_cuts_the_window_once(answers: int) -> None:
    """Requests that were out together and are all refused cut it once; the rest lower the ceiling, to half at most."""
    limit, now = grown(answers)
    sent = fill(limit, now)
    windows = [limit.window]
    for one in sent:
        limit.refused(one, now)
        windows.append(limit.window)
    falls = [before - after for before, after in pairwise(windows)]

    assert 1 == sum(fall > 2 for fall in falls)
    assert 0 <= min(falls)
    assert BACKOFF_RATIO * (len(sent) - BURST) / 2 - 1 <= limit.window < len(sent)
    assert (0, None) == (limit.in_flight, limit.per_s)


@given(st.integers(20, 60), st.integers(8, 20))
def test_the_ceiling_is_what_was_in_flight_and_not_refused(capacity: int, extra: int) -> None:
    """Refusals of one burst come back one by one: when the last one has, the window is a share of what was served."""
    limit, now = grown(capacity + extra)
    sent = fill(limit, now)
    while limit.in_flight > capacity + extra:
        limit.failed()
    sent = sent[: limit.in_flight]
    for one in sent[capacity:]:
        limit.refused(one, now)

    assert capacity == limit.in_flight
    assert int(BACKOFF_RATIO * capacity) == limit.window


@given(st.integers(8, 60), st.integers(10, 400))
def test_a_refusal_now_and_then_is_noise(apart: int, answers: int) -> None:
    """One refused request in eight, or fewer, is sent again and cuts nothing."""
    limit, now = grown(answers)
    before = limit.window
    for number in range(600):
        now += 0.01
        sent = limit.sent(now)
        limit.refused(sent, now) if number % apart == apart - 1 else limit.answered(sent, now, ROUND_S)

    assert before <= limit.window
    assert None is limit.per_s


def test_a_share_of_the_last_requests_refused_is_no_noise() -> None:
    """Of a few requests it takes three refused ones, so that a single 503 never halves a small window."""
    limit, now = grown(15)
    sent = fill(limit, now)
    windows = []
    for one in sent[:3]:
        limit.refused(one, now)
        windows.append(limit.window)

    assert 3.0 == REFUSED_SHARE * MEMORY_LEAST
    assert [16, 16, int(BACKOFF_RATIO * 13)] == windows


def test_after_a_cut_the_window_returns_to_the_ceiling_that_showed() -> None:
    """Four rounds of answers bring it back to what was in flight and not refused; then it probes beyond."""
    limit, now = grown(63)
    out = deque(fill(limit, now))
    while limit.window == 64:
        limit.refused(out.popleft(), now)
    ceiling, windows = limit.in_flight, [limit.window]
    for _ in range(6):
        for _ in range(limit.window):
            out += fill(limit, now)
            now = max(now, out[0].at + ROUND_S)
            limit.answered(out.popleft(), now, ROUND_S)
        windows.append(limit.window)

    assert 54 <= ceiling <= 60
    assert int(BACKOFF_RATIO * ceiling) == windows[0]
    assert sorted(windows) == windows
    assert abs(windows[4] - ceiling) <= 1
    assert ceiling < windows[6] <= ceiling + 8


def test_a_window_that_is_not_in_use_does_not_grow() -> None:
    """Answers to fewer requests than half the window say nothing about more."""
    limit, now = grown(63)
    for _ in range(1_000):
        limit.answered(limit.sent(now), now, ROUND_S)

    assert 64 == limit.window


def test_a_fault_says_nothing_about_capacity() -> None:
    """A cut or a time-out frees its slot, and neither widens nor narrows the window."""
    limit, now = grown(63)
    for _ in fill(limit, now):
        limit.failed()

    assert (64, 0, None) == (limit.window, limit.in_flight, limit.per_s)


def test_a_refusal_that_names_a_time_counts_at_once() -> None:
    """The endpoint is not asked again before then, so its first refusal cuts the window and teaches a rate."""
    limit, now = grown(63)
    first, second, *_ = fill(limit, now)
    limit.refused(first, now, told_when=True)
    after_one = limit.window
    limit.refused(second, now, told_when=True)

    assert 64 > after_one == limit.window
    assert limit.per_s is not None


def test_a_rate_is_learned_only_when_refusals_go_on() -> None:
    """After one cut of the window the endpoint may be content; when it is not, it is the rate that is too high."""
    limit, now = grown(63)
    for sent in fill(limit, now):
        limit.refused(sent, now)
    after_one = limit.per_s
    for sent in fill(limit, now):
        limit.refused(sent, now)

    assert None is after_one
    assert limit.per_s is not None
    assert 0.5 * 64 / ROUND_S < limit.per_s < 2 * 64 / ROUND_S


def test_pauses_between_attempts_double_while_everything_is_refused() -> None:
    """Refused attempts may count against the quota, so there are fewer and fewer, up to one in ten seconds."""
    limit, now = grown(63)
    pauses = [pause for pause in keeps_refusing(limit, now, 25) if pause > 0]
    doubling = pauses[: next(place for place, pause in enumerate(pauses) if pause > LONGEST_PAUSE_S / 2.5)]

    assert len(doubling) >= 5
    assert all(1.7 < after / before < 2.3 for before, after in pairwise(doubling))
    assert LONGEST_PAUSE_S <= pauses[-1] <= LONGEST_PAUSE_S + 1


def test_an_answer_ends_the_pauses() -> None:
    """Once something was answered that was sent after the last cut, the next pause is a short one again."""
    limit, now = grown(63)
    keeps_refusing(limit, now, 20)
    now = 1_000.0
    limit.answered(limit.sent(now), now, ROUND_S)

    assert 1 <= limit.room(now + 1)
    assert max(keeps_refusing(limit, now + 1, 3)) < 1


def test_a_rate_is_forgotten_when_nothing_was_asked_for_some_time() -> None:
    """Another task may find the endpoint in another state: after a minute's rest there is no rate any more."""
    limit, now = grown(63)
    keeps_refusing(limit, now, 3)
    learned = limit.per_s
    limit.room(now + 60)

    assert learned is not None
    assert None is limit.per_s


def test_silence_widens_the_window_only_before_anything_was_refused() -> None:
    """While a first answer is waited for some more may go out, up to the ceiling; never fewer than before."""
    limit = ConcurrencyLimiter(Policy(max_in_flight=8))
    windows = []
    for requests in (4, 2, 16):
        limit.widen(requests)
        windows.append(limit.window)
    cut, now = grown(63)
    for sent in fill(cut, now):
        cut.refused(sent, now)
    before = cut.window
    cut.widen(100)

    assert [4, 4, 8] == windows
    assert before == cut.window


def refused_in_a_rhythm(rounds: int = 6) -> tuple[ConcurrencyLimiter, float]:
    """Return a limit that others keep small: each 60 answers, what is out is refused as often as it takes to cut."""
    limit, now = grown(7)
    for _ in range(rounds):
        now = serve(limit, now, 60)
        before = limit.window
        for sent in fill(limit, now):
            limit.refused(sent, now)
        assert limit.window < before
    return limit, now


def serve(limit: ConcurrencyLimiter, now: float, answers: int) -> float:
    """Answer so many requests, as many at a time as may be out; return when that was done."""
    while answers > 0:
        sent = fill(limit, now)
        now = max(now + ROUND_S, limit.opens_at(now + ROUND_S) or 0.0)
        for one in sent:
            limit.answered(one, now, ROUND_S)
        answers -= len(sent)
    return now


def test_where_refusals_stop_the_window_doubles_again() -> None:
    """Workers that shared the limit are gone: the window grows manifold in a few rounds, until the next refusal."""
    limit, now = refused_in_a_rhythm()
    small = limit.window
    now = serve(limit, now, 150)
    grown_to = limit.window
    for sent in fill(limit, now):
        limit.refused(sent, now)
    cut = limit.window
    serve(limit, now, 2 * cut)

    assert small < 12
    assert 4 * small < grown_to
    assert cut < grown_to
    assert cut <= limit.window <= grown_to


def test_a_pause_of_an_hour_is_no_silence() -> None:
    """A stream that had nothing to ask was not refused either: its window is what it was."""
    limit, now = refused_in_a_rhythm()
    limit_that_goes_on, _ = refused_in_a_rhythm()
    serve(limit, now + 3_600, 30)
    serve(limit_that_goes_on, now, 30)

    assert limit_that_goes_on.window == limit.window


def test_a_quota_of_requests_is_kept_in_every_minute() -> None:
    """300 a minute over three tasks: in no minute more than 100 go out from one of them, and hardly fewer."""
    limit, now = ConcurrencyLimiter(Policy(requests_per_minute=300, tasks=3)), 0.0
    times = list[float]()
    while now < 600:
        for sent in fill(limit, now):
            times.append(now)
            limit.answered(sent, now, ROUND_S)
        now = max(now, limit.opens_at(now) or 0.0)

    assert all(after - before >= 60 for before, after in zip(times, times[100:], strict=False))
    assert 950 <= len(times) <= 1_000


def test_a_quota_of_tokens_is_kept_by_what_answers_report() -> None:
    """A request's tokens are guessed by its length before, set right by its answer, and guessed better then."""
    limit, now = ConcurrencyLimiter(Policy(tokens_per_minute=6_000, max_in_flight=4)), 0.0
    spent = list[tuple[float, float]]()
    while now < 600:
        for sent in fill(limit, now):
            spent.append((now, 50))
            limit.answered(sent, now + 0.01, ROUND_S, 50)
        now = max(now + 0.01, limit.opens_at(now) or 0.0)
    minutes = [sum(tokens for at, tokens in spent if begin <= at < begin + 60) for begin in range(0, 540, 7)]

    assert max(minutes) <= 6_000 + 50
    assert min(minutes[1:]) >= 0.9 * 6_000
