"""Names of tables and columns: their parts, and how they are quoted again."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import HINT, ConfigError
from spark_llm.protocol.identifiers import (
    check_distinct,
    check_format,
    check_new_column,
    parse_column_name,
    parse_table_name,
    quoted,
)
from tests.support.strategies import TEXTS

PARTS = st.lists(TEXTS | st.text("a`. -\n/*"), min_size=1, max_size=4).map(tuple)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("reviews", ("reviews",)),
        ("main.sales.reviews", ("main", "sales", "reviews")),
        (" main . reviews\n", ("main", "reviews")),
        ("`my reviews`", ("my reviews",)),
        ("delta.`/a/b c`", ("delta", "/a/b c")),
        ("`a``b`.`c.d`", ("a`b", "c.d")),
        ("````", ("`",)),
        ("``", ("",)),
        ("`a\nb`", ("a\nb",)),
        ("`x; DROP TABLE y --`", ("x; DROP TABLE y --",)),
        ("select.1a.0x1.1e5x", ("select", "1a", "0x1", "1e5x")),
    ],
)
def test_a_table_name_is_parsed_into_its_parts(name: str, parts: tuple[str, ...]) -> None:
    """Dots separate parts; back-quotes allow any character, and a doubled one stands for itself."""
    assert parts == parse_table_name("source=", name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "it is empty"),
        (" \t", "it is empty"),
        ("a.", "the part after the last dot is missing"),
        ("a..b", "'.' at position 2"),
        (".a", "'.' at position 0"),
        ("a b", "'b' at position 2"),
        ("a.my-table", "'-' at position 4"),
        ("a; DROP TABLE b", "';' at position 1"),
        ("a -- b", "'-' at position 2"),
        ("/* a */ b", "'/' at position 0"),
        ("straße", "'ß' at position 4"),
        ("identifier('a')", "'(' at position 10"),
        ('"a"', "'\"' at position 0"),
        ("`a", "the back-quote at position 0"),
        ("x. `a.b", "the back-quote at position 3"),
        ("`a``", "the back-quote at position 0"),
        ("`a`b", "'b' at position 3"),
        ("a.1", "1 at position 2 is a number"),
        ("1L", "1L at position 0 is a number"),
        ("a.1e5d", "1e5d at position 2 is a number"),
    ],
)
def test_a_wrong_table_name_is_refused_with_its_position(name: str, why: str) -> None:
    """Names that Spark refuses, and names with a comment, raise with a hint."""
    with pytest.raises(ConfigError, match="^source=.*" + re.escape(why)) as raised:
        parse_table_name("source=", name)
    assert "back-quotes" in str(raised.value).partition(HINT)[2]


def test_names_are_strings() -> None:
    """Any other value raises, for tables and for columns."""
    for read in (parse_table_name, parse_column_name):
        with pytest.raises(ConfigError, match="key=None is not a name"):
            read("key=", None)  # type: ignore[arg-type]  # what is not allowed is the point


@given(PARTS)
def test_quoted_parts_are_parsed_back(parts: tuple[str, ...]) -> None:
    """This holds for parts of any characters."""
    assert parts == parse_table_name("target=", quoted(*parts))


@given(PARTS)
def test_no_character_escapes_its_quotes(parts: tuple[str, ...]) -> None:
    """Outside the back-quotes of a quoted name there are only single dots."""
    assert "." * (len(parts) - 1) == re.sub(r"`(?:[^`]|``)*`", "", quoted(*parts))


@given(st.text("ab1`. -\n\t;") | TEXTS)
def test_any_text_has_parts_or_raises(name: str) -> None:
    """The parts of an accepted name quote to an equal name."""
    try:
        parts = parse_table_name("source=", name)
    except ConfigError:
        return
    assert parts == parse_table_name("source=", quoted(*parts))


@pytest.mark.parametrize(
    ("name", "bare"),
    [("review", "review"), ("my review-1", "my review-1"), ("`a.b`", "a.b"), ("`a``b`", "a`b"), ("`*`", "*")],
)
def test_a_column_name_is_parsed_into_its_bare_name(name: str, bare: str) -> None:
    """It may have any character; dots and back-quotes need back-quotes."""
    assert bare == parse_column_name("key=", name)


@pytest.mark.parametrize("name", ["", "*", "a.b", "a.*", "`a`.b", "`a", "a`", "`a`b", "``a", "a.", ".a", "```"])
def test_names_of_no_single_column_are_refused(name: str) -> None:
    """A field of a struct, `*` and broken quotes raise with the quoted name."""
    with pytest.raises(ConfigError, match=r"^key=.* is not the name of one column") as raised:
        parse_column_name("key=", name)
    assert quoted(name) in raised.value.hint


@given(TEXTS)
def test_a_quoted_column_is_parsed_back(name: str) -> None:
    """This holds for names of any characters."""
    assert name == parse_column_name("key=", quoted(name))


@pytest.mark.parametrize("name", ["summary", "_2", "Größe", "要約", "2nd"])
def test_new_columns_may_have_letters_digits_and_underscores(name: str) -> None:
    """Letters of any script are allowed by all table formats."""
    check_new_column(name)


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a.b", "a-b", "a`b", "a,b", "a;b", "a{b", "(a)", "a\n", "a=b", "a\tb", 3]
)
def test_other_characters_in_a_new_column_are_refused(name: str) -> None:
    """Some table format refuses each of them."""
    with pytest.raises(ConfigError, match=r"A new column cannot be called"):
        check_new_column(name)


@given(st.lists(st.sampled_from(["a", "A", "b", "Ä", "ä", "ß", "SS"]), max_size=3))
def test_names_that_are_equal_for_the_session_are_refused(names: list[str]) -> None:
    """The session decides whether case counts; `ß` and `SS` always differ."""
    for same in (str, str.lower):
        if len({same(name) for name in names}) == len(names):
            check_distinct("key= has", names, same)
        else:
            with pytest.raises(ConfigError, match=r"^key= has '.+' and '.+', which are one name to Spark\. Hint: "):
                check_distinct("key= has", names, same)


@pytest.mark.parametrize("name", ["", "a b", "delta; DROP TABLE t", "`delta`", 5, ["delta"], "1"])
def test_wrong_table_formats_are_refused(name: object) -> None:
    """A format goes into a statement, so it has letters, digits, dots and underscores only."""
    check_format("org.example.My_Format2")
    check_format(None)
    with pytest.raises(ConfigError, match=r"^format=.* is not the name of a table format. Hint: "):
        check_format(name)
