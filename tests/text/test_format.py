"""Numbers as people read them: times, dollars, and errors by kind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import KINDS, Kind
from spark_llm.text.format import by_kind, dollars, span


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0.0 s"),
        (3.44, "3.4 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (61.0, "1 min 1 s"),
        (3_600.0, "1 h"),
        (7_500.0, "2 h 5 min"),
        (3_605.0, "1 h"),
        (90_000.0, "1 d 1 h"),
    ],
)
def test_a_time_is_written_in_its_two_largest_units(seconds: float, words: str) -> None:
    """A time of ten seconds or more is rounded to seconds; smaller units are left out."""
    assert words == span(seconds)


@given(st.floats(0, 1e9))
def test_every_time_is_a_list_of_numbers_with_units(seconds: float) -> None:
    """Each number is above 0 and has one of four units; only a time of 0 is `0.0 s`."""
    words = span(seconds).split()

    assert {"d", "h", "min", "s"} >= set(words[1::2])
    assert all(float(number) > 0 or ["0.0", "s"] == words for number in words[::2])


@pytest.mark.parametrize(
    ("usd", "words"),
    [
        (0.0, "$0.00"),
        (0.00001, "$0.00"),
        (0.0123, "$0.0123"),
        (0.0999, "$0.0999"),
        (0.5, "$0.50"),
        (1_234.5, "$1,234.50"),
    ],
)
def test_amounts_below_ten_cents_have_four_decimals(usd: float, words: str) -> None:
    """One row may cost a thousandth of a cent, so two decimals would hide the difference."""
    assert words == dollars(usd)


@given(st.dictionaries(st.sampled_from(KINDS), st.integers(0, 10**6)))
def test_errors_are_listed_by_frequency(failed: dict[Kind, int]) -> None:
    """Each kind with an error appears once, the most frequent first."""
    parts = [part.rsplit(" ", 1) for part in by_kind(failed).split(", ") if part]
    numbers = [int(number.replace(",", "")) for number, _ in parts]

    assert sorted(numbers, reverse=True) == numbers
    assert {kind: count for kind, count in failed.items() if count} == {
        kind: number for (_, kind), number in zip(parts, numbers, strict=True)
    }
