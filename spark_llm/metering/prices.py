"""Prices of tokens, as the user writes them, and the cost of tallies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from spark_llm.errors import ConfigError
from spark_llm.metering.budget import Budget
from spark_llm.metering.tally import Tally
from spark_llm.text.names import column_list
from spark_llm.text.suggestion import did_you_mean
from spark_llm.validation.numbers import is_number

_TOKENS_PER_PRICE = 1_000_000
_MAX_PRICE = 1e9
_PRICE_HINT = (
    "write US dollars per million tokens: (0.5, 1.5) for prompt and completion, (0.5, 1.5, 0.05) with cached prompt "
    "tokens, or one number for all tokens."
)


@dataclass(frozen=True)
class Price:
    """The prices of one endpoint's tokens, in US dollars per million.

    >>> Price(0.5, 1.5).cost(Tally(prompt_tokens=1_000_000, completion_tokens=100_000))
    0.65

    Attributes:
        prompt: For tokens of prompts.
        completion: For tokens of answers.
        cached: For tokens of prompts that the server had cached. None: as `prompt`.
    """

    prompt: float
    completion: float
    cached: float | None = None

    def cost(self, tally: Tally) -> float:
        """Return the cost of a tally in US dollars.

        Tokens of the total that are in neither part have the price of answers: they may be reasoning. Where no answer
        has tokens, they have the price of prompts.
        """
        cached = min(tally.cached_tokens, tally.prompt_tokens)
        other = max(0, tally.total_tokens - tally.prompt_tokens - tally.completion_tokens)
        cost = (
            (tally.prompt_tokens - cached) * self.prompt
            + cached * (self.prompt if self.cached is None else self.cached)
            + tally.completion_tokens * self.completion
            + other * (self.completion if tally.completion_tokens else self.prompt)
        )
        return cost / _TOKENS_PER_PRICE


OnePrice: TypeAlias = float | Sequence[float] | Price
Prices: TypeAlias = OnePrice | Mapping[str, OnePrice]
"""The argument `prices=`: one price for all columns, or one for each by name."""


def parse_prices(prices: object, columns: Sequence[str], budget: Budget | None = None) -> dict[str, Price]:
    """Return the price of each column; an empty mapping for None.

    Raises `ConfigError` for a value that is not a price, an unknown column, a column without a price, and a budget in
    dollars without prices.
    """
    if prices is None:
        if budget is not None and budget.usd is not None:
            raise ConfigError(
                f"Budget(usd={budget.usd!r}) needs prices.",
                f"give prices= too: {_PRICE_HINT}",
            )
        return {}
    if not isinstance(prices, Mapping):
        return dict.fromkeys(columns, _price("prices=", prices))
    for name in prices:
        if name not in columns:
            raise ConfigError(
                f"prices= names {name!r}, which is not a column.",
                did_you_mean(name, columns, otherwise=f"the columns are {column_list(columns)}."),
            )
    if missing := [name for name in columns if name not in prices]:
        raise ConfigError(
            f"prices= has no price for {column_list(missing)}.",
            "give each column a price, 0 for a free one, or one price for all columns.",
        )
    return {name: _price(f"prices[{name!r}]=", prices[name]) for name in columns}


def total_cost(prices: Mapping[str, Price], tallies: Mapping[str, Tally]) -> float | None:
    """Return the cost of all columns in US dollars; None without prices."""
    return sum((prices[name].cost(tally) for name, tally in tallies.items()), 0.0) if prices else None


def _price(name: str, value: object) -> Price:
    if isinstance(value, Price):
        value = (value.prompt, value.completion) if value.cached is None else tuple(vars(value).values())
    numbers: list[Any] = list(value) if isinstance(value, (list, tuple)) else [value, value]
    if len(numbers) not in (2, 3) or not all(map(_is_price, numbers)):
        raise ConfigError(f"{name}{value!r} is not a price.", _PRICE_HINT)
    return Price(*numbers)


def _is_price(number: object) -> bool:
    return is_number(number) and 0 <= number <= _MAX_PRICE
