"""A model's thoughts in front of its answer: found by their marks, and left alone where they are part of the answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.protocol.chat import Chat
from spark_llm.protocol.reasoning import SplitText, split_reasoning
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.structured.schema import Field, Scalar, Struct
from spark_llm.protocol.values import Answer, Prompt, Result, RowError

MARKS = [
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
LEFT_OUT = ["</think>", "</seed:think>", "[/THINK]", "◁/think▷"]  # by servers whose template writes the opening mark
PLAIN_TEXTS = st.text(st.characters(exclude_characters="<[◁", codec="utf-8"), max_size=40)
ANSWERS_ALONE = Chat(answer_only=True)
STARS = StructuredOutput("review", Struct((Field("stars", Scalar("long")),)))


def asked(text: str, said: str = "row", finish_reason: str = "stop", task: Chat = ANSWERS_ALONE) -> Result:
    """Return what a row gets whose answer is this text."""
    outcome = task.parse_output(Answer([Result(text=text, finish_reason=finish_reason)], None), [said], 0)
    assert isinstance(outcome, Answer)
    return outcome.results[0]


@pytest.mark.parametrize(("opening", "closing"), MARKS)
@given(PLAIN_TEXTS.filter(lambda text: "assistantfinal" not in text), PLAIN_TEXTS.filter(str.strip))
def test_thoughts_in_front_are_left_out(opening: str, closing: str, thoughts: str, answer: str) -> None:
    """Whatever is thought, the answer stays, without the blanks around it."""
    assert SplitText(answer.strip(), had_reasoning=True) == split_reasoning(
        f"\n{opening}{thoughts}{closing}\n\n{answer}"
    )


@pytest.mark.parametrize("closing", LEFT_OUT)
@given(PLAIN_TEXTS.filter(lambda text: not text.endswith(("`", "'", '"'))))
def test_so_are_thoughts_without_their_opening_mark(closing: str, thoughts: str) -> None:
    """A chat template may have written it already."""
    assert SplitText("Bonjour", had_reasoning=True) == split_reasoning(f"{thoughts}{closing}\n\nBonjour")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Models write <think> and </think> around their thoughts.", ""),
        ("The mark `</think>` ends it.", ""),
        ("<b>Hi</b>", ""),
        ("analysis of the finals", ""),
        ("<think>hein</think> salut", "<think>huh</think> hi"),
        ("bla </think> bli", "bla </think> ble"),
        ("", ""),
    ],
)
def test_marks_that_are_part_of_the_answer_stay(text: str, said: str) -> None:
    """In its midst, in quotes, or where the row's own text has them, which is translated, say."""
    assert SplitText(text, had_reasoning=False) == split_reasoning(text, said)


@given(st.text(), st.text())
def test_a_text_without_marks_is_the_same_text(text: str, said: str) -> None:
    """Letter for letter."""
    if not any(mark in text for pair in MARKS for mark in pair):
        assert SplitText(text, had_reasoning=False) == split_reasoning(text, said)


@pytest.mark.parametrize(
    ("text", "finish_reason", "kind", "retryable"),
    [
        ("<think>So, the", "length", "truncated", False),
        ("<think>So, the", "stop", "invalid_response", True),
        ("<think>So.</think>\n", "stop", "invalid_response", True),
        ("<think>So.</think>", "length", "truncated", False),
    ],
)
def test_thoughts_alone_are_no_answer(text: str, finish_reason: str, kind: str, *, retryable: bool) -> None:
    """They are an error, and never an empty string."""
    result = asked(text, finish_reason=finish_reason)

    assert isinstance(result.error, RowError)
    assert (None, kind, retryable) == (result.text, result.error.kind, result.error.retryable)


def test_a_chat_keeps_the_whole_text() -> None:
    """Only what asks for the answer alone has it alone."""
    text = "<think>A greeting.</think>\nBonjour"

    assert [text, "Bonjour"] == [asked(text, task=Chat()).text, asked(text).text]
    assert "Bonjour" == asked(text, said=Prompt("Hello", "Translate.")).text  # type: ignore[arg-type]  # any item


@pytest.mark.parametrize(("opening", "closing"), MARKS)
def test_json_is_found_behind_thoughts(opening: str, closing: str) -> None:
    """Though there is JSON in them as well."""
    text = f'{opening}Is it {{"stars": 1}}?{closing}{{"stars": 4}}'
    result = asked(text, task=Chat(output=STARS, answer_only=True))

    assert ({"stars": 4}, '{"stars": 4}', None) == (result.parsed, result.text, result.error)
    assert text == asked(text, task=Chat(output=STARS)).text
