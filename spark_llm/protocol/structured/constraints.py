"""What holds for a value beside its type: bounds, lengths, a pattern; told in words, and held to.

A rule has the name that it has in msgspec and in annotated-types.
"""

import operator
from collections.abc import Callable, Mapping
from decimal import Context, Decimal
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any

import msgspec

Rules = tuple[tuple[str, float | int | str], ...]

_IN_WORDS = {
    "ge": "at least {}",
    "gt": "more than {}",
    "le": "at most {}",
    "lt": "less than {}",
    "multiple_of": "a multiple of {}",
    "min_length": "no fewer than {} long",
    "max_length": "no more than {} long",
    "pattern": "matching the regular expression {}",
}
RULES = frozenset(_IN_WORDS)
_EXACTLY = Context(prec=1_000)  # for remainders of a decimal, which has 38 digits
_HOLDS: dict[str, Callable[[Decimal, Decimal], bool]] = {  # of the bound and the value
    "ge": operator.le,
    "gt": operator.lt,
    "le": operator.ge,
    "lt": operator.gt,
    "multiple_of": lambda unit, value: _EXACTLY.remainder(value, unit) == 0,
}
OF_NUMBERS = frozenset(_HOLDS)  # those that hold for decimals


def in_words(rules: Rules) -> str:
    """Return what the rules say, for whoever has to keep to them."""
    return ", ".join(_IN_WORDS[name].format(bound) for name, bound in rules)


def ruled(kind: Any, rules: Rules, always: Mapping[str, Any] = MappingProxyType({})) -> Any:  # noqa: ANN401 -- types
    """Return a type that holds to rules, and to those of its kind; of two bounds on one side to the narrower."""
    own = dict(rules)
    meta: dict[str, Any] = {**always, **own}
    for closed, opened, narrower in (("ge", "gt", max), ("le", "lt", min)):
        if closed in always and closed in own:
            meta[closed] = narrower(always[closed], own[closed])
        if closed in meta and opened in meta:
            del meta[closed if narrower(meta[opened], meta[closed]) == meta[opened] else opened]
    return Annotated[kind, msgspec.Meta(**meta)] if meta else kind


def checks_of(rules: Rules) -> list[Callable[[Decimal], bool]]:
    """Return what a decimal is held to; raises `ValueError` where no number could be."""
    bounds = [(name, Decimal(str(bound))) for name, bound in rules]
    for name, bound in bounds:
        if bound.is_nan() or (name == "multiple_of" and bound <= 0):
            raise ValueError(f"no number is {_IN_WORDS[name].format(bound)}")
    return [partial(_HOLDS[name], bound) for name, bound in bounds]
