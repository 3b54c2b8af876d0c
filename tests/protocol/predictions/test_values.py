"""Predictions as values of a type: exactly, or a misfit that says where."""

import base64
import json
import math
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.protocol.json_codec import read_json
from spark_llm.protocol.predictions.scalars import Misfit, write_prediction
from spark_llm.protocol.predictions.values import float_hook, read_predictions
from spark_llm.protocol.structured.schema import Array, Field, Map, Nullable, Number, Scalar, Shape, Struct
from tests.support.shapes import ATOMS, SPARKS, elsewhere, misfits, values, written
from tests.support.strategies import JSON

INT, LONG, DOUBLE, FLOAT, STRING = (Scalar(kind) for kind in ("integer", "long", "double", "float", "string"))
DATE, LOCAL, MOMENT, MONEY = Scalar("date"), Scalar("timestamp_ntz"), Scalar("timestamp"), Number(20, 2)
PAIR = Struct((Field("a", Array(Nullable(INT))), Field("b", INT)))
SHAPES: st.SearchStrategy[Shape] = st.one_of(ATOMS, ATOMS.map(Nullable), SPARKS, SPARKS.map(Array), ATOMS.map(Map))


def plain(value: Any) -> str:  # noqa: ANN401 -- any value
    """Write a value with its type, so that NaN equals NaN and 1 does not equal 1.0; fields have an order."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name!r}: {plain(value[name])}' for name in sorted(value))}}}"
    return f"[{', '.join(map(plain, value))}]" if isinstance(value, list) else repr(value)


def read(shape: Shape, text: str) -> list[Any]:
    """Read a list of predictions."""
    return read_predictions(shape, read_json(text.encode(), float_hook(shape)))


@given(st.data(), SHAPES)
def test_every_value_of_a_type_is_read_exactly(data: st.DataObject, shape: Shape) -> None:
    """Digits of decimals, whole numbers beyond 2^53, times and nested values come back as they were written."""
    rows = data.draw(st.lists(values(shape, whole=True), max_size=5))

    assert plain(rows) == plain(read(shape, f"[{', '.join(map(written, rows))}]"))


@given(st.data(), SHAPES)
def test_what_the_cache_keeps_is_the_same_value(data: st.DataObject, shape: Shape) -> None:
    """A value that is written and read again is itself, NaN and infinity too."""
    floats = st.sampled_from([math.nan, math.inf, -math.inf])
    rows = data.draw(st.lists(values(shape, whole=True) | floats if shape == DOUBLE else values(shape, whole=True)))
    texts = [write_prediction(row) for row in rows]

    assert plain(rows) == plain([row for text in texts for row in read(shape, f"[{text}]")])


@given(st.data(), ATOMS | SPARKS)
def test_a_misfit_is_its_rows_alone(data: st.DataObject, shape: Shape) -> None:
    """One row that does not fit leaves its neighbours alone."""
    fit = data.draw(st.lists(values(shape, whole=True), max_size=3))
    wrong = data.draw(misfits(shape).filter(lambda text: text not in _TAKEN_OUT and "1e999" not in text))
    at = data.draw(st.integers(0, len(fit)))
    texts = list(map(written, fit))
    found = read(shape, f"[{', '.join([*texts[:at], wrong, *texts[at:]])}]")
    lenient = [row for row in found if not isinstance(row, Misfit)]

    assert plain(fit) == plain(found[:at] + found[at + 1 :])
    assert isinstance(found[at], Misfit) or len(lenient) == len(fit) + 1


_TAKEN_OUT = ["[1]", '{"": 1}', "[[]]"]  # of a frame's row there is one value


@given(SHAPES, st.lists(JSON, max_size=4))
def test_any_json_is_read_or_a_misfit(shape: Shape, rows: list[Any]) -> None:
    """No value raises, and a misfit's reason is a line of text."""
    found = read_predictions(shape, rows)

    assert len(rows) == len(found)
    assert all("\n" not in row.reason for row in found if isinstance(row, Misfit))


TIME = datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=timezone.utc)
NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("shape", "text", "expected"),
    [
        (DOUBLE, "[1, 2.5, NaN, Infinity, -Infinity, -0.0]", [1.0, 2.5, NAN, INF, -INF, -0.0]),
        (FLOAT, "[0.10000000149011612, NaN, -Infinity]", [0.10000000149011612, NAN, -INF]),
        (Nullable(LONG), "[9007199254740993, -9223372036854775808]", [2**53 + 1, -(2**63)]),
        (Nullable(LONG), "[3.0, NaN, null]", [3, None, None]),
        (Nullable(STRING), '["a", NaN, null, ""]', ["a", None, None, ""]),
        (Nullable(MONEY), '[1.10, "2.5", 3, NaN]', [Decimal("1.10"), Decimal("2.50"), Decimal("3.00"), None]),
        (MONEY, "[12345678901234567.89]", [Decimal("12345678901234567.89")]),
        (Nullable(DATE), '["2024-02-29", "2024-02-29T00:00:00", "NaT"]', [TIME.date(), TIME.date(), None]),
        (Nullable(LOCAL), '["2024-02-29T01:02:03.000004", "NaT", NaN]', [TIME.replace(tzinfo=None), None, None]),
        (Nullable(MOMENT), '["2024-02-29T01:02:03.000004", "NaT"]', [TIME, None]),
        (DOUBLE, '[[1.5], {"0": 2.5}, {"prediction": 3}]', [1.5, 2.5, 3.0]),
        (Array(DOUBLE), '[[1.5], {"vector": [1, NaN]}, []]', [[1.5], [1.0, NAN], []]),
        (Map(Nullable(INT)), '[{"a": 1}, {"a": 1, "b": null}, {}]', [{"a": 1}, {"a": 1, "b": None}, {}]),
        (PAIR, '[{"a": [1], "b": 1, "c": 2}]', [{"a": [1], "b": 1}]),
    ],
)
def test_what_mlflow_writes_is_read(shape: Shape, text: str, expected: list[Any]) -> None:
    """Bare NaN, floats for whole numbers, frames of one column, times without a zone: as pandas and numpy have them."""
    assert plain(expected) == plain(read(shape, text))


@pytest.mark.parametrize(
    ("shape", "text", "expected", "found"),
    [
        (INT, "3.5", "a whole number (INT) is expected", "3.5"),
        (Scalar("byte"), "128", "a whole number (TINYINT) is expected", "128"),
        (INT, "Infinity", "a whole number (INT) is expected", "Infinity"),
        (INT, "NaN", "a whole number (INT) is expected", "NaN"),
        (INT, "true", "a whole number (INT) is expected", "true"),
        (DOUBLE, '"1.5"', "a number is expected", '"1.5"'),
        (DOUBLE, "null", "a number is expected", "null"),
        (FLOAT, "3.5e38", "a number of 32 bits is expected", "3.5e+38"),
        (STRING, "5", "a string is expected", "5"),
        (Number(3, 1), "1.25", "DECIMAL(3, 1) is expected", "1.25"),
        (LOCAL, '"2024-01-01T00:00:00Z"', "a time without a zone is expected", '"2024-01-01T00:00:00Z"'),
        (DATE, '"2024-01-01T10:00:00"', "a date is expected", '"2024-01-01T10:00:00"'),
        (Scalar("binary"), '"*"', "bytes in base64 is expected", '"*"'),
        (PAIR, '{"a": [1, null, "x"], "b": 1}', "a whole number (INT) is expected at a[2]", '"x"'),
        (PAIR, "[1]", "an object with the fields a, b is expected", "[1]"),
        (PAIR, '{"a": [], "b": null}', "a whole number (INT) is expected at b", "null"),
        (Map(INT), '{"a": {"b": 1}}', "a whole number (INT) is expected at a", '{"b": 1}'),
        (Array(INT), "[[1]]", "a whole number (INT) is expected at [0]", "[1]"),
    ],
)
def test_a_misfit_names_what_it_is_and_where(shape: Shape, text: str, expected: str, found: str) -> None:
    """The reason has the type, the place in the value, and what stands there."""
    assert [Misfit(f"{expected}, and it is {found}")] == read(shape, f"[{text}]")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"label": "a", "score": 1.0}', "the field 'x' is missing: there is 'label', 'score'."),
        ('{"Label": "a", "x": 1.0}', "the field 'label' is missing: there is 'Label', 'x'."),
        ("{}", "the field 'label' is missing: there is none."),
    ],
)
def test_a_missing_field_is_a_misfit_and_a_null_is_a_value(text: str, what: str) -> None:
    """A misspelt name must not become a silent null; the reason has the names that came, and what to do."""
    shape = Struct((Field("label", Nullable(STRING)), Field("x", Nullable(DOUBLE))))
    [misfit] = read(shape, f"[{text}]")

    assert f"{what} Hint: give the fields of returns= the names" in misfit.reason
    assert [{"label": None, "x": None}] == read(shape, '[{"label": null, "x": null, "more": 1}]')


@given(st.lists(st.binary(max_size=200)))
def test_bytes_are_read_as_mlflow_writes_them(rows: list[bytes]) -> None:
    """Base64 with a line break after 76 characters, or without."""
    encoded = [json.dumps(base64.encodebytes(row).decode()) for row in rows]
    plain = [write_prediction(row) for row in rows]

    assert rows + rows == read(Scalar("binary"), f"[{', '.join(encoded + plain)}]")


@given(st.integers(-(2**31), 2**31), st.integers(-839, 839))
def test_a_time_with_a_zone_is_that_moment(seconds: int, minutes: int) -> None:
    """The column has it in UTC."""
    there = datetime.fromtimestamp(seconds, timezone.utc)

    assert [there] == read(Scalar("timestamp"), json.dumps([elsewhere(there, minutes)]))


def test_numbers_of_any_length_are_misfits() -> None:
    """Exponents and digits beyond all types neither hang nor raise."""
    for text in ("1e999999999", "-1e999999999", "9" * 4_000, "0." + "9" * 9_000):
        for shape in (INT, Number(38, 0), Number(38, 38), STRING):
            [found] = read(shape, f"[{text}]")
            assert isinstance(found, Misfit) or (shape, found) == (INT, 1)  # the nearest float


@pytest.mark.parametrize("text", ["1e99999999999999999999", "-1E+99999999999999999999", "1e-99999999999999999999"])
@pytest.mark.parametrize("beside", ["1.5", "NaN"])  # which only Python's own reader takes
def test_a_number_that_no_decimal_holds_is_its_rows_misfit(text: str, beside: str) -> None:
    """Not the end of the request; beside a decimal, a double is infinite or 0 as it is alone."""
    money, misfit = read(Nullable(MONEY), f"[{beside}, {text}]")
    both = Struct((Field("m", Nullable(MONEY)), Field("d", DOUBLE)))

    assert money == (Decimal("1.50") if beside == "1.5" else None)
    assert isinstance(misfit, Misfit)
    assert misfit.reason.startswith("DECIMAL(20, 2) is expected")
    assert [{"m": money, "d": float(text)}] == read(both, f'[{{"m": {beside}, "d": {text}}}]')


def test_a_whole_number_that_python_does_not_read_is_its_rows_misfit() -> None:
    """Python refuses more than 4,300 digits."""
    for shape in (INT, MONEY, STRING):
        assert isinstance(read(Nullable(shape), f"[null, {'9' * 5_000}]")[1], Misfit)
    assert [1.5, math.inf] == read(DOUBLE, f"[1.5, {'9' * 5_000}]")
