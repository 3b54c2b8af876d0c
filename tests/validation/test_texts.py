"""Checks of texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import ConfigError
from spark_llm.validation.texts import check_text


@given(st.text(min_size=1).filter(lambda text: bool(text.strip())))
def test_a_text_is_returned_unchanged(text: str) -> None:
    """Blanks around it stay."""
    assert text == check_text("system", text)


@pytest.mark.waits
@pytest.mark.parametrize("value", ["", " ", "\n", None, 7, b"a", ["a"]])
def test_blank_texts_and_other_values_are_refused(value: object) -> None:
    """Blank instructions are a mistake, found when the UDF is built."""
    what = "blank" if isinstance(value, str) else "not a text"
    with pytest.raises(ConfigError, match=rf"(?s)system=.* is {what}\. Hint: .+\."):
        check_text("system", value)
