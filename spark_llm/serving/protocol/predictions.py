"""The protocol of custom models: rows or tensors in, predictions out, as MLflow's scoring server reads and writes them.

Knows no HTTP library and no model.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from spark_llm.serving.protocol.requests import Request

InputFormat = Literal["dataframe_split", "dataframe_records", "instances", "inputs"]
INPUT_FORMATS: tuple[InputFormat, ...] = ("dataframe_split", "dataframe_records", "instances", "inputs")
AnswerField = Literal["predictions", "outputs"]


class SplitFrame(msgspec.Struct, forbid_unknown_fields=True):
    """A table as its rows, and the names of its columns."""

    data: list[Any]
    columns: list[Any] | None = None
    index: list[Any] | None = None


class PredictionRequest(Request, kw_only=True):
    """A request to a custom model: a table in one of two formats, or tensors in one of two."""

    dataframe_split: SplitFrame | UnsetType = UNSET
    dataframe_records: list[Any] | UnsetType = UNSET
    instances: Any = UNSET
    inputs: Any = UNSET
    params: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse a body without an input, or with two."""
        given = [name for name in INPUT_FORMATS if getattr(self, name) is not UNSET]
        if len(given) != 1:
            raise ValueError(
                "The input must be a JSON dictionary with exactly one of the input fields "
                f"{', '.join(INPUT_FORMATS)}. Received dictionary with input fields: {', '.join(given) or 'none'}."
            )

    @property
    def input_format(self) -> InputFormat:
        """The name of the field that holds the input."""
        return next(name for name in INPUT_FORMATS if getattr(self, name) is not UNSET)

    @property
    def rows(self) -> int:
        """The number of rows; tensors by name have as many as the first of them."""
        return len(self._row_values())

    @property
    def texts(self) -> Iterator[str]:
        """Each row as JSON."""
        return (msgspec.json.encode(row).decode() for row in self._row_values())

    def _row_values(self) -> Sequence[object]:
        if isinstance(self.dataframe_split, SplitFrame):
            return self.dataframe_split.data
        value = getattr(self, self.input_format)
        if isinstance(value, dict):
            value = next(iter(value.values()), [])
        return value if isinstance(value, list) else [value]


@dataclass(frozen=True)
class Predictions:
    """What a custom model answers: any value of JSON, numpy or pandas, under one of the two fields of an answer."""

    values: object
    field: AnswerField = "predictions"


def prediction_body(predictions: Predictions) -> bytes:
    """Return the body of an answer; as in MLflow's, NaN and infinite numbers are written bare, which is no JSON."""
    return json.dumps({predictions.field: _plain(predictions.values)}, default=_encode).encode()


def _plain(values: Any) -> object:  # noqa: ANN401 -- a value of any library
    """Return pandas' tables and columns as records: a column is a table of one."""
    if hasattr(values, "to_frame") and not hasattr(values, "columns"):
        values = values.to_frame(name=0 if values.name is None else values.name)
    if hasattr(values, "to_dict") and hasattr(values, "columns"):
        return values.to_dict(orient="records")
    return values


def _encode(value: object) -> object:
    """Return a value that JSON has no type for as one that it has."""
    import numpy as np  # it is loaded long since, where a value is numpy's

    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.datetime64):
        return np.datetime_as_string(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bytes | bytearray):
        return base64.encodebytes(value).decode("ascii")
    if isinstance(value, date | time):  # also a datetime, and a timestamp of pandas
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"A prediction of type {type(value).__name__} has no JSON. Hint: return numbers, strings or lists.")
