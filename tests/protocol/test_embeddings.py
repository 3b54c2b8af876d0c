"""The embedding codec: many inputs in, float32 vectors out, and any bytes can come back."""

import base64
import json
from array import array
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import KINDS
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.parameters import encode_parameters
from spark_llm.protocol.task import PLAIN
from spark_llm.protocol.values import Answer, Failure, Outcome, Response, Usage
from tests.support.strategies import JSON, REPLIES, STATUSES, TEXTS, plain

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
VECTORS = st.integers(1, 8).flatmap(
    lambda length: st.lists(st.lists(FLOATS, min_size=length, max_size=length), min_size=1, max_size=5)
)


def packed(vector: Sequence[float]) -> bytes:
    """Return a vector's float32 bytes."""
    return array("f", vector).tobytes()


def in_base64(vector: Sequence[float]) -> str:
    """Write a vector as servers do that were asked for base64."""
    return base64.b64encode(packed(vector)).decode()


def reply(data: object, count: int, usage: object = None) -> Outcome:
    """Read a reply with these vectors."""
    return Embed().decode(Response(200, json.dumps({"data": data, "usage": usage}).encode()), count)


def vectors_of(outcome: Outcome) -> list[bytes | None] | str:
    """Return the vectors of an answer, or what is wrong with it."""
    return outcome.error.kind if isinstance(outcome, Failure) else [result.embedding for result in outcome.results]


@given(st.lists(TEXTS, min_size=1, max_size=6), st.none() | TEXTS, st.integers(0, 1))
def test_inputs_travel_in_their_order(inputs: list[str], model: str | None, dialect: int) -> None:
    """Whatever stands in the texts, the request is JSON that says just that; base64 is asked for in the first form."""
    sent = json.loads(Embed().encode(inputs, model, dialect).decode("utf-8"))
    form = {"encoding_format": "base64"} if dialect == 0 else {}
    named = {} if model is None else {"model": plain(model)}

    assert named | form | {"input": [plain(text) for text in inputs]} == sent


@pytest.mark.parametrize("dialect", [0, 1])
def test_the_users_own_form_is_kept(dialect: int) -> None:
    """Who sets `encoding_format` has it sent, once, and as it was set."""
    body = Embed(encode_parameters({}, {"encoding_format": "float"})).encode(["a"], None, dialect)

    assert {"encoding_format": "float", "input": ["a"]} == json.loads(body)
    assert 1 == body.count(b"encoding_format")


def test_a_text_that_looks_like_the_form_is_not_taken_for_it() -> None:
    """An instruction that quotes the field's name does not switch base64 off."""
    task = Embed(encode_parameters({"instruction": '{"encoding_format": "float"}', "dimensions": 256}, None))

    assert {
        "instruction": '{"encoding_format": "float"}',
        "dimensions": 256,
        "encoding_format": "base64",
        "input": ["a"],
    } == json.loads(task.encode(["a"], None, 0))


@pytest.mark.parametrize("blank", ["", " ", "\t\r\n", "\N{NO-BREAK SPACE}"])
def test_a_blank_text_is_never_sent(blank: str) -> None:
    """It has no meaning, and its result is null."""
    assert Embed().skips(blank)


@given(VECTORS)
def test_vectors_keep_every_bit(vectors: list[list[float]]) -> None:
    """A float32 comes through numbers and through base64 as the same four bytes, minus zero too."""
    expected = [packed(vector) for vector in vectors]
    for form in (list, in_base64):
        data = [{"index": index, "embedding": form(vector)} for index, vector in enumerate(vectors)]

        assert expected == vectors_of(reply(data, len(vectors)))


@given(st.permutations(range(6)))
def test_vectors_go_by_their_index(order: list[int]) -> None:
    """In whatever order a server lists them, each vector belongs to the input of its number."""
    data = [{"index": index, "embedding": [float(index), 0.5]} for index in order]

    assert [packed([float(index), 0.5]) for index in range(6)] == vectors_of(reply(data, 6))


def test_vectors_without_an_index_go_by_their_place() -> None:
    """A server that numbers nothing is taken to keep the order."""
    assert [packed([1.0]), packed([2.0])] == vectors_of(reply([{"embedding": [1.0]}, {"embedding": [2.0]}], 2))


@pytest.mark.parametrize(
    "data",
    [
        [],
        [{"index": 0, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}] * 3,
        [{"index": 0, "embedding": [1.0]}, {"index": 2, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": -1, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": None, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}],
        [{"index": 0, "embedding": []}, {"index": 1, "embedding": None}],
        [{"index": 0, "embedding": [1.0]}, 7],
    ],
)
def test_vectors_that_do_not_fit_the_inputs_are_no_answer(data: object) -> None:
    """Too few, too many, mixed up, uneven or all unreadable: the whole reply is not believed, and its tokens count."""
    outcome = reply(data, 2, usage={"prompt_tokens": 4, "total_tokens": 4})

    assert isinstance(outcome, Failure)
    assert ("invalid_response", True) == (outcome.error.kind, outcome.error.retryable)
    assert outcome.usage is not None
    assert 4 == outcome.usage.total_tokens


@pytest.mark.parametrize("index", [{}, {"index": 0}, {"index": None}, {"index": 7}, {"index": "a"}])
def test_vectors_with_one_index_for_all_go_by_their_place(index: dict[str, object]) -> None:
    """It says no other order than that of the inputs, in which such servers answer."""
    data = [{**index, "embedding": [float(place)]} for place in range(5)]

    assert [packed([float(place)]) for place in range(5)] == vectors_of(reply(data, 5))


UNUSABLE: list[object] = [
    None,
    [],
    "",
    ["a"],
    [None],
    "no base64!",
    "AAA=",
    {},
    7,
    [0.5] * 9,
    [float("nan"), 1.0],
    [1e39, 1.0],
]


@given(st.lists(st.sampled_from(UNUSABLE), max_size=3), st.integers(4, 8), st.randoms(use_true_random=False))
def test_a_vector_that_cannot_be_used_costs_its_row_alone(strange: list[object], whole: int, dice: Random) -> None:
    """Null, empty, unreadable, of another length or no numbers: most vectors are as long as they should be."""
    vectors: list[object] = [*strange, *([0.5, float(place)] for place in range(whole))]
    dice.shuffle(vectors)
    outcome = reply([{"index": place, "embedding": vector} for place, vector in enumerate(vectors)], len(vectors))

    assert isinstance(outcome, Answer)
    for vector, result in zip(vectors, outcome.results, strict=True):
        good = isinstance(vector, list) and len(vector) == 2 and 0.5 == vector[0]
        assert (packed(vector) if isinstance(vector, list) and good else None) == result.embedding
        assert good == (result.error is None)
        assert result.error is None or ("invalid_response", True) == (result.error.kind, result.error.retryable)


@given(VECTORS, st.integers(1, 8))
def test_vectors_have_the_dimensions_that_were_asked_for(vectors: list[list[float]], dimensions: int) -> None:
    """A server that ignores the parameter ignores it for all rows: it is the error of all, and no try changes it."""
    body = json.dumps({"data": [{"embedding": vector} for vector in vectors], "usage": {"total_tokens": 4}}).encode()
    outcome = Embed(encode_parameters({"dimensions": dimensions}, None)).decode(Response(200, body), len(vectors))

    if len(vectors[0]) == dimensions:
        assert [packed(vector) for vector in vectors] == vectors_of(outcome)
    else:
        assert isinstance(outcome, Failure)
        assert ("invalid_response", False) == (outcome.error.kind, outcome.error.retryable)
        assert f"dimensions={dimensions} was requested, and the vectors have {len(vectors[0])}" in outcome.error.message
        assert Usage(total_tokens=4) == outcome.usage


@given(st.binary(max_size=200), STATUSES, st.integers(1, 4))
def test_any_bytes_are_read(body: bytes, status: int, count: int) -> None:
    """Bytes that are no answer become a failure, never an exception."""
    outcome = Embed().decode(Response(status, body), count)

    assert isinstance(outcome, Failure)
    assert outcome.error.kind in KINDS


@given(JSON | REPLIES, STATUSES, st.integers(1, 4))
def test_any_json_is_read(document: object, status: int, count: int) -> None:
    """So does JSON that is no answer, also when it uses an answer's words."""
    outcome = Embed().decode(Response(status, json.dumps(document).encode()), count)

    assert outcome.error.kind in KINDS if isinstance(outcome, Failure) else len(outcome.results) == count


@given(st.lists(REPLIES | st.fixed_dictionaries({"index": REPLIES, "embedding": REPLIES}), max_size=3))
def test_any_vectors_are_read(data: list[object]) -> None:
    """And vectors that are none; what is answered is a vector or an error for each input."""
    outcome = reply(data, max(1, len(data)))

    assert isinstance(outcome, Failure) or all(
        result.error if result.embedding is None else len(result.embedding) % 4 == 0 for result in outcome.results
    )


def test_each_result_names_the_model() -> None:
    """The model that answered stands beside each vector; without a name in the body, the served model's."""
    body = json.dumps({"data": [{"embedding": [1.0]}, {"embedding": [2.0]}]}).encode()
    outcome = Embed().decode(Response(200, body, {"served-model-name": "gte-2"}), 2)

    assert isinstance(outcome, Answer)
    assert ["gte-2", "gte-2"] == [result.model for result in outcome.results]


def test_a_request_carries_as_many_texts_as_the_user_allows() -> None:
    """In both dialects; any answer proves its form, and equal texts have equal vectors."""
    task = Embed()

    assert [64, 64] == [task.max_inputs(dialect, 64) for dialect in (0, PLAIN)]
    assert PLAIN == task.required_features(["a"], 0) == task.fallback_format(["a"], 0, None)
    assert task.repeatable


@given(VECTORS, st.sampled_from([float("nan"), float("inf"), float("-inf")]), st.data())
def test_a_number_that_is_none_costs_its_row_alone(
    vectors: list[list[float]], strange: float, data: st.DataObject
) -> None:
    """NaN or infinity, in numbers or in base64, is the error of its row, and the neighbours keep their vectors."""
    vectors = [*vectors, vectors[0]]
    spoilt = data.draw(st.integers(0, len(vectors) - 2))
    place = data.draw(st.integers(0, len(vectors[0]) - 1))
    sent = [list(vector) for vector in vectors]
    sent[spoilt][place] = strange
    for form in (list, in_base64):
        outcome = reply([{"embedding": form(vector)} for vector in sent], len(sent))

        assert isinstance(outcome, Answer)
        assert [None if row == spoilt else packed(vector) for row, vector in enumerate(vectors)] == [
            result.embedding for result in outcome.results
        ]
        assert [None if row != spoilt else "invalid_response" for row in range(len(vectors))] == [
            result.error and result.error.kind for result in outcome.results
        ]


@given(st.lists(st.floats(2.0**120, 2.0**128 - 2.0**104, width=32), min_size=1, max_size=30))
def test_large_numbers_are_numbers(vector: list[float]) -> None:
    """The largest of float32 are kept, however many of them there are."""
    assert [packed(vector)] == vectors_of(reply([{"embedding": in_base64(vector)}], 1))


def test_an_answer_without_any_vector_is_none() -> None:
    """Where no row has a vector the request failed, and is tried again as it was; its tokens count."""
    outcome = reply([{"embedding": [float("nan")]}, {"embedding": [1e39]}], 2, usage={"total_tokens": 4})

    assert isinstance(outcome, Failure)
    assert ("invalid_response", True) == (outcome.error.kind, outcome.error.retryable)
    assert outcome.usage is not None
    assert 4 == outcome.usage.total_tokens
