"""Slices of batches: as many rows as become Python objects at once, by number and by bytes.

A batch of 10,000 images has gigabytes, and each of its rows becomes Python objects once more. So the slices of large
values have fewer rows, down to one.

Spark holds what Python does not: a text that is not UTF-8, and a day before the year 1 or after 9999. Only a slice that
has such a value is read value by value.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from spark_llm.protocol.json_codec import write_json

SLICE_ROWS = 512
SLICE_BYTES = 2**20  # of a slice of several rows
LARGE_BATCH_BYTES = 256 * 2**20

_CYCLE_YEARS, _CYCLE_DAYS = 400, 146_097  # after which the calendar and a zone's rules repeat
_PER_DAY = {"s": 86_400, "ms": 86_400 * 10**3, "us": 86_400 * 10**6, "ns": 86_400 * 10**9}
_LAST_YEAR = 9_999  # that ISO 8601 writes without a sign

_logger = logging.getLogger("spark_llm.udf")
_warned_of: set[str] = set()  # this process warned of a large batch


def arrow_slices(columns: Mapping[str, pa.Array]) -> Iterator[dict[str, pa.Array]]:
    """Yield slices of columns of the same length."""

    def size(start: int, end: int) -> int:
        return sum(column.slice(start, end - start).nbytes for column in columns.values())

    rows = len(next(iter(columns.values())))
    for start, end in _spans(rows, size):
        yield {name: column.slice(start, end - start) for name, column in columns.items()}


def pandas_slices(columns: Mapping[str, pd.Series]) -> Iterator[dict[str, pd.Series]]:
    """Yield slices of columns of the same length."""
    rows = len(next(iter(columns.values())))
    sizes = (sum(map(_cell_bytes, cells)) for cells in zip(*columns.values(), strict=True))
    ends = list(accumulate(sizes, initial=0))
    for start, end in _spans(rows, lambda start, end: ends[end] - ends[start]):
        yield {name: column.iloc[start:end] for name, column in columns.items()}


def python_values(array: pa.Array) -> list[Any]:
    """Return values as Python objects.

    Texts that are not UTF-8 get replacement characters. A date or a time beyond Python's years is its text in ISO 8601.
    """
    try:
        values: list[Any] = array.to_pylist()
    except (UnicodeDecodeError, OverflowError):
        raw = array.view(_raw_type(array.type)).to_pylist()
        return [_value(value, array.type) for value in raw]
    return values


def is_text(data_type: pa.DataType) -> bool:
    """Return whether an Arrow type is that of texts."""
    return bool(pa.types.is_string(data_type) or pa.types.is_large_string(data_type))


def is_binary(data_type: pa.DataType) -> bool:
    """Return whether an Arrow type is that of bytes."""
    return bool(pa.types.is_binary(data_type) or pa.types.is_large_binary(data_type))


def is_list(data_type: pa.DataType) -> bool:
    """Return whether an Arrow type is that of lists."""
    return bool(pa.types.is_list(data_type) or pa.types.is_large_list(data_type))


def _spans(rows: int, size: Callable[[int, int], int]) -> Iterator[tuple[int, int]]:
    """Yield where each slice begins and ends; `size` returns the bytes of the rows between two such numbers."""
    if size(0, rows) > LARGE_BATCH_BYTES:
        _warn_of_large_batch(rows, size(0, rows))
    waiting = [(start, min(start + SLICE_ROWS, rows)) for start in range(0, rows, SLICE_ROWS)][::-1]
    while waiting:
        start, end = waiting.pop()
        if end - start > 1 and size(start, end) > SLICE_BYTES:
            middle = (start + end) // 2
            waiting += [(middle, end), (start, middle)]
        else:
            yield start, end


def _warn_of_large_batch(rows: int, size: int) -> None:
    if not _warned_of:
        _warned_of.add("large batches")
        _logger.warning(
            "an Arrow batch of %d rows has %d MB, which this worker holds at once. Hint: set "
            "spark.sql.execution.arrow.maxRecordsPerBatch to 4 for images of some MB, or from Spark 4.1 on "
            "spark.sql.execution.arrow.maxBytesPerBatch.",
            rows,
            size // 2**20,
        )


def _cell_bytes(cell: Any) -> int:  # noqa: ANN401 -- whatever Spark makes of a cell
    """Return about how many bytes a cell's texts and bytes have."""
    if isinstance(cell, (str, bytes)):
        return len(cell)
    if isinstance(cell, (list, tuple, np.ndarray)):  # a Row is a tuple
        return sum(map(_cell_bytes, cell))
    return sum(map(_cell_bytes, cell.values())) if isinstance(cell, dict) else 0


def _raw_type(data_type: pa.DataType) -> pa.DataType:
    """Return the type of the same layout with bytes in place of text, and counts in place of dates and times."""
    if is_list(data_type):
        return (pa.list_ if pa.types.is_list(data_type) else pa.large_list)(
            data_type.value_field.with_type(_raw_type(data_type.value_type))
        )
    if pa.types.is_struct(data_type):
        return pa.struct([field.with_type(_raw_type(field.type)) for field in data_type])
    if pa.types.is_map(data_type):
        key, item = data_type.key_field, data_type.item_field
        return pa.map_(key.with_type(_raw_type(key.type)), item.with_type(_raw_type(item.type)))
    if is_text(data_type):
        return pa.binary() if pa.types.is_string(data_type) else pa.large_binary()
    if pa.types.is_timestamp(data_type):
        return pa.int64()
    return pa.int32() if pa.types.is_date32(data_type) else data_type


def _value(raw: Any, data_type: pa.DataType) -> Any:  # noqa: ANN401, PLR0911 -- lists, maps, structs and scalars alike
    """Return the value of a type that is read as its `_raw_type`."""
    if raw is None:
        return None
    if is_text(data_type):
        return raw.decode("utf-8", "replace")
    if is_list(data_type):
        return [_value(part, data_type.value_type) for part in raw]
    if pa.types.is_struct(data_type):
        return {field.name: _value(raw[field.name], field.type) for field in data_type}
    if pa.types.is_map(data_type):
        return [(_value(key, data_type.key_type), _value(item, data_type.item_type)) for key, item in raw]
    if pa.types.is_timestamp(data_type) or pa.types.is_date32(data_type):
        try:
            return pa.scalar(raw, data_type).as_py()
        except OverflowError:
            return _iso_text(raw, data_type)
    return raw


def _iso_text(count: int, data_type: pa.DataType) -> str:
    """Return a date or a time of any year as JSON has those of Python's years; one after 9999 has a sign, as in Spark.

    It is the text of the same day some cycles of the calendar away, with another year: in the past where the zone had
    not yet its rules of today.
    """
    cycle = _CYCLE_DAYS * (_PER_DAY[data_type.unit] if pa.types.is_timestamp(data_type) else 1)
    near = 0 if count >= 0 else -4  # cycles from 1970
    cycles, rest = divmod(count, cycle)
    text = write_json(pa.scalar(rest + near * cycle, data_type).as_py()).decode()[1:-1]
    year = int(text[:4]) + (cycles - near) * _CYCLE_YEARS
    sign = "-" if year < 0 else "+" if year > _LAST_YEAR else ""
    return f"{sign}{abs(year):04}{text[4:]}"
