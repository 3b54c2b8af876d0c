"""Slices of batches: by rows and by bytes, and one warning of a batch that is too large."""

import logging
import subprocess
import sys
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.udf.slices import LARGE_BATCH_BYTES, SLICE_BYTES, SLICE_ROWS, arrow_slices, pandas_slices, python_values
from tests.conftest import ROOT

SIZES = st.lists(
    st.none() | st.sampled_from([0, 9, 5_000, SLICE_BYTES // 3, SLICE_BYTES, SLICE_BYTES + 1]), max_size=40
)
NESTED = pa.list_(pa.struct([("role", pa.string()), ("parts", pa.list_(pa.struct([("data", pa.binary())])))]))


def sliced(column: Any) -> list[list[Any]]:  # noqa: ANN401 -- an Arrow array, or a pandas series
    """Return the values of each slice."""
    if isinstance(column, pd.Series):
        return [list(part["c"]) for part in pandas_slices({"c": column})]
    return [python_values(part["c"]) for part in arrow_slices({"c": column})]


@given(SIZES, st.sampled_from([pa.binary(), pa.large_binary(), pa.string()]), st.integers(0, 5))
def test_a_slice_of_several_rows_is_small(sizes: list[int | None], kind: Any, start: int) -> None:  # noqa: ANN401 -- an Arrow type
    """No row is lost, whatever the types, and in a batch that is itself a slice."""
    empty: Any = "" if kind == pa.string() else b""
    values = [None if size is None else empty.ljust(size, b"x" if empty == b"" else "x") for size in sizes]
    column = pa.array(values, kind).slice(start)

    for slices in (sliced(column), sliced(pd.Series(values[start:], dtype=object))):
        assert values[start:] == [value for part in slices for value in part]
        assert [] == [len(part) for part in slices if len(part) > 1 and sum(len(v or "") for v in part) > SLICE_BYTES]


@pytest.mark.parametrize("rows", [0, 1, SLICE_ROWS, 2 * SLICE_ROWS + 7])
def test_small_values_are_sliced_by_rows(rows: int) -> None:
    """A slice has as many rows as ever."""
    texts = [str(number) for number in range(rows)]
    expected = [texts[start : start + SLICE_ROWS] for start in range(0, rows, SLICE_ROWS)]

    assert expected == sliced(pa.array(texts, pa.string())) == sliced(pd.Series(texts, dtype=object))


def test_the_bytes_inside_conversations_count() -> None:
    """A message's parts are as large as those of any column, on both paths."""
    picture = bytes(SLICE_BYTES // 2 + 1)
    cell = [{"role": "user", "parts": [{"data": picture}]}]

    assert [[cell]] * 4 == sliced(pa.array([cell] * 4, NESTED)) == sliced(pd.Series([cell] * 4))


def test_columns_are_sliced_together() -> None:
    """Their bytes add up: two columns of a template are read at once."""
    quarter = pa.array([bytes(SLICE_BYTES // 5)] * 8)

    assert [2] * 4 == [len(part["b"]) for part in arrow_slices({"a": quarter, "b": quarter})]
    assert [2] * 4 == [len(part["b"]) for part in pandas_slices({"a": quarter.to_pandas(), "b": quarter.to_pandas()})]


def test_bytes_that_are_no_text_stay_bytes() -> None:
    """A text beside them that is not UTF-8 gets replacement characters."""
    raw = pa.list_(pa.struct([("content", pa.binary()), ("data", pa.binary())]))
    known = pa.list_(pa.struct([("content", pa.string()), ("data", pa.binary())]))
    column = pa.array([[{"content": b"caf\xe9", "data": b"\xff\xd8"}, None], None], raw).view(known)

    assert [[{"content": "caf\N{REPLACEMENT CHARACTER}", "data": b"\xff\xd8"}, None], None] == python_values(column)


def test_a_map_beside_it_is_read_as_pairs() -> None:
    """A key and a value that are not UTF-8 get replacement characters too, at any depth and in a slice."""
    raw = pa.map_(pa.binary(), pa.list_(pa.map_(pa.binary(), pa.int32())))
    known = pa.map_(pa.string(), pa.list_(pa.map_(pa.string(), pa.int32())))
    rows = [[(b"x", None)], [(b"\xff", [[(b"\xfe", 1)], None])], None, []]
    broken = "\N{REPLACEMENT CHARACTER}"
    column = pa.array(rows, raw).view(known)
    expected = [[(broken, [[(broken, 1)], None])], None, []]

    assert [[("x", None)], *expected] == python_values(column)
    assert expected == python_values(column.slice(1))
    assert [{"m": each} for each in expected] == python_values(
        pa.StructArray.from_arrays([column.slice(1)], names=["m"])
    )


LATE = 253_402_300_800 * 10**6  # the first microsecond of the year 10000
HOUR = 3_600 * 10**6
LAST_DAY, FIRST_DAY = 2_932_896, -719_162  # of Python's dates, counted from 1970


@pytest.mark.parametrize(
    ("count", "kind", "text"),
    [
        (LATE + 8 * HOUR - 1, pa.timestamp("us", "UTC"), "+10000-01-01T07:59:59.999999Z"),
        (LATE + 8 * HOUR - HOUR // 3_600, pa.timestamp("us", "America/Los_Angeles"), "9999-12-31T23:59:59-08:00"),
        (LATE - 1, pa.timestamp("us", "+09:00"), "+10000-01-01T08:59:59.999999+09:00"),
        (LATE // 10**6, pa.timestamp("s"), "+10000-01-01T00:00:00"),
        (-62_135_596_800 * 10**6 - 1, pa.timestamp("us"), "0000-12-31T23:59:59.999999"),
        (2**63 - 1, pa.timestamp("us", "UTC"), "+294247-01-10T04:00:54.775807Z"),
        (-(2**63), pa.timestamp("us", "UTC"), "-290308-12-21T19:59:05.224192Z"),
        (LAST_DAY + 1, pa.date32(), "+10000-01-01"),
        (FIRST_DAY - 1, pa.date32(), "0000-12-31"),
        (FIRST_DAY - 367, pa.date32(), "-0001-12-31"),
        (2**31 - 1, pa.date32(), "+5881580-07-11"),
    ],
)
def test_a_day_beyond_python_s_years_is_its_text(count: int, kind: pa.DataType, text: str) -> None:
    """As Java and Spark write it, wherever it stands; values beside it stay as they are."""
    plain = pa.int32() if pa.types.is_date32(kind) else pa.int64()
    column = pa.array([0, count, None], plain).view(kind)
    usual = column.slice(0, 1).to_pylist()[0]
    pairs = pa.MapArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), pa.array(["a", "b", "c"]), column)

    assert [usual, text, None] == python_values(column)
    assert [{"at": [usual]}, {"at": [text]}, {"at": [None]}] == python_values(
        pa.StructArray.from_arrays([pa.ListArray.from_arrays([0, 1, 2, 3], column)], names=["at"])
    )
    assert [[("a", usual)], [("b", text)], [("c", None)]] == python_values(pairs)


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from([None, "UTC", "Asia/Tokyo", "America/Los_Angeles"]))
def test_the_text_of_a_time_is_its_moment(count: int, zone: str | None) -> None:
    """The days between two such texts are those between their counts."""
    [value] = python_values(pa.array([count], pa.int64()).view(pa.timestamp("us", zone)))
    if not isinstance(value, str):
        return
    length = 1 + value[1:].index("-")  # with its sign
    year = int(value[:length])
    leap = 2_000 + year % 400  # a year like it that Python has
    moment = datetime.fromisoformat(f"{leap}{value[length:].replace('Z', '+00:00')}")
    utc = moment.astimezone(timezone.utc) if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    since = utc - datetime(1970, 1, 1, tzinfo=timezone.utc)

    assert count == since // timedelta(microseconds=1) + (year - leap) // 400 * 146_097 * 24 * HOUR
    assert not date.min.year < year < date.max.year


WARNED = f"""
import numpy as np, pyarrow as pa
from spark_llm.udf.slices import arrow_slices, pandas_slices

def batch(size):
    offsets = pa.py_buffer(np.array([0, size], "i4"))
    return pa.Array.from_buffers(pa.binary(), 1, [None, offsets, pa.py_buffer(np.zeros(size, "u1"))])

for size in ({LARGE_BATCH_BYTES} - 100, {LARGE_BATCH_BYTES} + 1, {LARGE_BATCH_BYTES} + 2):
    list(arrow_slices({{"c": batch(size)}}))
    print(size, flush=True)
"""


@pytest.mark.waits
def test_a_worker_warns_once_of_a_large_batch() -> None:
    """The warning says what to set; at 256 MB there is none yet."""
    done = subprocess.run([sys.executable, "-c", WARNED], cwd=ROOT, capture_output=True, text=True, check=True)

    assert 1 == done.stderr.count("\n"), done.stderr
    assert done.stderr.startswith("an Arrow batch of 1 rows has 256 MB, which this worker holds at once. Hint: set ")
    assert logging.WARNING >= logging.getLogger("spark_llm.udf").getEffectiveLevel()
