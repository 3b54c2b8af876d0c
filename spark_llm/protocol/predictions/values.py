"""Predictions as values of a column: each JSON value becomes one of the declared type, exactly, or a `Misfit`.

A frame's row of one column is that column's value. NaN stands for a missing value where the type has no NaN, as pandas
has it, and "NaT" for a missing time.

Source: MLflow, `mlflow.pyfunc.scoring_server.predictions_to_json`.
"""

from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from spark_llm.protocol.json_codec import FloatHook
from spark_llm.protocol.predictions.scalars import NONE, SCALARS, Column, Convert, MisfitError, MissingError, decimals
from spark_llm.protocol.structured.schema import Array, Enumeration, Map, Nullable, Number, Scalar, Shape, Struct, walk

_MISSING_TIME = "NaT"


def read_predictions(shape: Shape, values: list[Any]) -> list[Any]:
    """Return the predictions of rows as values of a type, with a `Misfit` for each that does not fit.

    A value alone in a list or an object, as a frame of one column has it, is taken out where the type is no struct.
    """
    return _rows_of(shape).read_each(values)


def float_hook(shape: Shape) -> FloatHook | None:
    """Return how a number with a point is parsed: as a decimal where the type has any, and else as a float."""
    return _decimal if any(isinstance(part, Number) for part in walk(shape)) else None


def _decimal(text: str) -> Decimal | float:
    """Return a number as a decimal; as a float, which fits no decimal type, where no decimal has such an exponent."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return float(text)


@lru_cache(maxsize=64)
def _rows_of(shape: Shape) -> Column:
    """Return how the predictions of rows are read: as values of the type, which may stand alone in a frame's row."""
    inner = shape.shape if isinstance(shape, Nullable) else shape
    column = _column_of(shape)
    if isinstance(inner, (Struct, Map)):
        return column
    in_lists = not isinstance(inner, Array)

    def convert(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
        if isinstance(value, dict) and len(value) == 1:
            (value,) = value.values()
        elif in_lists and isinstance(value, list) and len(value) == 1:
            (value,) = value
        return column.convert(value)

    return column._replace(convert=convert)


def _column_of(shape: Shape) -> Column:
    match shape:
        case Nullable(shape=inner):
            return _nullable(inner)
        case Scalar(kind=kind):
            return SCALARS[kind]
        case Number():
            return decimals(shape)
        case Array(element=element):
            return Column(_array(_column_of(element)))
        case Map(value=value):
            return Column(_map(_column_of(value)))
        case Struct():
            return Column(_struct(shape))
        case Enumeration():
            raise NotImplementedError("No Spark type is an enumeration.")


def _nullable(inner: Shape) -> Column:
    column = _column_of(inner)
    missing_nan = not (isinstance(inner, Scalar) and inner.kind in ("double", "float"))
    missing_time = isinstance(inner, Scalar) and inner.kind in ("date", "timestamp", "timestamp_ntz")

    def convert(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
        if value is None or (missing_nan and value != value) or (missing_time and value == _MISSING_TIME):  # noqa: PLR0124 -- NaN alone differs from itself
            return None
        return column.convert(value)

    return Column(convert, column.exact | {NONE} if column.exact else column.exact, column.bounds)


def _array(element: Column) -> Convert:
    def convert(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
        if not isinstance(value, list):
            raise MisfitError("a list", value)
        return element.read(value)

    return convert


def _map(values: Column) -> Convert:
    def convert(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
        if not isinstance(value, dict):
            raise MisfitError("an object", value)
        return {key: _at(f".{key}", values.convert, each) for key, each in value.items()}

    return convert


def _struct(shape: Struct) -> Convert:
    fields = [(field.name, _column_of(field.shape).convert) for field in shape.fields]

    def convert(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
        if not isinstance(value, dict):
            raise MisfitError(f"an object with the fields {', '.join(name for name, _ in fields)}", value)
        for name, _ in fields:
            if name not in value:  # misspelt, and no null: a model writes that
                raise MissingError(name, value)
        return {name: _at(f".{name}", read, value[name]) for name, read in fields}

    return convert


def _at(path: str, convert: Convert, value: Any) -> Any:  # noqa: ANN401 -- any JSON value
    try:
        return convert(value)
    except MisfitError as misfit:
        raise misfit.within(path) from None
