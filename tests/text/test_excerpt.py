"""Excerpts for messages."""

from hypothesis import given
from hypothesis import strategies as st

from spark_llm.text.excerpt import excerpt
from tests.support.strategies import TEXTS


@given(TEXTS.map(lambda text: 20 * text), st.integers(1, 300))
def test_an_excerpt_is_one_short_line(text: str, max_characters: int) -> None:
    """It is never longer than allowed, and has no line break, no tab and no double space."""
    found = excerpt(text, max_characters)

    assert len(found) <= max_characters
    assert " ".join(found.split()) == found


@given(st.lists(st.text("abc", min_size=1, max_size=9), max_size=9).map(" ".join))
def test_a_short_line_is_its_own_excerpt(text: str) -> None:
    """A text of one line that fits comes back unchanged."""
    assert text == excerpt(text)


def test_an_ellipsis_stands_for_the_rest() -> None:
    """It counts as a character."""
    assert "a b…" == excerpt("a\n\tb c", 4)
    assert "a b c" == excerpt("a\n\tb c", 5)
