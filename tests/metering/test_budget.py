"""The limits of a budget: which values are allowed, and which are refused when it is built."""

import math
import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import spark_llm
from spark_llm.errors import ConfigError
from spark_llm.metering.budget import Budget

WHOLE = st.none() | st.integers(1, 10**15)
NUMBERS = st.none() | st.integers(1, 10**15) | st.floats(1e-9, 1e15)


def test_budget_is_a_public_name() -> None:
    """`spark_llm.Budget` is this class."""
    assert spark_llm.Budget is Budget


@given(WHOLE, NUMBERS, WHOLE, NUMBERS)
def test_any_positive_limit_is_enough(
    tokens: int | None, usd: float | None, rows: int | None, seconds: float | None
) -> None:
    """Each of the four limits may be left out, but not all of them."""
    limits: dict[str, Any] = {"tokens": tokens, "usd": usd, "rows": rows, "seconds": seconds}
    if set(limits.values()) == {None}:
        with pytest.raises(ConfigError, match=r"has no limit.* Hint: .+\."):
            Budget(**limits)
    else:
        assert limits == vars(Budget(**limits))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("tokens", value) for value in (0, -1, 2e6, "2000000", True, 10**15 + 1)),
        *(("rows", value) for value in (0, -1, 10.0, "10", True)),
        *(("usd", value) for value in (0, 0.0, -0.5, math.nan, math.inf, "5", True)),
        *(("seconds", value) for value in (0, 0.0, -1, math.nan, math.inf, "1h", True)),
    ],
)
def test_wrong_limits_are_refused(name: str, value: object) -> None:
    """The error names the limit and its value, and ends in a hint."""
    arguments: dict[str, Any] = {"rows": 1, name: value}
    with pytest.raises(ConfigError, match=rf"Budget\({name}=.* Hint: .+\."):
        Budget(**arguments)


def test_limits_are_keyword_only() -> None:
    """A bare number does not show what it limits."""
    with pytest.raises(TypeError, match="positional"):
        Budget(5)  # type: ignore[call-arg]


def test_a_budget_is_frozen_and_picklable() -> None:
    """It is equal to its copies."""
    budget = Budget(usd=5)

    assert budget == pickle.loads(pickle.dumps(budget))  # noqa: S301 -- our own bytes
    with pytest.raises(FrozenInstanceError):
        budget.usd = 6  # type: ignore[misc]
