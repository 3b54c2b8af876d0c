"""The completion task: the requests that it writes, and its reading of any response."""

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
    """Return whether a response is a result for each prompt, or a failure of a known kind."""
    outcome = task.decode(response, count)
    return outcome.error.kind in KINDS if isinstance(outcome, Failure) else len(outcome.results) == count


def decode(document: object, count: int, n: int = 1) -> Outcome:
    """Read a response with this document."""
    return Complete(n=n).decode(Response(200, json.dumps(document).encode()), count)


def choice(index: int, text: str | None, finish_reason: str = "stop") -> dict[str, object]:
    """Return one choice as servers write it."""
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish_reason}


@given(TEXTS, st.none() | TEXTS)
def test_a_prompt_is_sent_unchanged(prompt: str, model: str | None) -> None:
    """Any prompt gives JSON with exactly that prompt; lone surrogates are replaced."""
    named = {} if model is None else {"model": plain(model)}

    assert named | {"prompt": plain(prompt)} == json.loads(Complete().encode([prompt], model, 0).decode("utf-8"))


@given(st.lists(TEXTS, min_size=2, max_size=8))
def test_several_prompts_are_sent_as_an_array(prompts: list[str]) -> None:
    """They keep their order."""
    assert {"prompt": [plain(prompt) for prompt in prompts]} == json.loads(Complete().encode(prompts, None, 0))


@given(TEXTS)
def test_one_prompt_is_the_same_in_both_formats(prompt: str) -> None:
    """So only an answer to several prompts shows that a server takes arrays."""
    task = Complete()

    assert task.encode([prompt], "m", 1) == task.encode([prompt], "m", 0)
    assert [0, PLAIN] == [task.required_features([prompt], 0), task.required_features([prompt, prompt], 0)]
    assert [None, PLAIN] == [task.fallback_format([prompt], 0, None), task.fallback_format([prompt, prompt], 0, None)]


@given(st.integers(1, 2_048))
def test_a_request_carries_few_prompts(batch_size: int) -> None:
    """There are eight at most, fewer with a smaller batch size, and one in the second format."""
    assert min(batch_size, 8) == Complete().max_inputs(0, batch_size)
    assert 1 == Complete().max_inputs(1, batch_size)


def test_parameters_stand_beside_the_prompt() -> None:
    """They are fields of the request's top level."""
    task = Complete(encode_parameters({"max_tokens": 5, "stop": None}, {"suffix": "end", "error_behavior": "truncate"}))

    assert {"prompt": "?", "max_tokens": 5, "suffix": "end", "error_behavior": "truncate"} == json.loads(
        task.encode(["?"], None, 0)
    )


def test_missing_parameters_are_not_sent() -> None:
    """A request without parameters has its prompt only."""
    assert b'{"prompt":"?"}' == Complete().encode(["?"], None, 0)


@given(st.binary(max_size=200), STATUSES, st.integers(1, 3))
def test_any_bytes_raise_nothing(body: bytes, status: int, count: int) -> None:
    """Bytes without an answer become a failure."""
    assert is_settled(Complete(), Response(status, body), count)


@given(JSON | REPLIES, STATUSES, st.integers(1, 3), st.integers(1, 3))
def test_any_json_raises_nothing(document: object, status: int, n: int, count: int) -> None:
    """JSON without an answer becomes a failure, even with an answer's field names."""
    assert is_settled(Complete(n=n), Response(status, json.dumps(document).encode()), count)


@given(st.text())
def test_the_answer_is_the_text(text: str) -> None:
    """Every character stays, leading blanks too."""
    outcome = Complete().decode(Response(200, json.dumps({"choices": [{"text": text}]}).encode()), 1)

    assert isinstance(outcome, Answer)
    assert text == outcome.results[0].text


@given(st.integers(2, 5), st.integers(1, 3), st.data())
def test_each_prompt_gets_its_own_choices(count: int, n: int, data: st.DataObject) -> None:
    """Prompt i has the n indexes from i·n on, in whatever order the choices come."""
    texts = [[f"{prompt}/{copy}" for copy in range(n)] for prompt in range(count)]
    choices = [choice(index, text) for index, text in enumerate(chain.from_iterable(texts))]
    outcome = decode({"choices": data.draw(st.permutations(choices)), "usage": {"prompt_tokens": 9}}, count, n)

    assert isinstance(outcome, Answer)
    assert [copies[0] for copies in texts] == [result.text for result in outcome.results]
    assert [copies if n > 1 else None for copies in texts] == [result.choices for result in outcome.results]
    assert Usage(prompt_tokens=9, total_tokens=9) == outcome.usage


@pytest.mark.parametrize(("field", "value"), [("model", "m"), ("id", "cmpl-1")])
def test_each_result_has_the_model_and_the_request_id(field: str, value: str) -> None:
    """They are the same for all rows of a request."""
    outcome = decode({field: value, "choices": [choice(0, "a"), choice(1, "b")]}, 2)

    assert isinstance(outcome, Answer)
    assert [value, value] == [result.model if field == "model" else result.request_id for result in outcome.results]


def test_choices_without_an_index_are_read_in_their_order() -> None:
    """A server that sends no index keeps the order."""
    outcome = decode({"choices": [{"text": "a"}, {"text": "b"}]}, 2)

    assert isinstance(outcome, Answer)
    assert ["a", "b"] == [result.text for result in outcome.results]


def test_an_unanswered_prompt_costs_its_row_alone() -> None:
    """The other rows keep their texts."""
    choices = [choice(0, "", "length"), choice(1, "b"), choice(2, "", "content_filter"), choice(3, None), choice(4, "")]
    outcome = decode({"choices": choices}, 5)

    assert isinstance(outcome, Answer)
    assert [None, "b", None, None, ""] == [result.text for result in outcome.results]
    assert ["truncated", None, "content_filter", "invalid_response", None] == [
        result.error and result.error.kind for result in outcome.results
    ]


@pytest.mark.parametrize(
    ("first", "kind"), [(choice(0, "ha", "ERROR"), "invalid_response"), (choice(0, "ha", "SAFETY"), "content_filter")]
)
def test_an_aborted_prompt_costs_its_row_alone(first: dict[str, object], kind: str) -> None:
    """Its result keeps the server's finish reason."""
    outcome = decode({"choices": [first, choice(1, "b")], "usage": {"prompt_tokens": 9}}, 2)

    assert isinstance(outcome, Answer)
    assert [(None, kind), ("b", None)] == [(each.text, each.error and each.error.kind) for each in outcome.results]
    assert first["finish_reason"] == outcome.results[0].finish_reason
    assert Usage(prompt_tokens=9, total_tokens=9) == outcome.usage


def test_a_response_without_any_text_is_a_failure() -> None:
    """The request is retried unchanged."""
    outcome = decode({"choices": [choice(0, None), choice(1, None)], "usage": {"prompt_tokens": 9}}, 2)

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
def test_wrong_indexes_show_that_arrays_are_unsupported(indexes: list[int | None], n: int) -> None:
    """Too few, too many, doubled or unknown choices belong to no prompt, and their tokens count."""
    choices = [{"text": "?", "index": index} for index in indexes]
    outcome = decode({"choices": choices, "usage": {"prompt_tokens": 9}}, 2, n)

    assert isinstance(outcome, Failure)
    assert ("invalid_response", True, True) == (outcome.error.kind, outcome.error.retryable, outcome.format_unsupported)
    assert Usage(prompt_tokens=9, total_tokens=9) == outcome.usage


def test_one_prompt_takes_any_number_of_choices() -> None:
    """There is nothing to confuse; a missing choice of the `n` is null, and further ones are left out."""
    outcomes = [decode({"choices": [choice(i, "a") for i in range(number)]}, 1, n=2) for number in range(4)]

    assert isinstance(outcomes[0], Failure)
    assert not outcomes[0].format_unsupported
    assert [["a", None], ["a"] * 2, ["a"] * 2] == [
        outcome.results[0].choices for outcome in outcomes if isinstance(outcome, Answer)
    ]


@pytest.mark.parametrize(("status", "body"), [(200, "<html>"), (200, '{"error":{"message":"no"}}'), (500, "{}")])
def test_an_error_does_not_count_against_arrays(status: int, body: str) -> None:
    """A page, an error and another status could answer any request."""
    outcome = Complete().decode(Response(status, body.encode()), 2)

    assert isinstance(outcome, Failure)
    assert not outcome.format_unsupported


def test_prompts_are_repeatable_without_temperature_or_with_a_seed() -> None:
    """The property is cached, and leaves the task equal and hashable."""
    task = Complete(encode_parameters({"temperature": 0.7}, None))

    assert not task.repeatable
    assert Complete(task.parameters) == task
    assert Complete().repeatable
