"""The completion codec: what a request says, and that any bytes can come back."""

import json

from hypothesis import given
from hypothesis import strategies as st

from spark_llm._tasks._parameters import written
from spark_llm._tasks.complete import Complete
from spark_llm._values import Answer, Failure, Response
from spark_llm.errors import KINDS
from tests.strategies import JSON, REPLIES, STATUSES, TEXTS, plain


def is_settled(task: Complete, response: Response) -> bool:
    """Whether a response is read as one result, or as a failure of a known kind."""
    outcome = task.decode(response, 1)
    return outcome.error.kind in KINDS if isinstance(outcome, Failure) else len(outcome.results) == 1


@given(TEXTS, st.none() | TEXTS)
def test_a_prompt_travels_as_it_is(prompt: str, model: str | None) -> None:
    """Whatever stands in a prompt, the request is JSON that says just that; halves of surrogate pairs are replaced."""
    named = {} if model is None else {"model": plain(model)}

    assert named | {"prompt": plain(prompt)} == json.loads(Complete().encode([prompt], model, 0).decode("utf-8"))


def test_parameters_travel_beside_the_prompt() -> None:
    """What the user set is in the request's top level."""
    task = Complete(written({"max_tokens": 5, "stop": None}, {"suffix": "end", "error_behavior": "truncate"}))

    assert {"prompt": "?", "max_tokens": 5, "suffix": "end", "error_behavior": "truncate"} == json.loads(
        task.encode(["?"], None, 0)
    )


def test_what_was_not_given_is_not_sent() -> None:
    """A request without parameters holds its prompt and nothing else."""
    assert b'{"prompt":"?"}' == Complete().encode(["?"], None, 0)


@given(st.binary(max_size=200), STATUSES)
def test_any_bytes_are_read(body: bytes, status: int) -> None:
    """Bytes that are no answer become a failure, never an exception."""
    assert is_settled(Complete(), Response(status, body))


@given(JSON | REPLIES, STATUSES, st.integers(1, 3))
def test_any_json_is_read(document: object, status: int, n: int) -> None:
    """So does JSON that is no answer, also when it uses an answer's words."""
    assert is_settled(Complete(n=n), Response(status, json.dumps(document).encode()))


@given(st.text())
def test_the_answer_is_the_text(text: str) -> None:
    """The text arrives letter for letter, leading blanks too."""
    outcome = Complete().decode(Response(200, json.dumps({"choices": [{"text": text}]}).encode()), 1)

    assert isinstance(outcome, Answer)
    assert text == outcome.results[0].text
