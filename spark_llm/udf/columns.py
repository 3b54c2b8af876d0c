"""Conversion between Spark's columns and the engine's rows, for Arrow UDFs and for pandas UDFs.

In: a string column, or one of conversations. Any other type raises `InputTypeError` at the first batch, before any
request. Out: struct columns, built field by field. Vectors stay float32 bytes and never become Python numbers.
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
from spark_llm.protocol.values import Result, Row
from spark_llm.udf.conversations import (
    CONVERSATION_TYPE,
    MESSAGE_HINT,
    conversation_row,
    is_conversation,
    is_conversation_type,
    lists_and_dicts,
)
from spark_llm.udf.slices import arrow_slices, is_list, is_text, pandas_slices, python_values
from spark_llm.udf.spark_types import spark_name

_NAN = np.float32("nan")  # a null is made of one of Python's own
_VALUES = ("parsed", "prediction")  # fields of a result that hold a value of the user's type
_ARRAY_NAMES = ("array<", "list", "ndarray")
_BINARY_NAMES = ("binary", "bytes", "bytearray")
_CASTS = "cast a number or a time with .cast('string'); write an array, a map or a struct with to_json()."


class _NoResult:
    """Stands for the result of a null; every field is null, whatever kind of result the others are."""

    def __getattr__(self, name: str) -> None:
        return None


_NO_RESULT: Any = _NoResult()


def arrow_rows(batches: Iterator[pa.Array], *, conversations: bool) -> Iterator[Sequence[Row]]:
    """Read Arrow batches as rows, slice by slice; raises `InputTypeError` for a type that is not a prompt's."""
    for batch in batches:
        if not isinstance(batch, pa.Array):
            raise _type_error("several columns", conversations=conversations)
        if not is_prompt_type(batch.type, conversations=conversations):
            raise _type_error(spark_name(batch.type), conversations=conversations)
        yield from (prompts_of(columns[""]) for columns in arrow_slices({"": batch}))
        del batch  # its memory is free before the next one is read


def prompts_of(array: pa.Array) -> list[Row]:
    """Return the texts or conversations of an Arrow array whose type is a prompt's."""
    values = python_values(array)
    if is_list(array.type):
        return [None if value is None else conversation_row(value) for value in values]
    return values


def is_prompt_type(data_type: pa.DataType, *, conversations: bool) -> bool:
    """Return whether an Arrow column of this type holds texts or, if these are allowed, conversations."""
    return (
        bool(pa.types.is_null(data_type)) or is_text(data_type) or (conversations and is_conversation_type(data_type))
    )


def pandas_rows(batches: Iterator[pd.Series], *, conversations: bool) -> Iterator[Sequence[Row]]:
    """Read pandas batches as rows, slice by slice; raises `InputTypeError` as `arrow_rows` does."""
    type_error = partial(_type_error, conversations=conversations)
    for batch in batches:
        if not isinstance(batch, pd.Series):
            raise type_error("several columns")
        if batch.dtype != object and not isinstance(batch.dtype, pd.StringDtype):
            raise type_error(str(batch.dtype))
        yield from (
            [prompt_from_cell(cell, type_error, conversations=conversations) for cell in columns[""]]
            for columns in pandas_slices({"": batch})
        )
        del batch  # as above


def prompt_from_cell(
    cell: Any,  # noqa: ANN401 -- whatever Spark makes of a cell
    type_error: Callable[[str], InputTypeError],
    *,
    conversations: bool,
) -> Row:
    """Return a pandas cell's text or conversation; `type_error` makes the exception for a cell that is neither."""
    if cell is None or isinstance(cell, str):
        return cell
    if cell is pd.NA:
        return None
    if conversations and isinstance(cell, (list, np.ndarray)):
        messages = lists_and_dicts(cell)
        if is_conversation(messages):
            return conversation_row(messages)
    raise type_error(type(cell).__name__)


def hint_for(found: str, otherwise: str, *, conversations: bool) -> str:
    """Return the hint for a column of the wrong type: for bytes where to put them, for an array what a message has."""
    if conversations and found.startswith(_ARRAY_NAMES):
        return MESSAGE_HINT
    if found not in _BINARY_NAMES:
        return otherwise
    return 'chat_udf takes images, PDFs and audio in a field of its template, as in template="What is this? {photo}".'


def _type_error(found: str, *, conversations: bool) -> InputTypeError:
    accepted = f"one string column{f', or one of {CONVERSATION_TYPE}' if conversations else ''}"
    return InputTypeError(
        f"The UDF takes {accepted}; it was called on {found}.",
        hint_for(found, _CASTS, conversations=conversations),
    )


def to_arrow(results: Sequence[Result | None], data_type: pa.StructType) -> pa.StructArray:
    """Convert results to a struct array of this type; None becomes a null struct."""
    fields = list(data_type)
    filled = [_NO_RESULT if result is None else result for result in results]
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
    filled = [_NO_RESULT if result is None else result for result in results]
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
        return _with_nan(value) if name == "prediction" else value
    if isinstance(value, bytes):
        return np.frombuffer(value, "<f4")
    return value._asdict() if hasattr(value, "_asdict") else value


def _with_nan(value: Any) -> Any:  # noqa: ANN401 -- any prediction
    """Return a value in which NaN stays NaN where Spark makes Arrow of pandas."""
    if isinstance(value, list):
        return [_with_nan(part) for part in value]
    if isinstance(value, dict):
        return {name: _with_nan(part) for name, part in value.items()}
    return _NAN if isinstance(value, float) and value != value else value  # noqa: PLR0124 -- NaN alone differs from itself
