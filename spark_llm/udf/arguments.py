"""Arguments of a function of several columns, read from Arrow and from pandas, slice by slice.

A column of the wrong type raises `InputTypeError` at the first batch, before any request.
"""

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from spark_llm.errors import InputTypeError
from spark_llm.udf.columns import is_prompt_type, prompt_from_cell
from spark_llm.udf.conversations import lists_and_dicts
from spark_llm.udf.input_rows import plain_values
from spark_llm.udf.slices import arrow_slices, is_binary, is_list, pandas_slices, python_values
from spark_llm.udf.spark_types import spark_name
from spark_llm.validation.parameter import PARAMETER_KINDS, Parameter, ParameterKind

Columns = list[Sequence[Any]]  # one for each parameter, with Python's values
_MAX_WHOLE = 2**53  # up to which a float has each whole number


_LIST = "write it as array('one', 'another')."
_TYPE_HINTS: dict[ParameterKind, str] = {
    "texts": _LIST,
    "labels": _LIST,
    "descriptions": "write it as map('one', 'its description').",
    "examples": "write it as array(struct('a text' AS content, 'one' AS label)).",
}


class Arguments:
    """Reader of a function's arguments; `function` is its name in SQL."""

    def __init__(self, function: str, parameters: Sequence[Parameter]) -> None:
        """Keep the parameters; a call may leave out the last ones that have a default."""
        self._function = function
        self._parameters = parameters

    def arrow(self, batches: Iterator[pa.Array | tuple[pa.Array, ...]]) -> Iterator[Columns]:
        """Read Arrow arrays."""
        for batch in batches:
            arrays = self._check_count(batch if isinstance(batch, tuple) else (batch,))
            for parameter, array in zip(self._parameters, arrays, strict=False):
                if not _is_of_kind(array.type, parameter.kind):
                    raise self._type_error(parameter, spark_name(array.type))
            columns = {parameter.name: array for parameter, array in zip(self._parameters, arrays, strict=False)}
            for part in arrow_slices(columns):
                columns_of_part = zip(self._parameters, part.values(), strict=False)
                yield self._with_defaults([_values(parameter.kind, array) for parameter, array in columns_of_part])

    def pandas(self, batches: Iterator[Any]) -> Iterator[Columns]:
        """Read pandas series, one or a tuple of them."""
        for batch in batches:
            columns = self._check_count(batch if isinstance(batch, tuple) else (batch,))
            named = {}
            for parameter, column in zip(self._parameters, columns, strict=False):
                is_struct = isinstance(column, pd.DataFrame)
                if is_struct and parameter.kind != "content":
                    raise self._type_error(parameter, "a struct")
                named[parameter.name] = pd.Series(_structs(column), dtype=object) if is_struct else column
            for part in pandas_slices(named):
                yield self._with_defaults(
                    [
                        [self._value_of(parameter, cell) for cell in part[parameter.name]]
                        for parameter in self._parameters[: len(part)]
                    ]
                )

    def _check_count(self, columns: tuple[Any, ...]) -> tuple[Any, ...]:
        required = sum(parameter.default is None for parameter in self._parameters)
        if not required <= len(columns) <= len(self._parameters):
            raise InputTypeError(
                f"{self._function} takes {', '.join(parameter.name for parameter in self._parameters)}; it was called"
                f" on {len(columns)} column{'s' * (len(columns) > 1)}.",
                "pass the arguments in this order.",
            )
        return columns

    def _with_defaults(self, columns: list[Sequence[Any]]) -> Columns:
        """Return a column for each parameter; one that the call left out repeats its default."""
        rows = len(columns[0])
        return [
            [parameter.default] * rows if column is None else column
            for parameter, column in zip_longest(self._parameters, columns)
        ]

    def _value_of(self, parameter: Parameter, cell: Any) -> Any:  # noqa: ANN401, PLR0911 -- whatever Spark makes of a cell, by kind
        """Return a pandas cell as a Python value of the parameter's kind."""
        type_error = partial(self._type_error, parameter)
        if parameter.kind == "content" and isinstance(cell, dict):
            return lists_and_dicts(cell, _plain)
        if parameter.kind in {"text", "content"}:
            return prompt_from_cell(cell, type_error, conversations=False)
        if cell is None or cell is pd.NA or (isinstance(cell, float) and np.isnan(cell)):
            return None
        if parameter.kind == "whole" and isinstance(cell, (int, float, np.integer)) and float(cell).is_integer():
            return int(cell)  # pandas turns whole numbers into floats if a null is among them
        if parameter.kind == "number" and isinstance(cell, (int, float, Decimal, np.number)):
            return float(cell)
        if parameter.kind == "file" and isinstance(cell, (bytes, bytearray)):
            return bytes(cell)
        if parameter.kind == "flag" and isinstance(cell, (bool, np.bool_)):
            return bool(cell)
        if parameter.kind in {"texts", "labels", "descriptions", "examples"}:
            value = lists_and_dicts(cell)
            if _LIST_TESTS[parameter.kind](value):
                return list(value.items()) if isinstance(value, dict) else value
        raise type_error(type(cell).__name__)

    def _type_error(self, parameter: Parameter, found: str) -> InputTypeError:
        return InputTypeError(
            f"{self._function} takes {PARAMETER_KINDS[parameter.kind]} as {parameter.name}; it was called on {found}.",
            _TYPE_HINTS.get(parameter.kind, "cast it, or pass another column."),
        )


def _values(kind: str, array: pa.Array) -> list[Any]:
    if kind == "content":
        return plain_values(array)
    values = python_values(array)
    return [None if value is None else float(value) for value in values] if kind == "number" else values


def _structs(frame: pd.DataFrame) -> list[dict[str, Any] | None]:
    """Return the rows of a frame; None where all is null, as a null struct is."""
    columns = {name: _whole(frame[name]) for name in frame}
    rows = pd.DataFrame(columns).astype(object).where(frame.notna(), None).to_dict("records")
    return [None if all(value is None for value in row.values()) else dict(row) for row in rows]


def _whole(column: pd.Series) -> pd.Series:
    """Return whole numbers that pandas made floats, because a null is among them, as whole numbers."""
    if column.dtype.kind != "f" or not column.hasnans:
        return column
    numbers = column.dropna()
    return column.astype("Int64") if ((numbers % 1 == 0) & (numbers.abs() <= _MAX_WHOLE)).all() else column


def _plain(value: Any) -> Any:  # noqa: ANN401 -- whatever pandas has in a cell
    """Return a value of Python's own, as Arrow gives it."""
    if isinstance(value, np.datetime64):  # numpy would make numbers of nanoseconds
        value = pd.Timestamp(value)
    elif isinstance(value, np.timedelta64):
        value = pd.Timedelta(value)
    if isinstance(value, np.generic):
        return value.item()
    if value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, pd.Timedelta):
        return value.to_pytimedelta()
    return value.to_pydatetime() if isinstance(value, pd.Timestamp) else value


def _is_of_kind(data_type: pa.DataType, kind: ParameterKind) -> bool:
    return bool(pa.types.is_null(data_type)) or _ARROW_TYPES[kind](data_type)


def _is_number(data_type: pa.DataType) -> bool:
    return any(is_it(data_type) for is_it in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal))


def _is_map(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_map(data_type)) and _is_text(data_type.key_type) and _is_text(data_type.item_type)


def _is_texts(data_type: pa.DataType) -> bool:
    return is_list(data_type) and _is_text(data_type.value_type)


def _is_examples(data_type: pa.DataType) -> bool:
    if not is_list(data_type) or pa.types.is_null(data_type.value_type):
        return is_list(data_type)
    example = data_type.value_type
    fields = {field.name: field.type for field in example} if pa.types.is_struct(example) else {}
    return fields.keys() == {"content", "label"} and all(map(_is_text, fields.values()))


def _are_texts(cell: object) -> bool:
    return isinstance(cell, list) and all(text is None or isinstance(text, str) for text in cell)


def _is_mapping(cell: object) -> bool:
    return isinstance(cell, dict) and _are_texts([*cell, *cell.values()])


def _are_examples(cell: object) -> bool:
    return isinstance(cell, list) and all(
        each is None or (_is_mapping(each) and each.keys() == {"content", "label"}) for each in cell
    )


_LIST_TESTS: dict[str, Callable[[object], bool]] = {
    "texts": _are_texts,
    "labels": lambda cell: _are_texts(cell) or _is_mapping(cell),
    "descriptions": _is_mapping,
    "examples": _are_examples,
}
_is_text = partial(is_prompt_type, conversations=False)
_ARROW_TYPES: dict[ParameterKind, Callable[[pa.DataType], bool]] = {
    "text": _is_text,
    "content": lambda data_type: _is_text(data_type) or bool(pa.types.is_struct(data_type)),
    "texts": _is_texts,
    "labels": lambda data_type: _is_texts(data_type) or _is_map(data_type),
    "descriptions": _is_map,
    "examples": _is_examples,
    "flag": lambda data_type: bool(pa.types.is_boolean(data_type)),
    "whole": lambda data_type: bool(pa.types.is_integer(data_type)),
    "number": _is_number,
    "file": is_binary,
}
