"""A quantity that is found by trying: how it climbs, falls and comes back."""

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from spark_llm.flow.cubic import HOLD_ROUNDS, MAX_HOLD_ROUNDS, RETURN_ROUNDS, CubicWindow

STEPS = st.lists(
    st.tuples(st.just("grow"), st.floats(0, 50))
    | st.tuples(st.just("cut"), st.floats(0.01, 5_000))
    | st.tuples(st.sampled_from(("double", "lower")), st.just(0.0)),
    max_size=60,
)
CEILINGS = st.floats(2, 1_000)


def cut_at(ceiling: float, *, step: float = 1.0, relative: bool = False) -> CubicWindow:
    """Return a quantity that was cut to 0.9 of a ceiling for the first time."""
    window = CubicWindow(1.0, 1.0, 1e6, step=step, relative=relative)
    window.grow(2 * ceiling)
    window.cut(ceiling, 0.9)
    return window


def rounds_to_pass(window: CubicWindow, ceiling: float) -> float:
    """Return how many rounds it takes until the quantity is above the ceiling."""
    rounds = 0.0
    while window.value <= ceiling:
        window.grow(0.25)
        rounds += 0.25
    return rounds


@given(steps=STEPS, least=st.floats(1, 10), most=st.floats(10, 1_000), relative=st.booleans())
def test_it_keeps_its_bounds(*, steps: list[tuple[str, float]], least: float, most: float, relative: bool) -> None:
    """It is never below the minimum or above the maximum, however it is cut and however long it grows."""
    window = CubicWindow(least, least, most, step=1.0, relative=relative)
    for step, amount in steps:
        if step == "grow":
            window.grow(amount)
        elif step == "cut":
            window.cut(amount, 0.9)
        else:
            window.restart_slow_start() if step == "double" else window.lower_ceiling()

        assert least <= window.value <= most
        assert window.ceiling is None or least <= window.ceiling <= most


@given(ceiling=CEILINGS, growth=st.lists(st.floats(0, 5), max_size=60), relative=st.booleans())
def test_between_cuts_it_never_falls(*, ceiling: float, growth: list[float], relative: bool) -> None:
    """Rounds that go well never make it smaller: before the first cut, after it, and when it doubles again."""
    window = CubicWindow(1.0, 1.0, 512.0, step=0.02 if relative else 1.0, relative=relative)
    for before in ("", "cut", "double"):
        if before == "cut":
            window.cut(ceiling, 0.9)
        elif before == "double":
            window.restart_slow_start()
        values = [window.value]
        for rounds in growth:
            window.grow(rounds)
            values.append(window.value)

        assert all(b >= a or math.isclose(a, b) for a, b in pairwise(values))


def test_until_the_first_cut_it_doubles_with_every_round() -> None:
    """Eight answers one by one, each an eighth of a round, or one round at once: twice as much."""
    window = CubicWindow(1.0, 1.0, 100.0, step=1.0)
    values = []
    for _ in range(8):
        window.grow(1.0)
        values.append(window.value)

    assert [2, 4, 8, 16, 32, 64, 100, 100] == values
    assert not window.slow_start


@given(CEILINGS, st.floats(0.3, 0.95))
def test_a_cut_falls_to_a_share_of_the_ceiling(ceiling: float, factor: float) -> None:
    """The ceiling is remembered, and the value falls just below it."""
    window = CubicWindow(1.0, 1.0, 1e6, step=1.0)
    window.grow(2 * ceiling)
    window.cut(ceiling, factor)

    assert ceiling == window.ceiling
    assert max(1.0, factor * ceiling) == window.value
    assert not window.slow_start


def test_a_ceiling_is_never_above_what_was_tried() -> None:
    """A refusal at 20 says nothing of what lies above, however much was in flight before."""
    window = CubicWindow(20.0, 1.0, 1e6, step=1.0)
    window.cut(300.0, 0.9)

    assert 20.0 == window.ceiling


@given(CEILINGS)
def test_it_is_back_at_the_ceiling_after_some_rounds(ceiling: float) -> None:
    """It comes back fast at first and slowly at the end: half of the rounds bring seven eighths of the way."""
    window = cut_at(ceiling)
    low = window.value
    window.grow(RETURN_ROUNDS / 2)
    half = window.value
    window.grow(RETURN_ROUNDS / 2)

    assert math.isclose(low + 7 / 8 * (ceiling - low), half)
    assert math.isclose(ceiling, window.value)


def test_above_the_ceiling_it_probes_by_steps_that_double() -> None:
    """Round by round one more, then two, then four: an endpoint that has grown is found fast."""
    window = cut_at(40.0)
    window.grow(RETURN_ROUNDS)
    values = []
    for _ in range(6):
        window.grow(1.0)
        values.append(window.value)

    assert [41, 43, 47, 55, 71, 103] == values


def test_a_relative_step_is_a_share_of_the_ceiling() -> None:
    """A rate of 50 a second probes one a second above, and one of 5 a tenth."""
    values = []
    for ceiling in (50.0, 5.0):
        window = cut_at(ceiling, step=0.02, relative=True)
        window.grow(RETURN_ROUNDS + 1)
        values.append(round(window.value, 6))

    assert [51.0, 5.1] == values


def test_a_ceiling_that_is_confirmed_is_left_alone_for_longer() -> None:
    """Each time that it shows at the same place the hold doubles, up to the longest, and a new ceiling begins anew."""
    window = cut_at(40.0)
    holds = [rounds_to_pass(window, 40.0) - RETURN_ROUNDS]
    for _ in range(4):
        window.cut(40.0, 0.9)
        holds.append(rounds_to_pass(window, 40.0) - RETURN_ROUNDS)
    window.cut(20.0, 0.9)
    holds.append(rounds_to_pass(window, 20.0) - RETURN_ROUNDS)

    assert [0.25, 4.25, 8.25, 10.25, 10.25, 4.25] == holds
    assert (4.0, 10.0) == (HOLD_ROUNDS, MAX_HOLD_ROUNDS)


@given(CEILINGS)
def test_a_probe_ends_at_the_maximum(ceiling: float) -> None:
    """However long nothing is refused, doubling steps neither overflow nor pass the maximum."""
    window = cut_at(ceiling)
    window.grow(1e9)

    assert 1e6 == window.value


@given(CEILINGS, st.floats(0, 30))
def test_slow_start_begins_again_from_the_present_value(ceiling: float, rounds: float) -> None:
    """It doubles with every round, past the ceiling that it remembers, and a cut ends that."""
    window = cut_at(ceiling)
    window.grow(rounds)
    begun = window.value
    window.restart_slow_start()
    values = []
    for _ in range(3):
        window.grow(1.0)
        values.append(window.value)
    window.cut(window.value, 0.9)
    cut = window.value
    window.grow(RETURN_ROUNDS)

    assert [min(1e6, begun * factor) for factor in (2, 4, 8)] == values
    assert math.isclose(max(1.0, 0.9 * values[-1]), cut)
    assert math.isclose(values[-1], window.value)
    assert not window.slow_start_again


@given(CEILINGS, st.floats(0.01, 5_000))
def test_a_useless_slow_start_loses_nothing(ceiling: float, refused_at: float) -> None:
    """The value at which it began was not refused for long, so the ceiling is at least that."""
    window = cut_at(ceiling)
    window.grow(RETURN_ROUNDS)
    begun = window.value
    window.restart_slow_start()
    window.grow(1.0)
    window.cut(refused_at, 0.9)

    assert window.ceiling is not None
    assert begun <= window.ceiling <= max(begun, min(refused_at, 2 * begun))


def test_before_the_first_cut_it_cannot_begin_again() -> None:
    """It doubles anyway."""
    window = CubicWindow(1.0, 1.0, 100.0, step=1.0)
    window.restart_slow_start()

    assert window.slow_start
    assert not window.slow_start_again


@given(CEILINGS, st.integers(0, 2_000))
def test_the_rest_of_a_burst_lowers_the_ceiling_to_at_least_half(ceiling: float, refused: int) -> None:
    """Each refused request takes itself out of what was in flight; doubling overshoots by no more than twice."""
    window = cut_at(ceiling)
    for _ in range(refused):
        window.lower_ceiling()

    assert window.ceiling is not None
    assert max(1.0, ceiling / 2, ceiling - refused) <= window.ceiling < max(ceiling / 2, ceiling - refused) + 1
    assert math.isclose(max(1.0, 0.9 * window.ceiling), window.value)
