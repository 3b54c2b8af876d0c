"""The prediction task: bodies of rows, and what its answers become."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.protocol.json_codec import write_json
from spark_llm.protocol.predictions.task import FORMATS, Format, Predict
from spark_llm.protocol.structured.schema import Array, Field, Nullable, Scalar, Struct
from spark_llm.protocol.values import Answer, Failure, Response, Result
from tests.support.strategies import JSON, TEXTS, plain

DOUBLE = Nullable(Scalar("double"))
NUMBERS = Predict(DOUBLE)
NAMES = st.lists(TEXTS.map(plain), min_size=1, max_size=4, unique=True)


def rows_in(body: bytes, format: Format) -> Any:  # noqa: A002, ANN401 -- the field's own name; any JSON
    """Return what a body has of its rows."""
    return json.loads(body)[format]


@given(st.data(), NAMES, st.integers(0, 5))
def test_named_columns_are_a_frame_objects_or_columns(data: st.DataObject, names: list[str], count: int) -> None:
    """Each format has every value at its row and its name; names may have any characters."""
    rows = [[data.draw(JSON) for _ in names] for _ in range(count)]
    values = [write_json(row) for row in rows]
    objects = [write_json(dict(zip(names, row, strict=True))) for row in rows]
    expected = json.loads(write_json(rows))
    split = Predict(DOUBLE, "dataframe_split", tuple(names)).encode(values, None, 0)
    instances = Predict(DOUBLE, "instances", tuple(names)).encode(objects, None, 0)
    inputs = Predict(DOUBLE, "inputs", tuple(names)).encode(values, None, 0)

    assert {"columns": names, "data": expected} == rows_in(split, "dataframe_split")
    assert [dict(zip(names, row, strict=True)) for row in expected] == rows_in(instances, "instances")
    assert {name: [row[at] for row in expected] for at, name in enumerate(names)} == rows_in(inputs, "inputs")


def test_one_column_without_a_name_is_a_list() -> None:
    """A frame has rows of one value and no names; the other formats have the values."""
    assert {"data": [[1], [None]]} == rows_in(NUMBERS.encode([b"[1]", b"[null]"], None, 0), "dataframe_split")
    for format_ in FORMATS[1:]:
        assert [1, None] == rows_in(Predict(DOUBLE, format_).encode([b"1", b"null"], None, 0), format_)


def test_columns_keep_the_digits_that_rows_have() -> None:
    """Turned into columns, a number is the same text."""
    body = Predict(DOUBLE, "inputs", ("a", "b")).encode([b'[1.10,"x"]', b"[12345678901234567890,null]"], None, 0)

    assert b'{"inputs":{"a":[1.10,12345678901234567890],"b":["x",null]}}' == body


def decode(body: object, count: int, task: Predict = NUMBERS, status: int = 200, **response: Any) -> Any:  # noqa: ANN401 -- fields of a response; an outcome
    """Read a response."""
    text = body if isinstance(body, str) else json.dumps(body)
    return task.decode(Response(status, text.encode(), **response), count)


@pytest.mark.parametrize("predictions", [[0.5], [0.5] * 3, [], None, {}, {"a": [0.5]}, "x", 0.5])
def test_another_number_of_predictions_is_tried_again(predictions: object) -> None:
    """Fewer and more than rows: no row can know which is its own."""
    failure = decode({"predictions": predictions}, 2)

    assert isinstance(failure, Failure)
    assert ("invalid_response", True) == (failure.error.kind, failure.error.retryable)


def test_predictions_keep_their_order_and_name_the_model() -> None:
    """A row's result has its prediction, the served model, and no tokens."""
    answer = decode({"predictions": [0.5, None]}, 2, headers={"served-model-name": "fraud-2"})

    assert Answer([Result(model="fraud-2", prediction=0.5), Result(model="fraud-2")], None) == answer


def test_a_misfit_is_a_schema_mismatch_of_its_row() -> None:
    """It is not retryable, and masks what was secret in the request."""
    answer = decode({"predictions": ["dapi-secret-1", 0.5]}, 2, secrets=("dapi-secret-1",))
    first, second = answer.results

    assert ("schema_mismatch", 200, False) == (first.error.kind, first.error.status, first.error.retryable)
    assert 'the prediction does not fit returns=: a number is expected, and it is "***"' == first.error.message
    assert (None, 0.5, None) == (first.prediction, second.prediction, second.error)


def test_the_answer_to_one_row_may_be_an_object_of_lists() -> None:
    """Its lists are columns where that fits, and else values."""
    lists = Predict(Struct((Field("a", Array(Scalar("integer"))),)))
    numbers = Predict(Struct((Field("a", Scalar("integer")),)))

    assert {"a": [1]} == decode({"predictions": {"a": [1]}}, 1, lists).results[0].prediction
    assert {"a": 1} == decode({"predictions": {"a": [1]}}, 1, numbers).results[0].prediction


@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_stack_trace_is_in_no_message(status: int) -> None:
    """Neither beside a message nor alone, under any status."""
    trace = 'Traceback (most recent call last):\n  File "score.py", line 7\nKeyError: "hidden"\n'
    for body in (
        {"error_code": "BAD_REQUEST", "message": "it failed", "stack_trace": trace},
        {"stack_trace": trace},
        {"detail": {"stack_trace": trace}},
    ):
        failure = decode(body, 2, status=status)
        assert isinstance(failure, Failure)
        assert "hidden" not in failure.error.message
        assert "score.py" not in failure.error.message


def test_the_reason_is_kept_and_the_rows_are_not() -> None:
    """Of MLflow's message what it says of the model stays, and the data that it repeats does not."""
    rows = "\n".join(f"{row} secret" for row in range(60))
    message = (
        f"Failed to predict data '{rows}'. \nError: Failed to enforce schema of data '{rows}' with schema"
        " '['age': long (required)]'. Error: Model is missing inputs ['age']."
    )

    assert (
        "Model is missing inputs ['age']."
        == decode({"error_code": "B", "message": message}, 9, status=400).error.message
    )


def test_a_request_is_limited_by_bytes_and_rows() -> None:
    """16 MB at any server, 5,000 rows, and any number of tokens."""
    assert (16, 5_000, None) == (
        NUMBERS.max_request_mb("https://h/invocations"),
        NUMBERS.default_batch_size,
        NUMBERS.max_request_tokens,
    )
    assert NUMBERS.repeatable
