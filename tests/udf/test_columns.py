"""Conversion between Spark's columns and rows, for Arrow and for pandas. Needs no session."""

import json
import math
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import Row
from pyspark.sql.pandas.types import to_arrow_type
from pyspark.sql.types import StructType

from spark_llm import schemas
from spark_llm.errors import KINDS, InputTypeError
from spark_llm.protocol.values import RankedDocument, Result, RowError, ToolCall, Usage
from spark_llm.udf.columns import arrow_rows, columns_to_pandas, pandas_rows, to_arrow, to_pandas
from spark_llm.udf.slices import SLICE_ROWS
from tests.support.strategies import usages

SCHEMAS = {
    "chat": schemas.CHAT,
    "chat with choices": schemas.with_choices(schemas.CHAT),
    "chat with tools": schemas.with_tool_calls(schemas.CHAT),
    "complete": schemas.COMPLETE,
    "embed": schemas.EMBED,
    "rerank": schemas.RERANK,
}
BROKEN = b"caf\xe9"  # Latin-1, and no UTF-8
MENDED = "caf\N{REPLACEMENT CHARACTER}"
MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
CALL = pa.struct([("id", pa.string()), ("name", pa.string()), ("arguments", pa.string())])
TOOL_MESSAGE = pa.struct([*MESSAGE, ("tool_calls", pa.list_(CALL)), ("tool_call_id", pa.string())])
CALLED = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "name": "f", "arguments": "{}"}]}
TURNS = [
    [{"role": "user", "content": "Hi"}, CALLED, {"role": "tool", "content": "3", "tool_call_id": "1"}],
    None,
    [],
    [None, {"role": "user", "content": None}],
]
RAW_MESSAGE = pa.struct([("role", pa.binary()), ("content", pa.binary())])

TEXTS = st.none() | st.text(max_size=6)
CELLS = st.none() | st.lists(st.none() | st.fixed_dictionaries({"role": TEXTS, "content": TEXTS}), max_size=3)
COUNTS = st.none() | st.integers(0, 2**31 - 1)
FLOATS = st.floats(width=32, allow_nan=False)
RESULTS = st.builds(
    Result,
    text=TEXTS,
    choices=st.none() | st.lists(TEXTS, max_size=3),
    embedding=st.none() | st.lists(FLOATS, min_size=1, max_size=5).map(lambda vector: array("f", vector).tobytes()),
    finish_reason=TEXTS,
    usage=st.none() | usages(COUNTS),
    model=TEXTS,
    request_id=TEXTS,
    attempts=st.integers(0, 1_000),
    latency_ms=st.none() | st.floats(0, 1e9),
    error=st.none()
    | st.builds(
        RowError, st.sampled_from(KINDS), st.none() | st.integers(100, 599), st.text(max_size=6), st.booleans()
    ),
    ranking=st.none()
    | st.lists(st.builds(RankedDocument, index=st.integers(0, 9), score=FLOATS, text=TEXTS), max_size=3),
    tool_calls=st.none() | st.lists(st.builds(ToolCall, id=TEXTS, name=st.text(max_size=6), arguments=st.just("{}"))),
)


def read(*batches: Any, conversations: bool = True) -> list[Any]:  # noqa: ANN401 -- Arrow arrays; texts and messages
    """Read Arrow batches to the end."""
    return [row for rows in arrow_rows(iter(batches), conversations=conversations) for row in rows]


def read_pandas(*batches: Any, conversations: bool = True) -> list[Any]:  # noqa: ANN401 -- pandas series
    """Read pandas batches to the end."""
    return [row for rows in pandas_rows(iter(batches), conversations=conversations) for row in rows]


def arrow_schema(schema: StructType) -> Any:  # noqa: ANN401 -- pyarrow has no types
    """Return a schema as an Arrow type."""
    return to_arrow_type(schema)


def expected_row(result: Result | None, schema: StructType) -> dict[str, Any] | None:
    """Return the row that a result should become under this schema."""
    if result is None:
        return None
    row: dict[str, Any] = {name: getattr(result, name) for name in schema.fieldNames()}
    for name, value in row.items():
        if isinstance(value, bytes):
            row[name] = array("f", value).tolist()
        elif isinstance(value, (Usage, RowError)):
            row[name] = value._asdict()
    return row


@given(st.lists(TEXTS, max_size=40), st.integers(0, 10), st.sampled_from([pa.string(), pa.large_string()]))
def test_texts_are_unchanged(texts: list[str | None], start: int, kind: Any) -> None:  # noqa: ANN401 -- an Arrow type
    """A string column gives one text per row and null for null, also in a slice, and in both of Arrow's layouts."""
    column = pa.array(texts, kind)

    assert texts == read(column)
    assert texts[start:] == read(column.slice(start))
    assert texts == read(column, conversations=False)


@given(st.lists(CELLS, max_size=20), st.integers(0, 10))
def test_conversations_are_unchanged(cells: list[Any], start: int) -> None:
    """An array of messages is a conversation; null arrays, null messages and null fields stay null."""
    for kind in (pa.list_(MESSAGE), pa.large_list(MESSAGE)):
        column = pa.array(cells, kind)

        assert cells == read(column)
        assert cells[start:] == read(column.slice(start))


@pytest.mark.parametrize("make", [pa.list_, pa.large_list])
def test_tool_fields_are_read_where_they_are_set(make: Any) -> None:  # noqa: ANN401 -- makes an Arrow type
    """Messages without them are as those of two fields; Arrow and pandas give equal rows."""
    column = pa.array(TURNS, make(TOOL_MESSAGE))
    cells = column.to_pylist()
    as_rows = [None if cell is None else [message and as_row(message) for message in cell] for cell in cells]
    as_arrays = [None if cell is None else np.array(cell, dtype=object) for cell in cells]

    assert TURNS == read(column)
    assert TURNS[2:] == read(column.slice(2))
    for pandas_column in (cells, as_rows, as_arrays):
        assert TURNS == read_pandas(pd.Series(pandas_column, dtype=object))


def as_row(message: dict[str, Any]) -> Row:
    """Return a message as Spark's pandas path may give it."""
    calls = message["tool_calls"]
    if calls is None:
        return Row(**message)
    rows = np.empty(len(calls), dtype=object)
    for place, call in enumerate(calls):
        rows[place] = Row(**call)
    return Row(**{**message, "tool_calls": rows})


@pytest.mark.parametrize("fields", [["tool_calls"], ["tool_call_id"], ["tool_call_id", "tool_calls"]])
def test_tool_fields_are_optional(fields: list[str]) -> None:
    """Each may be missing, and their order does not matter; a column of nulls has no type."""
    kind = pa.struct([(name, pa.null()) for name in fields] + [("content", pa.string()), ("role", pa.string())])

    assert [[{"role": "user", "content": "Hi"}]] == read(
        pa.array([[{"role": "user", "content": "Hi", **dict.fromkeys(fields)}]], pa.list_(kind))
    )


def test_a_tool_message_without_its_id_is_its_rows_error() -> None:
    """The other rows are read, in Arrow and in pandas."""
    cells = [[{"role": "tool", "content": "3"}], [{"role": "user", "content": "Hi"}]]
    column = pa.array(cells, pa.list_(TOOL_MESSAGE))

    for error, other in (read(column), read_pandas(pd.Series(column.to_pylist()))):
        assert ("invalid_request", cells[1]) == (error.kind, other)


def test_message_fields_have_any_order() -> None:
    """Message fields are found by name."""
    kind = pa.list_(pa.struct([("content", pa.large_string()), ("role", pa.string())]))

    assert [[{"role": "user", "content": "Hi"}]] == read(pa.array([[{"role": "user", "content": "Hi"}]], kind))


def test_a_large_batch_is_read_slice_by_slice() -> None:
    """A batch becomes Python objects 512 rows at a time, and no row is lost between slices."""
    texts = [f"row {number}" for number in range(2 * SLICE_ROWS + 7)]
    pieces = list(arrow_rows(iter([pa.array(texts)]), conversations=False))

    assert [SLICE_ROWS, SLICE_ROWS, 7] == [len(piece) for piece in pieces]
    assert texts == [row for piece in pieces for row in piece]


def test_batches_are_read_lazily() -> None:
    """The second batch is not read before the first is consumed."""
    touched: list[int] = []

    def batches() -> Iterator[Any]:
        for number in range(2):
            touched.append(number)
            yield pa.array([str(number)] * 600)

    rows = arrow_rows(batches(), conversations=False)
    next(rows)
    next(rows)

    assert [0] == touched


@pytest.mark.parametrize(("raw", "kind"), [(pa.binary(), pa.string()), (pa.large_binary(), pa.large_string())])
def test_invalid_utf8_is_replaced(raw: Any, kind: Any) -> None:  # noqa: ANN401 -- Arrow types
    """An invalid byte becomes a replacement character; the rest of its row, other rows and nulls stay."""
    column = pa.array([b"a", None, BROKEN, b"", "€".encode()], raw).view(kind)

    assert ["a", None, MENDED, "", "€"] == read(column)
    assert [MENDED, ""] == read(column.slice(2, 2))


@pytest.mark.parametrize("make", [pa.list_, pa.large_list])
def test_invalid_utf8_in_conversations_is_replaced(make: Any) -> None:  # noqa: ANN401 -- makes an Arrow type
    """It is replaced inside messages too, next to nulls, and in a slice."""
    cells = [
        [{"role": b"user", "content": b"skipped"}],
        None,
        [{"role": b"system", "content": None}, {"role": b"user", "content": BROKEN}],
        [],
        [None, {"role": BROKEN, "content": b"x"}],
    ]
    column = pa.array(cells, make(RAW_MESSAGE)).view(make(MESSAGE))
    expected = [
        None,
        [{"role": "system", "content": None}, {"role": "user", "content": MENDED}],
        [],
        [None, {"role": MENDED, "content": "x"}],
    ]

    assert [[{"role": "user", "content": "skipped"}], *expected] == read(column)
    assert expected == read(column.slice(1))


def test_an_untyped_null_column_gives_null_rows() -> None:
    """`lit(None)` has no type and needs none."""
    assert [None, None] == read(pa.nulls(2))
    assert [] == read(pa.array([], pa.string())) == read()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 2]),
        pa.array([b"a"]),
        pa.array([1.5]),
        pa.array([["a"]]),
        pa.array([{"role": "user", "content": "Hi"}]),
        pa.array([[{"role": "user", "text": "Hi"}]]),
        pa.array([[{"role": "user", "content": "Hi", "name": "me"}]]),
        pa.array([[{"role": "user", "content": 7}]]),
        pa.array([[{"role": "user", "content": "Hi", "tool_call_id": 7}]]),
        pa.array([[{"role": "user", "content": "Hi", "tool_calls": "f"}]]),
        pa.array([[{"role": "user", "content": "Hi", "tool_calls": ["f"]}]]),
        pa.array([[{"role": "user", "content": "Hi", "tool_calls": [{"id": "1", "name": "f"}]}]]),
        pa.array([], pa.int64()),
        (pa.array(["a"]), pa.array(["b"])),
    ],
)
@pytest.mark.parametrize("conversations", [True, False])
def test_a_wrong_type_raises(column: Any, conversations: bool) -> None:  # noqa: ANN401, FBT001 -- a table
    """The first batch raises, before any request, and the message ends in a hint."""
    with pytest.raises(InputTypeError, match=r"(?s)called on .+ Hint: .+\.$"):
        read(column, conversations=conversations)


@pytest.mark.parametrize("conversations", [True, False])
def test_a_column_of_bytes_raises_with_a_hint(conversations: bool) -> None:  # noqa: FBT001 -- a table
    """Images go into a template: of a chat, not of completions or embeddings."""
    for reader, column in ((read, pa.array([b"a"])), (read_pandas, pd.Series([b"a"]))):
        with pytest.raises(InputTypeError, match=r"called on b\w+\. Hint: chat_udf takes images, .* a field"):
            reader(column, conversations=conversations)


def test_an_array_that_is_no_conversation_raises_with_the_fields_of_a_message() -> None:
    """Which of them is wrong is seen by their types."""
    image = [{"role": "user", "content": None, "parts": [b"a"]}]
    for reader, column in ((read, pa.array([image])), (read_pandas, pd.Series([image]))):
        with pytest.raises(InputTypeError, match=r"Hint: a message is .* parts array<struct<type:string,.* tool_calls"):
            reader(column, conversations=True)


def test_only_a_chat_takes_conversations() -> None:
    """Embeddings and completions refuse conversations."""
    column = pa.array([[{"role": "user", "content": "Hi"}]], pa.list_(MESSAGE))
    with pytest.raises(InputTypeError, match=r"one string column; .* Hint: .+\.$"):
        read(column, conversations=False)
    with pytest.raises(InputTypeError, match=r"one string column; .* Hint: .+\.$"):
        read_pandas(pd.Series([[{"role": "user", "content": "Hi"}]]), conversations=False)


@given(st.lists(TEXTS, max_size=20), st.lists(CELLS, max_size=10))
def test_pandas_and_arrow_give_equal_rows(texts: list[str | None], cells: list[Any]) -> None:
    """Lists, NumPy arrays, dicts and Rows from pandas give the same rows as Arrow."""
    as_rows = [None if cell is None else [message and Row(**message) for message in cell] for cell in cells]
    as_arrays = [None if cell is None else np.array(cell, dtype=object) for cell in cells]

    assert read(pa.array(texts, pa.string())) == read_pandas(pd.Series(texts, dtype=object))
    for column in (cells, as_rows, as_arrays):
        assert read(pa.array(cells, pa.list_(MESSAGE))) == read_pandas(pd.Series(column, dtype=object))


def test_pandas_missing_values_are_null() -> None:
    """`pd.NA` in a column of pandas' string type is null."""
    assert ["a", None] == read_pandas(pd.Series(["a", None], dtype="string"))


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, 2]),
        pd.Series([1.5, None]),
        pd.Series([True]),
        pd.Series([b"a"]),
        pd.Series([7, "a"], dtype=object),
        pd.Series([["a"]]),
        pd.Series([{"role": "user", "content": "Hi"}]),
        pd.Series([[{"role": "user"}]]),
        pd.DataFrame({"a": ["x"], "b": ["y"]}),
        (pd.Series(["a"]), pd.Series(["b"])),
    ],
    ids=repr,
)
def test_a_wrong_pandas_type_raises(column: Any) -> None:  # noqa: ANN401 -- every wrong type
    """The message is that of the Arrow path."""
    with pytest.raises(InputTypeError, match=r"(?s)called on .+ Hint: .+\.$"):
        read_pandas(column)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_field_is_an_attribute_of_results(name: str) -> None:
    """A column's fields take the result's attributes by name."""
    assert [] == [field for field in SCHEMAS[name].fieldNames() if not hasattr(Result(), field)]
    assert list(Usage._fields) == schemas.USAGE.fieldNames()
    assert list(RowError._fields) == schemas.ERROR.fieldNames()


@pytest.mark.waits
@pytest.mark.parametrize("name", SCHEMAS)
@settings(max_examples=30)
@given(results=st.lists(st.none() | RESULTS, max_size=8))
def test_results_survive_arrow(name: str, results: list[Result | None]) -> None:
    """Every field read back from Arrow has its value, and a row without a result is a null struct."""
    struct_array = to_arrow(results, arrow_schema(SCHEMAS[name]))
    struct_array.validate(full=True)

    assert arrow_schema(SCHEMAS[name]) == struct_array.type
    assert [expected_row(result, SCHEMAS[name]) for result in results] == struct_array.to_pylist()


@pytest.mark.waits
@pytest.mark.parametrize("name", SCHEMAS)
@settings(max_examples=30)
@given(results=st.lists(st.none() | RESULTS, max_size=8))
def test_results_survive_pandas(name: str, results: list[Result | None]) -> None:
    """Every field read back from pandas has its value, and a row without a result is a row of nulls."""
    schema = SCHEMAS[name]
    frame = to_pandas(results, schema.fieldNames())
    found = frame.to_dict("records")
    nulls = dict.fromkeys(schema.fieldNames())

    assert schema.fieldNames() == list(frame.columns)
    assert [expected_row(result, schema) or nulls for result in results] == [
        {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in row.items()}
        for row in found
    ]


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_pandas_frame_gives_the_arrow_fields(name: str) -> None:
    """Spark converts a frame to Arrow column by column, with the same fields as on the Arrow path."""
    results = [
        Result(text="a", choices=["a", None], embedding=array("f", [0.1, -0.0]).tobytes(), usage=Usage(1, 2, 3)),
        Result(tool_calls=[ToolCall(id="1", name="f", arguments="{}"), ToolCall(id=None, name="g", arguments="{}")]),
        Result(),
    ]
    frame = to_pandas(results, SCHEMAS[name].fieldNames())
    kind = arrow_schema(SCHEMAS[name])
    columns = [pa.Array.from_pandas(frame[field.name], type=field.type) for field in kind]

    assert to_arrow(results, kind).flatten() == columns


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("results", [[], [None], [None] * 3])
def test_empty_results_have_the_schemas_type(name: str, results: list[None]) -> None:
    """No rows, and rows of nulls, keep the type: empty chunks go out while a model is busy."""
    struct_array = to_arrow(results, arrow_schema(SCHEMAS[name]))
    struct_array.validate(full=True)

    assert (len(results), len(results)) == (len(struct_array), struct_array.null_count)
    assert arrow_schema(SCHEMAS[name]) == struct_array.type
    assert len(results) == len(to_pandas(results, SCHEMAS[name].fieldNames()))


@given(st.lists(st.none() | st.binary(min_size=1, max_size=5), min_size=1, max_size=8))
def test_vectors_keep_every_bit(raws: list[bytes | None]) -> None:
    """Any four bytes are a float32 and arrive unchanged, NaN and minus zero too."""
    vectors = [None if raw is None else raw * 4 for raw in raws]
    results = [Result(embedding=vector) for vector in vectors]
    column = to_arrow(results, arrow_schema(schemas.EMBED)).field("embedding")
    frame = to_pandas(results, ["embedding"])

    assert [None if vector is None else len(vector) // 4 for vector in vectors] == column.value_lengths().to_pylist()
    assert b"".join(vector or b"" for vector in vectors) == column.flatten().to_numpy().tobytes()
    assert vectors == [None if value is None else value.tobytes() for value in frame["embedding"]]


def test_a_null_vector_shifts_no_other() -> None:
    """A failed row has a null vector, and its neighbours keep their own."""
    vectors = [[1.0, 2.0], None, [3.0, 4.0], None]
    results = [Result(embedding=None if vector is None else array("f", vector).tobytes()) for vector in vectors]

    assert vectors == to_arrow(results, arrow_schema(schemas.EMBED)).field("embedding").to_pylist()
    assert vectors == to_arrow(results, arrow_schema(schemas.EMBED)).slice(0).field("embedding").to_pylist()


def test_a_failed_row_is_not_null() -> None:
    """A failed row has its error and its tokens."""
    error = RowError("content_filter", 400, "no", retryable=False)
    result = Result(error=error, usage=Usage(5, None, 5), attempts=2)
    [row] = to_arrow([result], arrow_schema(schemas.CHAT)).to_pylist()

    assert (None, 2) == (row["text"], row["attempts"])
    assert {"kind": "content_filter", "status": 400, "message": "no", "retryable": False} == row["error"]
    assert 5 == row["usage"]["total_tokens"]
    assert None is row["usage"]["completion_tokens"]


def test_a_row_can_be_written_as_json() -> None:
    """A latency is a number of milliseconds, and the row is plain JSON."""
    row = to_arrow([Result(text="a", latency_ms=12.5)], arrow_schema(schemas.CHAT)).to_pylist()[0]

    assert math.isclose(12.5, json.loads(json.dumps(row))["latency_ms"])


def test_nan_of_a_prediction_is_no_null_of_pandas() -> None:
    """Also where Arrow takes a float's NaN for a missing value: inside a list, a map or a struct."""
    value = {"a": [math.nan, None, 0.5], "b": math.nan}
    kind = pa.struct([("a", pa.list_(pa.float64())), ("b", pa.float32())])
    series = columns_to_pandas([[Result(prediction=value), None]], {"c": ["prediction"]})["c"]
    found = pa.Array.from_pandas(series, type=pa.struct([("prediction", kind)])).to_pylist()

    assert repr([{"prediction": value}, None]) == repr(found)
