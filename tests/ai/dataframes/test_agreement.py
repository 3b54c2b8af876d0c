"""The bound of an agreement, and the promise of the threshold that is chosen by it."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.ai.dataframes.agreement import (
    CONFIDENCE,
    THRESHOLDS,
    agreements,
    default_sample,
    fewest_held_out,
    loosest,
    lower_bound,
)

Floats = npt.NDArray[np.float64]


@pytest.mark.parametrize(
    ("agreed", "texts", "risk", "bound"),
    [
        (1, 2, 0.025, 0.012579),  # tables of Clopper and Pearson's interval at 95 %
        (8, 10, 0.025, 0.443905),
        (95, 100, 0.025, 0.887165),
        (10, 10, 0.05, 0.05 ** (1 / 10)),  # all agree: in closed form
        (0, 10, 0.05, 0.0),
    ],
)
def test_the_bound_is_that_of_clopper_and_pearson(agreed: int, texts: int, risk: float, bound: float) -> None:
    """Known values, to six digits."""
    assert bound == pytest.approx(lower_bound(agreed, texts, risk), abs=1e-6)


@given(st.integers(1, 300), st.data())
def test_the_bound_has_its_risk(texts: int, data: st.DataObject) -> None:
    """With an agreement equal to the bound, as many agree or more with the probability of the risk."""
    agreed = data.draw(st.integers(1, texts))
    bound = lower_bound(agreed, texts, 0.05)
    chance = sum(
        math.comb(texts, count) * bound**count * (1 - bound) ** (texts - count) for count in range(agreed, texts + 1)
    )

    assert 0.05 == pytest.approx(chance, abs=1e-6)
    assert bound < agreed / texts


@given(st.floats(0.01, 0.999))
def test_the_fewest_texts_are_enough_and_one_less_is_not(agreement: float) -> None:
    """If all of them agree, their bound reaches the agreement."""
    fewest = fewest_held_out(agreement)

    assert lower_bound(fewest, fewest) >= agreement - 1e-9
    assert fewest == 1 or lower_bound(fewest - 1, fewest - 1) < agreement


@given(
    st.lists(st.tuples(st.integers(0, 10), st.booleans()), max_size=120),
    st.sampled_from([0.3, 0.5, 0.8, 0.9]),
)
def test_a_threshold_counts_the_texts_above_it(rows: list[tuple[int, bool]], agreement: float) -> None:
    """Also where many texts have the same probability; the last threshold leaves all texts."""
    probabilities, agrees = [tenths / 10 for tenths, _ in rows], [agreed for _, agreed in rows]
    found = agreements(probabilities, agrees, agreement)

    assert len(found) <= THRESHOLDS
    assert [] != found or len(rows) < fewest_held_out(agreement) or not any(probabilities)
    for each in found:
        above = [
            agreed for probability, agreed in zip(probabilities, agrees, strict=True) if probability > each.threshold
        ]
        assert (len(above), sum(above)) == (each.texts, each.agreed)
    assert [each.texts for each in found] == sorted(each.texts for each in found)
    assert not found or found[-1].threshold == 0.0
    chosen = loosest(found, agreement)
    assert chosen is None or (chosen.lower_bound >= agreement and chosen in found)
    assert chosen is not None or all(each.lower_bound < agreement for each in found)


SMALL_MODELS: dict[str, Callable[[Floats], Floats]] = {
    "just below the limit, whatever its probability": lambda p: np.full_like(p, 0.8999),
    "below the limit under 0.9": lambda p: np.where(p > 0.9, 0.95, 0.85),
    "calibrated": lambda p: p,
    "too sure of itself": lambda p: 1 - 1.2 * (1 - p),
}


@pytest.mark.waits
@pytest.mark.parametrize("name", SMALL_MODELS)
def test_the_promise_is_kept(name: str) -> None:
    """In at most 5 % of the samples, the agreement above the chosen threshold is below the one asked for."""
    dice, agrees_at, broken = np.random.default_rng(46), SMALL_MODELS[name], 0
    population = dice.beta(5, 1, 50_000)
    agreement_above = _means_above(population, np.clip(agrees_at(population), 0, 1))
    for _ in range(400):
        probabilities = dice.beta(5, 1, 250)
        agrees = dice.random(250) < agrees_at(probabilities)
        chosen = loosest(agreements(probabilities.tolist(), agrees.tolist(), 0.9), 0.9)
        broken += chosen is not None and agreement_above(chosen.threshold) < 0.9

    assert broken <= 400 * (1 - CONFIDENCE)


@pytest.mark.waits
def test_a_good_model_passes() -> None:
    """With the default sample, a model that agrees in 98 % passes in most samples at 0.95, and decides most texts."""
    dice, passed = np.random.default_rng(46), 0
    for _ in range(200):
        texts = default_sample(0.95) // 2
        found = agreements(dice.random(texts).tolist(), (dice.random(texts) < 0.98).tolist(), 0.95)
        passed += loosest(found, 0.95) is not None

    assert 1_000 == default_sample(0.95)
    assert passed >= 160


def _means_above(population: Floats, agreement: Floats) -> Callable[[float], float]:
    """Return the function from a threshold to the agreement of the texts above it."""
    order = np.argsort(-population)
    means = np.cumsum(agreement[order]) / np.arange(1, len(order) + 1)
    return lambda threshold: float(means[max(0, int((population > threshold).sum()) - 1)])
