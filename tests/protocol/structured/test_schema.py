"""The types of structured output: which values each accepts, to the digit, and its JSON Schema."""

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # its types are a package of their own

from spark_llm.protocol.structured.constraints import CONSTRAINTS, Constraints
from spark_llm.protocol.structured.output import Mismatch, StructuredOutput
from spark_llm.protocol.structured.schema import (
    Array,
    Enumeration,
    Field,
    Map,
    Nullable,
    Number,
    Scalar,
    Shape,
    Struct,
    walk,
)
from tests.support.shapes import BITS, STRUCTS, elsewhere, misfits, values, written

KEYWORDS = {
    *("type", "properties", "required", "additionalProperties", "items"),
    *("enum", "description", "format"),
}
"""Those that strict servers take, as far as they are needed."""


def read(shape: Shape, text: str) -> Any:  # noqa: ANN401 -- a value of any shape
    """Parse a value as the only field of a struct."""
    found = StructuredOutput("answer", Struct((Field("value", shape),))).parse(f'{{"value": {text}}}')
    return found if isinstance(found, Mismatch) else found["value"]


def schema_of(shape: Struct) -> dict[str, Any]:
    """Return the JSON Schema as it is sent."""
    schema: dict[str, Any] = json.loads(StructuredOutput("answer", shape).schema)
    return schema


def parts(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a schema and all schemas inside it."""
    yield schema
    inner = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    for part in inner:
        if isinstance(part, dict):
            yield from parts(part)


@given(st.data(), STRUCTS)
def test_values_are_parsed_back_exactly(data: st.DataObject, shape: Struct) -> None:
    """Each digit, microsecond and character stays, in its own Python type; missing fields stay missing."""
    value = data.draw(values(shape).filter(bool))

    assert repr(value) == repr(StructuredOutput("answer", shape).parse(written(value)))


@given(st.data(), STRUCTS)
def test_the_schema_accepts_complete_values(data: st.DataObject, shape: Struct) -> None:
    """The schema itself is valid too."""
    schema = schema_of(shape)
    Draft202012Validator.check_schema(schema)
    value = json.loads(written(data.draw(values(shape, whole=True))))

    assert [] == [error.message for error in Draft202012Validator(schema).iter_errors(value)]


@given(st.data(), STRUCTS)
def test_one_wrong_value_is_a_mismatch(data: st.DataObject, shape: Struct) -> None:
    """It may be at any depth, and the mismatch counts as JSON."""
    found = StructuredOutput("answer", shape).parse(data.draw(misfits(shape).filter(lambda text: text.startswith("{"))))

    assert isinstance(found, Mismatch)
    assert found.is_json
    assert found.reason


@given(STRUCTS)
def test_the_schema_has_no_keywords_that_servers_differ_in(shape: Struct) -> None:
    """It has no `$ref`, no `anyOf` and no bounds; an object is closed and requires all fields, unless it is a map."""
    for part in parts(schema_of(shape)):
        assert part.keys() <= KEYWORDS
        if "properties" in part:
            assert (list(part["properties"]), False) == (part["required"], part["additionalProperties"])


@given(STRUCTS)
def test_walk_yields_every_shape(shape: Struct) -> None:
    """There are as many as parts of the schema, without nulls."""
    met = [part for part in walk(shape) if not isinstance(part, Nullable)]

    assert len(met) == len(list(parts(schema_of(shape))))


@pytest.mark.parametrize("kind", BITS)
def test_a_whole_number_fits_its_width(kind: str) -> None:
    """The first and the last number are accepted, and their neighbours outside are refused."""
    most = 2 ** (BITS[kind] - 1)

    assert [-most, most - 1] == [read(Scalar(kind), str(number)) for number in (-most, most - 1)]
    assert [Mismatch, Mismatch] == [type(read(Scalar(kind), str(number))) for number in (-most - 1, most)]


NUMBERS = st.one_of(
    st.sampled_from(
        ["1.0", "-0.0", "1e2", "1E+2", "10e-1", "127.0", "128.0", "1.5", "1e-1", "0.1e1", "0e19", "-12800e-2"]
    ),
    st.sampled_from(
        ["9223372036854775807.0", "9223372036854775808.0", "9223372036854775806.5", "1e18", "1e19", "1e999"]
    ),
    st.sampled_from(["1.00000000000000000000001", "4503599627370497.3", "1." + "0" * 500, "1e" + "9" * 30, "true"]),
    st.builds("{}.{}".format, st.integers(-(2**64), 2**64), st.integers(0, 99)),
    st.builds("{}e{}".format, st.integers(-(2**16), 2**16), st.integers(-20, 20)),
)


@given(NUMBERS, st.sampled_from(sorted(BITS)))
def test_a_whole_number_may_have_a_point(text: str, kind: str) -> None:
    """1.0 and 1e2 are whole numbers in JSON Schema; each is read from its digits, or is a mismatch."""
    exact = None if text == "true" or len(text.partition("e")[2]) > 3 else Fraction(text)
    fits = exact is not None and exact.denominator == 1 and -(2 ** (BITS[kind] - 1)) <= exact < 2 ** (BITS[kind] - 1)
    found = read(Scalar(kind), text)

    assert (fits, int) == (found == exact, type(found)) if fits else isinstance(found, Mismatch)
    assert not fits or Draft202012Validator(Scalar(kind).json_schema()).is_valid(json.loads(text))


def test_points_in_other_values_do_not_matter() -> None:
    """Texts, decimals and floats of the same answer are unchanged; enumerations of numbers accept a point."""
    shape = Struct(
        (
            Field("a", Enumeration((1, 2))),
            Field("b", Number(5, 2)),
            Field("c", Scalar("string")),
            Field("d", Scalar("double")),
            Field("e", Map(Nullable(Scalar("long", (("le", 3),))))),
        )
    )
    text = r'{"a": 2.0, "b": 1.0, "c": "1.0 \" 2.0", "d": 1234567890123456789.0, "e": {"3.0": 3.0, "x": null}}'
    found = StructuredOutput("answer", shape).parse(text)

    assert {
        "a": 2,
        "b": Decimal("1.00"),
        "c": '1.0 " 2.0',
        "d": 1234567890123456789.0,
        "e": {"3.0": 3, "x": None},
    } == found
    assert isinstance(StructuredOutput("answer", shape).parse(text.replace('"3.0": 3.0', '"3.0": 4.0')), Mismatch)


def test_a_float_fits_its_width() -> None:
    """The largest float32 is accepted, and a number that would be infinite is refused; a double accepts it."""
    most = "3.4028234663852886e38"

    assert [float(most), -float(most)] == [read(Scalar("float"), number) for number in (most, f"-{most}")]
    assert [Mismatch, Mismatch] == [type(read(Scalar("float"), number)) for number in ("3.41e38", "-3.41e38")]
    assert 3.41e38 == read(Scalar("double"), "3.41e38")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5_000])
@pytest.mark.parametrize("shape", [Scalar("float"), Scalar("double"), Scalar("long"), Number(38, 18)], ids=repr)
def test_a_number_beyond_its_column_is_a_mismatch(number: str, shape: Shape) -> None:
    """It becomes neither null nor the nearest number."""
    assert isinstance(read(shape, number), Mismatch)
    assert isinstance(read(Nullable(shape), number), Mismatch)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12.5", "12.50"),
        ("12.50", "12.50"),
        ("12.500", "12.50"),
        ("1.25e1", "12.50"),
        ("-999.99", "-999.99"),
        ("0", "0.00"),
        ("1e2", "100.00"),
        ('"12.50"', "12.50"),
    ],
)
def test_a_decimal_gets_its_scale(text: str, expected: str) -> None:
    """It has the digits of its column after the point, however it is written, in quotes too."""
    assert expected == str(read(Number(5, 2), text))


@pytest.mark.parametrize("text", ["12.505", "1000", "999.995", "1e3", "1e-3", '"NaN"', '"sNaN"', '"-Infinity"', '"a"'])
def test_a_decimal_is_never_rounded(text: str) -> None:
    """A digit too many, before or after the point, is a mismatch."""
    assert isinstance(read(Number(5, 2), text), Mismatch)


def test_a_decimal_is_read_from_its_digits() -> None:
    """It keeps all 38 digits, which no float has."""
    digits = "12345678901234567890.123456789012345678"

    assert Decimal(digits) == read(Number(38, 18), digits)


@given(st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29)), st.integers(-1_439, 1_439))  # noqa: DTZ001 -- given its zone below
def test_a_timestamp_is_converted_to_utc(moment: datetime, minutes: int) -> None:
    """A timestamp needs an offset, and one without a time zone must have none."""
    utc = moment.replace(tzinfo=timezone.utc, fold=0)
    there = json.dumps(elsewhere(utc, minutes))

    assert repr(utc) == repr(read(Scalar("timestamp"), there))
    assert isinstance(read(Scalar("timestamp"), json.dumps(moment.isoformat())), Mismatch)
    assert isinstance(read(Scalar("timestamp_ntz"), there), Mismatch)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_timestamp_outside_of_all_years_is_a_mismatch(text: str) -> None:
    """Its year in UTC would be 0 or 10000."""
    assert isinstance(read(Array(Scalar("timestamp")), f'["{text}"]'), Mismatch)


@pytest.mark.parametrize(
    ("shape", "fits", "breaks"),
    [
        (Scalar("long", (("ge", 0), ("lt", 5))), ["0", "4"], ["-1", "5", str(2**63)]),
        (Scalar("byte", (("ge", -1_000),)), ["-128"], ["-129"]),
        (Scalar("byte", (("gt", -128),)), ["-127"], ["-128"]),
        (Scalar("byte", (("gt", -1_000),)), ["-128"], ["-129"]),
        (Scalar("byte", (("lt", 127),)), ["126"], ["127"]),
        (Scalar("long", (("multiple_of", 3),)), ["-3", "0"], ["4"]),
        (Scalar("double", (("gt", 0.5), ("le", 1))), ["1", "0.6"], ["0.5", "1.1"]),
        (Scalar("string", (("max_length", 3), ("min_length", 2))), ['"ab"', '"äöü"'], ['"a"', '"abcd"']),
        (Scalar("string", (("pattern", "^a+$"),)), ['"aa"'], ['"ab"', '""']),
        (Array(Scalar("long"), (("min_length", 1),)), ["[1]"], ["[]"]),
        (Map(Scalar("long"), (("max_length", 1),)), ['{"a": 1}', "{}"], ['{"a": 1, "b": 2}']),
        (Number(5, 2, (("ge", "0.10"), ("lt", 1))), ["0.1", "0.99"], ["0.09", "1"]),
        (Number(5, 2, (("gt", 0), ("le", 0.5))), ["0.01", "0.5"], ["0", "0.51"]),
        (Number(5, 2, (("multiple_of", "0.05"),)), ["0.15", "-1.05", "0"], ["0.16"]),
        (Number(38, 0, (("multiple_of", 7),)), [str(7 * 10**36)], [str(7 * 10**36 + 1)]),
        (Enumeration(("yes", "no")), ['"yes"'], ['"maybe"', '"Yes"', "null"]),
        (Enumeration((1, 2)), ["2"], ["3", '"1"', "true"]),
        (Nullable(Enumeration(("yes",))), ["null", '"yes"'], ['""', '"null"']),
    ],
    ids=repr,
)
def test_constraints_are_checked(shape: Shape, fits: list[str], breaks: list[str]) -> None:
    """Allowed values are accepted and others are refused; the narrower of two bounds counts."""
    assert [] == [text for text in fits if isinstance(read(shape, text), Mismatch)]
    assert [] == [text for text in breaks if not isinstance(read(shape, text), Mismatch)]


@pytest.mark.parametrize(
    "shape",
    [
        Number(5, 2, (("ge", float("nan")),)),
        Number(5, 2, (("multiple_of", 0),)),
        Number(5, 2, (("ge", "2020-01-01"),)),
        Scalar("long", (("ge", 0.5),)),
        Scalar("long", (("min_length", 1),)),
        Scalar("double", (("multiple_of", -1),)),
        Scalar("date", (("ge", 1),)),
    ],
    ids=repr,
)
def test_constraints_that_cannot_be_checked_are_found_early(shape: Shape) -> None:
    """The error comes with the type, and not with the first answer."""
    with pytest.raises((TypeError, ValueError, ArithmeticError)):
        StructuredOutput("answer", shape).check_constraints()


@pytest.mark.parametrize("name", sorted(CONSTRAINTS))
def test_constraints_are_in_the_description(name: str) -> None:
    """Servers differ in the keywords of JSON Schema."""
    constraints: Constraints = ((name, 7),)
    shapes: list[Shape] = [
        Scalar("long", constraints),
        Array(Scalar("long"), constraints),
        Map(Scalar("long"), constraints),
        Number(9, 2, constraints),
    ]

    for shape in shapes:
        assert "7" in shape.json_schema()["description"]
        assert {"type", "items", "additionalProperties", "description"} >= shape.json_schema().keys()


def test_the_users_description_comes_first() -> None:
    """Constraints and the format of the value follow."""
    shape = Struct((Field("price", Nullable(Number(9, 2, (("gt", 0),))), "In euros"), Field("when", Scalar("date"))))

    assert {
        "price": {
            "type": ["number", "null"],
            "description": "In euros; a decimal number with at most 2 digits after the point; more than 0",
        },
        "when": {"type": "string", "format": "date"},
    } == schema_of(shape)["properties"]
    assert ["price", "when"] == schema_of(shape)["required"]


def test_a_nullable_enumeration_lists_null() -> None:
    """Validators require it."""
    assert {"type": ["string", "null"], "enum": ["a", None]} == Nullable(Enumeration(("a",))).json_schema()


def test_types_may_be_nested_deeply() -> None:
    """Fifty nested structs are parsed, and a mismatch in the innermost is reported."""
    shape: Shape = Scalar("timestamp")
    for _ in range(50):
        shape = Struct((Field("a", shape),))
    assert isinstance(shape, Struct)
    text = '{"a": ' * 50 + '"2020-01-01T00:00:00Z"' + "}" * 50
    found: Any = StructuredOutput("deep", shape).parse(text)

    for _ in range(50):
        found = found["a"]
    assert datetime(2020, 1, 1, tzinfo=timezone.utc) == found
    assert isinstance(StructuredOutput("deep", shape).parse(text.replace("Z", "")), Mismatch)
