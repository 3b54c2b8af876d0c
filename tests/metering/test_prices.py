"""Prices as the user writes them, and the cost of tallies."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import ConfigError
from spark_llm.metering.budget import Budget
from spark_llm.metering.prices import Price, parse_prices, total_cost
from spark_llm.metering.tally import Tally

MILLION = 1_000_000
DOLLARS = st.integers(0, 1_000) | st.floats(0, 1_000)
COUNTS = st.integers(0, 10**9)
COLUMNS = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4, unique=True)


@st.composite
def tallies(draw: st.DrawFn) -> Tally:
    """Draw tallies of answers that report both parts, and their sum as the total."""
    prompt, completion = draw(COUNTS), draw(COUNTS)
    return Tally(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=draw(st.integers(0, prompt)),
        total_tokens=prompt + completion,
    )


@pytest.mark.parametrize(
    ("price", "tally", "usd"),
    [
        (Price(0.5, 1.5), Tally(), 0.0),
        (Price(0.5, 1.5), Tally(prompt_tokens=MILLION, total_tokens=MILLION), 0.5),
        (Price(0.5, 1.5), Tally(prompt_tokens=2 * MILLION, completion_tokens=MILLION, total_tokens=3 * MILLION), 2.5),
        (Price(0.5, 1.5), Tally(prompt_tokens=MILLION, cached_tokens=MILLION, total_tokens=MILLION), 0.5),
        (Price(0.5, 1.5, 0.05), Tally(prompt_tokens=MILLION, cached_tokens=MILLION, total_tokens=MILLION), 0.05),
        (Price(1, 1, 0), Tally(prompt_tokens=4 * MILLION, cached_tokens=MILLION, total_tokens=4 * MILLION), 3.0),
    ],
)
def test_prices_are_per_million_tokens(price: Price, tally: Tally, usd: float) -> None:
    """Cached tokens are part of the prompt's, and have a price of their own where one is given."""
    assert usd == pytest.approx(price.cost(tally))


def test_a_total_without_parts_has_the_price_of_prompts() -> None:
    """An embedding may report its total alone."""
    assert 3.0 == Price(1.0, 9.0).cost(Tally(total_tokens=3 * MILLION))


def test_tokens_of_the_total_alone_have_the_price_of_answers() -> None:
    """Some servers count reasoning in neither part, and charge for it."""
    tally = Tally(prompt_tokens=MILLION, completion_tokens=MILLION, total_tokens=5 * MILLION)

    assert 1.0 + 2.0 + 3 * 2.0 == Price(1.0, 2.0).cost(tally)


def test_more_cached_tokens_than_prompt_tokens_cost_no_less_than_0() -> None:
    """Some servers do not count cached tokens in the prompt's."""
    assert 0.1 == pytest.approx(Price(1.0, 2.0, 0.1).cost(Tally(prompt_tokens=MILLION, cached_tokens=9 * MILLION)))


@given(DOLLARS, DOLLARS, st.none() | DOLLARS, tallies(), tallies())
def test_costs_add_up(prompt: float, completion: float, cached: float | None, one: Tally, other: Tally) -> None:
    """The cost of a run is the sum of its chunks' costs, and never negative."""
    price = Price(prompt, completion, cached)

    assert price.cost(one) >= 0
    assert math.isclose(price.cost(one) + price.cost(other), price.cost(one.plus(other)), rel_tol=1e-9, abs_tol=1e-12)


@given(COLUMNS, DOLLARS, DOLLARS, DOLLARS, st.sampled_from([tuple, list]))
def test_one_price_counts_for_all_columns(
    columns: list[str], prompt: float, completion: float, cached: float, kind: type
) -> None:
    """It is two or three numbers in a tuple or a list, or one number for all tokens."""
    assert dict.fromkeys(columns, Price(prompt, completion)) == parse_prices(kind([prompt, completion]), columns)
    assert dict.fromkeys(columns, Price(prompt, completion, cached)) == parse_prices(
        kind([prompt, completion, cached]), columns
    )
    assert dict.fromkeys(columns, Price(prompt, prompt)) == parse_prices(prompt, columns)
    assert dict.fromkeys(columns, Price(prompt, completion)) == parse_prices(Price(prompt, completion), columns)


def test_each_column_may_have_its_own_price() -> None:
    """Prices are given by name, and come back in the order of the columns."""
    prices = parse_prices({"vector": 0.02, "mood": [0.5, 1.5, 0.05]}, ["mood", "vector"])

    assert {"mood": Price(0.5, 1.5, 0.05), "vector": Price(0.02, 0.02)} == prices
    assert ["mood", "vector"] == list(prices)


def test_the_total_cost_is_the_sum_over_columns() -> None:
    """Each column has its own price."""
    prices = parse_prices({"mood": (1, 2), "vector": 0.5}, ["mood", "vector"])
    tallies_by_column = {
        "mood": Tally(prompt_tokens=MILLION, completion_tokens=MILLION, total_tokens=2 * MILLION),
        "vector": Tally(prompt_tokens=MILLION, total_tokens=MILLION),
    }

    assert 3.5 == total_cost(prices, tallies_by_column)
    assert 0.5 == total_cost(prices, {"vector": tallies_by_column["vector"]})
    assert 0.0 == total_cost(prices, {})


def test_without_prices_the_cost_is_unknown() -> None:
    """It is None, and not 0."""
    assert {} == parse_prices(None, ["mood"])
    assert {} == parse_prices(None, ["mood"], Budget(tokens=1))
    assert None is total_cost({}, {"mood": Tally(prompt_tokens=1)})


def test_a_budget_in_dollars_needs_prices() -> None:
    """Without them the error says how to give them."""
    with pytest.raises(ConfigError, match=r"Budget\(usd=5\) needs prices\. Hint: give prices=.+\."):
        parse_prices(None, ["mood"], Budget(usd=5))
    assert {"mood": Price(1, 1)} == parse_prices(1, ["mood"], Budget(usd=5))


@pytest.mark.parametrize(
    "value",
    [
        "0.5",
        "",
        -1,
        math.nan,
        math.inf,
        True,
        (),
        (1,),
        (1, 2, 3, 4),
        (1, "2"),
        (1, -2),
        (1, None),
        (1, math.nan),
        {1, 2},
    ],
)
def test_wrong_prices_are_refused(value: object) -> None:
    """The error names the value, and the column where there is one, and says how to write a price."""
    with pytest.raises(ConfigError, match=rf"prices={re.escape(repr(value))} is not a price\. Hint: write US dollars"):
        parse_prices(value, ["mood"])
    with pytest.raises(ConfigError, match=r"prices\['mood'\]=.* is not a price\. Hint: write US dollars.+\."):
        parse_prices({"mood": value}, ["mood"])


def test_a_price_object_with_wrong_numbers_is_refused() -> None:
    """Its numbers are checked like any others."""
    with pytest.raises(ConfigError, match=r"is not a price\. Hint: "):
        parse_prices(Price(-1, 2), ["mood"])
    with pytest.raises(ConfigError, match=r"is not a price\. Hint: "):
        parse_prices({"mood": {"prompt": 1}}, ["mood"])


@pytest.mark.parametrize(
    ("prices", "message"),
    [
        ({"mod": 1}, r"names 'mod', which is not a column\. Hint: did you mean 'mood'\?$"),
        ({"mood": 1, "vector": 1, 7: 1}, r"names 7, .* Hint: the columns are 'mood', 'vector'\.$"),
        ({"mood": 1}, r"has no price for 'vector'\. Hint: give each column a price.+\.$"),
        ({}, r"has no price for 'mood', 'vector'\. Hint: .+\.$"),
    ],
)
def test_prices_name_exactly_the_columns(prices: dict[object, object], message: str) -> None:
    """A missing name and an unknown name are refused."""
    with pytest.raises(ConfigError, match=message):
        parse_prices(prices, ["mood", "vector"])
