"""Conversion between Spark's columns and the engine's rows, for Arrow UDFs and for pandas UDFs.

In: a string column, or an array of structs with `role` and `content`. Any other type raises `InputTypeError` at the
first batch, before any request. Out: struct columns, built field by field. Vectors stay float32 bytes and never become
Python numbers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from spark_llm.errors import InputTypeError
from spark_llm.protocol.values import Item, Result
from spark_llm.udf.spark_types import spark_name

SLICE_ROWS = 512  # rows that become Python objects at once
_VALUES = ("parsed", "prediction")  # fields of a result that hold a value of the user's type
_MESSAGE_FIELDS = {"role", "content"}


def arrow_rows(batches: Iterator[pa.Array], *, conversations: bool) -> Iterator[Sequence[Item | None]]:
    """Read Arrow batches as rows, slice by slice; raises `InputTypeError` for a type that is not a prompt's."""
    for batch in batches:
        if not isinstance(batch, pa.Array):
            raise _type_error("several columns", conversations=conversations)
        if not is_prompt_type(batch.type, conversations=conversations):
            raise _type_error(spark_name(batch.type), conversations=conversations)
        for start in range(0, len(batch), SLICE_ROWS):
            yield python_values(batch.slice(start, SLICE_ROWS))


def python_values(array: pa.Array) -> list[Any]:
    """Return texts or conversations as Python objects; bytes that are not UTF-8 become replacement characters."""
    try:
        values: list[Any] = array.to_pylist()
    except UnicodeDecodeError:
        values = _decode(array.view(_as_bytes_type(array.type)).to_pylist())
    return values


def is_prompt_type(data_type: pa.DataType, *, conversations: bool) -> bool:
    """Return whether an Arrow column of this type holds texts or, if these are allowed, conversations."""
    if pa.types.is_null(data_type) or _is_text(data_type):
        return True
    if (
        not conversations
        or not (pa.types.is_list(data_type) or pa.types.is_large_list(data_type))
        or not pa.types.is_struct(data_type.value_type)
    ):
        return False
    fields = list(data_type.value_type)
    return {field.name for field in fields} == _MESSAGE_FIELDS and all(
        _is_text(field.type) or pa.types.is_null(field.type) for field in fields
    )


def _is_text(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_string(data_type) or pa.types.is_large_string(data_type))


def _as_bytes_type(data_type: pa.DataType) -> pa.DataType:
    """Return the type of the same layout with bytes in place of text."""
    if pa.types.is_list(data_type) or pa.types.is_large_list(data_type):
        return (pa.list_ if pa.types.is_list(data_type) else pa.large_list)(
            data_type.value_field.with_type(_as_bytes_type(data_type.value_type))
        )
    if pa.types.is_struct(data_type):
        return pa.struct([field.with_type(_as_bytes_type(field.type)) for field in data_type])
    if pa.types.is_string(data_type):
        return pa.binary()
    return pa.large_binary() if pa.types.is_large_string(data_type) else data_type


def _decode(value: Any) -> Any:  # noqa: ANN401 -- lists, structs and strings alike
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list):
        return [_decode(part) for part in value]
    if isinstance(value, dict):
        return {name: _decode(part) for name, part in value.items()}
    return value


def pandas_rows(batches: Iterator[pd.Series], *, conversations: bool) -> Iterator[Sequence[Item | None]]:
    """Read pandas batches as rows, slice by slice; raises `InputTypeError` as `arrow_rows` does."""
    type_error = partial(_type_error, conversations=conversations)
    for batch in batches:
        if not isinstance(batch, pd.Series):
            raise type_error("several columns")
        if batch.dtype != object and not isinstance(batch.dtype, pd.StringDtype):
            raise type_error(str(batch.dtype))
        for start in range(0, len(batch), SLICE_ROWS):
            cells = batch.iloc[start : start + SLICE_ROWS]
            yield [prompt_from_cell(cell, type_error, conversations=conversations) for cell in cells]


def prompt_from_cell(
    cell: Any,  # noqa: ANN401 -- whatever Spark makes of a cell
    type_error: Callable[[str], InputTypeError],
    *,
    conversations: bool,
) -> Item | None:
    """Return a pandas cell's text or conversation; `type_error` makes the exception for a cell that is neither."""
    if cell is None or isinstance(cell, str):
        return cell
    if cell is pd.NA:
        return None
    if conversations and isinstance(cell, (list, np.ndarray)):
        messages = [message.asDict() if hasattr(message, "asDict") else message for message in cell]
        if all(
            message is None or (isinstance(message, dict) and set(message) == _MESSAGE_FIELDS) for message in messages
        ):
            return messages
    raise type_error(type(cell).__name__)


def _type_error(found: str, *, conversations: bool) -> InputTypeError:
    accepted = "one string column" + (", or one of array<struct<role:string,content:string>>" if conversations else "")
    return InputTypeError(
        f"The UDF takes {accepted}; it was called on {found}.",
        "cast a number or a time with .cast('string'); write an array, a map or a struct with to_json().",
    )


def to_arrow(results: Sequence[Result | None], data_type: pa.StructType) -> pa.StructArray:
    """Convert results to a struct array of this type; None becomes a null struct."""
    fields = list(data_type)
    empty = Result()
    filled = [empty if result is None else result for result in results]
    arrays = [_field_array(field, list(map(attrgetter(field.name), filled))) for field in fields]
    return pa.StructArray.from_arrays(arrays, fields=fields, mask=_nulls(results))


def _field_array(field: pa.Field, values: list[Any]) -> pa.Array:
    if pa.types.is_struct(field.type) and field.name not in _VALUES:  # their values are dicts already
        nulls = _nulls(values)
        if nulls.true_count == len(values):
            return pa.nulls(len(values), field.type)
        columns = zip(*[(None,) * field.type.num_fields if value is None else value for value in values], strict=True)
        arrays = [pa.array(column, part.type) for column, part in zip(columns, field.type, strict=True)]
        return pa.StructArray.from_arrays(arrays, fields=list(field.type), mask=nulls)
    if field.name == "embedding":
        lengths = (0 if value is None else len(value) // 4 for value in values)
        offsets = pa.array(accumulate(lengths, initial=0), pa.int32())
        data = pa.py_buffer(b"".join(value for value in values if value is not None))
        floats = pa.Array.from_buffers(pa.float32(), offsets[-1].as_py(), [None, data])
        return pa.ListArray.from_arrays(offsets, floats, type=field.type, mask=_nulls(values))
    return pa.array(values, field.type)


def _nulls(values: Sequence[object]) -> pa.BooleanArray:
    return pa.array([value is None for value in values], pa.bool_())


def to_pandas(results: Sequence[Result | None], names: Sequence[str]) -> pd.DataFrame:
    """Convert results to a frame with the columns `names`; None becomes a row of nulls."""
    empty = Result()
    filled = [empty if result is None else result for result in results]
    columns = {
        name: pd.Series([_pandas_value(name, getattr(result, name)) for result in filled], dtype=object)
        for name in names
    }
    if "attempts" in columns:
        attempts = [None if result is None else result.attempts for result in results]
        columns["attempts"] = pd.Series(attempts, dtype=object)
    frame: pd.DataFrame = pd.DataFrame(columns)
    return frame


def columns_to_arrow(columns: Sequence[Sequence[Result | None]], data_type: pa.StructType) -> pa.StructArray:
    """Convert the results of several columns to a struct of structs; without columns there are no rows."""
    fields = list(data_type)
    arrays = [
        to_arrow(results, field.type) for results, field in zip(columns or [()] * len(fields), fields, strict=True)
    ]
    return pa.StructArray.from_arrays(arrays, fields=fields)


def columns_to_pandas(columns: Sequence[Sequence[Result | None]], names: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Convert the results of several columns to a frame whose cells are None, or dicts with the keys `names`."""
    cells_of = {}
    for results, (column, fields) in zip(columns, names.items(), strict=True):
        cells = [
            None if result is None else {name: _pandas_value(name, getattr(result, name)) for name in fields}
            for result in results
        ]
        cells_of[column] = pd.Series(cells, dtype=object)
    frame: pd.DataFrame = pd.DataFrame(cells_of)
    return frame


def _pandas_value(name: str, value: Any) -> Any:  # noqa: ANN401 -- any field of a result
    if name in _VALUES:
        return value
    if isinstance(value, bytes):
        return np.frombuffer(value, "<f4")
    return value._asdict() if hasattr(value, "_asdict") else value
