"""Prices as the user writes them, and the cost of tallies."""

import math
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import ConfigError
from spark_llm.metering.budget import Budget
from spark_llm.metering.prices import (
    OnePrice,
    Price,
    parse_prices,
    total_cost,
    total_cost_at_once,
    total_cost_by_batch,
)
from spark_llm.metering.tally import TOKENS, Tally, total_of

MILLION = 1_000_000
DOLLARS = st.integers(0, 1_000) | st.floats(0, 1_000)
COUNTS = st.integers(0, 10**9)
ONE_OF_EACH = Tally(
    prompt_tokens=3 * MILLION,
    completion_tokens=MILLION,
    cached_tokens=MILLION,
    total_tokens=4 * MILLION,
    cache_write_tokens=MILLION,
)
CLAUDE = Price(3, 15, cached=0.3, cache_write=3.75, tiers={"batch": 0.5})
GPT = Price(1.25, 10, cached=0.125, tiers={"flex": 0.5, "priority": 2})
COLUMNS = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4, unique=True)


@st.composite
def standard_tallies(draw: st.DrawFn) -> Tally:
    """Draw tallies of one tier."""
    cached, written, rest, completion = (draw(COUNTS) for _ in range(4))
    prompt = cached + written + rest
    return Tally(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        total_tokens=prompt + completion,
        cache_write_tokens=written,
    )


@st.composite
def tallies(draw: st.DrawFn) -> Tally:
    """Draw tallies of answers that report both parts, and their sum as the total."""
    parts = [draw(standard_tallies()) for _ in range(4)]
    whole = total_of(parts)
    return replace(whole, tiers={"flex": parts[0], "priority": parts[1], "batch": parts[2]})


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


PRICES = st.builds(
    Price,
    DOLLARS,
    DOLLARS,
    st.none() | DOLLARS,
    st.none() | DOLLARS,
    st.dictionaries(st.sampled_from(["flex", "priority", "batch"]), st.floats(0, 4)),
)


def is_close(one: float | None, other: float | None) -> bool:
    """Return whether two costs are known, and differ by rounding at most."""
    return one is not None and other is not None and math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-6)


@given(PRICES, tallies(), tallies())
def test_costs_add_up(price: Price, one: Tally, other: Tally) -> None:
    """The cost of a run is the sum of its chunks' costs, and never negative."""
    assert price.cost(one) >= 0
    assert is_close(price.cost(one) + price.cost(other), price.cost(one.plus(other)))


@given(PRICES, tallies())
def test_the_parts_of_a_tally_cost_as_much_as_the_whole(price: Price, whole: Tally) -> None:
    """Each sort of tokens of each tier has a price of its own, and their sum is the cost."""

    def usd(tokens: int, dollars: float | None, factor: float) -> float:
        return tokens * (price.prompt if dollars is None else dollars) * factor / MILLION

    def parts(tally: Tally, factor: float) -> Iterator[float]:
        yield usd(tally.prompt_tokens - tally.cached_tokens - tally.cache_write_tokens, price.prompt, factor)
        yield usd(tally.cached_tokens, price.cached, factor)
        yield usd(tally.cache_write_tokens, price.cache_write, factor)
        yield usd(tally.completion_tokens, price.completion, factor)

    standard = {name: getattr(whole, name) - sum(getattr(t, name) for t in whole.tiers.values()) for name in TOKENS}
    factors = {"batch": 0.5, **price.tiers}
    tiers = [(Tally(**standard), 1.0), *((part, factors.get(tier, 1.0)) for tier, part in whole.tiers.items())]
    assert is_close(sum(amount for part, factor in tiers for amount in parts(part, factor)), price.cost(whole))


@given(PRICES, tallies(), st.integers(0, 100))
def test_a_cost_is_linear(price: Price, tally: Tally, times: int) -> None:
    """The same rows, so many times, cost so many times as much."""
    assert is_close(times * price.cost(tally), price.cost(total_of([tally] * times)))


@pytest.mark.parametrize(
    ("price", "tally", "usd"),
    [
        # Anthropic, Claude Sonnet 4: 3 and 15, a read of the cache 0.30, a write 3.75, in batches half of it
        (CLAUDE, Tally(prompt_tokens=MILLION, completion_tokens=MILLION, total_tokens=2 * MILLION), 18.0),
        (CLAUDE, Tally(prompt_tokens=MILLION, cached_tokens=900_000, total_tokens=MILLION), 0.1 * 3 + 0.9 * 0.3),
        (CLAUDE, Tally(prompt_tokens=MILLION, cache_write_tokens=MILLION, total_tokens=MILLION), 3.75),
        (CLAUDE, total_of([ONE_OF_EACH, Tally(tiers={"batch": ONE_OF_EACH})]), (3 + 3.75 + 0.3 + 15) / 2),
        # Moonshot, in batches 0.6 of it
        (Price(0.6, 3, 0.1, tiers={"batch": 0.6}), replace(ONE_OF_EACH, tiers={"batch": ONE_OF_EACH}), 4.3 * 0.6),
        # OpenAI, GPT-5: 1.25 and 10, cached 0.125; flex half of it, priority double
        (GPT, ONE_OF_EACH, 1.25 + 1.25 + 0.125 + 10),
        (GPT, total_of([ONE_OF_EACH, Tally(tiers={"flex": ONE_OF_EACH})]), (1.25 + 1.25 + 0.125 + 10) / 2),
        (GPT, total_of([ONE_OF_EACH, Tally(tiers={"priority": ONE_OF_EACH})]), (1.25 + 1.25 + 0.125 + 10) * 2),
        # OpenAI, text-embedding-3-small
        (Price(0.02, 0.02), Tally(prompt_tokens=MILLION, total_tokens=MILLION), 0.02),
    ],
)
def test_published_prices_give_the_published_cost(price: Price, tally: Tally, usd: float) -> None:
    """The cost is what the providers' price lists say for these tokens."""
    assert usd == pytest.approx(price.cost(tally))


def test_a_price_notes_the_tokens_that_it_does_not_name() -> None:
    """They have a price nevertheless, and a number for all tokens names them all."""
    [one_price] = parse_prices(0.5, ["mood"]).values()
    pair = Price(3, 15, tiers={"flex": 0.5})

    assert [] == list(one_price.notes(ONE_OF_EACH)) == list(pair.notes(Tally(), ["flex", "default", "standard"]))
    assert [
        "1,000,000 cached tokens have the price of prompt tokens, since prices= has no cached.",
        "1,000,000 cache_write tokens have the price of prompt tokens, since prices= has no cache_write.",
        "Tokens of the service tier 'priority' have the list price, since prices= has no factor for it.",
    ] == list(pair.notes(ONE_OF_EACH, ["flex", "priority"]))


@given(
    st.one_of(DOLLARS, st.tuples(DOLLARS, DOLLARS), st.builds(Price, DOLLARS, DOLLARS, tiers=st.just({"flex": 0.5}))),
    standard_tallies(),
)
def test_a_batch_costs_half_where_the_price_does_not_say_otherwise(prices: OnePrice, tally: Tally) -> None:
    """However the price is written, and for every sort of tokens."""
    [price] = parse_prices(prices, ["mood"]).values()

    assert is_close(price.cost(tally) / 2, price.cost(replace(tally, tiers={"batch": tally})))
    assert is_close(price.cost(tally), price.cost(replace(tally, tiers={"scale": tally})))
    assert "batch" in price.factors


def test_half_the_price_is_noted_until_the_factor_is_given() -> None:
    """The note says how to give it; a batch that costs nothing needs none."""
    answered = replace(ONE_OF_EACH, tiers={"batch": ONE_OF_EACH, "flex": Tally()})

    [note] = Price(1, 1, 1, 1).notes(answered, ["batch"])
    assert note == (
        "4,000,000 tokens of the service tier 'batch' have 0.5 of the list price, since prices= has no factor for it; "
        "Price(…, tiers={'batch': …}) sets another."
    )
    assert [] == list(CLAUDE.notes(answered, ["batch"])) == list(Price(0, 0, 0, 0).notes(answered))
    assert [] == list(Price(1, 1, 1, 1).notes(replace(ONE_OF_EACH, tiers={"batch": Tally()})))


@given(PRICES, tallies())
def test_the_same_tokens_may_be_priced_at_once_and_by_batch(price: Price, tally: Tally) -> None:
    """At once those of a batch have the list price, and other tiers their own; by batch all have the batch's factor."""
    at_once = {tier: part for tier, part in tally.tiers.items() if tier != "batch"}
    whole = price.cost(replace(tally, tiers={}))

    assert is_close(price.cost(replace(tally, tiers=at_once)), price.cost_at_once(tally))
    assert is_close(price.factors["batch"] * whole, price.cost_by_batch(tally))
    assert is_close(
        2 * price.cost_at_once(tally), total_cost_at_once({"a": price, "b": price}, {"a": tally, "b": tally})
    )
    assert is_close(price.cost_by_batch(tally), total_cost_by_batch({"a": price}, {"a": tally}))
    assert None is total_cost_at_once({}, {"a": tally}) is total_cost_by_batch({}, {"a": tally})


@given(COLUMNS, DOLLARS, DOLLARS, DOLLARS, st.sampled_from([tuple, list]))
def test_one_price_counts_for_all_columns(
    columns: list[str], prompt: float, completion: float, cached: float, kind: type
) -> None:
    """It is two or three numbers in a tuple or a list, or one number for all tokens."""
    assert dict.fromkeys(columns, Price(prompt, completion)) == parse_prices(kind([prompt, completion]), columns)
    assert dict.fromkeys(columns, Price(prompt, completion, cached)) == parse_prices(
        kind([prompt, completion, cached]), columns
    )
    assert dict.fromkeys(columns, Price(prompt, prompt, prompt, prompt)) == parse_prices(prompt, columns)
    assert dict.fromkeys(columns, Price(prompt, completion)) == parse_prices(Price(prompt, completion), columns)


def test_each_column_may_have_its_own_price() -> None:
    """Prices are given by name, and come back in the order of the columns."""
    prices = parse_prices({"vector": 0.02, "mood": [0.5, 1.5, 0.05]}, ["mood", "vector"])

    assert {"mood": Price(0.5, 1.5, 0.05), "vector": Price(0.02, 0.02, 0.02, 0.02)} == prices
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
    assert {"mood": Price(1, 1, 1, 1)} == parse_prices(1, ["mood"], Budget(usd=5))


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
    with pytest.raises(ConfigError, match=r"^Price\(prompt=-1, .* is not a price\. Hint: "):
        Price(-1, 2)
    with pytest.raises(ConfigError, match=r"is not a price\. Hint: "):
        Price(1, 2, tiers={"flex": -0.5})
    with pytest.raises(ConfigError, match=r"is not a price\. Hint: "):
        Price(1, 2, tiers=0.5)  # type: ignore[arg-type]
    for wrong, hint in (({"prompt": 1}, "the arguments are"), ({"prompt": 1, "cache": 3}, "did you mean 'cached'?")):
        with pytest.raises(ConfigError, match=re.escape(f"is not a price. Hint: {hint}")):
            parse_prices({"mood": wrong}, ["mood"])


def test_the_price_of_a_column_may_be_its_fields_by_name() -> None:
    """A job's file has it so."""
    fields = {"prompt": 3, "completion": 15, "cache_write": 3.75, "tiers": {"batch": 0.5}}

    assert {"mood": Price(3, 15, None, 3.75, {"batch": 0.5})} == parse_prices({"mood": fields}, ["mood"])


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
