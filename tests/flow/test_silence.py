"""When refusals have stopped: told from their rhythm, in answers."""

from hypothesis import given
from hypothesis import strategies as st

from spark_llm.flow.silence import MIN_ROUNDS, RUN_RATIO, Silence

WIDTHS = st.integers(1, 200)


def answered(silence: Silence, answers: int, in_flight: int) -> list[bool]:
    """Receive so many answers; return what was made of each."""
    return [silence.on_answer(in_flight) for _ in range(answers)]


def after_runs(runs: list[int], in_flight: int) -> Silence:
    """Return a silence before which there were runs of so many answers, each ended by a refusal."""
    silence = Silence()
    silence.on_refusal(in_flight)
    for run in runs:
        answered(silence, run, in_flight)
        silence.on_refusal(in_flight)
    return silence


@given(WIDTHS)
def test_without_a_refusal_there_is_no_silence(in_flight: int) -> None:
    """An endpoint that never refused has no rhythm."""
    assert not any(answered(Silence(), 100 * in_flight, in_flight))


@given(WIDTHS, st.integers(1, 400), st.lists(st.floats(1, RUN_RATIO), min_size=1, max_size=40))
def test_refusals_that_keep_their_rhythm_are_no_silence(in_flight: int, shortest: int, times: list[float]) -> None:
    """Runs that differ by less than half, in whatever order, are a rhythm after the first of them."""
    runs = [max(in_flight + 1, int(shortest * factor)) for factor in times]
    silence = after_runs([max(in_flight + 1, shortest)], in_flight)
    for run in runs:
        if run <= RUN_RATIO * max(in_flight + 1, shortest):
            assert not any(answered(silence, run, in_flight))
        silence.on_refusal(in_flight)


@given(WIDTHS, st.lists(st.integers(1, 300), max_size=10))
def test_a_run_much_longer_than_those_before_is_silence_until_a_refusal(in_flight: int, runs: list[int]) -> None:
    """It takes some rounds and half as many answers again as the longest run; a refusal begins a new run."""
    silence = after_runs(runs, in_flight)
    enough = int(max(RUN_RATIO * max(runs, default=0), MIN_ROUNDS * in_flight)) + 1
    early, late = answered(silence, MIN_ROUNDS * in_flight, in_flight), answered(silence, enough, in_flight)
    silence.on_refusal(in_flight)

    assert not any(early)
    assert late[-1]
    assert not any(answered(silence, MIN_ROUNDS * in_flight, in_flight))


def test_a_long_run_fades_with_the_runs_that_follow() -> None:
    """What happened long ago delays the next silence no more: after a run of 1,000 answers, runs of 100."""
    soon = answered(after_runs([1_000, 100], 4), 400, 4)
    later = answered(after_runs([1_000] + [100] * 8, 4), 400, 4)

    assert not any(soon)
    assert any(later)


def test_a_burst_of_refusals_is_not_a_rhythm() -> None:
    """Runs of less than a round leave the longest run unchanged."""
    silence = after_runs([100] + [3] * 50, 4)

    assert not any(answered(silence, int(RUN_RATIO * 100), 4))
    assert silence.on_answer(4)
