"""Labels of UDFs: what a worker sends is what the driver reads."""

from hypothesis import given
from hypothesis import strategies as st

from spark_llm.livecounts.labels import Label
from tests.support.strategies import TEXTS

PARTS = TEXTS.filter(lambda text: "\x1f" not in text)


@given(PARTS, PARTS.filter(bool), PARTS, PARTS)
def test_a_label_is_read_as_it_was_written(name: str, task: str, url: str, model: str) -> None:
    """All four parts come back; a name alone, such as a column's, is a label too."""
    assert Label(name, task, url, model) == Label.of(str(Label(name, task, url, model)))
    assert Label(name) == Label.of(name) == Label.of(str(Label(name)))


@given(st.text("a\x1f", max_size=9))
def test_any_text_is_a_label(text: str) -> None:
    """A column may have any name."""
    assert text.startswith(Label.of(text).name)
