"""Prices of tokens, as the user writes them, and the cost of tallies."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

from spark_llm.errors import ConfigError
from spark_llm.metering.budget import Budget
from spark_llm.metering.tally import Tally
from spark_llm.text.names import column_list
from spark_llm.validation.arguments import checks_arguments
from spark_llm.validation.numbers import is_number
from spark_llm.validation.suggestion import did_you_mean

_TOKENS_PER_PRICE = 1_000_000
_MAX_PRICE = 1e9
_PRICE_HINT = (
    "write US dollars per million tokens: (0.5, 1.5) for prompt and completion, (0.5, 1.5, 0.05) with cached prompt "
    "tokens, one number for all tokens, or Price(prompt=…, completion=…, cached=…, cache_write=…, tiers={…})."
)
_STANDARD_TIERS = ("default", "standard", "auto", "on_demand")  # names for the list price
BATCH = "batch"
"""The tier of tokens that a Batch API answered."""
_DEFAULT_FACTORS: Mapping[str, float] = {BATCH: 0.5}  # what most providers ask for a batch; a few ask 0.6 to 0.8


@checks_arguments
@dataclass(frozen=True)
class Price:
    """The prices of one endpoint's tokens, in US dollars per million.

    >>> Price(0.5, 1.5).cost(Tally(prompt_tokens=1_000_000, completion_tokens=100_000))
    0.65
    >>> Price(3, 15, cached=0.3, cache_write=3.75, tiers={"batch": 0.5})

    Raises `ConfigError` for a value that is not a price.

    Attributes:
        prompt: For tokens of prompts.
        completion: For tokens of answers.
        cached: For tokens of prompts that the server had cached. None: as `prompt`.
        cache_write: For tokens of prompts that the server wrote to its cache. None: as `prompt`.
        tiers: Factors of all these prices, by the name of the service tier at which an answer was billed. The tier
            "batch" of a Batch API has 0.5 where it is not named, any other tier 1.
    """

    prompt: float
    completion: float
    cached: float | None = None
    cache_write: float | None = None
    tiers: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every field."""
        optional = [number for number in (self.cached, self.cache_write) if number is not None]
        tiers: Mapping[Any, Any] = self.tiers if isinstance(self.tiers, Mapping) else {None: None}
        numbers = all(map(_is_price, (self.prompt, self.completion, *optional, *tiers.values())))
        if not numbers or not all(isinstance(tier, str) for tier in tiers):
            raise ConfigError(f"{self!r} is not a price.", _PRICE_HINT)

    @property
    def factors(self) -> Mapping[str, float]:
        """The factors of all tiers that have one, by name: these are the tiers that a tally has to count apart."""
        return {**_DEFAULT_FACTORS, **self.tiers}

    def cost(self, tally: Tally) -> float:
        """Return the cost of a tally in US dollars.

        Tokens of the total that are in neither part have the price of answers: they may be reasoning. Where no answer
        has tokens, they have the price of prompts.
        """
        further = (
            (factor - 1) * self._list_cost(tally.tiers.get(tier, Tally())) for tier, factor in self.factors.items()
        )
        return max(0.0, self._list_cost(tally) + sum(further))

    def cost_at_once(self, tally: Tally) -> float:
        """Return what the tokens of a tally cost in single requests: those that a batch answered at the list price."""
        return self.cost(replace(tally, tiers={tier: part for tier, part in tally.tiers.items() if tier != BATCH}))

    def cost_by_batch(self, tally: Tally) -> float:
        """Return what all tokens of a tally cost when a batch answers them."""
        return self.cost(replace(tally, tiers={BATCH: tally}))

    def _list_cost(self, tally: Tally) -> float:
        """Return the cost with every tier at a factor of 1."""
        cached = min(tally.cached_tokens, tally.prompt_tokens)
        written = min(tally.cache_write_tokens, tally.prompt_tokens - cached)
        other = max(0, tally.total_tokens - tally.prompt_tokens - tally.completion_tokens)
        cost = (
            (tally.prompt_tokens - cached - written) * self.prompt
            + cached * (self.prompt if self.cached is None else self.cached)
            + written * (self.prompt if self.cache_write is None else self.cache_write)
            + tally.completion_tokens * self.completion
            + other * (self.completion if tally.completion_tokens else self.prompt)
        )
        return cost / _TOKENS_PER_PRICE

    def notes(self, tally: Tally, tiers: Iterable[str] = ()) -> Iterator[str]:
        """Yield a sentence for each sort of tokens in a tally, and each of these tiers, without a price of its own.

        Tokens of a batch in the tally have a sentence too where their factor is the default.
        """
        for name, price, count in (
            ("cached", self.cached, tally.cached_tokens),
            ("cache_write", self.cache_write, tally.cache_write_tokens),
        ):
            if price is None and count and self.prompt:
                yield f"{count:,} {name} tokens have the price of prompt tokens, since prices= has no {name}."
        for tier, factor in _DEFAULT_FACTORS.items():
            if (
                tier not in self.tiers
                and (count := tally.tiers.get(tier, Tally()).total_tokens)
                and self._list_cost(tally)
            ):
                yield (
                    f"{count:,} tokens of the service tier {tier!r} have {factor:g} of the list price, since prices= "
                    f"has no factor for it; Price(…, tiers={{{tier!r}: …}}) sets another."
                )
        for tier in tiers:
            if tier not in self.factors and tier not in _STANDARD_TIERS:
                yield f"Tokens of the service tier {tier!r} have the list price, since prices= has no factor for it."


OnePrice: TypeAlias = float | Sequence[float] | Mapping[str, Any] | Price
Prices: TypeAlias = OnePrice | Mapping[str, OnePrice]
"""The argument `prices=`: one price for all columns, or one for each by name, which may be the fields of a `Price`."""


def parse_prices(
    prices: object, columns: Sequence[str], budget: Budget | None = None, tokenless: Collection[str] = ()
) -> dict[str, Price]:
    """Return the price of each column, 0 for those whose answers report no tokens; an empty mapping for None.

    Raises `ConfigError` for a value that is not a price, an unknown column, a column without a price, a price for a
    column without tokens, a budget in dollars without prices, and prices or a budget in tokens where no column has any.
    """
    _check_tokens(prices, columns, budget, tokenless)
    if tokenless and prices is not None:
        priced = parse_prices(prices, [name for name in columns if name not in tokenless], budget)
        return {name: priced.get(name, Price(0, 0)) for name in columns}
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


def _check_tokens(prices: object, columns: Sequence[str], budget: Budget | None, tokenless: Collection[str]) -> None:
    """Raise `ConfigError` where tokens are to be priced or limited, and the answers report none."""
    for name in tokenless:
        if isinstance(prices, Mapping) and name in prices:
            raise ConfigError(
                f"prices= has a price for {name!r}, whose answers report no tokens.", f"leave {name!r} out of prices=."
            )
    if len(tokenless) < len(columns):
        return
    if prices is not None:
        raise ConfigError("prices= is given, but no column's answers report tokens.", "leave prices= out.")
    if budget is not None and (budget.tokens, budget.usd) != (None, None):
        raise ConfigError(
            f"{budget!r} limits tokens or dollars, but no column's answers report tokens.",
            "limit rows= or seconds= in its place.",
        )


def total_cost(prices: Mapping[str, Price], tallies: Mapping[str, Tally]) -> float | None:
    """Return the cost of all columns in US dollars; None without prices."""
    return sum((prices[name].cost(tally) for name, tally in tallies.items()), 0.0) if prices else None


def total_cost_at_once(prices: Mapping[str, Price], tallies: Mapping[str, Tally]) -> float | None:
    """Return what the same tokens of all columns cost in single requests; None without prices."""
    return sum((prices[name].cost_at_once(tally) for name, tally in tallies.items()), 0.0) if prices else None


def total_cost_by_batch(prices: Mapping[str, Price], tallies: Mapping[str, Tally]) -> float | None:
    """Return what the tokens of all columns cost when batches answer them all; None without prices."""
    return sum((prices[name].cost_by_batch(tally) for name, tally in tallies.items()), 0.0) if prices else None


def price_notes(prices: Mapping[str, Price], tallies: Mapping[str, Tally]) -> Iterator[str]:
    """Yield the notes of all columns, each with the column's name in front."""
    for name, price in prices.items():
        yield from (f"{name}: {note}" for note in price.notes(tallies.get(name, Tally())))


def _price(name: str, value: object) -> Price:
    try:
        match value:
            case Price():
                return value
            case Mapping():
                return Price(**value)
            case list() | tuple() if len(value) in (2, 3):
                return Price(*value)
            case _:
                return Price(number := cast("float", value), number, number, number)  # which is checked there
    except (ConfigError, TypeError) as error:
        hint = getattr(error, "hint", _PRICE_HINT)
        raise ConfigError(f"{name}{value!r} is not a price.", hint) from None


def _is_price(number: object) -> bool:
    return is_number(number) and 0 <= number <= _MAX_PRICE
