"""Conversations with parts, as workers read them from Arrow and from pandas."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import Row

from spark_llm.errors import InputTypeError
from spark_llm.protocol.media import media_at, media_of
from spark_llm.protocol.values import RowError
from spark_llm.udf.columns import arrow_rows, pandas_rows
from tests.support.parts import FILES, PDF, PNG, UNKNOWN

FIELDS = [("type", pa.string()), ("text", pa.string()), ("data", pa.binary()), ("url", pa.string())]
PART = pa.struct(FIELDS)
MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string()), ("parts", pa.list_(PART))])
KIND = pa.list_(MESSAGE)
ROLE_AND_CONTENT = [("role", pa.string()), ("content", pa.string())]
URL = "https://a.example/b.png"
Spell = Callable[[Any], Any]

TEXTS = st.none() | st.text(max_size=6)
PLAIN: st.SearchStrategy[list[Any]] = st.lists(
    st.none() | st.fixed_dictionaries({"role": TEXTS, "content": TEXTS, "parts": st.none() | st.just([])}), max_size=3
)


def part(**fields: object) -> dict[str, object]:
    """Return a part with null in its other fields."""
    return {name: fields.get(name) for name, _ in FIELDS}


def user(*parts: object, content: str | None = None) -> list[dict[str, object]]:
    """Return a conversation of one message."""
    return [{"role": "user", "content": content, "parts": list(parts)}]


def read(cells: list[Any], kind: Any = KIND) -> list[Any]:  # noqa: ANN401 -- an Arrow type
    """Read cells from Arrow and from pandas, as dicts, rows and arrays; all readers give the same rows."""
    column = pa.array(cells, kind)
    [rows] = arrow_rows(iter([column]), conversations=True)
    spellings: list[Spell] = [lambda value: value, as_rows, as_arrays]
    for spell in spellings:
        [others] = pandas_rows(iter([pd.Series([spell(cell) for cell in column.to_pylist()])]), conversations=True)
        assert rows == others
    return list(rows)


def as_rows(value: Any) -> Any:  # noqa: ANN401 -- any cell
    """Spell a cell as Spark's rows."""
    if isinstance(value, list):
        return [as_rows(each) for each in value]
    return Row(**{name: as_rows(each) for name, each in value.items()}) if isinstance(value, dict) else value


def as_arrays(value: Any) -> Any:  # noqa: ANN401 -- any cell
    """Spell a cell as NumPy's arrays of dicts."""
    if isinstance(value, list):
        array = np.empty(len(value), dtype=object)
        array[:] = [as_arrays(each) for each in value]
        return array
    return {name: as_arrays(each) for name, each in value.items()} if isinstance(value, dict) else value


@given(st.lists(st.none() | PLAIN, min_size=1, max_size=5))
def test_without_parts_a_message_is_as_without_the_field(cells: list[Any]) -> None:
    """An empty array is no part either; what the request says is the same."""
    expected = [
        None
        if cell is None
        else [message and {"role": message["role"], "content": message["content"]} for message in cell]
        for cell in cells
    ]
    if any(cell is not None for cell in cells):
        assert expected == read(cells)


def test_the_content_goes_before_the_parts() -> None:
    """The bytes tell what each part is, and so may its type."""
    files = [part(data=data, type=kind) for data in FILES.values() for kind in (None, media_of(data).kind)]
    cell = user(part(text="a"), part(url=URL), part(type="image", url=URL), *files, content="first")
    media = [media_of(data) for data in FILES.values() for _ in range(2)]
    [[message]] = read([cell])

    assert ["first", "a", media_at(URL), media_at(URL), *media] == message["content"]
    assert {"role", "content"} == set(message)
    assert [[{"role": "user", "content": [media_at(URL, "file")]}]] == read([user(part(type="file", url=URL))])


@pytest.mark.parametrize("names", [["data"], ["type", "data"], ["url", "text"], ["text", "data", "url", "type"]])
def test_a_part_may_lack_fields(names: list[str]) -> None:
    """They count as null; the fields of a message have any order too."""
    struct = pa.struct([(name, dict(FIELDS)[name]) for name in names])
    kind = pa.large_list(pa.struct([("parts", pa.large_list(struct)), ("content", pa.null()), ("role", pa.string())]))
    value = {"data": PNG} if "data" in names else {"url": URL}
    [[message]] = read([[{"role": "user", "content": None, "parts": [value]}]], kind)

    assert [media_of(PNG) if "data" in names else media_at(URL)] == message["content"]


BAD = {
    "no value": part(),
    "no value.": None,
    "text and data": part(text="a", data=PNG),
    "data and url": part(data=PNG, url=URL),
    "the type 'video'": part(type="video", data=PNG),
    "the type 'text' and the value data": part(type="text", data=PNG),
    "the type 'image' and the value text": part(type="image", text="a"),
    "the type 'image', and its bytes are application/pdf": part(type="image", data=PDF),
    "is none of PNG": part(data=UNKNOWN),
    "has no bytes": part(data=b""),
    "is no URL": part(url="https://a.example/b c.png"),
    "is audio by its URL": part(type="audio", url=URL),
}


@pytest.mark.parametrize("words", BAD)
def test_a_bad_part_is_the_error_of_its_row(words: str) -> None:
    """The message names the part and its message, and ends in a hint; other rows are read."""
    good = [{"role": "user", "content": "a", "parts": None}]
    cell = [*good, {"role": "user", "content": "b", "parts": [part(text="c"), BAD[words]]}]
    [first, error, last] = read([good, cell, good])

    assert isinstance(error, RowError)
    assert ("invalid_request", None, False) == (error.kind, error.status, error.retryable)
    assert error.message.startswith("part 2 of message 2 ")
    assert words in error.message
    assert error.hint.endswith(".")
    assert [{"role": "user", "content": "a"}] == first == last


@pytest.mark.parametrize(
    "kind",
    [
        pa.struct([*MESSAGE, ("name", pa.string())]),
        pa.struct([("role", pa.string()), ("parts", pa.list_(PART))]),
        *(
            pa.struct([*ROLE_AND_CONTENT, ("parts", parts)])
            for parts in (
                pa.binary(),
                PART,
                pa.list_(pa.binary()),
                pa.list_(pa.struct([("x", pa.string())])),
                pa.list_(pa.struct([("data", pa.string())])),
            )
        ),
    ],
    ids=str,
)
def test_fields_of_other_names_or_types_raise(kind: Any) -> None:  # noqa: ANN401 -- an Arrow type
    """Before any request, with the type that a conversation has."""
    with pytest.raises(InputTypeError, match=r"array<struct<role:string,content:string>>.* Hint: "):
        list(arrow_rows(iter([pa.array([], pa.list_(kind))]), conversations=True))


@pytest.mark.parametrize(
    "cell", [[{"role": "user", "content": "a", "parts": [{"x": 1}]}], [{"role": "a", "parts": []}]]
)
def test_fields_of_other_names_raise_in_pandas(cell: Any) -> None:  # noqa: ANN401 -- a pandas cell
    """As with Arrow."""
    with pytest.raises(InputTypeError, match=r"array<struct<role:string,content:string>>.* Hint: "):
        list(pandas_rows(iter([pd.Series([cell])]), conversations=True))
