"""The types of structured output: each as JSON Schema for the server, and as the type by which msgspec decodes JSON.

They are the types that both Spark and JSON Schema have, and hold values exactly or not at all: a decimal keeps its
digits, a time has the zone of its type, a number fits its width. The schemas use no `$ref`, no `anyOf` and no bounds,
since servers differ in these. Bounds are part of the description, and are checked when an answer is parsed.

Sources: JSON Schema 2020-12; the OpenAI guide to structured outputs; Databricks' guide to structured outputs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timezone
from decimal import Context, Decimal, InvalidOperation
from typing import Any, Literal, NamedTuple, Optional, TypedDict

import msgspec

from spark_llm.protocol.structured.constraints import Constraints, constrained_type, decimal_checks, description_of

Convert = Callable[[Any], Any]  # from msgspec's value to a column's; raises ValueError where no column can hold it

_MAX_FLOAT = 3.4028234663852886e38
_INTEGERS = {"byte": 8, "short": 16, "integer": 32, "long": 64}
# Each kind's Python type, the constraints of all its values, and its JSON Schema.
_SCALARS: dict[str, tuple[type, dict[str, Any], dict[str, str]]] = {
    "string": (str, {}, {"type": "string"}),
    "boolean": (bool, {}, {"type": "boolean"}),
    "float": (float, {"ge": -_MAX_FLOAT, "le": _MAX_FLOAT}, {"type": "number"}),
    "double": (float, {}, {"type": "number"}),
    "date": (date, {}, {"type": "string", "format": "date"}),
    "timestamp": (datetime, {"tz": True}, {"type": "string", "format": "date-time"}),
    "timestamp_ntz": (
        datetime,
        {"tz": False},
        {"type": "string", "description": "YYYY-MM-DDThh:mm:ss, without a time zone"},
    ),
    **{
        name: (int, {"ge": -(2 ** (bits - 1)), "le": 2 ** (bits - 1) - 1}, {"type": "integer"})
        for name, bits in _INTEGERS.items()
    },
}
SCALARS = frozenset(_SCALARS)
NUMBERS = frozenset((*_INTEGERS, "float", "double"))  # kinds that differ in width, which JSON Schema does not say


@dataclass(frozen=True)
class Scalar:
    """A text, a number, a boolean or a time; `kind` is one of `SCALARS`, which are Spark's names."""

    kind: str
    constraints: Constraints = ()

    def json_schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        return _described(dict(_SCALARS[self.kind][2]), description_of(self.constraints))

    def decode_type(self) -> Any:  # noqa: ANN401 -- a type
        """Return the type by which msgspec decodes it."""
        kind, always, _ = _SCALARS[self.kind]
        return constrained_type(kind, self.constraints, always)

    def converter(self) -> Convert | None:
        """Return the conversion to a column's value; None where there is none to do."""
        return _in_utc if self.kind == "timestamp" else None


@dataclass(frozen=True)
class Enumeration:
    """One of several texts, or of several whole numbers."""

    values: tuple[str, ...] | tuple[int, ...]

    def json_schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        return {"type": "string" if isinstance(self.values[0], str) else "integer", "enum": list(self.values)}

    def decode_type(self) -> Any:  # noqa: ANN401 -- a type
        """Return the type by which msgspec decodes it."""
        return Literal[self.values]

    def converter(self) -> Convert | None:
        """Return None: its values need no conversion."""
        return None


@dataclass(frozen=True)
class Number:
    """A decimal number of `precision` digits, `scale` of them after the point."""

    precision: int
    scale: int
    constraints: Constraints = ()

    def json_schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        digits = f"a decimal number with at most {self.scale} digits after the point"
        return _described({"type": "number"}, "; ".join(filter(None, [digits, description_of(self.constraints)])))

    def decode_type(self) -> Any:  # noqa: ANN401 -- a type
        """Return the type by which msgspec decodes it: from the digits, and not through a float."""
        return Decimal

    def converter(self) -> Convert | None:
        """Return the conversion of a number to its scale; it refuses a number that would lose a digit."""
        unit, context = Decimal(1).scaleb(-self.scale), Context(prec=self.precision)
        checks = decimal_checks(self.constraints)

        def scaled(value: Decimal) -> Decimal:
            try:
                exact = value.quantize(unit, context=context)
            except InvalidOperation:
                exact = None
            if exact is None or exact != value or not all(check(exact) for check in checks):
                raise ValueError(f"{value} is not {self.json_schema()['description']}, {self.precision} digits in all")
            return exact

        return scaled


@dataclass(frozen=True)
class Array:
    """A list of values of one type."""

    element: "Shape"
    constraints: Constraints = ()

    def json_schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        return _described({"type": "array", "items": self.element.json_schema()}, description_of(self.constraints))

    def decode_type(self) -> Any:  # noqa: ANN401 -- a type
        """Return the type by which msgspec decodes it."""
        return constrained_type(list[self.element.decode_type()], self.constraints)  # type: ignore[misc]  # a type that is made at run time

    def converter(self) -> Convert | None:
        """Return the conversion of its elements; None where there is none to do."""
        element = self.element.converter()
        return None if element is None else lambda values: [element(value) for value in values]


@dataclass(frozen=True)
class Map:
    """Values of one type, under keys that the model chooses."""

    value: "Shape"
    constraints: Constraints = ()

    def json_schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        return _described(
            {"type": "object", "additionalProperties": self.value.json_schema()}, description_of(self.constraints)
        )

    def decode_type(self) -> Any:  # noqa: ANN401 -- a type
        """Return the type by which msgspec decodes it."""
        return constrained_type(dict[str, self.value.decode_type()], self.constraints)  # type: ignore[misc]  # a type that is made at run time

    def converter(self) -> Convert | None:
        """Return the conversion of its values; Arrow and Spark both turn a dict into a map."""
        value = self.value.converter()
        return None if value is None else lambda values: {key: value(each) for key, each in values.items()}


class Field(NamedTuple):
    """A field of a struct, and its description."""

    name: str
    shape: "Shape"
    description: str | None = None


@dataclass(frozen=True)
class Struct:
    """Named fields, in the order of a struct column; further fields of an answer are ignored."""

    fields: tuple[Field, ...]

    def json_schema(self) -> dict[str, Any]:
        """Return its JSON Schema: every field is required, as strict servers demand."""
        return {
            "type": "object",
            "properties": {
                name: _described(shape.json_schema(), description or "") for name, shape, description in self.fields
            },
            "required": [field.name for field in self.fields],
            "additionalProperties": False,
        }

    def decode_type(self) -> Any:  # noqa: ANN401 -- a type
        """Return the type by which msgspec decodes it; a nullable field may be missing."""
        msgspec.json.encode([field.name for field in self.fields])  # else msgspec 0.22 finds no names beyond ASCII
        kind = TypedDict("Struct", {field.name: field.shape.decode_type() for field in self.fields})  # type: ignore[misc]  # a type that is made at run time
        kind.__required_keys__ = frozenset(  # as typing itself sets it
            field.name for field in self.fields if not isinstance(field.shape, Nullable)
        )
        return kind

    def converter(self) -> Convert | None:
        """Return the conversion of its fields; None where there is none to do."""
        fields = [(field.name, convert) for field in self.fields if (convert := field.shape.converter()) is not None]
        if not fields:
            return None

        def converted(value: dict[str, Any]) -> dict[str, Any]:
            for name, convert in fields:
                if name in value:
                    try:
                        value[name] = convert(value[name])
                    except ValueError as error:
                        raise ValueError(f"{name}: {error}") from None
            return value

        return converted


@dataclass(frozen=True)
class Nullable:
    """A value, or null."""

    shape: "Shape"

    def json_schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        schema = self.shape.json_schema()
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"].append(None)
        return schema

    def decode_type(self) -> Any:  # noqa: ANN401 -- a type
        """Return the type by which msgspec decodes it."""
        return Optional[self.shape.decode_type()]  # noqa: UP045 -- Python 3.10 has no `|` for what TypedDict makes

    def converter(self) -> Convert | None:
        """Return the conversion of values that are not null; None where there is none to do."""
        convert = self.shape.converter()
        return None if convert is None else lambda value: None if value is None else convert(value)


Shape = Scalar | Enumeration | Number | Array | Map | Struct | Nullable


def walk(shape: Shape) -> Iterator[Shape]:
    """Yield a type and all types inside it."""
    yield shape
    match shape:
        case Array(element=inner) | Map(value=inner) | Nullable(shape=inner):
            yield from walk(inner)
        case Struct(fields=fields):
            for field in fields:
                yield from walk(field.shape)


def _described(schema: dict[str, Any], description: str) -> dict[str, Any]:
    """Return the schema with a description in front of its own."""
    joined = "; ".join(filter(None, [description, schema.get("description")]))
    return {**schema, "description": joined} if joined else schema


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(timezone.utc)
    except OverflowError:
        raise ValueError(f"{value.isoformat()} is before the year 1 or after 9999 in UTC") from None
