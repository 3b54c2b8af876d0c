"""What tokens cost: prices as the user writes them, and the cost of what was asked. Values in, values out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from spark_llm.errors import ConfigError
from spark_llm.metering.budget import Budget
from spark_llm.metering.tally import Tally
from spark_llm.text.suggestion import did_you_mean
from spark_llm.validation.numbers import is_number

_PER = 1_000_000
_DEAREST = 1e9
_SHAPES = (
    "write US dollars per million tokens: (0.5, 1.5) for prompt and completion, (0.5, 1.5, 0.05) with cached prompt "
    "tokens, or one number for all tokens."
)


@dataclass(frozen=True)
class Price:
    """What the tokens of one endpoint cost.

    >>> Price(0.5, 1.5).of(Tally(prompt_tokens=1_000_000, completion_tokens=100_000))
    0.65

    Attributes:
        prompt: US dollars for a million tokens of questions.
        completion: US dollars for a million tokens of answers.
        cached: US dollars for a million tokens of questions that the server had read before. None: as `prompt`.
    """

    prompt: float
    completion: float
    cached: float | None = None

    def of(self, tally: Tally) -> float:
        """Return what this came to, in US dollars.

        Tokens in the total that are in neither part are priced as the answer's, as reasoning is that a server counts
        apart; where no answer has tokens, as the question's.
        """
        cached = min(tally.cached_tokens, tally.prompt_tokens)
        apart = max(0, tally.total_tokens - tally.prompt_tokens - tally.completion_tokens)
        cost = (
            (tally.prompt_tokens - cached) * self.prompt
            + cached * (self.prompt if self.cached is None else self.cached)
            + tally.completion_tokens * self.completion
            + apart * (self.completion if tally.completion_tokens else self.prompt)
        )
        return cost / _PER


OnePrice: TypeAlias = float | Sequence[float] | Price
Prices: TypeAlias = OnePrice | Mapping[str, OnePrice]
"""As the user writes `prices=`: one for all columns, or one for each by name."""


def read(prices: object, columns: Sequence[str], budget: Budget | None = None) -> dict[str, Price]:
    """Read `prices=`: one price for all columns, or one for each by name; empty where None is given.

    Raises `ConfigError` for what is no price, for a column that is not there or has none, and where a budget in dollars
    comes without prices.
    """
    if prices is None:
        if budget is not None and budget.usd is not None:
            raise ConfigError(
                f"Budget(usd={budget.usd!r}) cannot be kept without prices.",
                f"give prices= as well: {_SHAPES}",
            )
        return {}
    if not isinstance(prices, Mapping):
        return dict.fromkeys(columns, _price("prices=", prices))
    for name in prices:
        if name not in columns:
            raise ConfigError(
                f"prices= names {name!r}, which is none of the columns.",
                did_you_mean(name, columns, otherwise=f"the columns are {_listed(columns)}."),
            )
    if missing := [name for name in columns if name not in prices]:
        raise ConfigError(
            f"prices= has no price for {_listed(missing)}.",
            "give each column one, 0 where it costs nothing, or one price for all columns.",
        )
    return {name: _price(f"prices[{name!r}]=", prices[name]) for name in columns}


def cost(prices: Mapping[str, Price], tallies: Mapping[str, Tally]) -> float | None:
    """Return what all columns came to, in US dollars; None where there are no prices."""
    return sum((prices[name].of(tally) for name, tally in tallies.items()), 0.0) if prices else None


def _price(name: str, value: object) -> Price:
    if isinstance(value, Price):
        value = (value.prompt, value.completion) if value.cached is None else tuple(vars(value).values())
    numbers: list[Any] = list(value) if isinstance(value, (list, tuple)) else [value, value]
    if len(numbers) not in (2, 3) or not all(map(_is_price, numbers)):
        raise ConfigError(f"{name}{value!r} is no price.", _SHAPES)
    return Price(*numbers)


def _is_price(number: object) -> bool:
    return is_number(number) and 0 <= number <= _DEAREST


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
