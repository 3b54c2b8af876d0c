"""Chunks of long texts: where they are cut and begin, and their headings."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from spark_llm.ai.split_text import By, TextSplitter
from spark_llm.errors import ConfigError, InputTypeError

PAGE = """# Manual

It is *short*. It has two sentences.

```sh
# not a heading
```

Parts and `code`
----------------

A list:

- one
- two
"""


def words_tokenizer(folder: Path) -> str:
    """Write a tokenizer that counts words, and return its path."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return str(path)


@given(st.text(max_size=300), st.integers(1, 60), st.integers(0, 59), st.sampled_from(["sentence", "markdown"]))
def test_chunks_are_parts_of_the_text(text: str, size: int, overlap: int, by: By) -> None:
    """Each begins where it says, fits the size, and all words are in one."""
    chunks = TextSplitter(size, min(overlap, size - 1), by).chunks(text)
    assert chunks is not None

    assert all(text[each.start :].startswith(each.text) and 0 < len(each.text) <= size for each in chunks)
    assert list(range(len(chunks))) == [each.position for each in chunks]
    covered = {place for each in chunks for place in range(each.start, each.start + len(each.text))}
    assert all(place in covered or character.isspace() for place, character in enumerate(text))


@given(st.text("ab é.\n", max_size=200), st.integers(1, 20))
def test_estimated_tokens_fit(text: str, size: int) -> None:
    """A token stands for 3 bytes."""
    chunks = TextSplitter(size, 0, "tokens").chunks(text)

    assert chunks is not None
    assert all(len(each.text.encode()) <= 3 * size for each in chunks)


def test_a_tokenizer_counts_its_own_tokens(tmp_path: Path) -> None:
    """Here a token is a word; the splitter has the file's content, so that workers need no file."""
    splitter = TextSplitter.of(3, 1, "tokens", words_tokenizer(tmp_path))

    assert "WordLevel" == json.loads(splitter.tokenizer or "")["model"]["type"]
    assert ["one two three", "three four five"] == [
        each.text for each in splitter.chunks("one two three four five") or ()
    ]


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
def test_markdown_has_headings(line_break: str) -> None:
    """A chunk stands under the last heading before it, also one that is underlined; none before the first."""
    page = ("Preface." + 2 * "\n" + PAGE).replace("\n", line_break)
    chunks = TextSplitter(40, 0, "markdown").chunks(page)
    assert chunks is not None
    headings = {each.heading for each in chunks}

    assert {None, "Manual", "Parts and code"} == headings
    assert [None] == [each.heading for each in chunks if "Preface" in each.text]
    assert ["Manual"] == [each.heading for each in chunks if "not a heading" in each.text]
    assert {"Parts and code"} == {each.heading for each in chunks if "one" in each.text and "Manual" not in each.text}


@pytest.mark.parametrize("by", ["sentence", "markdown", "tokens"])
def test_a_text_without_words_has_no_chunk(by: By) -> None:
    """A null gives null."""
    splitter = TextSplitter(10, 0, by)

    assert ([], [], None) == (splitter.chunks(""), splitter.chunks(" \n\t"), splitter.chunks(None))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, "sentence", None), "size=0 is not a whole number of at least 1"),
        ((True, 0, "sentence", None), "size=True"),
        ((10, 10, "sentence", None), "overlap=10 is not a whole number from 0 to 9"),
        ((10, 0, "words", None), "by='words' is not a way to split. Hint: choose one of sentence, markdown, tokens."),
        ((10, 0, "sentence", "x.json"), "tokenizer= has no effect with by='sentence'"),
        ((10, 0, "tokens", "missing.json"), "tokenizer='missing.json' cannot be read"),
        ((10, 0, "tokens", __file__), "is no tokenizer"),
    ],
    ids=str,
)
def test_wrong_arguments_raise(arguments: tuple[Any, ...], message: str) -> None:
    """Each has one message with a hint."""
    with pytest.raises(ConfigError) as raised:
        TextSplitter.of(*arguments)

    assert message in str(raised.value)
    assert " Hint: " in str(raised.value)


def test_a_column_of_another_type_raises() -> None:
    """Its first row says what to do."""
    with pytest.raises(InputTypeError, match=r"on values of the type int\. Hint: cast the column to a string\."):
        TextSplitter.of(10, 0, "sentence", None).chunks(7)  # type: ignore[arg-type]  # as Spark passes it


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the call, before Spark runs."""
    monkeypatch.setitem(sys.modules, "semantic_text_splitter", None)
    with pytest.raises(ConfigError, match=r"needs semantic_text_splitter.* Hint: pip install .*\[split\]"):
        TextSplitter.of(77, 0, "sentence", None)
