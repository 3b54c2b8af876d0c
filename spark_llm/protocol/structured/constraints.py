"""Constraints of values beside their type: bounds, lengths and patterns, as descriptions and as checks.

A constraint has the name that msgspec and annotated-types give it.
"""

import operator
from collections.abc import Callable, Mapping
from decimal import Context, Decimal
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any

import msgspec

Constraints = tuple[tuple[str, float | int | str], ...]

_DESCRIPTIONS = {
    "ge": "at least {}",
    "gt": "more than {}",
    "le": "at most {}",
    "lt": "less than {}",
    "multiple_of": "a multiple of {}",
    "min_length": "no fewer than {} long",
    "max_length": "no more than {} long",
    "pattern": "matching the regular expression {}",
}
CONSTRAINTS = frozenset(_DESCRIPTIONS)
_EXACT = Context(prec=1_000)  # for exact remainders of decimals of 38 digits
_CHECKS: dict[str, Callable[[Decimal, Decimal], bool]] = {  # arguments: the bound and the value
    "ge": operator.le,
    "gt": operator.lt,
    "le": operator.ge,
    "lt": operator.gt,
    "multiple_of": lambda unit, value: _EXACT.remainder(value, unit) == 0,
}
NUMBER_CONSTRAINTS = frozenset(_CHECKS)  # those that a decimal may have


def description_of(constraints: Constraints) -> str:
    """Return the constraints as a text for the model, which has to keep them."""
    return ", ".join(_DESCRIPTIONS[name].format(bound) for name, bound in constraints)


def constrained_type(
    kind: Any,  # noqa: ANN401 -- a type
    constraints: Constraints,
    always: Mapping[str, Any] = MappingProxyType({}),
) -> Any:  # noqa: ANN401 -- a type
    """Return a type with these constraints and those of its kind; of two bounds on one side it gets the narrower."""
    own = dict(constraints)
    meta: dict[str, Any] = {**always, **own}
    for closed, opened, narrower in (("ge", "gt", max), ("le", "lt", min)):
        if closed in always and closed in own:
            meta[closed] = narrower(always[closed], own[closed])
        if closed in meta and opened in meta:
            del meta[closed if narrower(meta[opened], meta[closed]) == meta[opened] else opened]
    return Annotated[kind, msgspec.Meta(**meta)] if meta else kind


def decimal_checks(constraints: Constraints) -> list[Callable[[Decimal], bool]]:
    """Return the checks of a decimal; raises `ValueError` for a constraint that no number can keep."""
    bounds = [(name, Decimal(str(bound))) for name, bound in constraints]
    for name, bound in bounds:
        if bound.is_nan() or (name == "multiple_of" and bound <= 0):
            raise ValueError(f"no number is {_DESCRIPTIONS[name].format(bound)}")
    return [partial(_CHECKS[name], bound) for name, bound in bounds]
