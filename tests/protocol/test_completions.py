"""The completion codec: what a request says, and that any bytes can come back."""

import json
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import KINDS
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.parameters import encode_parameters
from spark_llm.protocol.task import PLAIN
from spark_llm.protocol.values import Answer, Failure, Outcome, Response, Usage
from tests.support.strategies import JSON, REPLIES, STATUSES, TEXTS, plain


def is_settled(task: Complete, response: Response, count: int = 1) -> bool:
    """Whether a response is read as a result for each prompt, or as a failure of a known kind."""
    outcome = task.decode(response, count)
    return outcome.error.kind in KINDS if isinstance(outcome, Failure) else len(outcome.results) == count


def reply(document: object, count: int, n: int = 1) -> Outcome:
    """Read a reply with this document in it."""
    return Complete(n=n).decode(Response(200, json.dumps(document).encode()), count)


def choice(index: int, text: str | None, finish_reason: str = "stop") -> dict[str, object]:
    """Make one choice as servers write it."""
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish_reason}


@given(TEXTS, st.none() | TEXTS)
def test_a_prompt_travels_as_it_is(prompt: str, model: str | None) -> None:
    """Whatever stands in a prompt, the request is JSON that says just that; halves of surrogate pairs are replaced."""
    named = {} if model is None else {"model": plain(model)}

    assert named | {"prompt": plain(prompt)} == json.loads(Complete().encode([prompt], model, 0).decode("utf-8"))


@given(st.lists(TEXTS, min_size=2, max_size=8))
def test_several_prompts_travel_as_a_list(prompts: list[str]) -> None:
    """In the first dialect a request has its prompts in an array, in their order."""
    assert {"prompt": [plain(prompt) for prompt in prompts]} == json.loads(Complete().encode(prompts, None, 0))


@given(TEXTS)
def test_a_prompt_alone_is_written_alike_in_both_dialects(prompt: str) -> None:
    """So an answer to one prompt proves nothing of the first dialect, and one to several does."""
    task = Complete()

    assert task.encode([prompt], "m", 1) == task.encode([prompt], "m", 0)
    assert [0, PLAIN] == [task.required_features([prompt], 0), task.required_features([prompt, prompt], 0)]
    assert [None, PLAIN] == [task.fallback_format([prompt], 0, None), task.fallback_format([prompt, prompt], 0, None)]


@given(st.integers(1, 2_048))
def test_a_request_carries_few_prompts(batch_size: int) -> None:
    """Eight at most in the first dialect, fewer where the user says so, and one in the second."""
    assert min(batch_size, 8) == Complete().max_inputs(0, batch_size)
    assert 1 == Complete().max_inputs(1, batch_size)


def test_parameters_travel_beside_the_prompt() -> None:
    """What the user set is in the request's top level."""
    task = Complete(encode_parameters({"max_tokens": 5, "stop": None}, {"suffix": "end", "error_behavior": "truncate"}))

    assert {"prompt": "?", "max_tokens": 5, "suffix": "end", "error_behavior": "truncate"} == json.loads(
        task.encode(["?"], None, 0)
    )


def test_what_was_not_given_is_not_sent() -> None:
    """A request without parameters holds its prompt and nothing else."""
    assert b'{"prompt":"?"}' == Complete().encode(["?"], None, 0)


@given(st.binary(max_size=200), STATUSES, st.integers(1, 3))
def test_any_bytes_are_read(body: bytes, status: int, count: int) -> None:
    """Bytes that are no answer become a failure, never an exception."""
    assert is_settled(Complete(), Response(status, body), count)


@given(JSON | REPLIES, STATUSES, st.integers(1, 3), st.integers(1, 3))
def test_any_json_is_read(document: object, status: int, n: int, count: int) -> None:
    """So does JSON that is no answer, also when it uses an answer's words."""
    assert is_settled(Complete(n=n), Response(status, json.dumps(document).encode()), count)


@given(st.text())
def test_the_answer_is_the_text(text: str) -> None:
    """The text arrives letter for letter, leading blanks too."""
    outcome = Complete().decode(Response(200, json.dumps({"choices": [{"text": text}]}).encode()), 1)

    assert isinstance(outcome, Answer)
    assert text == outcome.results[0].text


@given(st.integers(2, 5), st.integers(1, 3), st.data())
def test_each_prompt_gets_its_own_choices(count: int, n: int, data: st.DataObject) -> None:
    """In whatever order they come: those of prompt i stand under i·n and the n - 1 indexes after it."""
    texts = [[f"{prompt}/{copy}" for copy in range(n)] for prompt in range(count)]
    choices = [choice(index, text) for index, text in enumerate(chain.from_iterable(texts))]
    outcome = reply({"choices": data.draw(st.permutations(choices)), "usage": {"prompt_tokens": 9}}, count, n)

    assert isinstance(outcome, Answer)
    assert [copies[0] for copies in texts] == [result.text for result in outcome.results]
    assert [copies if n > 1 else None for copies in texts] == [result.choices for result in outcome.results]
    assert Usage(prompt_tokens=9, total_tokens=9) == outcome.usage


@pytest.mark.parametrize(("field", "value"), [("model", "m"), ("id", "cmpl-1")])
def test_what_is_said_of_the_request_is_said_of_each_row(field: str, value: str) -> None:
    """The model and the request's id are the same for all of its rows."""
    outcome = reply({field: value, "choices": [choice(0, "a"), choice(1, "b")]}, 2)

    assert isinstance(outcome, Answer)
    assert [value, value] == [result.model if field == "model" else result.request_id for result in outcome.results]


def test_choices_without_an_index_are_read_in_their_order() -> None:
    """A server that leaves the index out has said no other order."""
    outcome = reply({"choices": [{"text": "a"}, {"text": "b"}]}, 2)

    assert isinstance(outcome, Answer)
    assert ["a", "b"] == [result.text for result in outcome.results]


def test_a_prompt_that_is_not_answered_leaves_its_neighbours_alone() -> None:
    """Each row has the error that is its own, and the others their texts."""
    choices = [choice(0, "", "length"), choice(1, "b"), choice(2, "", "content_filter"), choice(3, None), choice(4, "")]
    outcome = reply({"choices": choices}, 5)

    assert isinstance(outcome, Answer)
    assert [None, "b", None, None, ""] == [result.text for result in outcome.results]
    assert ["truncated", None, "content_filter", "invalid_response", None] == [
        result.error and result.error.kind for result in outcome.results
    ]


@pytest.mark.parametrize(
    ("first", "kind"), [(choice(0, "ha", "ERROR"), "invalid_response"), (choice(0, "ha", "SAFETY"), "content_filter")]
)
def test_a_prompt_that_broke_off_leaves_its_neighbours_alone(first: dict[str, object], kind: str) -> None:
    """Half a text costs its row alone, and its reason stays as the server wrote it."""
    outcome = reply({"choices": [first, choice(1, "b")], "usage": {"prompt_tokens": 9}}, 2)

    assert isinstance(outcome, Answer)
    assert [(None, kind), ("b", None)] == [(each.text, each.error and each.error.kind) for each in outcome.results]
    assert first["finish_reason"] == outcome.results[0].finish_reason
    assert Usage(prompt_tokens=9, total_tokens=9) == outcome.usage


def test_an_answer_without_any_text_is_none() -> None:
    """Where no row has a text the request failed, and is tried again as it was."""
    outcome = reply({"choices": [choice(0, None), choice(1, None)], "usage": {"prompt_tokens": 9}}, 2)

    assert isinstance(outcome, Failure)
    assert ("invalid_response", True, False) == (
        outcome.error.kind,
        outcome.error.retryable,
        outcome.format_unsupported,
    )
    assert Usage(prompt_tokens=9, total_tokens=9) == outcome.usage


@pytest.mark.parametrize(
    ("indexes", "n"),
    [
        ([0], 1),
        ([0, 1, 2], 1),
        ([0, 0], 1),
        ([0, 1, 1], 1),
        ([1, 2], 1),
        ([0, None], 1),
        ([0, 1], 2),
        ([0, 1, 2, 4], 2),
        ([], 1),
    ],
)
def test_choices_that_are_not_the_prompts_show_that_the_form_was_not_understood(
    indexes: list[int | None], n: int
) -> None:
    """Too few, too many, doubled or strange ones: nobody can tell whose they are, and the tokens were spent."""
    choices = [{"text": "?", "index": index} for index in indexes]
    outcome = reply({"choices": choices, "usage": {"prompt_tokens": 9}}, 2, n)

    assert isinstance(outcome, Failure)
    assert ("invalid_response", True, True) == (outcome.error.kind, outcome.error.retryable, outcome.format_unsupported)
    assert Usage(prompt_tokens=9, total_tokens=9) == outcome.usage


def test_a_prompt_alone_is_answered_by_however_many_choices() -> None:
    """With one prompt there is nothing to mix up; a choice of the `n` that does not come is null."""
    outcomes = [reply({"choices": [choice(i, "a") for i in range(number)]}, 1, n=2) for number in range(4)]

    assert isinstance(outcomes[0], Failure)
    assert not outcomes[0].format_unsupported
    assert [["a", None], ["a"] * 2, ["a"] * 3] == [
        outcome.results[0].choices for outcome in outcomes if isinstance(outcome, Answer)
    ]


@pytest.mark.parametrize(("status", "body"), [(200, "<html>"), (200, '{"error":{"message":"no"}}'), (500, "{}")])
def test_an_error_says_nothing_of_the_form(status: int, body: str) -> None:
    """A page, an error and a status that is none of 200 are what they are for any request."""
    outcome = Complete().decode(Response(status, body.encode()), 2)

    assert isinstance(outcome, Failure)
    assert not outcome.format_unsupported


def test_equal_prompts_may_be_answered_alike_unless_chance_was_asked_for() -> None:
    """A temperature without a seed asks for chance; it is looked up once and changes nothing of the task."""
    task = Complete(encode_parameters({"temperature": 0.7}, None))

    assert not task.repeatable
    assert Complete(task.parameters) == task
    assert Complete().repeatable
