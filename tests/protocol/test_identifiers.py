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
def test_a_name_is_read_into_its_parts(name: str, parts: tuple[str, ...]) -> None:
    """Parts are joined by dots; one in back-quotes holds any sign, and two of them stand for one."""
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
def test_what_is_no_name_is_told_by_its_place(name: str, why: str) -> None:
    """A name that Spark refuses, or that has a comment, raises with the place and how to write it."""
    with pytest.raises(ConfigError, match="^source=.*" + re.escape(why)) as raised:
        parse_table_name("source=", name)
    assert "back-quotes" in str(raised.value).partition(HINT)[2]


def test_what_is_no_text_is_no_name() -> None:
    """Anything but a string raises, for tables and for columns."""
    for read in (parse_table_name, parse_column_name):
        with pytest.raises(ConfigError, match="key=None is not a name"):
            read("key=", None)  # type: ignore[arg-type]  # what is not allowed is the point


@given(PARTS)
def test_quoted_parts_are_read_as_they_were(parts: tuple[str, ...]) -> None:
    """Any parts come back from their quoted form."""
    assert parts == parse_table_name("target=", quoted(parts))


@given(PARTS)
def test_nothing_escapes_its_quotes(parts: tuple[str, ...]) -> None:
    """Outside of the back-quotes of a quoted name there is nothing but one dot between two parts."""
    assert "." * (len(parts) - 1) == re.sub(r"`(?:[^`]|``)*`", "", quoted(parts))


@given(st.text("ab1`. -\n\t;") | TEXTS)
def test_a_name_has_parts_or_raises(name: str) -> None:
    """Whatever is given is read into parts that quote to the same, or is refused."""
    try:
        parts = parse_table_name("source=", name)
    except ConfigError:
        return
    assert parts == parse_table_name("source=", quoted(parts))


@pytest.mark.parametrize(
    ("name", "bare"),
    [("review", "review"), ("my review-1", "my review-1"), ("`a.b`", "a.b"), ("`a``b`", "a`b"), ("`*`", "*")],
)
def test_a_column_is_read_into_its_bare_name(name: str, bare: str) -> None:
    """A column's name may hold any sign; dots and back-quotes stand in back-quotes."""
    assert bare == parse_column_name("key=", name)


@pytest.mark.parametrize("name", ["", "*", "a.b", "a.*", "`a`.b", "`a", "a`", "`a`b", "``a", "a.", ".a", "```"])
def test_what_is_not_one_column_is_refused(name: str) -> None:
    """A field of a struct, all columns at once and broken quotes raise, with the quoted name."""
    with pytest.raises(ConfigError, match=r"^key=.* is not the name of one column") as raised:
        parse_column_name("key=", name)
    assert quoted([name]) in raised.value.hint


@given(TEXTS)
def test_a_quoted_column_is_read_as_it_was(name: str) -> None:
    """Any column's name comes back from its quoted form."""
    assert name == parse_column_name("key=", quoted([name]))


@pytest.mark.parametrize("name", ["summary", "_2", "Größe", "要約", "2nd"])
def test_letters_digits_and_underscores_make_a_new_column(name: str) -> None:
    """Letters of any script, digits and underscores are a name in any table format."""
    check_new_column(name)


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a.b", "a-b", "a`b", "a,b", "a;b", "a{b", "(a)", "a\n", "a=b", "a\tb", 3]
)
def test_other_signs_make_no_new_column(name: str) -> None:
    """A sign that some table format refuses raises."""
    with pytest.raises(ConfigError, match=r"A new column cannot be called"):
        check_new_column(name)


@given(st.lists(st.sampled_from(["a", "A", "b", "Ä", "ä", "ß", "SS"]), max_size=3))
def test_names_that_are_one_to_a_session_are_refused(names: list[str]) -> None:
    """The session says whether case counts; `ß` and `SS` are two names in any."""
    for same in (str, str.lower):
        if len({same(name) for name in names}) == len(names):
            check_distinct("key= has", names, same)
        else:
            with pytest.raises(ConfigError, match=r"^key= has '.+' and '.+', which are one name to Spark\. Hint: "):
                check_distinct("key= has", names, same)


@pytest.mark.parametrize("name", ["", "a b", "delta; DROP TABLE t", "`delta`", 5, ["delta"], "1"])
def test_what_names_no_format_is_refused(name: object) -> None:
    """It goes into a statement, so it is letters, digits, dots and _ alone."""
    check_format("org.example.My_Format2")
    check_format(None)
    with pytest.raises(ConfigError, match=r"^format=.* is not the name of a table format. Hint: "):
        check_format(name)
