"""The columns of a custom model as rows of JSON, read from Arrow and from pandas, slice by slice.

In: a column of any type that JSON can hold, or a struct, whose fields are the model's columns. Any other type raises
`InputTypeError` at the first batch, before any request. Out: the JSON of each row, or None for a row that is null: its
struct is, or all of its columns are. A null beside other values is sent as null, and so are NaN and the infinities,
which JSON lacks.

Columns become Python values and rows become JSON a slice at a time: no code of ours runs for a row.
"""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from spark_llm.errors import InputTypeError
from spark_llm.protocol.json_codec import write_rows
from spark_llm.protocol.predictions.task import Predict
from spark_llm.udf.slices import arrow_slices, pandas_slices, python_values
from spark_llm.udf.spark_types import spark_name

_UTC = pa.timestamp("us", "UTC")
_INTERVAL = "interval day to second"
_SCALARS = (
    *(pa.types.is_null, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary),
    *(pa.types.is_date, pa.types.is_timestamp),
)


def column_names(batch: Any) -> tuple[str, ...]:  # noqa: ANN401 -- what Spark makes of a column
    """Return the names of the columns in a batch: those of a struct's fields; none for one column without a name."""
    if isinstance(batch, pa.Array) and pa.types.is_struct(batch.type):
        return tuple(field.name for field in batch.type)
    return tuple(map(str, batch.columns)) if isinstance(batch, pd.DataFrame) else ()


def arrow_input_rows(batches: Iterator[Any], task: Predict) -> Iterator[list[bytes | None]]:
    """Read Arrow batches as rows of JSON for a task, which has the names of the columns."""
    for batch in batches:
        if not isinstance(batch, pa.Array):
            raise _columns_error()
        _check(batch.type)
        fields = dict(zip(task.columns, batch.flatten(), strict=True)) if task.columns else {"": batch}
        for columns in arrow_slices({name: _in_utc(field) for name, field in fields.items()}):
            slices = list(columns.values())
            nulls = [each.is_null() for each in slices] if all(each.null_count for each in slices) else []
            yield _rows(task, list(map(plain_values, slices)), reduce(pc.and_, nulls).to_pylist() if nulls else None)
        del batch, fields  # their memory is free before the next ones are read


def _check(data_type: pa.DataType) -> None:
    """Raise `InputTypeError` for a type that JSON cannot hold."""
    if pa.types.is_map(data_type):
        parts = [data_type.item_type]
        supported = pa.types.is_string(data_type.key_type)
    elif pa.types.is_list(data_type) or pa.types.is_large_list(data_type):
        parts, supported = [data_type.value_type], True
    elif pa.types.is_struct(data_type):
        _check_names([field.name for field in data_type])
        parts = [field.type for field in data_type]
        supported = spark_name(data_type) != "variant"
    else:
        parts, supported = [], any(is_of_kind(data_type) for is_of_kind in _SCALARS)
    if not supported:
        raise _type_error(spark_name(data_type))
    for part in parts:
        _check(part)


def _check_names(names: Sequence[str]) -> None:
    """Raise `InputTypeError` for a name that two fields of a struct have: one of them would be lost."""
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputTypeError(
            f"predict_udf was called on a struct with two fields {twice[0]!r}.", "rename one, or leave it out."
        )


def _in_utc(column: pa.Array) -> pa.Array:
    """Return the column with its times in UTC."""
    wanted = _utc_type(column.type)
    return column if wanted == column.type else column.cast(wanted)


def _utc_type(data_type: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(data_type):
        return _UTC if data_type.tz is not None else data_type
    if pa.types.is_list(data_type):
        return pa.list_(data_type.value_field.with_type(_utc_type(data_type.value_type)))
    if pa.types.is_struct(data_type):
        return pa.struct([field.with_type(_utc_type(field.type)) for field in data_type])
    if pa.types.is_map(data_type):
        return pa.map_(data_type.key_field, data_type.item_field.with_type(_utc_type(data_type.item_type)))
    return data_type


def plain_values(column: pa.Array) -> list[Any]:
    """Return the values of a column as Python objects that JSON holds; maps, which Arrow has as pairs, are dicts."""
    values = python_values(column)
    return [_without_pairs(value, column.type) for value in values] if _has_map(column.type) else values


def _has_map(data_type: pa.DataType) -> bool:
    if pa.types.is_struct(data_type):
        return any(_has_map(field.type) for field in data_type)
    if pa.types.is_list(data_type) or pa.types.is_large_list(data_type):
        return _has_map(data_type.value_type)
    return bool(pa.types.is_map(data_type))


def _without_pairs(value: Any, data_type: pa.DataType) -> Any:  # noqa: ANN401 -- a value of any type
    """Return a value whose maps, which Arrow has as lists of pairs, are dicts."""
    if value is None or not _has_map(data_type):
        return value
    if pa.types.is_map(data_type):
        return {key: _without_pairs(each, data_type.item_type) for key, each in value}
    if pa.types.is_struct(data_type):
        return {field.name: _without_pairs(value[field.name], field.type) for field in data_type}
    return [_without_pairs(each, data_type.value_type) for each in value]


def pandas_input_rows(batches: Iterator[Any], task: Predict, time_zone: str) -> Iterator[list[bytes | None]]:
    """Read pandas batches as rows of JSON; Spark gives their times as clocks in the session's `time_zone` show them.

    NaN in a column of floats stands for a null too, so it counts as one.
    """
    for batch in batches:
        if not isinstance(batch, (pd.Series, pd.DataFrame)):
            raise _columns_error()
        _check_names(column_names(batch))
        frame = batch if isinstance(batch, pd.DataFrame) else batch.to_frame()
        for columns in pandas_slices({str(name): frame[name] for name in frame}):
            nulls = pd.DataFrame(columns).isna().all(axis=1)
            values = [_pandas_values(column, time_zone) for column in columns.values()]
            yield _rows(task, values, nulls.tolist() if bool(nulls.any()) else None)
        del batch, frame  # as above


def _pandas_values(column: pd.Series, time_zone: str) -> list[Any]:
    if isinstance(column.dtype, np.dtype) and column.dtype.kind == "m":
        raise _type_error(_INTERVAL)
    if isinstance(column.dtype, np.dtype) and column.dtype.kind == "M":
        clocks = column.dt.as_unit("us")  # the last nanoseconds would overflow in another zone
        there = clocks.dt.tz_localize(time_zone, ambiguous=np.ones(len(column), bool), nonexistent="shift_forward")
        return python_values(pa.Array.from_pandas(there, type=_UTC))
    if column.dtype == object or not isinstance(column.dtype, np.dtype):
        return [_plain(cell, time_zone) for cell in column]
    values: list[Any] = column.tolist()
    return values


def _plain(cell: Any, time_zone: str) -> Any:  # noqa: ANN401 -- whatever Spark makes of a cell
    """Return a cell of pandas as Python objects that JSON holds; raises `InputTypeError` where there are none."""
    if cell is None or cell is pd.NA or cell is pd.NaT:
        return None
    if isinstance(cell, np.ndarray):  # numpy would make numbers of nanoseconds
        cell = pd.Series(cell).tolist() if cell.dtype.kind in "mM" else cell.tolist()
    if hasattr(cell, "asDict"):  # a Row
        cell = cell.asDict()
    if isinstance(cell, (list, tuple)):
        return [_plain(part, time_zone) for part in cell]
    if isinstance(cell, dict):
        if other := {type(key).__name__ for key in cell if not isinstance(key, str)}:
            raise _type_error(f"a map with keys of {min(other)}")
        return {key: _plain(part, time_zone) for key, part in cell.items()}
    if isinstance(cell, np.generic):
        return cell.item()
    if isinstance(cell, pd.Timestamp):  # as a column of times, without its zone
        clock = cell.as_unit("us")
        there = clock.tz_localize(time_zone, ambiguous=True, nonexistent="shift_forward") if cell.tz is None else clock
        return python_values(pa.array([int(there.asm8.astype("int64"))], _UTC))[0]  # asm8 is in UTC
    if isinstance(cell, (str, bool, int, float, bytes, bytearray, date)) or type(cell).__name__ == "Decimal":
        return cell
    raise _type_error(_INTERVAL if isinstance(cell, timedelta) else type(cell).__name__)


def _rows(task: Predict, columns: Sequence[list[Any]], nulls: Sequence[bool] | None) -> list[bytes | None]:
    """Return the JSON of each row as the task's format has it; None for those that are null."""
    rows: Sequence[Any]
    if task.format == "instances" and task.columns:
        rows = [dict(zip(task.columns, row, strict=True)) for row in zip(*columns, strict=True)]
    elif task.columns or task.format == "dataframe_split":
        rows = list(zip(*columns, strict=True))
    else:
        rows = columns[0]
    written: list[bytes | None] = list(write_rows(rows))
    if nulls is not None:
        written = [None if is_null else row for row, is_null in zip(written, nulls, strict=True)]
    return written


def _columns_error() -> InputTypeError:
    return InputTypeError(
        "predict_udf takes one column, which may be a struct; it was called on several.",
        'name them in the call, as in predict(age="age", text="review"), or in SQL put them into struct(…).',
    )


def _type_error(found: str) -> InputTypeError:
    return InputTypeError(
        f"predict_udf was called on {found}, which a model's JSON cannot hold.",
        "cast it to a string or a number; keys of a map are strings.",
    )
