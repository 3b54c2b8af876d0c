"""Between Spark's columns and the engine's rows, for Arrow UDFs and for pandas UDFs.

In: a string column, or an array of structs with `role` and `content`; any other type is refused at the first batch,
before anything is asked. Out: struct columns, built field by field; vectors are laid end to end as they came, float32,
without becoming Python numbers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from spark_llm.errors import InputTypeError
from spark_llm.protocol.values import Item, Result
from spark_llm.udf.spark_types import spark_name

SLICE_ROWS = 512  # rows made into Python objects at once
_MESSAGE = {"role", "content"}


def arrow_rows(batches: Iterator[pa.Array], *, conversations: bool) -> Iterator[Sequence[Item | None]]:
    """Read Arrow batches as rows, slice by slice."""
    for batch in batches:
        if not isinstance(batch, pa.Array):
            raise _wrong_type("several columns", conversations=conversations)
        if not askable(batch.type, conversations=conversations):
            raise _wrong_type(spark_name(batch.type), conversations=conversations)
        for start in range(0, len(batch), SLICE_ROWS):
            yield python_values(batch.slice(start, SLICE_ROWS))


def python_values(piece: pa.Array) -> list[Any]:
    """Return texts or conversations as Python objects. Bytes that are no UTF-8 become replacement characters."""
    try:
        values: list[Any] = piece.to_pylist()
    except UnicodeDecodeError:
        values = _decoded(piece.view(_as_bytes(piece.type)).to_pylist())
    return values


def askable(kind: pa.DataType, *, conversations: bool) -> bool:
    """Return whether an Arrow column of this type holds texts, or conversations where they may be."""
    if pa.types.is_null(kind) or _is_text(kind):
        return True
    if (
        not conversations
        or not (pa.types.is_list(kind) or pa.types.is_large_list(kind))
        or not pa.types.is_struct(kind.value_type)
    ):
        return False
    fields = list(kind.value_type)
    return {field.name for field in fields} == _MESSAGE and all(
        _is_text(field.type) or pa.types.is_null(field.type) for field in fields
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _as_bytes(kind: pa.DataType) -> pa.DataType:
    """Return the type of the same layout with bytes in place of text."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return (pa.list_ if pa.types.is_list(kind) else pa.large_list)(
            kind.value_field.with_type(_as_bytes(kind.value_type))
        )
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_as_bytes(field.type)) for field in kind])
    return pa.binary() if pa.types.is_string(kind) else pa.large_binary() if pa.types.is_large_string(kind) else kind


def _decoded(value: Any) -> Any:  # noqa: ANN401 -- lists, structs and strings alike
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list):
        return [_decoded(part) for part in value]
    if isinstance(value, dict):
        return {name: _decoded(part) for name, part in value.items()}
    return value


def pandas_rows(batches: Iterator[pd.Series], *, conversations: bool) -> Iterator[Sequence[Item | None]]:
    """Read pandas batches as rows, slice by slice."""
    wrong_type = partial(_wrong_type, conversations=conversations)
    for batch in batches:
        if not isinstance(batch, pd.Series):
            raise wrong_type("several columns")
        if batch.dtype != object and not isinstance(batch.dtype, pd.StringDtype):
            raise wrong_type(str(batch.dtype))
        for start in range(0, len(batch), SLICE_ROWS):
            piece = batch.iloc[start : start + SLICE_ROWS]
            yield [from_pandas(value, wrong_type, conversations=conversations) for value in piece]


def from_pandas(
    value: Any,  # noqa: ANN401 -- whatever Spark makes of a cell
    wrong_type: Callable[[str], InputTypeError],
    *,
    conversations: bool,
) -> Item | None:
    """Return a cell's text or conversation; `wrong_type` makes the exception for a cell that is neither."""
    if value is None or isinstance(value, str):
        return value
    if value is pd.NA:
        return None
    if conversations and isinstance(value, (list, np.ndarray)):
        messages = [message.asDict() if hasattr(message, "asDict") else message for message in value]
        if all(message is None or (isinstance(message, dict) and set(message) == _MESSAGE) for message in messages):
            return messages
    raise wrong_type(type(value).__name__)


def _wrong_type(found: str, *, conversations: bool) -> InputTypeError:
    takes = "one string column" + (", or one of array<struct<role:string,content:string>>" if conversations else "")
    return InputTypeError(
        f"The UDF takes {takes}; it was called on {found}.",
        "cast a number or a time with .cast('string'); write an array, a map or a struct with to_json().",
    )


def to_arrow(results: Sequence[Result | None], kind: pa.StructType) -> pa.StructArray:
    """Lay results out as a struct array of type `kind`; None becomes a null struct."""
    fields = list(kind)
    blank = Result()
    filled = [blank if result is None else result for result in results]
    arrays = [_field(field, [getattr(result, field.name) for result in filled]) for field in fields]
    return pa.StructArray.from_arrays(
        arrays, fields=fields, mask=pa.array([result is None for result in results], pa.bool_())
    )


def _field(field: pa.Field, values: list[Any]) -> pa.Array:
    if pa.types.is_struct(field.type) and field.name != "parsed":  # that is a dict already, whatever its depth
        nulls = [value is None for value in values]
        if all(nulls):
            return pa.nulls(len(values), field.type)
        columns = zip(*[(None,) * field.type.num_fields if value is None else value for value in values], strict=True)
        arrays = [pa.array(column, part.type) for column, part in zip(columns, field.type, strict=True)]
        return pa.StructArray.from_arrays(arrays, fields=list(field.type), mask=pa.array(nulls, pa.bool_()))
    if field.name == "embedding":
        lengths = (0 if value is None else len(value) // 4 for value in values)
        offsets = pa.array(accumulate(lengths, initial=0), pa.int32())
        floats = pa.Array.from_buffers(
            pa.float32(),
            offsets[-1].as_py(),
            [None, pa.py_buffer(b"".join(value for value in values if value is not None))],
        )
        return pa.ListArray.from_arrays(
            offsets, floats, type=field.type, mask=pa.array([value is None for value in values], pa.bool_())
        )
    return pa.array(values, field.type)


def to_pandas(results: Sequence[Result | None], names: Sequence[str]) -> pd.DataFrame:
    """Lay results out as a frame with the columns `names`; None becomes a row of nulls."""
    blank = Result()
    filled = [blank if result is None else result for result in results]
    columns = {
        name: pd.Series([_to_pandas(getattr(result, name)) for result in filled], dtype=object) for name in names
    }
    if "attempts" in columns:
        columns["attempts"] = pd.Series(
            [None if result is None else result.attempts for result in results], dtype=object
        )
    frame: pd.DataFrame = pd.DataFrame(columns)
    return frame


def columns_to_arrow(columns: Sequence[Sequence[Result | None]], kind: pa.StructType) -> pa.StructArray:
    """Lay the results of several columns out as a struct of structs; without columns there are no rows."""
    fields = list(kind)
    arrays = [
        to_arrow(results, field.type) for results, field in zip(columns or [()] * len(fields), fields, strict=True)
    ]
    return pa.StructArray.from_arrays(arrays, fields=fields)


def columns_to_pandas(columns: Sequence[Sequence[Result | None]], names: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Lay the results of several columns out as a frame whose cells are dicts with the keys `names`, or None."""
    frame: pd.DataFrame = pd.DataFrame(
        {
            column: pd.Series([None if result is None else _cell(result, parts) for result in results], dtype=object)
            for results, (column, parts) in zip(columns, names.items(), strict=True)
        }
    )
    return frame


def _cell(result: Result, names: Sequence[str]) -> dict[str, Any]:
    return {name: _to_pandas(getattr(result, name)) for name in names}


def _to_pandas(value: Any) -> Any:  # noqa: ANN401 -- any field of a result
    if isinstance(value, bytes):
        return np.frombuffer(value, "<f4")
    return value._asdict() if hasattr(value, "_asdict") else value
