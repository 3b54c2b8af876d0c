"""The columns of a custom model as rows of JSON, from Arrow and from pandas. Needs no session."""

import base64
import json
import math
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import Row

from spark_llm.errors import InputTypeError
from spark_llm.protocol.predictions.task import Format, Predict
from spark_llm.protocol.structured.schema import Scalar
from spark_llm.udf.input_rows import arrow_input_rows, column_names, pandas_input_rows

NOON = datetime(2024, 2, 29, 12, 0, 0, 250_000, tzinfo=timezone.utc)
LOCAL = NOON.replace(tzinfo=None)
IN_TOKYO = pa.timestamp("us", "Asia/Tokyo")
PAIR = pa.struct([("a", pa.int32()), ("at", IN_TOKYO)])
DIGITS = Decimal("12345678901234567890.000000000000000001")
# Each type that a model can take, a value, and its JSON.
VALUES: list[tuple[pa.DataType, Any, Any]] = [
    (pa.bool_(), True, True),
    (pa.int8(), -128, -128),
    (pa.int64(), 2**63 - 1, 2**63 - 1),
    (pa.float64(), 0.1, 0.1),
    (pa.float32(), 0.1, 0.10000000149011612),
    (pa.float64(), math.nan, None),
    (pa.float64(), -math.inf, None),
    (pa.decimal128(38, 18), DIGITS, DIGITS),
    (pa.string(), 'é"\n\\', 'é"\n\\'),
    (pa.binary(), b"\x00\xff", "AP8="),
    (pa.date32(), date(2024, 2, 29), "2024-02-29"),
    (IN_TOKYO, NOON, "2024-02-29T12:00:00.250000Z"),
    (pa.timestamp("us"), LOCAL, "2024-02-29T12:00:00.250000"),
    (pa.list_(pa.float64()), [0.5, None, math.nan], [0.5, None, None]),
    (pa.list_(IN_TOKYO), [NOON], ["2024-02-29T12:00:00.250000Z"]),
    (PAIR, {"a": None, "at": NOON}, {"a": None, "at": "2024-02-29T12:00:00.250000Z"}),
    (pa.map_(pa.string(), pa.list_(PAIR)), [("k", [{"a": 1, "at": None}])], {"k": [{"a": 1, "at": None}]}),
]  # fmt: skip


def task(batch: Any, format: Format = "dataframe_split") -> Predict:  # noqa: A002, ANN401 -- the field's own name; a batch
    """Return a task with the names of a batch."""
    return Predict(Scalar("double"), format, column_names(batch))


def read(batch: pa.Array, format: Format = "dataframe_split") -> list[Any]:  # noqa: A002 -- as above
    """Read an Arrow batch, and its JSON."""
    rows = [row for part in arrow_input_rows(iter([batch]), task(batch, format)) for row in part]
    return [row if row is None else json.loads(row, parse_float=exact) for row in rows]


def exact(text: str) -> float | Decimal:
    """Return a number with all its digits."""
    return float(text) if len(text) < 20 or "e" in text else Decimal(text)


def frame(**columns: pa.Array) -> pa.Array:
    """Return a struct of columns."""
    return pa.StructArray.from_arrays(list(columns.values()), names=list(columns))


@pytest.mark.parametrize(("kind", "value", "written"), VALUES, ids=[str(kind) for kind, _, _ in VALUES])
def test_each_type_is_written_exactly(kind: pa.DataType, value: Any, written: Any) -> None:  # noqa: ANN401 -- of any type
    """A value beside another column, one after a null, and one alone."""
    column, other = pa.array([value, None, value], kind), pa.array([1, 2, 3])

    assert [[written, 1], [None, 2], [written, 3]] == read(frame(x=column, y=other))
    alone = list(read(frame(x=column)))
    assert [[written], None, [written]] == alone
    if not pa.types.is_struct(kind):  # whose fields are columns
        assert [[written], None, [written]] == read(column)
        assert [written, None, written] == read(column, "inputs")


@pytest.mark.parametrize(
    ("format_", "expected"),
    [("dataframe_split", [[1, "a"], None]), ("inputs", [[1, "a"], None]), ("instances", [{"x": 1, "y": "a"}, None])],
)
def test_rows_have_the_shape_of_the_format(format_: Format, expected: list[Any]) -> None:
    """Named columns are lists, or objects as `instances`; a row that has only nulls is null."""
    assert expected == read(frame(x=pa.array([1, None]), y=pa.array(["a", None])), format_)


def test_a_null_struct_is_a_null_row() -> None:
    """Whatever stands in its fields."""
    fields = [pa.array([1, 2]), pa.array(["a", "b"])]
    batch = pa.StructArray.from_arrays(fields, names=["x", "y"], mask=pa.array([False, True]))

    assert [[1, "a"], None] == read(batch)


@given(st.lists(st.tuples(st.none() | st.floats(), st.none() | st.text(max_size=3)), max_size=50))
def test_any_batch_is_read_row_by_row(rows: list[tuple[float | None, str | None]]) -> None:
    """Numbers come back as they were, and NaN and infinity as null."""
    batch = frame(x=pa.array([x for x, _ in rows], pa.float64()), y=pa.array([y for _, y in rows], pa.string()))
    expected = [
        None if row == (None, None) else [x if x is not None and math.isfinite(x) else None, y]
        for row in rows
        for x, y in [row]
    ]

    assert repr(expected) == repr(
        [row and [row[0] if row[0] is None else float(row[0]), row[1]] for row in read(batch)]
    )


def test_slices_are_joined_without_a_gap() -> None:
    """Ten thousand rows are ten thousand, in order, also of a batch that is itself a slice."""
    batch = frame(x=pa.array(range(10_003)))

    assert [[number] for number in range(3, 10_003)] == read(batch.slice(3))


def test_broken_text_is_mended() -> None:
    """Bytes that are no UTF-8 become replacement characters."""
    text = pa.array([b"caf\xe9", b"tea"]).view(pa.string())

    assert [["caf\N{REPLACEMENT CHARACTER}", 1], ["tea", 2]] == read(frame(x=text, y=pa.array([1, 2])))


def test_a_day_that_python_lacks_is_written_as_its_text() -> None:
    """The last second of 9999 in America, beside a day of today and broken text in a map."""
    times = pa.array([253_402_329_599 * 10**6, 0], pa.int64()).view(pa.timestamp("us", "America/Los_Angeles"))
    days = pa.array([2_932_897, 0], pa.int32()).view(pa.date32())
    maps = pa.array([[(b"k", b"\xff")], []], pa.map_(pa.binary(), pa.binary())).view(pa.map_(pa.string(), pa.string()))
    broken = {"k": "\N{REPLACEMENT CHARACTER}"}

    assert [["+10000-01-01T07:59:59Z", "+10000-01-01", broken], ["1970-01-01T00:00:00Z", "1970-01-01", {}]] == read(
        frame(at=times, day=days, map=maps)
    )


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (pa.duration("us"), "interval day to second"),
        (pa.map_(pa.int32(), pa.string()), "map<int,string>"),
        (pa.list_(pa.duration("us")), "interval day to second"),
        (pa.struct([("d", pa.duration("us"))]), "interval day to second"),
    ],
)
def test_a_type_that_json_cannot_hold_is_named(kind: pa.DataType, name: str) -> None:
    """Before any row of the batch is read, also inside a list, a struct or a map."""
    with pytest.raises(InputTypeError, match=rf"^predict_udf was called on {name}, .* Hint: cast it"):
        read(frame(x=pa.array([], kind), y=pa.array([], pa.int32())))


def test_two_columns_of_one_name_are_refused() -> None:
    """One of them would be lost, in a request and in a struct inside of it."""
    twice = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    inside = frame(s=twice, t=pa.array([3]))

    for batch in (twice, inside):
        with pytest.raises(InputTypeError, match=r"called on a struct with two fields 'a'\. Hint: rename one"):
            read(batch)
    with pytest.raises(InputTypeError, match="two fields 'a'"):
        read_pandas(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_several_columns_are_refused() -> None:
    """In SQL a UDF may be called so."""
    several = (pa.array([1]), pa.array([2]))
    for rows in (
        arrow_input_rows(iter([several]), Predict(Scalar("double"))),
        pandas_input_rows(iter([tuple(map(pd.Series, several))]), Predict(Scalar("double")), "UTC"),
    ):
        with pytest.raises(InputTypeError, match=r"it was called on several\. Hint: name them in the call"):
            next(rows)


def read_pandas(batch: Any, format: Format = "dataframe_split", zone: str = "UTC") -> list[Any]:  # noqa: A002, ANN401 -- as above
    """Read a pandas batch, and its JSON."""
    rows = [row for part in pandas_input_rows(iter([batch]), task(batch, format), zone) for row in part]
    return [row if row is None else json.loads(row, parse_float=exact) for row in rows]


def test_pandas_cells_are_written_as_arrow_values() -> None:
    """Numbers, texts, bytes, dates, decimals, arrays, structs and maps, as Spark gives them to a pandas UDF."""
    cells: dict[str, list[Any]] = {
        "flag": [True, None],
        "text": ["a", None],
        "raw": [bytearray(b"\x00\xff"), None],
        "day": [date(2024, 2, 29), None],
        "money": [Decimal("1.10"), None],
        "list": [np.array([0.5, math.nan]), None],
        "texts": [np.array(["a", None], dtype=object), None],
        "struct": [Row(a=1, b=np.array([1, 2])), None],
        "map": [{"k": np.float32(0.5)}, None],
    }
    batch = pd.DataFrame({name: pd.Series(each, dtype=object) for name, each in cells.items()})
    batch["n"] = [7, 8]
    expected = [
        True,
        "a",
        base64.b64encode(b"\x00\xff").decode(),
        "2024-02-29",
        1.1,
        [0.5, None],
        ["a", None],
        {"a": 1, "b": [1, 2]},
        {"k": 0.5},
        7,
    ]

    assert [expected, [None] * 9 + [8]] == read_pandas(batch)


def test_pandas_times_are_of_the_sessions_zone() -> None:
    """Spark takes the zone off, and the row has the moment in UTC; in the hour that a clock repeats it is the first."""
    there = pd.Series(pd.to_datetime(["2024-07-01T12:00:00.25", "NaT", "2024-11-03T01:30:00.00"]))
    batch = pd.DataFrame({"at": there, "n": [1, 2, 3]})
    expected = [["2024-07-01T16:00:00.250000Z", 1], [None, 2], ["2024-11-03T05:30:00Z", 3]]

    assert expected == read_pandas(batch, zone="America/New_York")


def test_pandas_times_inside_arrays_structs_and_maps_are_of_the_sessions_zone() -> None:
    """As a column's are, and so is a time that still has its zone."""
    there, repeated = pd.Timestamp("2024-07-01T12:00:00.25"), pd.Timestamp("2024-11-03T01:30:00")
    cells = [{"k": [there, pd.NaT]}, np.array([repeated], dtype=object), Row(at=there.tz_localize("Asia/Tokyo"))]
    summer, autumn, tokyo = "2024-07-01T16:00:00.250000Z", "2024-11-03T05:30:00Z", "2024-07-01T03:00:00.250000Z"

    assert [{"k": [summer, None]}, [autumn], {"at": tokyo}] == read_pandas(
        pd.Series(cells, dtype=object), "instances", "America/New_York"
    )


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_pandas_arrays_of_times_are_times(unit: str) -> None:
    """Of any unit: numpy's own list of them has numbers, or times without a zone."""
    times = np.array(["2024-07-01T12:00:00", "NaT"], dtype=f"datetime64[{unit}]")

    assert [[[{"k": ["2024-07-01T16:00:00Z", None]}]], None] == read_pandas(
        pd.Series([[{"k": times}], None], dtype=object), zone="America/New_York"
    )


def test_pandas_times_at_the_end_of_a_range_are_exact() -> None:
    """The last of nanoseconds, of which UTC has none, and the last of Python's years, after which there is a text."""
    column = pd.Series([pd.Timestamp.max, pd.NaT])
    cells = pd.Series([[pd.Timestamp.max], np.array(["9999-12-31T23:59:59"], dtype="datetime64[us]")], dtype=object)

    assert [["2262-04-12T07:47:16.854775Z"], None] == read_pandas(column, zone="America/Los_Angeles")
    assert [[["2262-04-12T07:47:16.854775Z"]], [["+10000-01-01T07:59:59Z"]]] == read_pandas(
        cells, zone="America/Los_Angeles"
    )


def test_pandas_types_of_its_own_are_read() -> None:
    """Nulls among whole numbers, floats, booleans and texts, and times that have a zone."""
    noon = pd.Timestamp("2024-07-01T12:00:00", tz="Asia/Tokyo")
    batch = pd.DataFrame(
        {
            "n": pd.array([2**53 + 1, None], dtype="Int64"),
            "x": pd.array([0.5, None], dtype="Float64"),
            "flag": pd.array([True, None], dtype="boolean"),
            "text": pd.array(["a", None], dtype="string"),
            "at": pd.Series([noon, None]),
            "row": [1, 2],
        }
    )

    assert [[2**53 + 1, 0.5, True, "a", "2024-07-01T03:00:00Z", 1], [None] * 5 + [2]] == read_pandas(batch)


@pytest.mark.parametrize("format_", ["dataframe_split", "inputs", "instances"])
def test_a_lone_surrogate_is_replaced_in_a_row_of_any_form(format_: Format) -> None:
    """Python's texts may have one, and UTF-8 cannot."""
    written = "x\N{REPLACEMENT CHARACTER}"
    [row] = read_pandas(pd.DataFrame({"t": ["x\ud800"], "n": [1]}), format_)

    assert ({"t": written, "n": 1} if format_ == "instances" else [written, 1]) == row


def test_pandas_rows_of_nothing_but_nulls_are_null() -> None:
    """NaN stands for a null there, so it counts as one."""
    batch = pd.DataFrame({"x": [1.0, math.nan, math.nan], "y": pd.Series(["a", "b", None], dtype=object)})

    assert [[1.0, "a"], [None, "b"], None] == read_pandas(batch)
    assert [1.5, None] == read_pandas(pd.Series([1.5, math.nan]), "instances")
    assert [[True], None] == read_pandas(pd.Series([True, None], dtype=object))


@pytest.mark.parametrize(
    ("column", "name"),
    [
        (pd.Series([pd.Timedelta(1, "D"), None]), "interval day to second"),
        (pd.Series([np.array([pd.Timedelta(1, "D")], dtype="timedelta64[us]")]), "interval day to second"),
        (pd.Series([np.array([pd.Timedelta(1, "D")], dtype="timedelta64[ns]")]), "interval day to second"),
        (pd.Series([{1: "a"}]), "a map with keys of int"),
        (pd.Series([np.array([{date(2024, 2, 29): "a"}])]), "a map with keys of date"),
        (pd.Series([1j], dtype=object), "complex"),
    ],
)
def test_a_pandas_cell_that_json_cannot_hold_is_named(column: "pd.Series[Any]", name: str) -> None:
    """Its type is in the message, as far as pandas tells it."""
    with pytest.raises(InputTypeError, match=rf"^predict_udf was called on {name}, .* Hint: cast it"):
        read_pandas(pd.DataFrame({"x": column, "y": 1}))
