"""The struct that fills a template, as workers read it from Arrow and from pandas. Needs no session."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import InputTypeError
from spark_llm.protocol.media import Media, media_at, media_of
from spark_llm.protocol.template import PromptBuilder
from spark_llm.udf.slices import SLICE_BYTES, SLICE_ROWS
from spark_llm.udf.template_columns import MEDIA, URL, arrow_prompts, pandas_prompts
from tests.support.parts import PNG, UNKNOWN

SUM = PromptBuilder.parse("{title}: {body}", allows_conversations=True)
LED = PromptBuilder.parse("{turns}", "Be {mood}.", allows_conversations=True)
ALONE = PromptBuilder.parse("{turns}")
BROKEN = b"caf\xe9"  # Latin-1, and no UTF-8
MENDED = "caf\N{REPLACEMENT CHARACTER}"
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
BOOK = pa.struct([("title", pa.string()), ("body", pa.string())])

TEXTS = st.none() | st.text(max_size=6) | st.sampled_from(["{title}", "{{", "}"])
BOOKS = st.lists(st.none() | st.fixed_dictionaries({"title": TEXTS, "body": TEXTS}), max_size=30)


def read(prompt: PromptBuilder, *batches: Any) -> list[Any]:  # noqa: ANN401 -- Arrow arrays
    """Read Arrow batches to the end."""
    return [row for rows in arrow_prompts(iter(batches), prompt) for row in rows]


def read_pandas(prompt: PromptBuilder, *batches: Any) -> list[Any]:  # noqa: ANN401 -- what Spark makes of columns
    """Read pandas batches to the end."""
    return [row for rows in pandas_prompts(iter(batches), prompt) for row in rows]


def frame(column: pa.StructArray) -> pd.DataFrame:
    """Return the frame that Spark makes of a struct: field by field, with a null struct as nulls."""
    fields = {field.name: values.to_pandas() for field, values in zip(column.type, column.flatten(), strict=True)}
    made: pd.DataFrame = pd.DataFrame(fields)
    return made


def conversation(text: str) -> list[dict[str, str]]:
    """Return a conversation of one message."""
    return [{"role": "user", "content": text}]


@given(BOOKS, st.integers(0, 10), st.sampled_from([pa.string(), pa.large_string()]))
def test_a_struct_gives_one_text_per_row(books: list[Any], start: int, kind: Any) -> None:  # noqa: ANN401 -- an Arrow type
    """A null struct and a null field give null rows, in a slice too; braces in the fields stay text."""
    column = pa.array(books, pa.struct([("body", kind), ("extra", pa.int32()), ("title", kind)]))
    expected = [None if book is None or None in book.values() else f"{book['title']}: {book['body']}" for book in books]

    assert expected == read(SUM, column)
    assert expected[start:] == read(SUM, column.slice(start))
    assert expected == read_pandas(SUM, frame(column))


def test_a_null_struct_hides_its_fields() -> None:
    """Arrow may keep values under a null struct; the row is null all the same."""
    fields = [pa.array(["a", "b"]), pa.array(["c", "d"])]
    column = pa.StructArray.from_arrays(fields, fields=list(BOOK), mask=pa.array([True, False]))

    assert [None, "b: d"] == read(SUM, column)


def test_a_large_batch_is_read_slice_by_slice() -> None:
    """A batch becomes Python objects 512 rows at a time, no row is lost, and the next batch stays unread."""
    books = [{"title": str(number), "body": "b"} for number in range(2 * SLICE_ROWS + 7)]
    touched: list[int] = []

    def batches() -> Iterator[Any]:
        for number in range(2):
            touched.append(number)
            yield pa.array(books, BOOK)

    rows = arrow_prompts(batches(), SUM)
    pieces = [next(rows) for _ in range(3)]

    assert [SLICE_ROWS, SLICE_ROWS, 7] == [len(piece) for piece in pieces]
    assert [f"{number}: b" for number in range(len(books))] == [row for piece in pieces for row in piece]
    assert [0] == touched
    assert [SLICE_ROWS, SLICE_ROWS, 7] == [len(piece) for piece in pandas_prompts(iter([frame(pa.array(books))]), SUM)]


def test_invalid_utf8_is_replaced() -> None:
    """It changes one field of one row; the other field and other rows stay."""
    raw = pa.struct([("title", pa.binary()), ("body", pa.binary())])
    column = pa.array([{"title": BROKEN, "body": b"x"}, None, {"title": b"a", "body": "é".encode()}], raw)

    assert [f"{MENDED}: x", None, "a: é"] == read(SUM, column.view(BOOK))


def test_a_template_of_one_field_takes_a_conversation() -> None:
    """The row's instructions come first, on both paths; a text in the field is one message."""
    kind = pa.struct([("turns", MESSAGES), ("mood", pa.string())])
    rows = [{"turns": conversation("a"), "mood": "kind"}, {"turns": None, "mood": "x"}, {"turns": [None], "mood": None}]
    expected = [[{"role": "system", "content": "Be kind."}, *conversation("a")], None, None]
    texts = pa.array([{"turns": "a", "mood": "kind"}])
    as_arrays = frame(pa.array(rows, kind))
    cells = [None if cell is None else np.array(cell, dtype=object) for cell in as_arrays["turns"]]
    as_arrays["turns"] = pd.Series(cells, dtype=object)

    assert expected == read(LED, pa.array(rows, kind)) == read_pandas(LED, as_arrays)
    assert expected[:1] == read(LED, texts) == read_pandas(LED, frame(texts))


def test_an_untyped_null_column_gives_null_rows() -> None:
    """`lit(None)` has no type and needs none, alone or as a field."""
    void = pa.array([{"title": None, "body": "b"}], pa.struct([("title", pa.null()), ("body", pa.string())]))

    assert [None, None] == read(SUM, pa.nulls(2)) == read_pandas(SUM, pd.Series([None, None], dtype=object))
    assert [None] == read(SUM, void) == read_pandas(SUM, frame(void))
    assert [] == read(SUM, pa.array([], BOOK)) == read(SUM) == read_pandas(SUM)


SHOWN = PromptBuilder.parse("What is {what}? {photo}", "Be {mood}.", allows_conversations=True)
PHOTO = PromptBuilder.parse("{photo}", allows_conversations=True)
FIELDS = [("what", pa.string()), ("photo", pa.binary()), ("mood", pa.string())]


def shown(what: str, *media: Media) -> list[dict[str, object]]:
    """Return the conversation that `SHOWN` makes."""
    return [{"role": "system", "content": "Be kind."}, {"role": "user", "content": [f"What is {what}? ", *media]}]


@pytest.mark.parametrize("binary", [pa.binary(), pa.large_binary()])
def test_a_field_of_bytes_is_an_image(binary: Any) -> None:  # noqa: ANN401 -- an Arrow type
    """In a struct of the user's own: an image between texts; nulls, and bytes that are no image, on both paths."""
    rows = [("a", PNG, "kind"), ("b", None, "kind"), (None, PNG, "kind"), ("c", UNKNOWN, "kind"), ("d", b"", "kind")]
    struct = pa.struct([(name, binary if name == "photo" else kind) for name, kind in FIELDS])
    column = pa.array([dict(zip([name for name, _ in FIELDS], row, strict=True)) for row in rows], struct)
    for found in (read(SHOWN, column), read_pandas(SHOWN, frame(column))):
        assert [shown("a", media_of(PNG)), None, None] == found[:3]
        assert ["photo is none of PNG", "photo has no bytes. "] == [error.message[:20] for error in found[3:]]
        assert ["invalid_request"] * 2 == [error.kind for error in found[3:]]


def extra_fields(**columns: Any) -> pa.StructArray:  # noqa: ANN401 -- Arrow arrays
    """Return the struct that a call by name makes, of columns of a row or more."""
    return pa.StructArray.from_arrays(list(columns.values()), list(columns))


def test_a_column_by_name_is_an_image_or_a_text() -> None:
    """Its bytes have a field of their own, which is null for other types; a URL has another."""
    rows = pa.array(["a"]), pa.array(["kind"])
    nothing = pa.array([None], pa.string())
    picture = {f"{MEDIA}photo": pa.array([PNG]), "photo": nothing, "what": rows[0], "mood": rows[1]}
    text = {f"{MEDIA}photo": pa.array([None], pa.binary()), "photo": pa.array(["b"]), "what": rows[0], "mood": rows[1]}
    url = {f"{URL}photo": pa.array(["https://a.example/b"]), "what": rows[0], "mood": rows[1]}
    for reader, spell in ((read, lambda column: column), (read_pandas, frame)):
        assert [shown("a", media_of(PNG))] == reader(SHOWN, spell(extra_fields(**picture)))
        assert "What is a? b" == reader(SHOWN, spell(extra_fields(**text)))[0][1]["content"]
        assert [shown("a", media_at("https://a.example/b"))] == reader(SHOWN, spell(extra_fields(**url)))
        nulls = extra_fields(**{f"{URL}photo": nothing, "what": rows[0], "mood": rows[1]})
        assert [None] == reader(SHOWN, spell(nulls))


def test_a_url_with_a_space_is_the_error_of_its_row() -> None:
    """It names the field."""
    column = extra_fields(**{f"{URL}photo": pa.array(["https://a.example/b c", "https://a.example/b"])})
    for found in (read(PHOTO, column), read_pandas(PHOTO, frame(column))):
        assert found[0].message.startswith("photo is no URL that a server can get. Hint: ")
        assert [{"role": "user", "content": [media_at("https://a.example/b")]}] == found[1]


def test_instructions_hold_no_image() -> None:
    """The message says where images go."""
    prompt = PromptBuilder.parse("About {title}", "Look at {photo}.", allows_conversations=True)
    column = pa.array([{"title": "a", "photo": PNG}])
    for reader, batch in ((read, column), (read_pandas, frame(column))):
        with pytest.raises(InputTypeError, match=r"photo is b\w+\. Hint: chat_udf takes images, .* template"):
            reader(prompt, batch)


def test_large_bytes_are_read_row_by_row() -> None:
    """So the Python objects of a batch of images do not exist at the same time."""
    picture = PNG + bytes(SLICE_BYTES)
    pieces = list(arrow_prompts(iter([pa.array([{"photo": picture}] * 3)]), PHOTO))

    assert [[[{"role": "user", "content": [media_of(picture)]}]]] * 3 == pieces


WRONG_FIELDS = {
    "number": pa.array([1]),
    "double": pa.array([1.5]),
    "boolean": pa.array([True]),
    "array": pa.array([["a"]]),
    "struct": pa.array([{"a": "b"}]),
    "map": pa.array([[("a", "b")]], pa.map_(pa.string(), pa.string())),
    "conversation": pa.array([conversation("a")], MESSAGES),
}


@pytest.mark.parametrize("name", WRONG_FIELDS)
def test_a_field_of_another_type_raises(name: str) -> None:
    """The message names the field, its type and a next step, on both paths, also for a conversation beside text."""
    column = pa.StructArray.from_arrays([pa.array(["a"]), WRONG_FIELDS[name]], ["title", "body"])
    alone = pa.StructArray.from_arrays([WRONG_FIELDS[name]], ["turns"])
    for prompt, struct, field in ((SUM, column, "body"), (ALONE, alone, "turns")):
        for reader, batch in ((read, struct), (read_pandas, frame(struct))):
            with pytest.raises(InputTypeError, match=rf"fields are strings, and {field} is .+\. Hint: .+\.$"):
                reader(prompt, batch)


def test_only_a_chat_takes_bytes() -> None:
    """A completion's template refuses them, with a hint."""
    column = pa.array([{"turns": b"a"}])
    for reader, batch in ((read, column), (read_pandas, frame(column))):
        with pytest.raises(InputTypeError, match=r"are strings, and turns is b\w+\. Hint: chat_udf takes images"):
            reader(ALONE, batch)


@pytest.mark.parametrize("cells", [[[1]], [[{"role": "user"}]], [{"role": "user", "content": "a"}]], ids=str)
def test_a_malformed_conversation_raises(cells: list[Any]) -> None:
    """The message gives the type of a conversation."""
    column = pa.StructArray.from_arrays([pa.array(cells), pa.array(["x"])], ["turns", "mood"])
    for reader, batch in ((read, column), (read_pandas, frame(column))):
        with pytest.raises(InputTypeError, match=r"turns may be array<struct<role.*and turns is .+\. Hint: .+\.$"):
            reader(LED, batch)


@pytest.mark.parametrize(
    "batch",
    [
        pa.array(["a"]),
        pa.array([1]),
        pa.array([conversation("a")], MESSAGES),
        pa.array([{"title": "a"}]),
        pa.array([{"title": "a", "Body": "b"}]),
        (pa.array(["a"]), pa.array(["b"])),
    ],
)
def test_a_column_without_the_fields_raises(batch: Any) -> None:  # noqa: ANN401 -- every wrong thing
    """A string, a struct that lacks a field, and two columns raise; the message names the fields and a next step."""
    as_pandas = batch
    if not isinstance(batch, tuple):
        as_pandas = frame(batch) if pa.types.is_struct(batch.type) else batch.to_pandas()
    for reader, column in ((read, batch), (read_pandas, as_pandas)):
        with pytest.raises(InputTypeError, match=r"a struct with the fields title, body; .* called on .+ Hint: .+\.$"):
            reader(SUM, column)
