"""Prompts of the AI functions: the row's text unchanged, options in the instructions, and the answer's type."""

import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.ai import prompts
from spark_llm.ai.catalog import FUNCTIONS, SENTIMENTS
from spark_llm.ai.labels import MAX_LABELS
from spark_llm.errors import KINDS
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.json_codec import write_json
from spark_llm.protocol.structured.output import Mismatch, StructuredOutput
from spark_llm.protocol.task import FOLDED, PLAIN
from spark_llm.protocol.values import Item, Prompt, RowError

TEXTS = st.text(max_size=30)
LABELS = st.lists(st.text(min_size=1, max_size=10).filter(str.strip), min_size=1, max_size=8, unique=True)
SENTENCES = st.text(min_size=1, max_size=10).filter(lambda text: text.strip() and not {*text} & {"{", "}"})
OPTIONS: dict[str, st.SearchStrategy[list[Any]]] = {
    "gen": st.just([]),
    "classify": LABELS.map(lambda labels: [labels]),
    "classify_multi": LABELS.map(lambda labels: [labels]),
    "extract": LABELS.map(lambda labels: [labels]),
    "summarize": st.integers(0, 10_000).map(lambda words: [words]),
    "translate": st.text(min_size=1, max_size=10).filter(str.strip).map(lambda language: [language]),
    "analyze_sentiment": st.just([]),
    "fix_grammar": st.just([]),
    "mask": LABELS.map(lambda labels: [labels]),
    "filter": SENTENCES.map(lambda condition: [condition]),
    "score": st.tuples(SENTENCES, st.floats(-100, 0), st.floats(1, 100)).map(list),
}


def prompt_of(name: str, *arguments: Any) -> Item | RowError | None:  # noqa: ANN401 -- any argument
    """Return the prompt of one row."""
    [row] = FUNCTIONS[name].prompts([[argument] for argument in arguments])
    return row


def instructions_of(name: str, *arguments: Any) -> str:  # noqa: ANN401 -- any argument
    """Return the instructions of one row's prompt."""
    row = prompt_of(name, *arguments)
    assert isinstance(row, Prompt)
    assert row.system is not None
    return row.system


def structured_output_of(prompt: object) -> StructuredOutput:
    """Return the structured output that a prompt asks for."""
    assert isinstance(prompt, Prompt)
    assert isinstance(prompt.output, StructuredOutput)
    return prompt.output


@pytest.mark.waits
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@given(st.data(), TEXTS)
def test_the_rows_text_is_the_users_message(name: str, data: st.DataObject, content: str) -> None:
    """The text is unchanged, and `typed` says whether the prompt asks for structured output."""
    options = data.draw(OPTIONS[name])
    row = prompt_of(name, content, *options)

    assert content == (row.content if isinstance(row, Prompt) else row)
    assert FUNCTIONS[name].typed == (isinstance(row, Prompt) and row.output is not None)
    assert set(FUNCTIONS) == set(OPTIONS)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@given(st.data(), TEXTS)
def test_every_prompt_can_be_sent(name: str, data: st.DataObject, content: str) -> None:
    """Every wire format encodes it as JSON, for any text that a string column can hold."""
    item = prompt_of(name, content, *data.draw(OPTIONS[name]))
    task = Chat(output_per_prompt=FUNCTIONS[name].typed)
    assert item is not None
    assert not isinstance(item, RowError)
    for wire_format in (0, PLAIN, FOLDED, PLAIN | FOLDED):
        body = json.loads(bytes(task.encode([item], None, wire_format)))
        roles = {message["role"] for message in body["messages"]}

        assert ("response_format" in body) == (FUNCTIONS[name].typed and not wire_format & PLAIN)
        assert ("system" in roles) == (name != "gen" and not wire_format & FOLDED)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_null_in_any_argument_gives_no_prompt(name: str) -> None:
    """Only the rows without nulls have prompts."""
    samples = {"text": "fr", "content": "fr", "texts": ["a"], "labels": ["a"], "whole": 3}
    whole = [
        parameter.default if parameter.extra or parameter.kind == "number" else samples[parameter.kind]
        for parameter in FUNCTIONS[name].parameters
    ]
    for place in range(len(whole)):
        lacking = [None if number == place else value for number, value in enumerate(whole)]
        rows = FUNCTIONS[name].prompts([list(pair) for pair in zip(whole, lacking, strict=True)])

        assert rows[0] is not None
        assert rows[1] is None


@given(LABELS, TEXTS)
def test_an_answer_is_one_of_the_labels(labels: list[str], other: str) -> None:
    """The answer's type accepts every label and nothing else, and the instructions list all labels."""
    prompt = prompt_of("classify", "text", labels)
    output = structured_output_of(prompt)
    instructions = instructions_of("classify", "text", labels)

    assert labels == [output.parse(json.dumps({"answer": label})) for label in labels]
    assert isinstance(output.parse(json.dumps({"answer": other})), Mismatch) != (other in labels)
    assert all(write_json(label).decode() in instructions for label in labels)


@given(LABELS)
def test_extracted_values_have_every_label(labels: list[str]) -> None:
    """The answer has a value or null under each label."""
    output = structured_output_of(prompt_of("extract", "text", labels))
    found = {label: None if number % 2 else f"found {number}" for number, label in enumerate(labels)}

    assert found == output.parse(json.dumps(found))


def test_a_sentiment_is_one_of_four() -> None:
    """The answer's type accepts the four sentiments and nothing else."""
    output = structured_output_of(prompt_of("analyze_sentiment", "text"))

    assert list(SENTIMENTS) == [output.parse(f'{{"answer": "{each}"}}') for each in SENTIMENTS]
    assert isinstance(output.parse('{"answer": "sad"}'), Mismatch)


@pytest.mark.parametrize("name", ["classify", "classify_multi", "extract", "mask"])
@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([], "empty"),
        (["a", None], "null or blank"),
        (["a", " "], "null or blank"),
        (["a", "b", "a"], "twice"),
        ([str(number) for number in range(MAX_LABELS + 1)], "more than"),
    ],
)
def test_invalid_labels_are_the_rows_error(name: str, labels: list[Any], why: str) -> None:
    """The error names the problem and a next step, and is not retryable."""
    row = prompt_of(name, "text", labels)

    assert isinstance(row, RowError)
    assert why in row.what
    assert row.hint
    assert row.kind in KINDS
    assert not row.retryable


@pytest.mark.parametrize(("name", "option"), [("summarize", -1), ("translate", "  "), ("filter", " "), ("filter", "{")])
def test_another_invalid_option_is_the_rows_error(name: str, option: object) -> None:
    """A negative number of words, an empty language and a condition that is no template are errors with a hint."""
    row = prompt_of(name, "text", option)

    assert isinstance(row, RowError)
    assert row.hint


def test_options_are_in_the_instructions() -> None:
    """The instructions have the number of words, the language's name, and the labels as JSON strings."""
    system = {
        name: instructions_of(name, "text", option)
        for name, option in (("summarize", 12), ("translate", "fr"), ("mask", ["a, b", "c"]))
    }

    assert "12 words" in system["summarize"]
    assert "French" in system["translate"]
    assert '"a, b", "c"' in system["mask"]
    assert "words" not in instructions_of("summarize", "text", 0)
    assert "Klingon" in instructions_of("translate", "text", "Klingon")


def test_every_prompt_is_filled_in() -> None:
    """The prompts have no other fields than those that the catalog and the aggregates fill."""
    fields = {
        name: {field for _, field, _, _ in string.Formatter().parse(getattr(prompts, name)) if field}
        for name in vars(prompts)
        if name.isupper()
    }

    assert {
        **{name: {"labels"} for name in ("CLASSIFY", "CLASSIFY_MULTI", "EXTRACT", "MASK")},
        "CLASSIFY_EXAMPLES": {"examples"},
        "CLASSIFY_INSTRUCTIONS": {"instructions"},
        **{name: {"instruction"} for name in ("AGGREGATE", "COMBINE")},
        **{name: {"instruction", "max_words"} for name in ("AGGREGATE_PART", "COMBINE_PART")},
        "SUMMARIZE": {"max_words"},
        "TRANSLATE": {"language"},
        **{name: {"fields"} for name in ("EXTRACT_CITED", "EXTRACT_FIELDS")},
        "FILTER": {"condition"},
        "SCORE": {"rubric", "least", "most"},
        "SCORE_QUESTION": {"least", "most"},
    } == {name: found for name, found in fields.items() if found}
