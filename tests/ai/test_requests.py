"""`ai_query` in SQL, whose rows name chat models and custom models, on the worker's side. Needs no Spark session."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from spark_llm import Endpoint, Policy
from spark_llm.ai.plans import QueryPlan
from spark_llm.ai.requests import as_text
from spark_llm.engine.registry import ENGINES
from spark_llm.engine.request_spec import RequestSpec
from spark_llm.errors import InputTypeError, RowFailedError
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.predictions.task import Predict
from spark_llm.protocol.structured.schema import Field, Scalar, Shape, Struct
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Result, RowError
from spark_llm.serving import Echo, LocalEndpoints, echo_media
from tests.support.asking import CHAT, texts
from tests.support.media import image

PERSON = Struct((Field("text", Scalar("string")), Field("age", Scalar("integer"))))
AGES = [21, 22, None, 13, 24]


def score(frame: pd.DataFrame) -> list[Any]:
    """Return each row: one value, or a text and an age; an age of 13 is refused."""
    if len(frame.columns) == 1:
        return list(frame.iloc[:, 0])
    if 13 in frame["age"].to_list():
        raise ValueError("no model of thirteen")
    return [{"text": text, "age": int(age)} for text, age in frame.itertuples(index=False)]


@pytest.fixture
def endpoints() -> Iterator[LocalEndpoints]:
    """A chat model and a custom model; the worker's registry is empty afterwards."""
    with LocalEndpoints({"chat": Echo(), "score": score}) as running:
        yield running
    ENGINES.close()


def plan(endpoints: LocalEndpoints, returns: Shape = PERSON, *, raises: bool = False) -> QueryPlan:
    """Return the plan that knows the chat model, for completions too, and the custom model."""

    def spec(name: str, task: Task) -> RequestSpec:
        endpoint = Endpoint(endpoints.invocations(name), token=endpoints.token)
        return RequestSpec(task, endpoint.resolve(task.route, {}), Policy())

    known = {
        "chat": spec("chat", CHAT),
        "go on": spec("chat", Complete(b"{}")),
        "score": spec("score", Predict(returns)),
    }
    return QueryPlan(tuple(known.items()), None, raises)


def people() -> pa.Array:
    """Return requests of two columns, of which the third is null."""
    rows = [None if age is None else {"text": f"is {age}", "age": age} for age in AGES]
    return pa.array(rows, pa.struct([("text", pa.string()), ("age", pa.int64())]))


def asked(plan: QueryPlan, kind: str, names: list[str | None], *columns: pa.Array) -> list[Result | None]:
    """Return the results for a batch, of Arrow or as pandas."""
    batch = (pa.array(names, pa.string()), *columns)
    chunks = plan.arrow(iter([batch])) if kind == "arrow" else plan.pandas(iter([tuple(map(as_pandas, batch))]))
    return [result for chunk in chunks for result in chunk]


def as_pandas(column: pa.Array) -> Any:  # noqa: ANN401 -- a series, or the frame of a struct
    """Return a column as Spark gives it to a pandas UDF."""
    if pa.types.is_struct(column.type):
        return pa.table(column.flatten(), column.type.names).to_pandas()
    return column.to_pandas()


@pytest.mark.parametrize("kind", ["arrow", "pandas"])
def test_a_custom_model_gets_its_columns(kind: str, endpoints: LocalEndpoints) -> None:
    """Predictions are texts of JSON; a null asks nothing, and a refused row has its error alone."""
    results = asked(plan(endpoints), kind, ["score"] * 5, people())
    found = [result if result is None or result.error is None else result.error.kind for result in results]

    assert [None, "invalid_request"] == found[2:4]
    assert [{"text": f"is {age}", "age": age} for age in (21, 22, 24)] == [
        json.loads(text or "") for text in texts([results[row] for row in (0, 1, 4)])
    ]
    sent: list[Any] = [request.body for request in endpoints.requests]
    assert ["text", "age"] == sent[0]["dataframe_split"]["columns"]
    assert [["is 21", 21], ["is 22", 22], ["is 13", 13], ["is 24", 24]] == sent[0]["dataframe_split"]["data"]


@pytest.mark.parametrize("kind", ["arrow", "pandas"])
def test_a_text_goes_to_either_in_its_form(kind: str, endpoints: LocalEndpoints) -> None:
    """Each row is answered by the endpoint that it names; two batches are two requests of the custom model."""
    names = ["chat", "score", None, "score", "chat"]
    requests = pa.array(["a", "b", None, None, "e"])
    results = asked(plan(endpoints, Scalar("string")), kind, list(names), requests)

    assert ["a", "b", None, None, "e"] == texts(results)
    assert {"chat": 2, "score": 1} == {name: each.requests for name, each in endpoints.stats.endpoints.items()}


@pytest.mark.parametrize("kind", ["arrow", "pandas"])
def test_a_row_of_columns_is_no_text(kind: str, endpoints: LocalEndpoints) -> None:
    """The message has both ways out, and no request is sent."""
    why = "a string as request; .* Its rows name 'chat'.* name a custom model: 'score'"
    with pytest.raises(InputTypeError, match=why):
        asked(plan(endpoints), kind, ["chat", "nobody", None, *["score"] * 2], people())

    assert 0 == endpoints.stats.requests


@pytest.mark.parametrize("kind", ["arrow", "pandas"])
def test_a_row_of_columns_without_an_endpoint_is_alone(kind: str, endpoints: LocalEndpoints) -> None:
    """A null name gives a null, an unknown one the error of its row; the custom model answers the others."""
    results = asked(plan(endpoints), kind, ["nobody", "score", None, None, "score"], people())

    assert [False, True, False, False, True] == [text is not None for text in texts(results)]
    assert [0] == [row for row, result in enumerate(results) if result and result.error]
    assert results[0]
    assert results[0].error
    assert ("not_found", None) == results[0].error[:2]


@pytest.mark.parametrize("kind", ["arrow", "pandas"])
@pytest.mark.parametrize("with_custom", [True, False])
def test_files_are_parts_for_chat_models_alone(kind: str, with_custom: bool, endpoints: LocalEndpoints) -> None:  # noqa: FBT001 -- a parameter of the test
    """A null is a null row, and an error costs no request; rows without files are as they were."""
    asked_plan = plan(endpoints, Scalar("string"))
    if not with_custom:
        asked_plan = replace(asked_plan, known=asked_plan.known[:2])
    names: list[str | None] = ["chat", "chat", "chat", "chat", "go on", "score" if with_custom else "go on", "chat"]
    requests = pa.array(["a", "b", None, "", "c", "d", "e"])
    picture = image("PNG")
    results = asked(
        asked_plan, kind, names, requests, pa.array([picture, None, picture, picture, picture, picture, b"?"])
    )
    errors = [result.error.message if result and result.error else None for result in results]

    said = echo_media(picture).text
    assert ["a" + said, None, None, said, None, None, None] == texts(results)
    assert [False, False, False, False, True, True, False] == ["for chat models" in (error or "") for error in errors]
    assert "files is none of PNG" in (errors[6] or "")
    assert 2 == endpoints.stats.requests
    with pytest.raises(InputTypeError, match="takes a BINARY column as files; it was called on"):
        asked(asked_plan, kind, ["chat"], pa.array(["a"]), pa.array(["a text"]))


def test_an_unknown_name_and_one_argument_raise(endpoints: LocalEndpoints) -> None:
    """As where all endpoints are chat models."""
    with pytest.raises(InputTypeError, match="does not know the endpoint 'nobody'"):
        asked(plan(endpoints, raises=True), "arrow", ["nobody"], pa.array(["a"]))
    with pytest.raises(InputTypeError, match="takes endpoint, request and perhaps files"):
        list(plan(endpoints).arrow(iter([pa.array(["a"])])))


def test_a_failed_row_of_a_custom_model_raises_with_raises(endpoints: LocalEndpoints) -> None:
    """Its hint names the functions that do not."""
    with pytest.raises(RowFailedError, match="Hint: use try_ai_query"):
        asked(plan(endpoints, raises=True), "arrow", ["score"] * 5, people())


@pytest.mark.parametrize(
    ("prediction", "text"),
    [
        ("as it is", "as it is"),
        ('{"of": "JSON"}', '{"of": "JSON"}'),
        (1.5, "1.5"),
        (2**63 - 1, "9223372036854775807"),
        (True, "true"),
        (date(2024, 2, 29), "2024-02-29"),
        ([1, None], "[1, null]"),
        ({"a": "b"}, '{"a": "b"}'),
        (b"bytes", "Ynl0ZXM="),
        (None, None),
    ],
)
def test_a_prediction_is_a_text_as_spark_casts_it(prediction: object, text: str | None) -> None:
    """So that CAST, from_json and unbase64 read it; an error and a null stay."""
    result = as_text(Result(prediction=prediction))

    assert result is not None
    assert text == result.text
    assert as_text(None) is None
    failed = Result(error=RowError("timeout", None, "late", retryable=True))
    assert failed is as_text(failed)
