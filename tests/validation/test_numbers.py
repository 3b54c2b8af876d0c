"""Checks of whole numbers, and of numbers in a range."""

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import ConfigError
from spark_llm.validation.numbers import check_number, check_whole, is_number, is_whole

WHOLE = st.integers(-(2**70), 2**70)
NUMBERS = WHOLE | st.floats()
OTHERS = st.none() | st.booleans() | st.text() | st.binary() | st.lists(st.integers()) | st.complex_numbers()


@given(OTHERS)
def test_values_of_other_types_are_not_numbers(value: object) -> None:
    """True and False are among them, though Python counts with them."""
    assert (False, False) == (is_whole(value), is_number(value))
    with pytest.raises(ConfigError):
        check_whole("n", value, -(10**9), 10**9)
    with pytest.raises(ConfigError):
        check_number("x", value, -1e9, 1e9)


@given(NUMBERS)
def test_a_float_is_a_number_and_not_whole(value: float) -> None:
    """Not even 2.0: a count that was computed with a division is looked at again."""
    assert is_number(value)
    assert isinstance(value, int) == is_whole(value)


@given(WHOLE, WHOLE, st.none() | WHOLE)
def test_a_whole_number_in_the_range_is_returned(value: int, minimum: int, maximum: int | None) -> None:
    """Both bounds are allowed; without a maximum every number from the minimum on is."""
    if minimum <= value and (maximum is None or value <= maximum):
        assert value == check_whole("n", value, minimum, maximum)
    else:
        with pytest.raises(ConfigError, match=re.escape(f"n={value} is not a whole number ")):
            check_whole("n", value, minimum, maximum)


@given(NUMBERS, NUMBERS, NUMBERS, st.booleans())
def test_a_number_in_the_range_is_returned(value: float, minimum: float, maximum: float, exclusive: bool) -> None:  # noqa: FBT001 -- drawn
    """NaN is in no range."""
    if (minimum < value if exclusive else minimum <= value) and value <= maximum:
        assert value == check_number("x", value, minimum, maximum, exclusive_minimum=exclusive)
    else:
        with pytest.raises(ConfigError, match=re.escape(f"x={value!r} is not a number ")):
            check_number("x", value, minimum, maximum, exclusive_minimum=exclusive)


WITHIN = "set x within that range, or leave it out."


@pytest.mark.parametrize(
    ("check", "arguments", "message"),
    [
        (check_whole, {"value": 0, "minimum": 1}, f"x=0 is not a whole number of at least 1. Hint: {WITHIN}"),
        (
            check_whole,
            {"value": "8", "minimum": 1, "maximum": 100_000, "owner": "Policy"},
            f"Policy(x='8') is not a whole number from 1 to 100,000. Hint: {WITHIN}",
        ),
        (
            check_whole,
            {"value": 0, "minimum": 1, "maximum": 9, "unit": "rows", "hint": "leave it out for 5."},
            "x=0 is not a whole number of rows from 1 to 9. Hint: leave it out for 5.",
        ),
        (
            check_number,
            {"value": 3, "minimum": 0.0, "maximum": 2.0},
            f"x=3 is not a number from 0 to 2. Hint: {WITHIN}",
        ),
        (
            check_number,
            {"value": -1, "minimum": 0.0, "maximum": 31_622_400.0},
            f"x=-1 is not a number from 0 to 31,622,400. Hint: {WITHIN}",
        ),
        (
            check_number,
            {"value": math.nan, "minimum": 0, "maximum": 1e15, "exclusive_minimum": True, "unit": "US dollars"},
            f"x=nan is not a number of US dollars above 0, up to 1e+15. Hint: {WITHIN}",
        ),
    ],
)
def test_the_message_has_the_value_the_range_and_the_next_step(
    check: Any,  # noqa: ANN401 -- either of the two
    arguments: dict[str, Any],
    message: str,
) -> None:
    """A unit and the class that the parameter belongs to are named where they are given."""
    with pytest.raises(ConfigError) as raised:
        check("x", **arguments)
    assert message == str(raised.value)
