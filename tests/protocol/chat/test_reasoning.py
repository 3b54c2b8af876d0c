"""Reasoning in front of an answer: it is found by its tags, and tags inside the answer stay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.protocol.chat.reasoning import SplitText, split_reasoning
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.structured.schema import Field, Scalar, Struct
from spark_llm.protocol.values import Answer, Prompt, Result, RowError
from tests.support.growth import grows_linearly

TAGS = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|channel>thought", "<channel|>"),
    ("analysis", "assistantfinal"),
]
LEFT_OUT = ["</think>", "</seed:think>", "[/THINK]", "◁/think▷"]  # by servers whose template writes the opening tag
PLAIN_TEXTS = st.text(st.characters(exclude_characters="<[◁", codec="utf-8"), max_size=40)
ANSWERS_ALONE = Chat(answer_only=True)
STARS = StructuredOutput("review", Struct((Field("stars", Scalar("long")),)))


def result_of(text: str, prompt: str = "row", finish_reason: str = "stop", task: Chat = ANSWERS_ALONE) -> Result:
    """Return the result of a row whose answer is this text."""
    outcome = task.parse_output(Answer([Result(text=text, finish_reason=finish_reason)], None), [prompt], 0)
    assert isinstance(outcome, Answer)
    return outcome.results[0]


@pytest.mark.parametrize(("opening", "closing"), TAGS)
@given(PLAIN_TEXTS.filter(lambda text: "assistantfinal" not in text), PLAIN_TEXTS.filter(str.strip))
def test_reasoning_in_front_is_removed(opening: str, closing: str, reasoning: str, answer: str) -> None:
    """The answer stays, without blanks around it."""
    assert SplitText(answer.strip(), had_reasoning=True) == split_reasoning(
        f"\n{opening}{reasoning}{closing}\n\n{answer}"
    )


@pytest.mark.parametrize("closing", LEFT_OUT)
@given(PLAIN_TEXTS.filter(lambda text: not text.endswith(("`", "'", '"'))))
def test_reasoning_without_its_opening_tag_is_removed(closing: str, reasoning: str) -> None:
    """A chat template may have written the tag already."""
    assert SplitText("Bonjour", had_reasoning=True) == split_reasoning(f"{reasoning}{closing}\n\nBonjour")


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("Models write <think> and </think> around their reasoning.", ""),
        ("The tag `</think>` ends it.", ""),
        ("<b>Hi</b>", ""),
        ("analysis of the finals", ""),
        ("assistantfinal before any analysis", ""),
        ("an analysis </think> assistantfinal", ""),
        ("<think>hein</think> salut", "<think>huh</think> hi"),
        ("bla </think> bli", "bla </think> ble"),
        ("", ""),
    ],
)
def test_tags_inside_the_answer_stay(text: str, prompt: str) -> None:
    """They may stand in its middle, in quotes, or in the row's own text."""
    assert SplitText(text, had_reasoning=False) == split_reasoning(text, prompt)


@pytest.mark.parametrize("unit", ["\n", " ", "analysis ", "<|return|> ", "<|channel|>final "])
@pytest.mark.parametrize("beginning", ["Answer: ", "<|channel|>analysis"])
def test_long_runs_are_read_in_linear_time(beginning: str, unit: str) -> None:
    """A model may write line breaks until its tokens run out; all requests of a worker wait for the reading."""

    def text_of(size: int) -> str:
        return f"{beginning}{unit * (size // len(unit))}."

    assert grows_linearly(split_reasoning, text_of, 2_000)
    assert grows_linearly(lambda prompt: split_reasoning("Hi", prompt), text_of, 2_000)


@given(st.text(), st.text())
def test_a_text_without_tags_is_unchanged(text: str, prompt: str) -> None:
    """Every character stays."""
    if not any(tag in text for pair in TAGS for tag in pair):
        assert SplitText(text, had_reasoning=False) == split_reasoning(text, prompt)


@pytest.mark.parametrize(
    ("text", "finish_reason", "kind", "retryable"),
    [
        ("<think>So, the", "length", "truncated", False),
        ("<think>So, the", "stop", "invalid_response", True),
        ("<think>So.</think>\n", "stop", "invalid_response", True),
        ("<think>So.</think>", "length", "truncated", False),
    ],
)
def test_reasoning_alone_is_an_error(text: str, finish_reason: str, kind: str, *, retryable: bool) -> None:
    """It is never an empty string."""
    result = result_of(text, finish_reason=finish_reason)

    assert isinstance(result.error, RowError)
    assert (None, kind, retryable) == (result.text, result.error.kind, result.error.retryable)


def test_a_chat_keeps_the_whole_text_by_default() -> None:
    """Only `answer_only` removes the reasoning."""
    text = "<think>A greeting.</think>\nBonjour"

    assert [text, "Bonjour"] == [result_of(text, task=Chat()).text, result_of(text).text]
    assert "Bonjour" == result_of(text, prompt=Prompt("Hello", "Translate.")).text  # type: ignore[arg-type]  # any item


@pytest.mark.parametrize(("opening", "closing"), TAGS)
def test_json_is_found_after_reasoning(opening: str, closing: str) -> None:
    """The reasoning may hold JSON too."""
    text = f'{opening}Is it {{"stars": 1}}?{closing}{{"stars": 4}}'
    result = result_of(text, task=Chat(output=STARS, answer_only=True))

    assert ({"stars": 4}, '{"stars": 4}', None) == (result.parsed, result.text, result.error)
    assert text == result_of(text, task=Chat(output=STARS)).text
