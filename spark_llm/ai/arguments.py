"""Arguments of a function of several columns, read from Arrow and from pandas, slice by slice.

A column of the wrong type raises `InputTypeError` at the first batch, before any request.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from spark_llm.ai.catalog import PARAMETER_KINDS, Parameter
from spark_llm.errors import InputTypeError
from spark_llm.udf.columns import is_prompt_type, prompt_from_cell
from spark_llm.udf.slices import arrow_slices, is_binary, is_list, pandas_slices, python_values
from spark_llm.udf.spark_types import spark_name

Columns = list[Sequence[Any]]  # one for each parameter, with Python's values


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
                yield self._with_defaults([python_values(array) for array in part.values()])

    def pandas(self, batches: Iterator[Any]) -> Iterator[Columns]:
        """Read pandas series, one or a tuple of them."""
        for batch in batches:
            columns = self._check_count(batch if isinstance(batch, tuple) else (batch,))
            for parameter, column in zip(self._parameters, columns, strict=False):
                if isinstance(column, pd.DataFrame):
                    raise self._type_error(parameter, "a struct")
            named = {parameter.name: column for parameter, column in zip(self._parameters, columns, strict=False)}
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

    def _value_of(self, parameter: Parameter, cell: Any) -> Any:  # noqa: ANN401 -- whatever Spark makes of a cell
        """Return a pandas cell's text, list of texts or whole number."""
        type_error = partial(self._type_error, parameter)
        if parameter.kind == "text":
            return prompt_from_cell(cell, type_error, conversations=False)
        if cell is None or cell is pd.NA or (isinstance(cell, float) and np.isnan(cell)):
            return None
        if parameter.kind == "whole" and isinstance(cell, (int, float, np.integer)) and float(cell).is_integer():
            return int(cell)  # pandas turns whole numbers into floats if a null is among them
        if parameter.kind == "file" and isinstance(cell, (bytes, bytearray)):
            return bytes(cell)
        if parameter.kind == "texts" and isinstance(cell, (list, np.ndarray)):
            texts = list(cell)
            if all(text is None or isinstance(text, str) for text in texts):
                return texts
        raise type_error(type(cell).__name__)

    def _type_error(self, parameter: Parameter, found: str) -> InputTypeError:
        return InputTypeError(
            f"{self._function} takes {PARAMETER_KINDS[parameter.kind]} as {parameter.name}; it was called on {found}.",
            "cast it, or write the array of labels as array('one', 'another').",
        )


def _is_of_kind(data_type: pa.DataType, kind: str) -> bool:
    if pa.types.is_null(data_type):
        return True
    if kind == "whole":
        return bool(pa.types.is_integer(data_type))
    if kind == "file":
        return is_binary(data_type)
    if kind == "texts":
        return is_list(data_type) and is_prompt_type(data_type.value_type, conversations=False)
    return is_prompt_type(data_type, conversations=False)
