"""Checks of whole numbers, and of numbers in a range. True and False are not numbers here."""

from typing import TypeGuard

from spark_llm.errors import ConfigError


def is_whole(value: object) -> TypeGuard[int]:
    """Return whether a value is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a number, whole or not; NaN and the infinities are numbers."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_whole(
    name: str,
    value: object,
    minimum: int,
    maximum: int | None = None,
    *,
    unit: str = "",
    owner: str = "",
    hint: str | None = None,
) -> int:
    """Return a whole number from `minimum` to `maximum`; raise `ConfigError` for any other value.

    The arguments after `value` are those of `check_number`.
    """
    if is_whole(value) and minimum <= value and (maximum is None or value <= maximum):
        return value
    bounds = f"of at least {minimum:,}" if maximum is None else f"from {minimum:,} to {maximum:,}"
    raise _error(name, value, f"whole number{_of(unit)} {bounds}", owner, hint)


def check_number(
    name: str,
    value: object,
    minimum: float,
    maximum: float,
    *,
    exclusive_minimum: bool = False,
    unit: str = "",
    owner: str = "",
    hint: str | None = None,
) -> float:
    """Return a number from `minimum` to `maximum`; raise `ConfigError` for any other value.

    Args:
        name: The parameter's name.
        value: The value that the user gave.
        minimum: The lowest value.
        maximum: The highest value.
        exclusive_minimum: Whether the value must be above `minimum`.
        unit: The unit, such as "seconds".
        owner: The class that the parameter belongs to, such as "Policy"; empty for a function's.
        hint: The next step. Default: to set a value within the range, or to leave it out.
    """
    if is_number(value) and minimum <= value <= maximum and not (exclusive_minimum and value == minimum):
        return value
    low, high = f"{minimum:,.10g}", f"{maximum:,.10g}"
    bounds = f"above {low}, up to {high}" if exclusive_minimum else f"from {low} to {high}"
    raise _error(name, value, f"number{_of(unit)} {bounds}", owner, hint)


def _of(unit: str) -> str:
    return f" of {unit}" if unit else ""


def _error(name: str, value: object, expected: str, owner: str, hint: str | None) -> ConfigError:
    given = f"{owner}({name}={value!r})" if owner else f"{name}={value!r}"
    return ConfigError(f"{given} is not a {expected}.", hint or f"set {name} within that range, or leave it out.")
