"""The window of one endpoint: what makes it grow, and what cuts it."""

from hypothesis import given
from hypothesis import strategies as st

from spark_llm._limit import Limit


def fill(limit: Limit) -> list[int]:
    """Send as many requests as have room, and return their epochs."""
    return [limit.sent() for _ in range(limit.room)]


def grown(ceiling: int, answers: int) -> Limit:
    """Return a limit after so many answers, with every freed slot taken at once; what is out then comes to nothing."""
    limit = Limit(ceiling)
    for _ in range(answers):
        fill(limit)
        limit.answered()
    while limit.in_flight:
        limit.failed()
    return limit


def refuse_all(limit: Limit, epochs: list[int]) -> None:
    """Have everything refused that went out in these epochs."""
    for epoch in epochs:
        limit.refused(epoch)


def test_the_first_request_goes_alone() -> None:
    """Nothing is known of an endpoint that answered nothing: one request goes out."""
    limit = Limit(512)

    assert [0] == fill(limit)
    assert 0 == limit.room


def test_the_window_doubles_with_every_round_of_answers() -> None:
    """A round is as many answers as the window is wide: 1 + 2 + 4 of them make it eight wide."""
    assert [1, 2, 4, 8, 16, 32, 64] == [grown(512, 2**rounds - 1).window for rounds in range(7)]


def test_the_window_stops_at_the_ceiling() -> None:
    """However many answers come, no more than the ceiling goes out."""
    assert [10, 10] == [grown(10, 9).window, grown(10, 1_000).window]


@given(ceiling=st.integers(1, 40), steps=st.lists(st.sampled_from(["fill", "send", "answered", "refused", "failed"])))
def test_the_window_keeps_its_bounds_whatever_comes(ceiling: int, steps: list[str]) -> None:
    """It is never below one and never above the ceiling, and what is out is counted exactly."""
    limit = Limit(ceiling)
    out: list[int] = []
    for step in steps:
        if step in ("fill", "send"):
            out += [limit.sent() for _ in range(limit.room if step == "fill" else min(1, limit.room))]
        elif out:
            epoch = out.pop(0)
            limit.refused(epoch) if step == "refused" else limit.answered() if step == "answered" else limit.failed()

        assert 1 <= limit.window <= ceiling
        assert len(out) == limit.in_flight
        assert max(0, limit.window - len(out)) == limit.room


@given(st.integers(1, 300))
def test_a_burst_of_refusals_cuts_the_window_once(answers: int) -> None:
    """Requests that were out together and are all refused halve the window once, and not once each."""
    limit = grown(256, answers)
    before = limit.window
    refuse_all(limit, fill(limit))

    assert max(1, before // 2) == limit.window
    assert 0 == limit.in_flight


def test_what_was_sent_after_a_cut_may_cut_again() -> None:
    """A refusal of a request that the narrower window let out is news."""
    limit = grown(256, 63)
    windows = []
    for _ in range(8):
        refuse_all(limit, fill(limit))
        windows.append(limit.window)

    assert [32, 16, 8, 4, 2, 1, 1, 1] == windows


def test_after_a_refusal_the_window_grows_by_one_a_round() -> None:
    """The endpoint's limit is near: from there on a whole round of answers is worth one request more."""
    limit = grown(512, 63)
    refuse_all(limit, fill(limit))
    windows = []
    for _ in range(4):
        for _ in range(limit.window + 1):
            fill(limit)
            limit.answered()
        windows.append(limit.window)

    assert [33, 34, 35, 36] == windows


def test_a_window_that_is_not_in_use_does_not_grow() -> None:
    """Answers to fewer requests than half the window say nothing about more."""
    limit = grown(512, 63)
    for _ in range(1_000):
        limit.sent()
        limit.answered()

    assert 64 == limit.window


def test_a_fault_says_nothing_about_capacity() -> None:
    """A cut or a time-out frees its slot, and neither widens nor narrows the window."""
    limit = grown(512, 63)
    fill(limit)
    for _ in range(64):
        limit.failed()

    assert 64 == limit.window
    assert 0 == limit.in_flight
