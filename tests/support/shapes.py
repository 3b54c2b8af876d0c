"""Types of typed answers, drawn by Hypothesis, and values of them: as columns hold them, and written as JSON."""

import json
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from spark_llm.protocol.structured.schema import (
    SCALARS,
    Array,
    Enumeration,
    Field,
    Map,
    Nullable,
    Number,
    Scalar,
    Shape,
    Struct,
)
from tests.support.strategies import TEXTS, plain

BITS = {"byte": 8, "short": 16, "integer": 32, "long": 64}
MARKS = ["</think>", "```", "```json\n", "{", "}", '{"', "\\", "\\ud800", "null"]

WORDS = st.one_of(TEXTS.map(plain), st.sampled_from(MARKS), st.lists(st.sampled_from(MARKS), max_size=4).map("".join))
NAMES = WORDS.filter(bool)
NUMBERS = st.integers(1, 38).flatmap(lambda digits: st.builds(Number, st.just(digits), st.integers(0, digits)))
CHOICES = st.builds(
    lambda values: Enumeration(tuple(values)),
    st.lists(WORDS, min_size=1, max_size=3, unique=True)
    | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3, unique=True),
)
ATOMS = st.builds(Scalar, st.sampled_from(sorted(SCALARS))) | NUMBERS


def _or_null(shapes: st.SearchStrategy[Shape]) -> st.SearchStrategy[Shape]:
    return shapes | shapes.map(Nullable)


def _structs(shapes: st.SearchStrategy[Shape]) -> st.SearchStrategy[Struct]:
    fields = st.builds(Field, NAMES, _or_null(shapes), st.none() | WORDS)
    return st.lists(fields, min_size=1, max_size=4, unique_by=lambda field: field.name.lower()).map(
        lambda drawn: Struct(tuple(drawn))
    )


def _trees(leaves: st.SearchStrategy[Shape]) -> st.SearchStrategy[Shape]:
    return st.recursive(
        leaves,
        lambda inner: _or_null(inner).map(Array) | _or_null(inner).map(Map) | _structs(inner),
        max_leaves=5,
    )


SPARKS = _structs(_trees(ATOMS))
"""Structs of what Spark's own types are."""

STRUCTS = _structs(_trees(ATOMS | CHOICES))
"""Structs of every shape."""


def values(shape: Shape, *, whole: bool = False) -> st.SearchStrategy[Any]:  # noqa: PLR0911 -- one for each kind
    """Draw a value of a shape, as a column takes it; unless `whole`, a field that may be null may be left out."""
    match shape:
        case Nullable(shape=inner):
            return st.none() | values(inner, whole=whole)
        case Enumeration(values=allowed):
            return st.sampled_from(allowed)
        case Number(precision=precision, scale=scale):
            most = 10**precision - 1
            return st.integers(-most, most).map(lambda digits: Decimal(f"{digits}E-{scale}"))
        case Array(element=element):
            return st.lists(values(element, whole=whole), max_size=3)
        case Map(value=value):
            return st.dictionaries(WORDS, values(value, whole=whole), max_size=3)
        case Struct(fields=fields):
            drawn = {field.name: values(field.shape, whole=whole) for field in fields}
            spare = {field.name for field in fields if isinstance(field.shape, Nullable) and not whole}
            return st.fixed_dictionaries(
                {name: each for name, each in drawn.items() if name not in spare},
                optional={name: each for name, each in drawn.items() if name in spare},
            )
    return _scalars(shape.kind)


def _scalars(kind: str) -> st.SearchStrategy[Any]:
    if kind in BITS:
        most = 2 ** (BITS[kind] - 1)
        return st.integers(-most, most - 1)
    drawn: dict[str, st.SearchStrategy[Any]] = {
        "string": WORDS,
        "boolean": st.booleans(),
        "float": st.floats(width=32, allow_nan=False, allow_infinity=False),
        "double": st.floats(allow_nan=False, allow_infinity=False),
        "date": st.dates(),
        "timestamp": st.datetimes().map(lambda moment: moment.replace(fold=0, tzinfo=timezone.utc)),
        "timestamp_ntz": st.datetimes().map(lambda moment: moment.replace(fold=0)),
    }
    return drawn[kind]


def written(value: Any) -> str:  # noqa: ANN401 -- a value of any shape
    """Write a value as JSON, with all the digits of a decimal."""
    match value:
        case dict():
            return "{" + ", ".join(f"{json.dumps(name)}: {written(part)}" for name, part in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(written, value)) + "]"
        case Decimal():
            return format(value, "f")
        case datetime() | date():
            return f'"{value.isoformat()}"'
    return json.dumps(value, ensure_ascii=False)


def elsewhere(moment: datetime, minutes: int) -> str:
    """Write a moment as a clock shows it that is so many minutes before UTC."""
    return moment.astimezone(timezone(timedelta(minutes=minutes))).isoformat()


@st.composite
def misfits(draw: st.DrawFn, shape: Shape) -> str:
    """Draw JSON that is no value of a shape: wrong itself, or with one wrong part among right ones."""
    match shape:
        case Nullable(shape=inner):
            return draw(misfits(inner).filter(lambda text: text != "null"))
        case Array(element=element) if draw(st.booleans()):
            return f"[{', '.join([*_right(draw, element), draw(misfits(element)), *_right(draw, element)])}]"
        case Map(value=value) if draw(st.booleans()):
            parts = [*_right(draw, value), draw(misfits(value))]
            return "{" + ", ".join(f'"{number}": {part}' for number, part in enumerate(parts)) + "}"
        case Struct(fields=fields) if draw(st.booleans()):
            wrong = draw(st.sampled_from(fields))
            fit = {field.name: draw(values(field.shape).map(written)) for field in fields}
            fit[wrong.name] = draw(misfits(wrong.shape))
            return "{" + ", ".join(f"{json.dumps(name)}: {part}" for name, part in fit.items()) + "}"
    return draw(st.sampled_from(_wrong(shape)))


def _right(draw: st.DrawFn, shape: Shape) -> list[str]:
    return draw(st.lists(values(shape).map(written), max_size=2))


_NO_ATOM = ["[[]]", '{"": 1}', "[1]", "null"]
_NO_NUMBER = ["true", '"x"', '""']
_NO_TIME = ["20200101", '"2020-02-30"', '"2020-02-30T00:00:00Z"', '"today"', '""', *_NO_ATOM]
_WRONG = {
    "string": ["1.5", "true", *_NO_ATOM],
    "boolean": ["1", "0", '"true"', *_NO_ATOM],
    "float": ['"1"', "3.5e38", "-3.5e38", "1e999", *_NO_NUMBER, *_NO_ATOM],
    "double": ['"1"', "1e999", *_NO_NUMBER, *_NO_ATOM],
    "date": _NO_TIME,
    "timestamp": _NO_TIME,
    "timestamp_ntz": _NO_TIME,
    **{
        kind: [str(2 ** (bits - 1)), str(-(2 ** (bits - 1)) - 1), str(10**40), "1.5", '"1"', *_NO_NUMBER, *_NO_ATOM]
        for kind, bits in BITS.items()
    },
}


def _wrong(shape: Shape) -> list[str]:
    match shape:
        case Scalar(kind=kind):
            return _WRONG[kind]
        case Number(precision=precision, scale=scale):
            return [f"1e{precision - scale}", f"1e-{scale + 1}", '"NaN"', '"Infinity"', *_NO_NUMBER, *_NO_ATOM]
        case Enumeration(values=allowed):
            others = [value for value in ("none of these", -77) if value not in allowed]
            return [*map(json.dumps, others), "1.5", "true", *_NO_ATOM]
        case Struct(fields=fields) if not all(isinstance(field.shape, Nullable) for field in fields):
            return ["{}", "[]", "1", '"x"', "true", "null"]
    return ["1", '"x"', "true", "null", "{}" if isinstance(shape, Array) else "[]"]
