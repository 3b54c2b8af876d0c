"""Scalars of predictions: how a JSON value becomes a number, a text, a time or bytes of a column.

MLflow's scoring server writes what pandas and numpy hold: NaN and infinity bare, floats for whole numbers where one of
a column is missing, bytes in base64 with line breaks, times in ISO 8601 with or without a zone, midnight for a date.

Source: MLflow, `mlflow.utils.proto_json_utils.NumpyEncoder`.
"""

import base64
import binascii
import json
from collections.abc import Callable
from datetime import date, datetime, timezone
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import msgspec

from spark_llm.errors import HINT
from spark_llm.protocol.structured.schema import Number
from spark_llm.text.excerpt import excerpt

Convert = Callable[[Any], Any]  # from a JSON value to a column's; raises `MisfitError`

_MAX_FLOAT = 3.4028234663852886e38
_BITS = {"byte": 8, "short": 16, "integer": 32, "long": 64}
_NAMES = {"byte": "TINYINT", "short": "SMALLINT", "integer": "INT", "long": "BIGINT"}
_FOUND_CHARACTERS = 60
_FIELDS_CHARACTERS = 150
_REASON_CHARACTERS = 300
_NAME_THEM = "give the fields of returns= the names that the model gives them; upper and lower case differ."
NONE = type(None)


class Misfit(NamedTuple):
    """Why a prediction does not fit its type."""

    reason: str


class MisfitError(ValueError):
    """A value that does not fit, the type that it should have, and its place."""

    def __init__(self, expected: str, value: object, path: str = "") -> None:
        self.expected, self.value, self.path = expected, value, path

    def within(self, path: str) -> "MisfitError":
        """Return the same error, seen from outside."""
        return type(self)(self.expected, self.value, path + self.path)

    def __str__(self) -> str:
        try:
            found = str(self.value) if isinstance(self.value, Decimal) else write_prediction(self.value)
            found = excerpt(found, _FOUND_CHARACTERS)
        except (ValueError, RecursionError):  # a number of thousands of digits, or lists without an end
            found = "something else"
        place = f" at {self.path.lstrip('.')}" if self.path else ""
        return excerpt(f"{self.expected} is expected{place}, and it is {found}", _REASON_CHARACTERS)


class MissingError(MisfitError):
    """An object without an expected field."""

    def __str__(self) -> str:
        place = f" at {self.path.lstrip('.')}" if self.path else ""
        found = excerpt(", ".join(map(repr, self.value)) if isinstance(self.value, dict) else "", _FIELDS_CHARACTERS)
        what = excerpt(repr(self.expected), _FOUND_CHARACTERS)
        return f"the field {what} is missing{place}: there is {found or 'none'}.{HINT}{_NAME_THEM}"


class Column(NamedTuple):
    """How values of one type are read: one by one, or all at once where their Python types say that they fit."""

    convert: Convert
    exact: frozenset[type] = frozenset()  # values of these types, in these bounds, stay as they are
    bounds: tuple[float, float] | None = None

    def read(self, values: list[Any]) -> list[Any]:
        """Return the values of a list; raises `MisfitError` for the first that does not fit."""
        if self._fits(values):
            return values
        converted = []
        for place, value in enumerate(values):
            try:
                converted.append(self.convert(value))
            except MisfitError as misfit:
                raise misfit.within(f"[{place}]") from None
        return converted

    def read_each(self, values: list[Any]) -> list[Any]:
        """Return the values of a list, with a `Misfit` for each that does not fit."""
        return values if self._fits(values) else [self._or_misfit(value) for value in values]

    def _or_misfit(self, value: Any) -> Any:  # noqa: ANN401 -- any JSON value
        try:
            return self.convert(value)
        except MisfitError as misfit:
            return Misfit(str(misfit))

    def _fits(self, values: list[Any]) -> bool:
        """Return whether all values stay as they are; it takes a twentieth of the time of a look at each."""
        kinds = set(map(type, values))
        if not kinds <= self.exact:
            return False
        if self.bounds is None:
            return True
        numbers = [value for value in values if value is not None] if NONE in kinds else values
        return not numbers or (self.bounds[0] <= min(numbers) and max(numbers) <= self.bounds[1])


def write_prediction(value: object) -> str:
    """Return a prediction as JSON, which `read_predictions` reads as the same value: NaN and infinity are bare."""
    return json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(value: object) -> object:
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _of_type(kind: type, expected: str) -> Column:
    def convert(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
        if type(value) is not kind:
            raise MisfitError(expected, value)
        return value

    return Column(convert, frozenset((kind,)))


def _integers(kind: str) -> Column:
    bits = _BITS[kind]
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def convert(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
        number = value
        if isinstance(value, (float, Decimal)) and value == value and abs(value) <= highest + 1 and value == int(value):  # noqa: PLR0124 -- NaN alone differs from itself
            number = int(value)  # pandas makes floats of whole numbers where one is missing
        if type(number) is not int or not lowest <= number <= highest:
            raise MisfitError(f"a whole number ({_NAMES[kind]})", value)
        return number

    return Column(convert, frozenset((int,)), (lowest, highest))


def _floats(maximum: float | None, expected: str) -> Column:
    """Return how floats are read; a finite number beyond `maximum` does not fit."""

    def convert(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
        if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                raise MisfitError(expected, value) from None
            if maximum is None or not maximum < abs(number) < float("inf"):
                return number
        raise MisfitError(expected, value)

    return Column(convert, frozenset((float,)), None if maximum is None else (-maximum, maximum))


def decimals(shape: Number) -> Column:
    """Return how decimals of a precision and a scale are read; one that would lose a digit does not fit."""
    scaled = shape.converter()
    expected = f"DECIMAL({shape.precision}, {shape.scale})"

    def convert(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
        if isinstance(value, (int, str, Decimal)) and not isinstance(value, bool) and scaled is not None:
            try:
                number = Decimal(value)
                if number.is_finite():
                    return scaled(number)
            except (InvalidOperation, ValueError):
                pass
        raise MisfitError(expected, value)

    return Column(convert)


def _date(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
    for read in (date, datetime):
        try:
            found = msgspec.convert(value, read) if isinstance(value, str) else None
        except msgspec.ValidationError:
            continue
        if not isinstance(found, datetime):
            if found is not None:
                return found
        elif found.time() == datetime.min.time():  # pandas has no dates: midnight stands for one
            return found.date()
    raise MisfitError("a date", value)


def _time(value: Any, expected: str) -> datetime:  # noqa: ANN401 -- any JSON value
    try:
        if isinstance(value, str):
            return msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        pass
    raise MisfitError(expected, value)


def _timestamp(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
    found = _time(value, "a time")
    if found.tzinfo is None:
        return found.replace(tzinfo=timezone.utc)
    try:
        return found.astimezone(timezone.utc)
    except OverflowError:
        raise MisfitError("a time from the year 1 to 9999", value) from None


def _timestamp_ntz(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
    found = _time(value, "a time without a zone")
    if found.tzinfo is not None:
        raise MisfitError("a time without a zone", value)
    return found


def _binary(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
    try:
        if isinstance(value, str):
            return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        pass
    raise MisfitError("bytes in base64", value)


SCALARS: dict[str, Column] = {
    "string": _of_type(str, "a string"),
    "boolean": _of_type(bool, "true or false"),
    "double": _floats(None, "a number"),
    "float": _floats(_MAX_FLOAT, "a number of 32 bits"),
    "date": Column(_date),
    "timestamp": Column(_timestamp),
    "timestamp_ntz": Column(_timestamp_ntz),
    "binary": Column(_binary),
    **{kind: _integers(kind) for kind in _BITS},
}
