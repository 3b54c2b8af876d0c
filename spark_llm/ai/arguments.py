"""The arguments of a function of several columns, read from Arrow and from pandas, slice by slice.

What is of the wrong type is refused at the first batch, before anything is asked.
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
from spark_llm.udf.columns import SLICE_ROWS, askable, from_pandas, python_values
from spark_llm.udf.spark_types import spark_name

Columns = list[Sequence[Any]]  # one for each parameter, with Python's values


class Arguments:
    """How the arguments of `name`, as SQL knows it, are read."""

    def __init__(self, name: str, parameters: Sequence[Parameter]) -> None:
        """Read these parameters; those that have a default may be left out, from the last one on."""
        self._name = name
        self._parameters = parameters

    def arrow(self, batches: Iterator[pa.Array | tuple[pa.Array, ...]]) -> Iterator[Columns]:
        """Read Arrow arrays."""
        for batch in batches:
            arrays = self._checked(batch if isinstance(batch, tuple) else (batch,))
            for parameter, array in zip(self._parameters, arrays, strict=False):
                if not _holds(array.type, parameter.kind):
                    raise self._wrong_type(parameter, spark_name(array.type))
            for start in range(0, len(arrays[0]), SLICE_ROWS):
                yield self._filled([python_values(array.slice(start, SLICE_ROWS)) for array in arrays])

    def pandas(self, batches: Iterator[pd.Series | tuple[pd.Series, ...]]) -> Iterator[Columns]:
        """Read pandas series."""
        for batch in batches:
            series = self._checked(batch if isinstance(batch, tuple) else (batch,))
            for start in range(0, len(series[0]), SLICE_ROWS):
                pieces = [each.iloc[start : start + SLICE_ROWS] for each in series]
                yield self._filled(
                    [
                        [self._cell(parameter, cell) for cell in piece]
                        for parameter, piece in zip(self._parameters, pieces, strict=False)
                    ]
                )

    def _checked(self, columns: tuple[Any, ...]) -> tuple[Any, ...]:
        needed = sum(parameter.default is None for parameter in self._parameters)
        if not needed <= len(columns) <= len(self._parameters):
            raise InputTypeError(
                f"{self._name} takes {', '.join(parameter.name for parameter in self._parameters)}; it was called on"
                f" {len(columns)} column{'s' * (len(columns) > 1)}.",
                "give each argument by its place.",
            )
        return columns

    def _filled(self, columns: list[Sequence[Any]]) -> Columns:
        """Return the columns with a default for each row where one was left out."""
        rows = len(columns[0])
        return [
            [parameter.default] * rows if column is None else column
            for parameter, column in zip_longest(self._parameters, columns)
        ]

    def _cell(self, parameter: Parameter, cell: Any) -> Any:  # noqa: ANN401 -- whatever Spark makes of a cell
        """Return a cell's text, list of texts or whole number."""
        wrong_type = partial(self._wrong_type, parameter)
        if parameter.kind == "text":
            return from_pandas(cell, wrong_type, conversations=False)
        if cell is None or cell is pd.NA or (isinstance(cell, float) and np.isnan(cell)):
            return None
        if parameter.kind == "whole" and isinstance(cell, (int, float, np.integer)) and float(cell).is_integer():
            return int(cell)  # whole numbers are floats where a null is among them
        if parameter.kind == "texts" and isinstance(cell, (list, np.ndarray)):
            texts = list(cell)
            if all(text is None or isinstance(text, str) for text in texts):
                return texts
        raise wrong_type(type(cell).__name__)

    def _wrong_type(self, parameter: Parameter, found: str) -> InputTypeError:
        return InputTypeError(
            f"{self._name} takes {PARAMETER_KINDS[parameter.kind]} as {parameter.name}; it was called on {found}.",
            "cast it, or write the array of labels as array('one', 'another').",
        )


def _holds(kind: pa.DataType, wanted: str) -> bool:
    if pa.types.is_null(kind):
        return True
    if wanted == "whole":
        return bool(pa.types.is_integer(kind))
    if wanted == "texts":
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        return bool(is_list) and askable(kind.value_type, conversations=False)
    return askable(kind, conversations=False)
