"""Templates: which are valid, and how rows fill them; values of rows are never parsed."""

import pickle
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from spark_llm.errors import ConfigError
from spark_llm.protocol.media import media_of
from spark_llm.protocol.template import PromptBuilder, Template
from spark_llm.protocol.values import Part, RowError
from tests.support.parts import MEDIA, PNG
from tests.support.strategies import TEXTS

NAMES = ("title", "body", "_x1", "naïve", "self", "class")
FIELDS = st.sampled_from(NAMES)
VALUES = TEXTS | st.sampled_from(["{title}", "{body}", "{{", "}}", "{", "{0}", "%s", "\\", "\r\n", "{title!r:>9}"])
ROWS = st.lists(st.fixed_dictionaries(dict.fromkeys(NAMES, VALUES)), max_size=5)
ROWS_WITH_NULLS = st.lists(st.fixed_dictionaries(dict.fromkeys(NAMES, st.none() | VALUES)), max_size=5)
WRITTEN = st.lists(st.tuples(TEXTS, FIELDS), min_size=1, max_size=4)
CONVERSATIONS = st.lists(
    st.none() | st.fixed_dictionaries({"role": st.none() | st.sampled_from(["user", "system"]), "content": TEXTS}),
    max_size=3,
)


def escaped(text: str) -> str:
    """Return a text with its braces doubled."""
    return text.replace("{", "{{").replace("}", "}}")


def source_of(parts: list[tuple[str, str]], end: str) -> str:
    """Return the template of these texts, each followed by a field, and a last text."""
    return "".join(f"{escaped(text)}{{{field}}}" for text, field in parts) + escaped(end)


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Turn rows into columns, as Spark gives them."""
    return {name: [row[name] for row in rows] for name in NAMES}


@given(WRITTEN, TEXTS, ROWS)
def test_pieces_fields_and_rows_are_exact(parts: list[tuple[str, str]], end: str, rows: list[Any]) -> None:
    """Doubled braces become single, fields keep their order, and values are filled in unchanged."""
    template = Template.parse("template", source_of(parts, end))

    assert tuple(field for _, field in parts) == template.fields
    assert (*(text for text, _ in parts), end) == template.pieces
    assert ["".join(text + row[field] for text, field in parts) + end for row in rows] == template.fill(columns(rows))


@given(WRITTEN, TEXTS, ROWS)
def test_rows_are_filled_as_str_format_does(parts: list[tuple[str, str]], end: str, rows: list[Any]) -> None:
    """The syntax is Python's."""
    text = source_of(parts, end)

    assert [text.format_map(row) for row in rows] == Template.parse("template", text).fill(columns(rows))


class Anything(dict[str, str]):
    """A mapping with a value for every name of a field."""

    def __missing__(self, name: str) -> str:
        """Return the name's value."""
        if name.isidentifier():
            return f"<{name}>"
        raise KeyError(name)


@given(st.text("{}a1 .\n", min_size=1, max_size=12))
@example("{{a}}}")
@example("{{{a}}}")
@example("{a{a}}")
@example("{a}}{")
@example("}{")
def test_templates_are_valid_as_in_str_format(text: str) -> None:
    """Any arrangement of braces is a template exactly when Python's format parses it into plain names."""
    assume(text.strip())
    try:
        expected: str | None = text.format_map(Anything())
    except (ValueError, KeyError, AttributeError):
        expected = None
    try:
        template = Template.parse("template", text)
    except ConfigError:
        assert None is expected
    else:
        values = {name: [f"<{name}>"] for name in template.fields}
        assert expected == (template.fill(values)[0] if template.fields else template.pieces[0])


@given(WRITTEN, TEXTS, ROWS_WITH_NULLS)
def test_a_null_in_a_field_is_a_null_row(parts: list[tuple[str, str]], end: str, rows: list[Any]) -> None:
    """Only a null in a field of the template counts."""
    used = {field for _, field in parts}
    filled = Template.parse("template", source_of(parts, end)).fill(columns(rows))

    assert [any(row[name] is None for name in used) for row in rows] == [text is None for text in filled]


BAD = {
    "an empty pair": "a {}",
    "a number": "{0}",
    "a format": "{title:>10}",
    "an empty format": "{title:}",
    "a conversion": "{title!r}",
    "an attribute": "{title.upper}",
    "an index": "{title[0]}",
    "blanks": "{ title }",
    "a hyphen": "{my-title}",
    "a brace that is not closed": "{title",
    "a brace that was not opened": "title}",
    "half an escape": "{{title}",
    "a brace in braces": "{a{title}}",
    "an expression": "{title + body}",
    "JSON": '{"title": 1}',
}


@pytest.mark.parametrize("make", [PromptBuilder.parse, lambda text: PromptBuilder.parse("{title}", text)])
@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_a_brace_without_a_field_is_refused(make: Callable[[str], PromptBuilder], text: str) -> None:
    """The error has the position and a hint, for both templates."""
    with pytest.raises(ConfigError, match=r"(template|system)= has .+ at position \d+, .* Hint: .+\.$"):
        make(text)


@pytest.mark.parametrize("text", ["Hello", "{{title}}", "", " \n", 7, None, b"{title}", ["{title}"]])
def test_a_template_without_fields_is_refused(text: Any) -> None:  # noqa: ANN401 -- every wrong thing
    """An empty template, and a value that is not a text, are refused too."""
    with pytest.raises(ConfigError, match=r"^template=.* Hint: .+\.$"):
        PromptBuilder.parse(text)


@pytest.mark.parametrize("text", ["", " ", 7])
def test_blank_instructions_are_refused(text: Any) -> None:  # noqa: ANN401 -- every wrong thing
    """This is as without a template."""
    with pytest.raises(ConfigError, match=r"^system=.* Hint: .+\.$"):
        PromptBuilder.parse("{title}", text)


def test_a_long_mistake_is_cut_in_the_error() -> None:
    """The beginning of the text in braces is shown."""
    with pytest.raises(ConfigError) as raised:
        PromptBuilder.parse("{" + "x y " * 10_000 + "}")

    assert len(str(raised.value)) < 300


@pytest.mark.waits
def test_huge_rows_and_templates_are_filled_quickly() -> None:
    """Megabytes of data, a million doubled braces and ten thousand fields take linear time."""
    huge = "{body} é\0" * 1_500_000
    many = Template.parse("template", "{title}, " * 10_000)

    assert "{" * 1_000_000 == Template.parse("template", "{{" * 1_000_000).pieces[0]
    assert [f"<{huge}>"] == Template.parse("template", "<{body}>").fill({"body": [huge]})
    assert ["ab, " * 10_000] == many.fill({"title": ["ab"]})


@given(WRITTEN, TEXTS, ROWS)
def test_a_prompt_builder_is_picklable(parts: list[tuple[str, str]], end: str, rows: list[Any]) -> None:
    """The copy is equal, and builds the same prompts."""
    prompt = PromptBuilder.parse(source_of(parts, end), "Be {title}.", allows_conversations=True)
    arrived = pickle.loads(pickle.dumps(prompt))  # noqa: S301 -- our own bytes

    assert prompt == arrived
    assert hash(prompt) == hash(arrived)
    assert prompt.build(columns(rows)) == arrived.build(columns(rows))


def test_fields_are_listed_once_and_in_order() -> None:
    """Those of the template come first, then those of the instructions alone."""
    prompt = PromptBuilder.parse("{b} {a} {b}", "{c} {a}")

    assert ("b", "a", "c") == prompt.fields


def test_instructions_without_fields_are_the_same_for_all_rows() -> None:
    """Doubled braces become single, and the prompts are texts."""
    prompt = PromptBuilder.parse("About {title}", "Answer as {{json}}.")

    assert "Answer as {json}." == prompt.instructions
    assert ["About {x}", None] == prompt.build({"title": ["{x}", None]})
    assert None is PromptBuilder.parse("{title}").instructions


@given(ROWS_WITH_NULLS)
def test_instructions_with_fields_make_conversations(rows: list[Any]) -> None:
    """A null in the instructions or in the message makes the row null."""
    prompt = PromptBuilder.parse("About {title}", "Be {body}, not {title}.")

    assert None is prompt.instructions
    assert [
        None
        if row["title"] is None or row["body"] is None
        else [
            {"role": "system", "content": f"Be {row['body']}, not {row['title']}."},
            {"role": "user", "content": f"About {row['title']}"},
        ]
        for row in rows
    ] == prompt.build(columns(rows))


@given(st.lists(st.tuples(st.none() | CONVERSATIONS | VALUES, st.none() | VALUES), max_size=4))
def test_a_field_that_is_the_whole_template_may_hold_conversations(rows: list[tuple[Any, str | None]]) -> None:
    """Instructions come first, unless the conversation has its own; texts and nulls are treated as usual."""
    prompt = PromptBuilder.parse("{turns}", "Be {mood}.", allows_conversations=True)
    plain = PromptBuilder.parse("{turns}", "Be brief.", allows_conversations=True)
    values = {"turns": [turns for turns, _ in rows], "mood": [mood for _, mood in rows]}
    expected: list[Any] = []
    for turns, mood in rows:
        messages = [{"role": "user", "content": turns}] if isinstance(turns, str) else turns
        if messages is None or mood is None:
            expected.append(None)
        elif any(message and message["role"] == "system" for message in messages):
            expected.append(messages)
        else:
            expected.append([{"role": "system", "content": f"Be {mood}."}, *messages])

    assert expected == prompt.build(values)
    assert [turns for turns, _ in rows] == plain.build(values)


@pytest.mark.parametrize(
    ("template", "system", "conversations", "field"),
    [
        ("{turns}", None, True, "turns"),
        ("{turns}", "Be {mood}.", True, "turns"),
        ("{turns}", "About {turns}.", True, None),  # a conversation cannot be quoted
        ("{turns}\n", None, True, None),
        ("{turns}{turns}", None, True, None),
        ("{turns}", None, False, None),  # a completion takes none
    ],
)
def test_only_a_whole_template_may_hold_conversations(
    template: str,
    system: str | None,
    conversations: bool,  # noqa: FBT001 -- a table
    field: str | None,
) -> None:
    """The instructions may not use the field either."""
    assert field == PromptBuilder.parse(template, system, allows_conversations=conversations).conversation_field


BAD_ROW = RowError("invalid_request", None, "photo has no bytes", retryable=False)
MEDIA_ROWS = st.lists(
    st.fixed_dictionaries(dict.fromkeys(NAMES, st.none() | VALUES | MEDIA | st.just(BAD_ROW))), max_size=5
)


def letters(parts: Sequence[Part]) -> list[object]:
    """Return the letters of texts, and media, in order."""
    return [letter for part in parts for letter in (part if isinstance(part, str) else [part])]


@given(WRITTEN, TEXTS, MEDIA_ROWS)
def test_media_stand_between_the_texts(parts: list[tuple[str, str]], end: str, rows: list[dict[str, Any]]) -> None:
    """Texts join into one up to the next image; a null makes the row null, and an error is the row's."""
    prompt = PromptBuilder.parse(source_of(parts, end), allows_conversations=True)
    for row, found in zip(rows, prompt.build(columns(rows), media=True), strict=True):
        values = [row[field] for _, field in parts]
        if None in values or BAD_ROW in values:
            assert (None if None in values else BAD_ROW) == found
            continue
        [message] = cast("list[dict[str, Any]]", found)
        texts = [isinstance(part, str) for part in message["content"]]
        assert "user" == message["role"]
        pieces = [piece for (text, _), value in zip(parts, values, strict=True) for piece in (text, value)]
        assert letters([*pieces, end]) == letters(message["content"])
        assert (True, True) not in set(pairwise(texts))
        assert "" not in message["content"]


def test_instructions_go_before_media() -> None:
    """They become the system message; a row's error stays an error, and a null a null."""
    prompt = PromptBuilder.parse("{photo}", "Be {mood}.", allows_conversations=True)
    picture = media_of(PNG)
    rows = prompt.build({"photo": [picture, BAD_ROW, None, BAD_ROW], "mood": ["kind", "x", "y", None]}, media=True)
    message = {"role": "user", "content": [picture]}

    assert [[{"role": "system", "content": "Be kind."}, message], BAD_ROW, None, None] == rows


@pytest.mark.parametrize(
    ("template", "system", "chat", "takes"),
    [
        ("a {photo}", None, True, True),
        ("{photo}", "Be kind.", True, True),
        ("{photo}", "Be {mood}.", True, True),
        ("{photo}", "About {photo}.", True, False),  # instructions are texts
        ("{photo}", None, False, False),  # a completion takes none
    ],
)
def test_a_field_of_the_message_may_hold_media(
    template: str,
    system: str | None,
    chat: bool,  # noqa: FBT001 -- a table
    takes: bool,  # noqa: FBT001 -- a table
) -> None:
    """The instructions may not use the field either."""
    assert takes == PromptBuilder.parse(template, system, allows_conversations=chat).takes_media("photo")


def test_the_repr_shows_the_sources() -> None:
    """The pieces are left out."""
    assert "Template(source='Sum {title}')" in repr(PromptBuilder.parse("Sum {title}"))
