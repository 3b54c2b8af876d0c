"""The embedding task: texts in, float32 vectors out, and its reading of any response."""

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
    """Return a vector in base64."""
    return base64.b64encode(packed(vector)).decode()


def decode(data: object, count: int, usage: object = None) -> Outcome:
    """Read a response with these vectors."""
    return Embed().decode(Response(200, json.dumps({"data": data, "usage": usage}).encode()), count)


def vectors_of(outcome: Outcome) -> list[bytes | None] | str:
    """Return the vectors of an answer, or its error."""
    return outcome.error.kind if isinstance(outcome, Failure) else [result.embedding for result in outcome.results]


@given(st.lists(TEXTS, min_size=1, max_size=6), st.none() | TEXTS, st.integers(0, 1))
def test_texts_are_sent_in_order(inputs: list[str], model: str | None, wire_format: int) -> None:
    """Any texts give JSON with exactly those texts; the first format requests base64."""
    sent = json.loads(Embed().encode(inputs, model, wire_format).decode("utf-8"))
    field = {"encoding_format": "base64"} if wire_format == 0 else {}
    named = {} if model is None else {"model": plain(model)}

    assert named | field | {"input": [plain(text) for text in inputs]} == sent


@pytest.mark.parametrize("wire_format", [0, 1])
def test_the_users_encoding_format_is_kept(wire_format: int) -> None:
    """The field is sent once, unchanged."""
    body = Embed(encode_parameters({}, {"encoding_format": "float"})).encode(["a"], None, wire_format)

    assert {"encoding_format": "float", "input": ["a"]} == json.loads(body)
    assert 1 == body.count(b"encoding_format")


def test_a_text_like_the_field_is_not_mistaken_for_it() -> None:
    """An instruction that quotes the field's name does not turn base64 off."""
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
    """A float32 has the same four bytes through numbers and through base64, minus zero too."""
    expected = [packed(vector) for vector in vectors]
    for encode in (list, in_base64):
        data = [{"index": index, "embedding": encode(vector)} for index, vector in enumerate(vectors)]

        assert expected == vectors_of(decode(data, len(vectors)))


@given(st.permutations(range(6)))
def test_the_index_gives_the_input(order: list[int]) -> None:
    """Servers may list the vectors in any order."""
    data = [{"index": index, "embedding": [float(index), 0.5]} for index in order]

    assert [packed([float(index), 0.5]) for index in range(6)] == vectors_of(decode(data, 6))


def test_vectors_without_an_index_are_in_order() -> None:
    """A server that sends no index keeps the order."""
    assert [packed([1.0]), packed([2.0])] == vectors_of(decode([{"embedding": [1.0]}, {"embedding": [2.0]}], 2))


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
def test_vectors_that_do_not_fit_the_inputs_are_a_failure(data: object) -> None:
    """A wrong number, wrong indexes, uneven lengths and unreadable vectors fail the request; its tokens count."""
    outcome = decode(data, 2, usage={"prompt_tokens": 4, "total_tokens": 4})

    assert isinstance(outcome, Failure)
    assert ("invalid_response", True) == (outcome.error.kind, outcome.error.retryable)
    assert outcome.usage is not None
    assert 4 == outcome.usage.total_tokens


@pytest.mark.parametrize("index", [{}, {"index": 0}, {"index": None}, {"index": 7}, {"index": "a"}])
def test_vectors_with_equal_indexes_are_in_order(index: dict[str, object]) -> None:
    """Such servers answer in the order of the inputs."""
    data = [{**index, "embedding": [float(place)]} for place in range(5)]

    assert [packed([float(place)]) for place in range(5)] == vectors_of(decode(data, 5))


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
    """It is null, empty, unreadable, or of another length than most."""
    vectors: list[object] = [*strange, *([0.5, float(place)] for place in range(whole))]
    dice.shuffle(vectors)
    outcome = decode([{"index": place, "embedding": vector} for place, vector in enumerate(vectors)], len(vectors))

    assert isinstance(outcome, Answer)
    for vector, result in zip(vectors, outcome.results, strict=True):
        good = isinstance(vector, list) and len(vector) == 2 and 0.5 == vector[0]
        assert (packed(vector) if isinstance(vector, list) and good else None) == result.embedding
        assert good == (result.error is None)
        assert result.error is None or ("invalid_response", True) == (result.error.kind, result.error.retryable)


@given(VECTORS, st.integers(1, 8))
def test_vectors_have_the_requested_dimensions(vectors: list[list[float]], dimensions: int) -> None:
    """A server that ignores the parameter does so for all rows, so the failure is permanent."""
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
def test_any_bytes_raise_nothing(body: bytes, status: int, count: int) -> None:
    """Bytes without an answer become a failure."""
    outcome = Embed().decode(Response(status, body), count)

    assert isinstance(outcome, Failure)
    assert outcome.error.kind in KINDS


@given(JSON | REPLIES, STATUSES, st.integers(1, 4))
def test_any_json_raises_nothing(document: object, status: int, count: int) -> None:
    """JSON without an answer becomes a failure, even with an answer's field names."""
    outcome = Embed().decode(Response(status, json.dumps(document).encode()), count)

    assert outcome.error.kind in KINDS if isinstance(outcome, Failure) else len(outcome.results) == count


@given(st.lists(REPLIES | st.fixed_dictionaries({"index": REPLIES, "embedding": REPLIES}), max_size=3))
def test_any_vectors_raise_nothing(data: list[object]) -> None:
    """Each input gets a vector or an error."""
    outcome = decode(data, max(1, len(data)))

    assert isinstance(outcome, Failure) or all(
        result.error if result.embedding is None else len(result.embedding) % 4 == 0 for result in outcome.results
    )


def test_each_result_names_the_model() -> None:
    """It comes from the body, or else from the served model's header."""
    body = json.dumps({"data": [{"embedding": [1.0]}, {"embedding": [2.0]}]}).encode()
    outcome = Embed().decode(Response(200, body, {"served-model-name": "gte-2"}), 2)

    assert isinstance(outcome, Answer)
    assert ["gte-2", "gte-2"] == [result.model for result in outcome.results]


def test_a_request_carries_as_many_texts_as_the_user_allows() -> None:
    """This holds in both formats; any answer shows its format, and equal texts have equal vectors."""
    task = Embed()

    assert [64, 64] == [task.max_inputs(wire_format, 64) for wire_format in (0, PLAIN)]
    assert PLAIN == task.required_features(["a"], 0) == task.fallback_format(["a"], 0, None)
    assert task.repeatable


@given(VECTORS, st.sampled_from([float("nan"), float("inf"), float("-inf")]), st.data())
def test_nan_and_infinity_cost_their_row_alone(vectors: list[list[float]], strange: float, data: st.DataObject) -> None:
    """They may come as numbers or in base64, and the other rows keep their vectors."""
    vectors = [*vectors, vectors[0]]
    spoilt = data.draw(st.integers(0, len(vectors) - 2))
    place = data.draw(st.integers(0, len(vectors[0]) - 1))
    sent = [list(vector) for vector in vectors]
    sent[spoilt][place] = strange
    for encode in (list, in_base64):
        outcome = decode([{"embedding": encode(vector)} for vector in sent], len(sent))

        assert isinstance(outcome, Answer)
        assert [None if row == spoilt else packed(vector) for row, vector in enumerate(vectors)] == [
            result.embedding for result in outcome.results
        ]
        assert [None if row != spoilt else "invalid_response" for row in range(len(vectors))] == [
            result.error and result.error.kind for result in outcome.results
        ]


@given(st.lists(st.floats(2.0**120, 2.0**128 - 2.0**104, width=32), min_size=1, max_size=30))
def test_large_numbers_are_finite(vector: list[float]) -> None:
    """The largest float32 is kept, however many a vector has."""
    assert [packed(vector)] == vectors_of(decode([{"embedding": in_base64(vector)}], 1))


def test_a_response_without_any_vector_is_a_failure() -> None:
    """The request is retried unchanged, and its tokens count."""
    outcome = decode([{"embedding": [float("nan")]}, {"embedding": [1e39]}], 2, usage={"total_tokens": 4})

    assert isinstance(outcome, Failure)
    assert ("invalid_response", True) == (outcome.error.kind, outcome.error.retryable)
    assert outcome.usage is not None
    assert 4 == outcome.usage.total_tokens
