"""Conditions and rubrics: what they are about, how their fields are filled, and which of them are refused."""

import json
import math
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.ai.judgements import condition_error, condition_prompt, score_error, score_prompt
from spark_llm.ai.prompts import FILTER_STATEMENT
from spark_llm.protocol.structured.output import Mismatch, StructuredOutput
from spark_llm.protocol.values import Prompt, RowError

TEXTS = st.text(max_size=20)
FINITE = st.floats(-1e6, 1e6)


def output_of(prompt: object) -> StructuredOutput:
    """Return the type of the answers to a prompt."""
    assert isinstance(prompt, Prompt)
    assert isinstance(prompt.output, StructuredOutput)
    return prompt.output


@given(TEXTS, TEXTS)
def test_values_fill_the_fields(title: str, topic: str) -> None:
    """The statement is the user's message, and a brace in a value has no meaning; JSON and a struct are the same."""
    content = {"title": title, "topic": topic, "other": "unused"}
    prompts = [condition_prompt(each, "{title} is about {topic}") for each in (content, json.dumps(content))]

    assert prompts[0] == prompts[1]
    assert isinstance(prompts[0], Prompt)
    assert f"{title} is about {topic}" == prompts[0].content
    assert FILTER_STATEMENT == prompts[0].system


@given(TEXTS)
def test_a_condition_without_fields_is_about_the_whole_content(content: str) -> None:
    """A text is sent as it is, and named values as a JSON object; a doubled brace is a brace."""
    prompt = condition_prompt(content, "it has a {{brace}}")
    named = condition_prompt({"text": content, "none": None}, "it is short")

    assert isinstance(prompt, Prompt)
    assert isinstance(named, Prompt)
    assert isinstance(named.content, str)
    assert content == prompt.content
    assert "it has a {brace}" in (prompt.system or "")
    assert {"text": content, "none": None} == json.loads(named.content)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (3, "3"),
        (2.5, "2.5"),
        (True, "true"),
        (date(2026, 1, 31), "2026-01-31"),
        (Decimal("1.50"), "1.50"),
        (["a"], '["a"]'),
        (b"\x00\xff", "AP8="),
        (bytearray(b"\x00\xff"), "AP8="),
        ([b"\x00\xff"], '["AP8="]'),
    ],
)
def test_other_values_are_written_out(value: object, written: str) -> None:
    """A number, a date or a list in a field is its text, and bytes are base64, as to_json() writes them."""
    filled, whole = (condition_prompt({"value": value}, condition) for condition in ("it is {value}", "it is large"))

    assert isinstance(filled, Prompt)
    assert isinstance(whole, Prompt)
    assert f"it is {written}" == filled.content
    assert written.strip('"') in str(whole.content)


@pytest.mark.parametrize(
    "number", ["12345678901234567890.12", "1.10", "-0.0", "1e5", "1E400", "9007199254740993", "9" * 5_000]
)
def test_numbers_in_json_keep_their_digits(number: str) -> None:
    """As the content has them, alone and inside a list or an object."""
    content = f'{{"n":{number},"list":[{number}],"object":{{"n":{number}}}}}'
    prompt = condition_prompt(content, "{n} and {list} and {object}")

    assert isinstance(prompt, Prompt)
    assert f'{number} and [{number}] and {{"n":{number}}}' == prompt.content


def test_a_null_in_a_field_sends_nothing() -> None:
    """As a null argument; other fields may be null."""
    assert condition_prompt({"a": None}, "it is {a}") is None
    assert condition_prompt('{"a": null}', "it is {a}") is None
    assert isinstance(condition_prompt({"a": "x", "b": None}, "it is {a}"), Prompt)


@pytest.mark.parametrize(
    ("content", "found"), [("a text", "no fields"), ("[1]", "no fields"), ({"title": "x"}, "only title"), ("{", "no")]
)
def test_a_field_that_the_content_lacks_is_named(content: Any, found: str) -> None:  # noqa: ANN401 -- of either kind
    """The hint says how to pass columns."""
    for prompt in (condition_prompt(content, "it is {topic}"), score_prompt(content, "how {topic}", 0, 1)):
        assert isinstance(prompt, RowError)
        assert f"names {{topic}}, and the content has {found}" in prompt.what
        assert "struct(topic)" in prompt.hint


@pytest.mark.parametrize("source", ["", " \n", "{", "a }", "{a b}", "{}", "{0}"])
def test_a_template_that_is_none_is_refused(source: str) -> None:
    """Without braces of one kind, without a name in them, or without a word."""
    for error in (condition_error(source), score_error(source), condition_prompt("x", source)):
        assert isinstance(error, RowError)
        assert error.hint


@given(FINITE, FINITE)
def test_a_score_is_in_its_range(one: float, other: float) -> None:
    """The answer's type takes both ends, and no number beyond them; an empty range is refused."""
    least, most = sorted((one, other))
    if least == most:
        assert isinstance(score_prompt("text", "how good", least, most), RowError)
        return
    output = output_of(score_prompt("text", "how good", least, most))

    for score in (least, most):
        assert score == output.parse(json.dumps({"answer": score}))
    for score in (math.nextafter(least, -math.inf), math.nextafter(most, math.inf)):
        assert isinstance(output.parse(json.dumps({"answer": score})), Mismatch)
    assert isinstance(output.parse('{"answer": "high"}'), Mismatch)


@pytest.mark.parametrize(("least", "most"), [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.inf)])
def test_a_range_without_a_score_is_refused(least: float, most: float) -> None:
    """Both ends are finite, and the least is the smaller one."""
    for error in (score_error(least=least, most=most), score_prompt("x", "how good", least, most)):
        assert isinstance(error, RowError)
        assert "the smaller one as least" in error.hint


def test_the_range_is_in_the_instructions() -> None:
    """Whole numbers have no point."""
    for rubric in ("how good", "how good {x} is"):
        prompt = score_prompt({"x": "y"}, rubric, 0.0, 2.5)
        assert isinstance(prompt, Prompt)
        assert "from 0 to 2.5" in (prompt.system or "")
        assert ("how good" in (prompt.system or "")) == ("{" not in rubric)


def test_an_answer_is_true_or_false() -> None:
    """And nothing that only looks like it."""
    output = output_of(condition_prompt("text", "it is good"))

    assert [True, False] == [output.parse(f'{{"answer": {each}}}') for each in ("true", "false")]
    for other in ('"true"', "1", "null", '"yes"'):
        assert isinstance(output.parse(f'{{"answer": {other}}}'), Mismatch)
