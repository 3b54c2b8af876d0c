"""The smallest question of each task: what is asked, and in which order."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import KINDS, Kind
from spark_llm.protocol.chat import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.json_codec import read_json, write_json
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import RowError
from spark_llm.readiness.probe import SAMPLE, asks_on, is_an_answer, questions

LIMITS = ("max_tokens", "max_completion_tokens")
FIELDS = st.dictionaries(
    st.sampled_from([*LIMITS, "temperature", "top_k", "thinking"]), st.integers(1, 4_096), max_size=4
)


def bodies(task: Task) -> list[dict[str, object]]:
    """Return the requests that a task's questions make, without what is asked."""
    asked = [json.loads(question.encode([SAMPLE], None, form)) for question, form in questions(task)]
    return [{name: value for name, value in body.items() if name not in ("messages", "prompt")} for body in asked]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (Chat(), [{"max_tokens": 1}, {"max_completion_tokens": 1}]),
        (Chat(parameters=b'{"max_tokens":9}'), [{"max_tokens": 1}, {"max_tokens": 9}]),
        (Chat(parameters=b'{"max_tokens":1}'), [{"max_tokens": 1}]),
        (
            Chat(parameters=b'{"max_completion_tokens":9,"seed":1}'),
            [{"max_completion_tokens": 1, "seed": 1}, {"max_completion_tokens": 9, "seed": 1}],
        ),
        (
            Chat(parameters=b'{"seed":1}'),
            [{"seed": 1, "max_tokens": 1}, {"seed": 1, "max_completion_tokens": 1}, {"seed": 1}],
        ),
        (Complete(), [{"max_tokens": 1}]),
        (Complete(b'{"max_tokens":9}'), [{"max_tokens": 1}, {"max_tokens": 9}]),
        (Embed(), [{"input": [SAMPLE], "encoding_format": "base64"}, {"input": [SAMPLE]}]),
    ],
)
def test_what_is_asked_in_which_order(task: Task, expected: list[dict[str, object]]) -> None:
    """One token under the user's name for the limit, else under each; last the user's own; vectors in each form."""
    assert expected == bodies(task)


@given(st.sampled_from([Chat, Complete]), FIELDS)
def test_the_first_question_is_the_udfs_own_with_one_token(kind: type[Chat | Complete], fields: dict[str, int]) -> None:
    """Every other parameter stays as it is, and none is asked twice."""
    task = kind(parameters=write_json(fields))
    asked = [read_json(question.parameters) for question, _ in questions(task) if isinstance(question, kind)]
    own = {name: value for name, value in fields.items() if name not in LIMITS}

    assert own == {name: value for name, value in asked[0].items() if name not in LIMITS}
    assert {1} == {value for name, value in asked[0].items() if name in LIMITS}
    assert len(asked) == len({write_json(each) for each in asked})
    assert all(each == fields or 1 in (each.get(name) for name in LIMITS) for each in asked)


@pytest.mark.parametrize(
    ("task", "words", "expected"),
    [
        (Chat(), "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", True),
        (Chat(), "`max_tokens` must be greater than `thinking.budget_tokens`", True),
        (Chat(), "Field required: messages", False),
        (Complete(), "Unknown field 'prompt'", False),
        (Embed(), "Unknown field 'encoding_format'", True),
    ],
)
def test_only_a_refusal_of_the_form_is_asked_again(task: Task, words: str, expected: bool) -> None:  # noqa: FBT001 -- a table
    """A refusal that speaks of tokens may be about the limit; any of vectors may be about their form."""
    assert expected == asks_on(task, RowError("invalid_request", 400, words, retryable=False))


@given(st.sampled_from([kind for kind in KINDS if kind != "invalid_request"]), st.text())
def test_nothing_else_is_asked_again(kind: Kind, words: str) -> None:
    """What was not refused for what it says is no better in other words."""
    assert not asks_on(Embed(), RowError(kind, 400, words, retryable=False))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RowError("truncated", 200, "every token was spent", retryable=False), True),
        (RowError("invalid_request", 400, "max_tokens or model output limit was reached.", retryable=False), True),
        (RowError("invalid_request", 400, "max_tokens is not known", retryable=False), False),
        (RowError("unauthorized", 401, "no", retryable=False), False),
    ],
)
def test_too_few_tokens_are_an_answer(error: RowError, expected: bool) -> None:  # noqa: FBT001 -- a table
    """The model was reached, and that is what is asked."""
    assert expected == is_an_answer(error)
