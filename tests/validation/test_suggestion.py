"""Suggestions for names that are not known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.validation.suggestion import did_you_mean

KNOWN = ("summary", "system", "temperature", "temperatures")


@pytest.mark.parametrize(
    ("name", "max_suggestions", "hint"),
    [
        ("sumary", 1, "did you mean 'summary'?"),
        ("temperatur", 1, "did you mean 'temperature'?"),
        ("temperatur", 3, "did you mean 'temperature' or 'temperatures'?"),
        ("zzz", 3, "its keys are many."),
        (7, 1, "its keys are many."),
    ],
)
def test_similar_names_are_suggested(name: object, max_suggestions: int, hint: str) -> None:
    """The most similar first; without a similar name the hint is the caller's."""
    assert hint == did_you_mean(name, KNOWN, otherwise="its keys are many.", max_suggestions=max_suggestions)


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6), st.data())
def test_a_known_name_is_most_like_itself(known: list[str], data: st.DataObject) -> None:
    """Whatever the names are."""
    name = data.draw(st.sampled_from(known))

    assert f"did you mean {name!r}?" == did_you_mean(name, known, otherwise="no")
