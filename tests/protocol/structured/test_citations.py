"""Citations: what counts as found in a text, and where."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.protocol.structured.citations import CitedOutput, Source
from spark_llm.protocol.structured.output import Mismatch, StructuredOutput
from spark_llm.protocol.structured.schema import Field, Nullable, Scalar, Struct
from tests.support.shapes import STRUCTS, values, written
from tests.support.strategies import TEXTS

FIELDS = Struct((Field("name", Nullable(Scalar("string"))), Field("total", Scalar("double"), "in euros")))
OUTPUT = CitedOutput.of("invoice", FIELDS)
QUOTED = "EUR \N{EN DASH} \N{LEFT DOUBLE QUOTATION MARK}net\N{RIGHT DOUBLE QUOTATION MARK}"
TEXT = f"Dear Sir,\nthe total\n\n  is 4.50\N{NO-BREAK SPACE}{QUOTED}."
NOTHING = {"value": None, "quote": None, "start": None, "stop": None, "supported": None}

WORDS = st.text(
    st.sampled_from("ab\N{SLIGHTLY SMILING FACE}'\"-\N{RIGHT SINGLE QUOTATION MARK}\N{EM DASH}"), min_size=1
)
GAPS = st.text(st.sampled_from(" \n\t\N{NO-BREAK SPACE}\N{EN SPACE}"), min_size=1, max_size=4)


def cited(answer: str, output: CitedOutput = OUTPUT, text: str = TEXT) -> dict[str, dict[str, object]]:
    """Return the column's value of an answer that fits."""
    parsed = output.parse(answer)
    assert not isinstance(parsed, Mismatch)
    return output.cited(parsed, text)


@pytest.mark.parametrize(
    ("quote", "found"),
    [
        ("the total", "the total"),
        ("4.50 EUR", "4.50\N{NO-BREAK SPACE}EUR"),
        ("total is 4.50", "total\n\n  is 4.50"),
        ("  Sir, the total ", "Sir,\nthe total"),
        ('EUR - "net"', QUOTED),
        ("Total", None),
        ("4,50", None),
        ("total is 5", None),
        ("tot al", None),
        ("", None),
        (" \n", None),
        (TEXT, TEXT),
        (TEXT + "!", None),
    ],
)
def test_a_quote_is_found_as_the_text_has_it(quote: str, found: str | None) -> None:
    """Whitespace, quotation marks and dashes may differ; letters, digits, case and blanks inside of words may not."""
    place = Source(TEXT).find(quote)

    assert found == (None if place is None else TEXT[slice(*place)])


def test_the_first_place_counts_and_an_exact_one_before_a_similar_one() -> None:
    """A quote that occurs several times has the first place; one with the same characters precedes any other."""
    assert (2, 4) == Source("a bb bb").find("bb")
    assert (4, 7) == Source("a\nb a b").find("a b")


def test_blanks_around_a_quote_do_not_count() -> None:
    """Not even where the text has the same ones, at a later place."""
    assert (1, 2) == Source(" a\N{NO-BREAK SPACE}a").find("\N{NO-BREAK SPACE}a")
    assert (3, 5) == Source("a  bb  a").find("  bb  ")


def test_places_count_characters() -> None:
    """A character beyond the first plane counts as one, as in Spark's `substring`."""
    text = "\N{SLIGHTLY SMILING FACE} total: 4"
    [start, stop] = Source(text).find("4") or (0, 0)

    assert (9, 10) == (start, stop)


@given(st.lists(st.tuples(GAPS, WORDS), min_size=1, max_size=8), st.data())
def test_the_words_of_a_part_are_found(pieces: list[tuple[str, str]], data: st.DataObject) -> None:
    """Any words of a text are found with other whitespace, at a place that has the same words and no blank around."""
    text = "".join(gap + word for gap, word in pieces)
    first = data.draw(st.integers(0, len(pieces) - 1))
    some = pieces[first : data.draw(st.integers(first + 1, len(pieces)))]
    quote = "".join(data.draw(GAPS) + word for _, word in some)
    place = Source(text).find(quote)

    assert place is not None
    start, stop = place
    found = text[start:stop]
    assert found == quote.strip() or start <= sum(len(gap + word) for gap, word in pieces[:first]) + len(some[0][0])
    assert found == found.strip()
    assert plain(quote) == plain(found)


@given(TEXTS, TEXTS)
def test_only_a_quote_of_the_text_is_found(text: str, quote: str) -> None:
    """What is found reads as the quote does; where nothing is found the text does not have it."""
    place = Source(text).find(quote)

    if place is None:
        assert not plain(quote) or plain(quote) not in plain(text)
    else:
        assert plain(quote) == plain(text[slice(*place)])


def plain(text: str) -> str:
    """Return a text word by word, with plain marks and what UTF-8 cannot hold replaced."""
    text = re.sub("[\u2018-\u201b\u2032\u2039\u203a]", "'", text)
    text = re.sub("[\u201c-\u201f\u2033\u00ab\u00bb]", '"', text)
    text = re.sub("[\u2010-\u2015\u2212]", "-", text)
    return " ".join(re.sub("[\ud800-\udfff]", "\ufffd", text).split())


def test_a_halved_character_of_the_text_is_replaced_as_it_is_sent() -> None:
    """The model sees a replacement character, so its quote has one; the citation can be written as UTF-8."""
    citation = Source("so \ud800 it is").citation("x", "so \ufffd it")

    assert ("so \ufffd it", 0, 7, True) == citation[1:]


def test_each_field_has_its_citation() -> None:
    """A quote has the text's own words; one that is not there keeps the model's, and has no place."""
    answer = '{"name": {"value": "Sir", "quote": "Dear sir"}, "total": {"value": 4.5, "quote": "4.50 EUR"}}'
    found = cited(answer)

    start = TEXT.index("4.50")
    assert {"value": "Sir", "quote": "Dear sir", "start": None, "stop": None, "supported": False} == found["name"]
    assert ["4.50\N{NO-BREAK SPACE}EUR", start, start + 8, True] == list(found["total"].values())[1:]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("null", NOTHING),
        ('{"value": null, "quote": null}', NOTHING),
        ('{"value": null, "quote": "Dear Sir"}', NOTHING),
        ('{"quote": "Dear Sir"}', NOTHING),
        ("{}", NOTHING),
        ('{"value": "x"}', NOTHING | {"value": "x", "supported": False}),
        ('{"value": "x", "quote": null}', NOTHING | {"value": "x", "supported": False}),
        ('{"value": "x", "quote": ""}', NOTHING | {"value": "x", "quote": "", "supported": False}),
    ],
)
def test_a_value_without_a_quote_is_not_supported(name: str, expected: dict[str, object]) -> None:
    """Without a value all is null, whatever quote there is; an empty quote is no citation."""
    answer = f'{{"name": {name}, "total": {{"value": 1, "quote": "x"}}}}'

    assert expected == cited(answer)["name"]


def test_a_field_that_the_answer_leaves_out_is_null() -> None:
    """It may be left out where its type allows a null."""
    assert NOTHING == cited('{"total": {"value": 1, "quote": "x"}}')["name"]


@pytest.mark.parametrize(
    "answer",
    [
        "It is 4.50 EUR.",
        "{}",
        '{"name": "Sir", "total": 4.5}',
        '{"name": null, "total": null}',
        '{"name": null, "total": {"value": null, "quote": "x"}}',
        '{"name": null, "total": {"value": "4.50", "quote": "x"}}',
        '{"name": null, "total": {"value": 4.5, "quote": 5}}',
    ],
)
def test_an_answer_of_another_form_is_a_mismatch(answer: str) -> None:
    """Values without their objects, other types and a null for a field that may not be null do not fit."""
    assert isinstance(OUTPUT.parse(answer), Mismatch)


@given(st.data(), STRUCTS, TEXTS)
def test_values_are_those_of_the_type_without_citations(data: st.DataObject, fields: Struct, text: str) -> None:
    """A value of any type is parsed as without citations, and its column has the citation's fields."""
    value = data.draw(values(fields).filter(bool))
    nested = {name: {"value": part, "quote": text} for name, part in value.items()}
    output = CitedOutput.of("answer", fields)
    expected = StructuredOutput("answer", fields).parse(written(value))
    found = cited(written(nested), output, text)

    assert not isinstance(expected, Mismatch)
    assert [field.name for field in fields.fields] == list(found)
    for name, part in found.items():
        assert repr(expected.get(name)) == repr(part["value"])
    for column in output.column_shape.fields:
        shape = column.shape.shape if isinstance(column.shape, Nullable) else column.shape
        assert isinstance(shape, Struct)
        assert list(NOTHING) == [field.name for field in shape.fields]


def test_a_long_text_is_searched_once() -> None:
    """A text of a million characters takes less than a second, whatever its quotes are."""
    text, quote = "a \n" * 333_333 + "b", "a " * 1_000 + "b"
    began = time.process_time()
    source = Source(text)
    places = [source.find(quote) for _ in range(3)]

    assert [(len(text) - 3_001, len(text))] * 3 == places
    assert time.process_time() - began < 1.0
