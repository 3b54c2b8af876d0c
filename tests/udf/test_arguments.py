"""Arguments of several columns, read alike from Arrow and from pandas."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import Row

from spark_llm.errors import InputTypeError
from spark_llm.udf.arguments import Arguments
from spark_llm.validation.parameter import Parameter

ALL = (Parameter("content"), Parameter("labels", "texts"), Parameter("max_words", "whole", 50))
ROWS = st.tuples(
    st.none() | st.text(max_size=5),
    st.none() | st.lists(st.none() | st.text(max_size=3), max_size=3),
    st.none() | st.integers(-(2**31), 2**31 - 1),
)
TYPES = (pa.string(), pa.list_(pa.string()), pa.int32())


def arrow(columns: Sequence[Sequence[Any]]) -> tuple[pa.Array, ...]:
    """Return the columns as Spark passes them to an Arrow UDF."""
    return tuple(pa.array(column, kind) for column, kind in zip(columns, TYPES, strict=False))


def pandas(columns: Sequence[Sequence[Any]]) -> tuple[pd.Series, ...]:
    """Return the columns as Spark passes them to a pandas UDF."""
    return tuple(array.to_pandas() for array in arrow(columns))


def read(batch: Any, *, parameters: Sequence[Parameter] = ALL) -> list[tuple[Any, ...]]:  # noqa: ANN401 -- of either kind
    """Return the rows of one batch."""
    arguments = Arguments("ai_test", parameters)
    first = batch[0] if isinstance(batch, tuple) else batch
    slices = arguments.arrow(iter([batch])) if isinstance(first, pa.Array) else arguments.pandas(iter([batch]))
    return [row for columns in slices for row in zip(*columns, strict=True)]


@pytest.mark.waits
@pytest.mark.parametrize("as_batch", [arrow, pandas])
@given(st.lists(ROWS, min_size=1, max_size=20))
def test_rows_are_unchanged(as_batch: Any, rows: list[tuple[Any, ...]]) -> None:  # noqa: ANN401 -- a function
    """Texts, lists of texts and whole numbers keep their values, with nulls in every place."""
    columns = list(zip(*rows, strict=True))

    assert rows == read(as_batch(columns))


@pytest.mark.parametrize("as_batch", [arrow, pandas])
def test_a_missing_argument_has_its_default(as_batch: Any) -> None:  # noqa: ANN401 -- a function
    """The last arguments may be left out; an explicit null stays null."""
    assert [("a", ["x"], 50), ("b", ["y"], 50)] == read(as_batch([["a", "b"], [["x"], ["y"]]]))
    assert [("a", ["x"], None)] == read(as_batch([["a"], [["x"]], [None]]))
    assert [("a",)] == read(as_batch([["a"]])[0], parameters=ALL[:1])  # Spark hands one column over as it is


def test_a_struct_is_a_dict_of_python_values() -> None:
    """Arrow's maps are dicts; pandas has arrays, rows and times of its own, and floats for numbers beside a null."""
    noon = datetime(2024, 2, 29, 12)  # noqa: DTZ001 -- as Spark gives it to pandas
    columns = {
        "n": pa.array([1, None]),
        "share": pa.array([0.5, None]),
        "list": pa.array([[1, 2], None]),
        "map": pa.array([[("k", ["a"])], None], pa.map_(pa.string(), pa.list_(pa.string()))),
        "pair": pa.array([{"a": 1, "times": [noon]}, None]),
        "t": pa.array(["a", "b"]),
    }
    first = {"n": 1, "share": 0.5, "list": [1, 2], "map": {"k": ["a"]}, "pair": {"a": 1, "times": [noon]}, "t": "a"}
    rows = [(first,), ({**dict.fromkeys(first), "t": "b"},)]
    as_arrow = pa.StructArray.from_arrays(list(columns.values()), names=list(columns))
    as_pandas = pd.DataFrame({name: array.to_pandas() for name, array in columns.items()})
    as_pandas["map"] = [{"k": np.array(["a"], dtype=object)}, None]
    as_pandas["pair"] = [Row(a=np.int32(1), times=np.array([pd.Timestamp(noon), pd.NaT])[:1]), None]

    for batch in (as_arrow, as_pandas):
        assert repr(rows) == repr(read(batch, parameters=(Parameter("content", "content"),)))


def test_arrays_of_times_in_a_struct_are_times() -> None:
    """Of any unit: numpy makes numbers of nanoseconds."""
    noon = datetime(2024, 2, 29, 12)  # noqa: DTZ001 -- as above
    arrays = [np.array([noon, "NaT"], dtype=f"datetime64[{unit}]") for unit in ("us", "ns")]
    lengths = np.array([pd.Timedelta(1, "D")], dtype="timedelta64[ns]")
    parameters = (Parameter("content", "content"),)
    rows = read(pd.DataFrame({"times": arrays, "length": [lengths] * 2}), parameters=parameters)

    assert [({"times": [noon, None], "length": [timedelta(days=1)]},)] * 2 == rows


def test_what_python_lacks_fails_no_batch() -> None:
    """A day after 9999 in a struct is its text in its own zone; broken text in a map of labels is mended."""
    at = pa.array([253_402_329_599 * 10**6], pa.int64()).view(pa.timestamp("us", "America/Los_Angeles"))
    labels = pa.array([[(b"\xff", None)]], pa.map_(pa.binary(), pa.binary())).view(pa.map_(pa.string(), pa.string()))
    parameters = (Parameter("content", "content"), Parameter("labels", "labels"))
    batch = (pa.StructArray.from_arrays([at], names=["at"]), labels)

    assert [({"at": "9999-12-31T23:59:59-08:00"}, [("\N{REPLACEMENT CHARACTER}", None)])] == read(
        batch, parameters=parameters
    )


@pytest.mark.parametrize("as_batch", [arrow, pandas])
def test_a_batch_is_read_in_slices(as_batch: Any) -> None:  # noqa: ANN401 -- a function
    """The slices have all rows, in order."""
    texts = [f"row {number}" for number in range(1_300)]

    assert texts == [row[0] for row in read(as_batch([texts, [["x"]] * 1_300]))]


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        ((pa.array([1]), pa.array([["x"]])), "a string as content; it was called on bigint"),
        ((pa.array(["a"]), pa.array(["x"])), "a list of strings as labels; it was called on string"),
        ((pa.array(["a"]), pa.array([[1]])), "a list of strings as labels"),
        ((pa.array(["a"]), pa.array([["x"]]), pa.array([1.5])), "a whole number as max_words; it was called on double"),
        ((pd.Series([1]), pd.Series([["x"]])), "a string as content; it was called on int"),
        ((pd.Series(["a"]), pd.Series(["x"])), "a list of strings as labels; it was called on str"),
        ((pd.Series(["a"]), pd.Series([np.array([1])])), "a list of strings as labels"),
        ((pd.Series(["a"]), pd.Series([["x"]]), pd.Series([1.5])), "a whole number as max_words"),
        ((pd.Series(["a"]), pd.Series([["x"]]), pd.Series([float("inf")])), "a whole number as max_words"),
        (pa.array(["a"]), "takes content, labels, max_words; it was called on 1 column"),
        (tuple(pa.array(["a"]) for _ in range(4)), "it was called on 4 columns"),
    ],
)
def test_a_wrong_type_raises(batch: Any, found: str) -> None:  # noqa: ANN401 -- of either kind
    """The message has the type that was found and a hint; no request is sent."""
    with pytest.raises(InputTypeError, match=found) as refused:
        read(batch)

    assert str(refused.value).startswith("ai_test takes")
    assert refused.value.hint


def test_a_null_column_may_have_any_type() -> None:
    """So may `NULL` in SQL."""
    assert [(None, None, 50)] == read((pa.nulls(1), pa.nulls(1)))
    assert [(None, None, 50)] == read((pd.Series([None]), pd.Series([None])))
