"""The types that an answer may have: each as JSON Schema for the server, and as a type that JSON is read by.

They are those that Spark holds and JSON Schema can say, and hold values exactly or not at all: a decimal keeps its
digits, a time has the zone that its type wants, a number fits its width. The schemas use no `$ref`, no `anyOf` and no
bounds, which servers differ in; what a bound says is told in the description, and held when an answer is read.

Sources: JSON Schema 2020-12; the OpenAI guide to structured outputs; Databricks' guide to structured outputs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timezone
from decimal import Context, Decimal, InvalidOperation
from typing import Any, Literal, NamedTuple, Optional, TypedDict

import msgspec

from spark_llm.protocol.structured.constraints import Rules, checks_of, in_words, ruled

Convert = Callable[[Any], Any]  # from what msgspec reads to what a column takes; raises ValueError for what none can

_FLOAT_MOST = 3.4028234663852886e38
_INTEGERS = {"byte": 8, "short": 16, "integer": 32, "long": 64}
# Each kind's Python type, what holds for all its values, and its JSON Schema.
_SCALARS: dict[str, tuple[type, dict[str, Any], dict[str, str]]] = {
    "string": (str, {}, {"type": "string"}),
    "boolean": (bool, {}, {"type": "boolean"}),
    "float": (float, {"ge": -_FLOAT_MOST, "le": _FLOAT_MOST}, {"type": "number"}),
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


@dataclass(frozen=True)
class Scalar:
    """A text, a number, a boolean or a time; `kind` is one of `SCALARS`, by Spark's own names."""

    kind: str
    rules: Rules = ()

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        return _described(dict(_SCALARS[self.kind][2]), in_words(self.rules))

    def hint(self) -> Any:  # noqa: ANN401 -- a type
        """Return the type that msgspec reads it by."""
        kind, always, _ = _SCALARS[self.kind]
        return ruled(kind, self.rules, always)

    def convert(self) -> Convert | None:
        """Return how its values become a column's; None where they are already."""
        return _in_utc if self.kind == "timestamp" else None


@dataclass(frozen=True)
class Enumeration:
    """One of several texts, or of several whole numbers."""

    values: tuple[str, ...] | tuple[int, ...]

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        return {"type": "string" if isinstance(self.values[0], str) else "integer", "enum": list(self.values)}

    def hint(self) -> Any:  # noqa: ANN401 -- a type
        """Return the type that msgspec reads it by."""
        return Literal[self.values]

    def convert(self) -> Convert | None:
        """Say that its values are a column's."""
        return None


@dataclass(frozen=True)
class Number:
    """A decimal number of so many digits, `scale` of them after the point."""

    precision: int
    scale: int
    rules: Rules = ()

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        digits = f"a decimal number with at most {self.scale} digits after the point"
        return _described({"type": "number"}, "; ".join(filter(None, [digits, in_words(self.rules)])))

    def hint(self) -> Any:  # noqa: ANN401 -- a type
        """Return the type that msgspec reads it by: from the digits themselves, not by way of a float."""
        return Decimal

    def convert(self) -> Convert | None:
        """Return how a number gets its scale; one that would lose a digit by it fits no column."""
        unit, context = Decimal(1).scaleb(-self.scale), Context(prec=self.precision)
        holds = checks_of(self.rules)

        def scaled(value: Decimal) -> Decimal:
            try:
                exact = value.quantize(unit, context=context)
            except InvalidOperation:
                exact = None
            if exact is None or exact != value or not all(hold(exact) for hold in holds):
                raise ValueError(f"{value} is not {self.schema()['description']}, {self.precision} digits in all")
            return exact

        return scaled


@dataclass(frozen=True)
class Array:
    """Any number of values of one type."""

    element: "Shape"
    rules: Rules = ()

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        return _described({"type": "array", "items": self.element.schema()}, in_words(self.rules))

    def hint(self) -> Any:  # noqa: ANN401 -- a type
        """Return the type that msgspec reads it by."""
        return ruled(list[self.element.hint()], self.rules)  # type: ignore[misc]  # a type that is made at run time

    def convert(self) -> Convert | None:
        """Return how its elements become a column's."""
        element = self.element.convert()
        return None if element is None else lambda values: [element(value) for value in values]


@dataclass(frozen=True)
class Map:
    """Values of one type by names that the model chooses."""

    value: "Shape"
    rules: Rules = ()

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        return _described({"type": "object", "additionalProperties": self.value.schema()}, in_words(self.rules))

    def hint(self) -> Any:  # noqa: ANN401 -- a type
        """Return the type that msgspec reads it by."""
        return ruled(dict[str, self.value.hint()], self.rules)  # type: ignore[misc]  # a type that is made at run time

    def convert(self) -> Convert | None:
        """Return how its values become a column's; Arrow and Spark both make a map of a dict."""
        value = self.value.convert()
        return None if value is None else lambda named: {name: value(each) for name, each in named.items()}


class Field(NamedTuple):
    """A named part of a struct, and what it is for in words."""

    name: str
    shape: "Shape"
    description: str | None = None


@dataclass(frozen=True)
class Struct:
    """Named parts, in the order of a struct column; what an answer has beside them is passed over."""

    fields: tuple[Field, ...]

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema: every field has to be there, as strict servers want it."""
        return {
            "type": "object",
            "properties": {name: _described(shape.schema(), about or "") for name, shape, about in self.fields},
            "required": [field.name for field in self.fields],
            "additionalProperties": False,
        }

    def hint(self) -> Any:  # noqa: ANN401 -- a type
        """Return the type that msgspec reads it by; a field that may be null may be left out."""
        msgspec.json.encode([field.name for field in self.fields])  # else msgspec 0.22 finds none that is not ASCII
        kind = TypedDict("Struct", {field.name: field.shape.hint() for field in self.fields})  # type: ignore[misc]  # a type that is made at run time
        kind.__required_keys__ = frozenset(  # as typing itself sets it
            field.name for field in self.fields if not isinstance(field.shape, Nullable)
        )
        return kind

    def convert(self) -> Convert | None:
        """Return how its parts become a column's."""
        parts = [(field.name, convert) for field in self.fields if (convert := field.shape.convert()) is not None]
        if not parts:
            return None

        def converted(value: dict[str, Any]) -> dict[str, Any]:
            for name, convert in parts:
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

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        schema = self.shape.schema()
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"].append(None)
        return schema

    def hint(self) -> Any:  # noqa: ANN401 -- a type
        """Return the type that msgspec reads it by."""
        return Optional[self.shape.hint()]  # noqa: UP045 -- Python 3.10 has no `|` for what TypedDict makes

    def convert(self) -> Convert | None:
        """Return how what is not null becomes a column's."""
        convert = self.shape.convert()
        return None if convert is None else lambda value: None if value is None else convert(value)


Shape = Scalar | Enumeration | Number | Array | Map | Struct | Nullable


def walk(shape: Shape) -> Iterator[Shape]:
    """Yield a type and all that it is made of."""
    yield shape
    match shape:
        case Array(element=inner) | Map(value=inner) | Nullable(shape=inner):
            yield from walk(inner)
        case Struct(fields=fields):
            for field in fields:
                yield from walk(field.shape)


def _described(schema: dict[str, Any], words: str) -> dict[str, Any]:
    """Return the schema with a description more, which stands before those that it has."""
    told = "; ".join(filter(None, [words, schema.get("description")]))
    return {**schema, "description": told} if told else schema


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(timezone.utc)
    except OverflowError:
        raise ValueError(f"{value.isoformat()} is before the year 1 or after 9999 in UTC") from None
