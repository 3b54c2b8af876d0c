"""Structured output: its part of the request, and its parsing from a model's text."""

import json
import re
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spark_llm.protocol.structured.output import Mismatch, StructuredOutput
from spark_llm.protocol.structured.schema import Array, Enumeration, Field, Map, Nullable, Number, Scalar, Shape, Struct
from tests.support.growth import grows_linearly
from tests.support.shapes import MARKS, STRUCTS, values, written
from tests.support.strategies import JSON, TEXTS

LOOSE = StructuredOutput(
    "loose", Struct((Field("a", Nullable(Scalar("string"))), Field("b", Nullable(Scalar("double")))))
)
STRICT = StructuredOutput(
    "strict", Struct((Field("a", Scalar("long")), Field("b", Number(20, 10)), Field("c", Scalar("string"))))
)

SAID = st.sampled_from(
    [
        "",
        "\n\n",
        "Sure! Here it is:\n",
        "The set {x, y} and the smile :-} are not it: ",
        "As JSON (see {0}):\n\n",
        "Bien sûr\N{SLIGHTLY SMILING FACE} ",
    ]
)
THOUGHT = st.sampled_from(
    ["", "<think>\nHm.\n</think>", '<think>Not {"a": 1}, nor ```json\n{"c": 2}\n```</think>\n', "no tag {</think>"]
)
AFTER = st.sampled_from(["", "\n", "\nIs that what you wanted?", " } as asked {", '\n(not {"a": null})', "\n```"])
FENCES = st.sampled_from([("", ""), ("```json\n", "\n```"), ("```\n", "```"), ("```JSON\n", "\n```")])


@given(st.data(), STRUCTS, THOUGHT, SAID, FENCES, AFTER)
def test_text_around_the_json_is_ignored(  # noqa: PLR0917 -- the pieces, in their order
    data: st.DataObject, shape: Struct, reasoning: str, sentence: str, fence: tuple[str, str], after: str
) -> None:
    """Reasoning, a sentence with braces, a code fence and a last remark do not matter, whatever the values are."""
    value = data.draw(values(shape).filter(bool))
    json_text = written(value)
    # Without an opening tag the end of the reasoning is a guess.
    assume(reasoning or not (sentence.strip() or fence[0]) or "</think>" not in json_text)
    text = reasoning + sentence + fence[0] + json_text + fence[1] + after

    assert repr(value) == repr(StructuredOutput("answer", shape).parse(text))


@given(st.one_of(TEXTS, JSON.map(json.dumps), st.lists(st.sampled_from([*MARKS, '"a":', "1", ","])).map("".join)))
def test_any_text_is_parsed_or_a_mismatch(text: str) -> None:
    """No text raises, and parsed fields have their types."""
    for output in (LOOSE, STRICT):
        found = output.parse(text)

        assert isinstance(found, Mismatch) or (found and found.keys() <= {"a", "b", "c"})


@given(st.data(), STRUCTS, st.integers(0, 10_000), st.sampled_from([*MARKS, "", '"', ",", "0", "\ud800", "NaN"]))
def test_a_damaged_answer_raises_nothing(data: st.DataObject, shape: Struct, place: int, piece: str) -> None:
    """A part may be missing or added."""
    text = written(data.draw(values(shape)))
    place %= len(text)
    output = StructuredOutput("answer", shape)

    for damaged in (text[:place], text[place:], text[:place] + piece + text[place:], text[:place] + text[place + 1 :]):
        assert isinstance(output.parse(damaged), (Mismatch, dict))


@given(st.data(), STRUCTS)
def test_half_an_answer_is_a_mismatch(data: st.DataObject, shape: Struct) -> None:
    """An answer that ran out of tokens counts as no JSON, whatever is wrong before its end."""
    text = written({**data.draw(values(shape)), "last": [{"a": 1}]})
    output = StructuredOutput("answer", Struct((*shape.fields, Field("last", Array(Map(Scalar("long")))))))
    assume("last" not in [field.name for field in shape.fields] and "</think>" not in text)
    found = [output.parse(text[:-count]) for count in (1, 3, 5)]

    assert [(Mismatch, False)] * 3 == [(type(mismatch), mismatch.is_json) for mismatch in found]


@pytest.mark.parametrize(
    ("text", "is_json"),
    [
        ("", False),
        ("I cannot.", False),
        ("{", False),
        ("} {", False),
        ("{a: 1}", False),
        ("{'a': 1}", False),
        ('{"a": 1', False),
        ('{"a": "x", "b": 1, "c"', False),
        ('{"a": "x" "b": 1}', False),
        ('<think>{"a": 1, "b": 1, "c": ""}</think>', False),
        ('{"a": NaN, "b": 1, "c": ""}', False),
        ("{}", True),
        ('{"error": "I cannot"}', True),
        ('{"a": "1", "b": 1, "c": ""}', True),
        ('{"a": 1, "b": 1}', True),
        ('{"a": 1, "b": 1, "c": null}', True),
    ],
)
def test_a_mismatch_tells_whether_it_is_json(text: str, is_json: bool) -> None:  # noqa: FBT001 -- a table
    """No JSON points to a server without the field; JSON of another type points to the model."""
    found = STRICT.parse(text)

    assert isinstance(found, Mismatch)
    assert is_json == found.is_json
    assert found.reason


@pytest.mark.parametrize("text", ["{}", '{"error": "I cannot"}', '{"A": "x"}', "Nothing in {} fits."])
def test_an_object_without_any_field_is_a_mismatch(text: str) -> None:
    """A row of nulls would look like an answer, even where all fields are nullable."""
    assert isinstance(LOOSE.parse(text), Mismatch)
    assert isinstance(StructuredOutput("alone", Nullable(Scalar("string"))).parse(text), Mismatch)


@pytest.mark.parametrize(
    ("beginning", "unit", "end"),
    [
        ("Sure:", "\n", "done"),
        ('{"stars": "', "1", '"}'),
        ("", "```\n{", ""),
        ("", '{ "', "}"),
        ("", "</think>{", "}"),
    ],
)
def test_long_answers_are_read_in_linear_time(beginning: str, unit: str, end: str) -> None:
    """A model may repeat itself until its tokens run out; all requests of a worker wait for the reading."""
    output = StructuredOutput("review", Struct((Field("stars", Scalar("byte")),)))

    assert grows_linearly(output.parse, lambda size: beginning + unit * (size // len(unit)) + end, 2_000)


def test_long_numbers_are_read_in_linear_time() -> None:
    """A number of 4,300 digits is the longest that Python reads."""
    output = StructuredOutput("review", Struct((Field("stars", Scalar("byte")),)))

    assert grows_linearly(output.parse, lambda size: f'{{"stars": [{",".join(["1" * size] * 20)}]}}', 500)


def test_unknown_fields_are_ignored() -> None:
    """They may hold anything; of two values of one field the last counts."""
    assert {"a": "y"} == LOOSE.parse('{"x": [1, {"a": 2}], "a": "x", "é": null, "a": "y"}')


@pytest.mark.parametrize("half", [r"\ud83d", r"\uDE00", r"\ude00\ud83d", "\ud83d"])
def test_a_lone_surrogate_is_replaced(half: str) -> None:
    """Whole pairs, backslashes and digits beside it stay."""
    text = rf'{{"a": 1, "b": 1.0000000001, "c": "\\ud83d \ud83d\ude00 {half}"}}'
    found: Any = STRICT.parse(text)

    assert (1, Decimal("1.0000000001")) == (found["a"], found["b"])
    assert "\\ud83d \N{GRINNING FACE} \N{REPLACEMENT CHARACTER}" == found["c"].rstrip("\ufffd") + "\ufffd"


@pytest.mark.parametrize(
    "text",
    ['{"a": ' * 100_000, '{"a": ' + "[" * 100_000, '{"a": ' + "[" * 50_000 + "]" * 50_000 + "}", '{"' * 50_000],
    ids=["objects", "arrays", "whole arrays", "quotes"],
)
def test_endless_nesting_is_a_mismatch(text: str) -> None:
    """A hundred thousand brackets take linear time."""
    for output in (STRICT, LOOSE):
        assert isinstance(output.parse(text), Mismatch)
        assert isinstance(output.parse("Here: " + text), Mismatch)


@pytest.mark.parametrize(
    ("shape", "text", "expected"),
    [
        (Enumeration(("yes", "no")), '{"answer": "no"}', "no"),
        (
            Array(Scalar("timestamp")),
            '{"answer": ["2020-01-01T01:00:00+01:00"]}',
            [datetime(2020, 1, 1, tzinfo=timezone.utc)],
        ),
        (Map(Number(3, 1)), '{"answer": {"a": 1}}', {"a": Decimal("1.0")}),
        (Nullable(Scalar("long")), '{"answer": null}', None),
        (Scalar("boolean"), '{"answer": false}', False),
    ],
    ids=repr,
)
def test_a_single_value_is_requested_as_a_struct(shape: Shape, text: str, expected: Any) -> None:  # noqa: ANN401 -- a value
    """Servers take schemas of objects, so the value is the field `answer`, which is removed again."""
    output = StructuredOutput("alone", shape)

    assert ["answer"] == list(json.loads(output.schema)["properties"])
    assert expected == output.parse(text)
    assert isinstance(output.parse('{"answer": [{}]}'), Mismatch)


@given(st.text(), STRUCTS)
def test_the_request_has_the_schema(name: str, shape: Struct) -> None:
    """The field's name is valid for all servers, and a map makes it non-strict."""
    output = StructuredOutput(name, shape)
    response_format = json.loads(b"{" + output.response_format + b"}")["response_format"]
    is_open = '"additionalProperties":{' in output.schema.decode()

    assert ("json_schema", json.loads(output.schema)) == (
        response_format["type"],
        response_format["json_schema"]["schema"],
    )
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", response_format["json_schema"]["name"])
    assert (not is_open or '"\\"' in output.schema.decode()) >= response_format["json_schema"]["strict"]


def test_the_instructions_have_the_schema() -> None:
    """A correction first names the mismatch."""
    mismatch = STRICT.parse("{}")
    again = STRICT.correction(mismatch)

    assert STRICT.schema.decode() in STRICT.instructions
    assert STRICT.instructions in again
    assert again.index(mismatch.reason) < again.index(STRICT.instructions)


def test_the_reason_has_the_path_of_the_field() -> None:
    """It is one line."""
    inner = Struct((Field("b", Number(3, 1)), Field("c", Scalar("long"))))
    output = StructuredOutput("deep", Struct((Field("a", Array(inner)),)))

    assert "$.a[1].c" in output.parse('{"a": [{"b": 1, "c": 1}, {"b": 1, "c": "x"}]}').reason
    assert output.parse('{"a": [{"b": 1.25, "c": 1}]}').reason.startswith("a: b: 1.25 is not")
