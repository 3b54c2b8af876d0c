"""What the AI functions ask: the row's text as it is, the options in the instructions, and the type of the answer."""

import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.ai import prompts
from spark_llm.ai.catalog import FUNCTIONS, LABELS_MOST, SENTIMENTS
from spark_llm.errors import KINDS
from spark_llm.protocol.chat import Chat
from spark_llm.protocol.json_codec import write_json
from spark_llm.protocol.structured.output import Mismatch, StructuredOutput
from spark_llm.protocol.task import FOLDED, PLAIN
from spark_llm.protocol.values import Item, Prompt, RowError

TEXTS = st.text(max_size=30)
LABELS = st.lists(st.text(min_size=1, max_size=10).filter(str.strip), min_size=1, max_size=8, unique=True)
OPTIONS: dict[str, st.SearchStrategy[list[Any]]] = {
    "gen": st.just([]),
    "classify": LABELS.map(lambda labels: [labels]),
    "extract": LABELS.map(lambda labels: [labels]),
    "summarize": st.integers(0, 10_000).map(lambda words: [words]),
    "translate": st.text(min_size=1, max_size=10).filter(str.strip).map(lambda language: [language]),
    "analyze_sentiment": st.just([]),
    "fix_grammar": st.just([]),
    "mask": LABELS.map(lambda labels: [labels]),
}


def asked(name: str, *arguments: Any) -> Item | RowError | None:  # noqa: ANN401 -- any argument
    """Return what one row asks."""
    [row] = FUNCTIONS[name].asked([[argument] for argument in arguments])
    return row


def told(name: str, *arguments: Any) -> str:  # noqa: ANN401 -- any argument
    """Return the instructions of one row's question."""
    row = asked(name, *arguments)
    assert isinstance(row, Prompt)
    assert row.system is not None
    return row.system


def output_of(question: object) -> StructuredOutput:
    """Return the type that a question wants its answer to have."""
    assert isinstance(question, Prompt)
    assert isinstance(question.output, StructuredOutput)
    return question.output


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@given(st.data(), TEXTS)
def test_the_rows_text_is_the_users_message(name: str, data: st.DataObject, content: str) -> None:
    """Exactly, whatever stands in it; and whether a type is asked for is what the function says."""
    options = data.draw(OPTIONS[name])
    row = asked(name, content, *options)

    assert content == (row.content if isinstance(row, Prompt) else row)
    assert FUNCTIONS[name].typed == (isinstance(row, Prompt) and row.output is not None)
    assert set(FUNCTIONS) == set(OPTIONS)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@given(st.data(), TEXTS)
def test_every_question_can_be_sent(name: str, data: st.DataObject, content: str) -> None:
    """In every wire form, as JSON, for what a string column can hold."""
    item = asked(name, content, *data.draw(OPTIONS[name]))
    task = Chat(output_per_prompt=FUNCTIONS[name].typed)
    assert item is not None
    assert not isinstance(item, RowError)
    for wire_format in (0, PLAIN, FOLDED, PLAIN | FOLDED):
        body = json.loads(task.encode([item], None, wire_format))
        roles = {message["role"] for message in body["messages"]}

        assert ("response_format" in body) == (FUNCTIONS[name].typed and not wire_format & PLAIN)
        assert ("system" in roles) == (name != "gen" and not wire_format & FOLDED)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_null_in_any_argument_asks_nothing(name: str) -> None:
    """The other rows are asked."""
    samples = {"text": "fr", "texts": ["a"], "whole": 3}
    whole = [samples[parameter.kind] for parameter in FUNCTIONS[name].parameters]
    for place in range(len(whole)):
        lacking = [None if number == place else value for number, value in enumerate(whole)]
        rows = FUNCTIONS[name].asked([list(pair) for pair in zip(whole, lacking, strict=True)])

        assert rows[0] is not None
        assert rows[1] is None


@given(LABELS, TEXTS)
def test_an_answer_is_one_of_the_labels(labels: list[str], other: str) -> None:
    """Every label is, nothing else is, and the model is told them all."""
    question = asked("classify", "text", labels)
    output = output_of(question)
    instructions = told("classify", "text", labels)

    assert labels == [output.parse(json.dumps({"answer": label})) for label in labels]
    assert isinstance(output.parse(json.dumps({"answer": other})), Mismatch) != (other in labels)
    assert all(write_json(label).decode() in instructions for label in labels)


@given(LABELS)
def test_what_is_extracted_has_each_label(labels: list[str]) -> None:
    """Each by its name, null where the text has none of it."""
    output = output_of(asked("extract", "text", labels))
    found = {label: None if number % 2 else f"found {number}" for number, label in enumerate(labels)}

    assert found == output.parse(json.dumps(found))


def test_a_sentiment_is_one_of_four() -> None:
    """And no fifth."""
    output = output_of(asked("analyze_sentiment", "text"))

    assert list(SENTIMENTS) == [output.parse(f'{{"answer": "{each}"}}') for each in SENTIMENTS]
    assert isinstance(output.parse('{"answer": "sad"}'), Mismatch)


@pytest.mark.parametrize("name", ["classify", "extract", "mask"])
@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([], "empty"),
        (["a", None], "null or blank"),
        (["a", " "], "null or blank"),
        (["a", "b", "a"], "twice"),
        ([str(number) for number in range(LABELS_MOST + 1)], "more than"),
    ],
)
def test_labels_that_no_row_could_be_asked_with_are_the_rows_error(name: str, labels: list[Any], why: str) -> None:
    """With what is wrong, and a next step; nothing is asked, and asking again would not help."""
    row = asked(name, "text", labels)

    assert isinstance(row, RowError)
    assert why in row.what
    assert row.hint
    assert row.kind in KINDS
    assert not row.retryable


@pytest.mark.parametrize(("name", "option"), [("summarize", -1), ("translate", "  ")])
def test_so_is_another_option_that_says_nothing(name: str, option: object) -> None:
    """A negative number of words, a language without a name."""
    row = asked(name, "text", option)

    assert isinstance(row, RowError)
    assert row.hint


def test_options_are_told() -> None:
    """The number of words, the language by its name, and the labels as JSON, so that a comma in one ends nothing."""
    system = {
        name: told(name, "text", option)
        for name, option in (("summarize", 12), ("translate", "fr"), ("mask", ["a, b", "c"]))
    }

    assert "12 words" in system["summarize"]
    assert "French" in system["translate"]
    assert '"a, b", "c"' in system["mask"]
    assert "words" not in told("summarize", "text", 0)
    assert "Klingon" in told("translate", "text", "Klingon")


def test_every_prompt_is_filled_in() -> None:
    """The file of prompts has no field that nobody fills in."""
    fields = {
        name: {field for _, field, _, _ in string.Formatter().parse(getattr(prompts, name)) if field}
        for name in vars(prompts)
        if name.isupper()
    }

    assert {"CLASSIFY": {"labels"}, "EXTRACT": {"labels"}, "MASK": {"labels"}} == {
        name: found for name, found in fields.items() if found == {"labels"}
    }
    assert {"SUMMARIZE": {"max_words"}, "TRANSLATE": {"language"}} == {
        name: found for name, found in fields.items() if found and found != {"labels"}
    }
