"""Custom models: functions behind endpoints, asked and answered as by MLflow's scoring server."""

import json
import math
from collections.abc import Iterator
from datetime import date, datetime, time, timezone

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.serving import (
    CustomModel,
    Echo,
    Faults,
    LocalEndpoints,
    Model,
    PredictFunction,
    Refused,
    ServingEndpoint,
)
from spark_llm.serving.protocol.predictions import PredictionRequest, Predictions, prediction_body
from spark_llm.serving.protocol.requests import parse_request
from tests.support.local_client import Client, chat_body, connected

SPLIT = {"columns": ["age", "text"], "data": [[1, "a"], [2, "b"], [None, "c"]]}
RECORDS = [{"age": 1, "text": "a"}, {"age": 2, "text": "b"}, {"age": None, "text": "c"}]


def score(table: pd.DataFrame) -> list[str]:
    """Return each row as text; refuse a text, and fail on another."""
    if (table["text"] == "forbidden").any():
        raise Refused.bad_request("This text is not allowed.")
    if (table["text"] == "poison").any():
        raise ZeroDivisionError("a row that no model can read")
    return [f"{age}:{text}" for age, text in zip(table["age"], table["text"], strict=True)]


def give_back(data: object, params: object) -> list[object]:
    """Return the data and the parameters as they came."""
    return [data, params]


FUNCTIONS: dict[str, PredictFunction] = {
    "score": score,
    "same": give_back,
    "array": lambda table: np.arange(len(table)) / 2,
    "column": lambda table: table["age"],
    "table": lambda table: table[["age"]].assign(at=pd.Timestamp(2026, 1, 2)),
    "odd": lambda _: [math.nan, math.inf, -math.inf, np.float32(0.5), np.int64(3), b"\x00", None],
    "no JSON": lambda _: [object()],
}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Custom models, a feature specification, one of two models, and a model for chat."""
    models: dict[str, Model | PredictFunction | ServingEndpoint] = {
        **FUNCTIONS,
        "features": CustomModel(score, name="main.shop.features", feature_serving=True),
        "two": ServingEndpoint({"ours": score, "theirs": CustomModel(score, name="rival")}, route_optimized=True),
        "chat": Echo(),
    }
    with connected(LocalEndpoints(models)) as client:
        yield client


def predictions(client: Client, name: str, body: object) -> object:
    """Return the predictions in an answer."""
    response = client.query(name, body)
    assert 200 == response.status_code, response.text
    return json.loads(response.text)["predictions"]


@pytest.mark.parametrize("body", [{"dataframe_split": SPLIT}, {"dataframe_records": RECORDS}])
def test_a_function_gets_a_table(body: dict[str, object], client: Client) -> None:
    """Both formats of a table give the function one DataFrame, and its rows keep their order."""
    assert ["1.0:a", "2.0:b", "nan:c"] == predictions(client, "score", body)


@pytest.mark.parametrize("value", [[1, 2.5], ["a"], [[1], [2]], [{"a": 1}], {"a": [1, 2], "b": [3, 4]}, "x", None])
@pytest.mark.parametrize("field", ["instances", "inputs"])
def test_a_function_gets_tensors_as_they_are(field: str, value: object, client: Client) -> None:
    """`instances` and `inputs` reach the function as JSON has them, and so do parameters that it takes."""
    assert [value, {"k": 5}] == predictions(client, "same", {field: value, "params": {"k": 5}})
    assert [value, None] == predictions(client, "same", {field: value})


def test_predictions_of_numpy_and_pandas_are_written_as_mlflow_does(client: Client) -> None:
    """Arrays are lists, a table and a column are records, and times are text of ISO 8601."""
    body = {"dataframe_records": RECORDS[:2]}

    assert [0.0, 0.5] == predictions(client, "array", body)
    assert [{"age": 1}, {"age": 2}] == predictions(client, "column", body)
    assert [{"age": age, "at": "2026-01-02T00:00:00"} for age in (1, 2)] == predictions(client, "table", body)
    assert '{"predictions": [NaN, Infinity, -Infinity, 0.5, 3, "AA==\\n", null]}' == client.query("odd", body).text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(JSON))
def test_any_json_is_a_prediction(values: list[object]) -> None:
    """What is JSON stays what it is, infinite numbers too."""
    assert {"predictions": values} == json.loads(prediction_body(Predictions(values)))


@given(st.lists(st.floats(width=32)), st.sampled_from([np.float32, np.float64]))
def test_an_array_is_written_number_by_number(values: list[float], dtype: type[np.floating]) -> None:
    """Each number of an array can be read back, NaN as NaN."""
    read = json.loads(prediction_body(Predictions(np.array(values, dtype=dtype), "outputs")))["outputs"]

    np.testing.assert_array_equal(np.array(values, dtype=dtype), np.array(read, dtype=dtype))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4), "03:04:00"),
        (datetime(2026, 1, 2, tzinfo=timezone.utc), "2026-01-02T00:00:00+00:00"),
        (np.datetime64("2026-01-02T03:04"), "2026-01-02T03:04"),
        (np.array([[1, 2]]), [[1, 2]]),
        (np.array(["a", None], dtype=object), ["a", None]),
        (pd.Series([1.5]), [{"0": 1.5}]),
        (bytearray(b"abc"), "YWJj\n"),
    ],
)
def test_a_value_without_a_type_in_json_is_written_as_mlflow_does(value: object, written: object) -> None:
    """Times, bytes, arrays and columns without a name have one form each."""
    assert {"predictions": written} == json.loads(prediction_body(Predictions(value)))


# --- Rows ---


@given(st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=2)))
def test_rows_are_counted_in_every_format(rows: list[list[int]]) -> None:
    """The number of rows, and each as text, is known in all four formats."""
    bodies: list[dict[str, object]] = [
        {"dataframe_split": {"columns": ["a", "b"], "data": rows}},
        {"dataframe_records": [{"a": a, "b": b} for a, b in rows]},
        {"instances": rows},
        {"inputs": rows},
        {"inputs": {"a": [a for a, _ in rows], "b": [b for _, b in rows]}},
    ]
    for body in bodies:
        request = parse_request(body, PredictionRequest)
        assert (len(rows), len(rows)) == (request.rows, len(list(request.texts)))
    assert ["[1,2]"] == list(parse_request({"instances": [[1, 2]]}, PredictionRequest).texts)
    assert 1 == parse_request({"inputs": "one"}, PredictionRequest).rows


def test_rows_are_counted(client: Client) -> None:
    """The counters have the rows asked and answered, by endpoint, and no tokens."""
    client.endpoints.reset()
    client.query("score", {"dataframe_split": SPLIT})
    client.query("score", {"dataframe_records": [{"age": 1, "text": "poison"}]})
    stats = client.endpoints.stats.endpoints["score"]

    assert (2, 4, 3, 0) == (stats.requests, stats.rows_asked, stats.rows_answered, stats.total_tokens)
    assert {200: 1, 400: 1} == stats.by_status


# --- Errors ---


def test_a_function_that_raises_is_a_400_with_its_stack_trace(client: Client) -> None:
    """One bad row refuses its request, in the words of MLflow's scoring server; `Refused` has its own words."""
    body = {"dataframe_records": [*RECORDS, {"age": 4, "text": "poison"}]}
    failed, refused = client.query("score", body), client.query("score", {"inputs": 1})
    own = client.query("score", {"dataframe_records": [{"age": 4, "text": "forbidden"}]})

    assert (400, {"error_code", "message", "stack_trace"}) == (failed.status_code, set(failed.json()))
    assert "BAD_REQUEST" == failed.json()["error_code"]
    assert failed.json()["message"].startswith("Encountered an unexpected error while evaluating the model.")
    assert failed.json()["stack_trace"].endswith("ZeroDivisionError: a row that no model can read\n")
    assert "TypeError" in refused.json()["stack_trace"]
    assert {"error_code": "BAD_REQUEST", "message": "This text is not allowed."} == own.json()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "with exactly one of the input fields"),
        ({"messages": []}, "with exactly one of the input fields"),
        ({"inputs": 1, "instances": 2}, "Received dictionary with input fields: instances, inputs."),
        ({"dataframe_split": {"columns": ["a"]}}, "missing required field `data`"),
        ({"dataframe_split": {"data": [], "rows": 1}}, "contains unknown field `rows`"),
        ({"dataframe_split": [1]}, "Expected `object"),
        ({"dataframe_records": {"a": 1}}, "Expected `array"),
        (
            {"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}},
            "is not a valid dataframe representation in 'split'",
        ),
        ({"dataframe_records": [{"a": 1}, 2]}, "is not a valid dataframe representation in 'records'"),
        ({"inputs": 1, "params": 2}, "Expected `object | null`"),
    ],
)
def test_a_wrong_body_is_named(body: object, message: str, client: Client) -> None:
    """A body without one input, or with a table that is none, gets a 400."""
    response = client.query("score", body)

    assert (400, "BAD_REQUEST") == (response.status_code, response.json()["error_code"])
    assert message in response.json()["message"]


def test_predictions_that_are_no_json_are_a_500(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """A function's value that has no JSON is the server's error, and is logged."""
    response = client.query("no JSON", {"inputs": 1})

    assert (500, "INTERNAL_ERROR") == (response.status_code, response.json()["error_code"])
    assert "A prediction of type object has no JSON" in caplog.text


def test_a_custom_model_serves_no_other_task(client: Client) -> None:
    """OpenAI's routes refuse a custom model, and a chat model refuses a table."""
    openai = client.post("/v1/chat/completions", {"model": "score", **chat_body("a")})
    table = client.query("chat", {"dataframe_split": SPLIT})

    assert "Endpoint score serves predictions" in openai.json()["error"]["message"]
    assert table.json()["message"].startswith('Bad request: json: unknown field "dataframe_split".')
    assert (400, 400) == (openai.status_code, table.status_code)


@pytest.mark.parametrize(
    ("name", "body", "limit"),
    [("same", '{"inputs": ["%s"]}', 16), ("chat", '{"input": "%s"}', 4)],
)
def test_a_body_has_a_limit(name: str, body: str, limit: int, client: Client) -> None:
    """Custom models take 16 MB, other models 4 MB at Databricks' routes; one byte more gets a 413."""
    size = limit * 2**20 - len(body) + 2
    path = f"/serving-endpoints/{name}/invocations"
    fits, large = (client.post(path, data=(body % ("x" * count)).encode()) for count in (size, size + 1))

    assert (200, 413) == (fits.status_code, large.status_code)
    assert f"The request body is larger than {limit} MB." == large.json()["message"]


# --- Routes, faults, descriptions ---


def test_every_route_asks_the_model(client: Client) -> None:
    """An endpoint, each of its served entities, its data plane, and the path of MLflow's own server answer."""
    body = {"dataframe_records": RECORDS[:1]}
    form = {"grant_type": "client_credentials", "scope": "all-apis"}
    form |= {"client_id": client.endpoints.client_id, "client_secret": client.endpoints.client_secret}
    description = client.get("/api/2.0/serving-endpoints/two").json()["data_plane_info"]["query_info"]
    form["authorization_details"] = description["authorization_details"]
    encoded = "&".join(f"{name}={value}" for name, value in form.items()).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    token = client.post("/oidc/v1/token", data=encoded, headers=headers).json()["access_token"]
    paths = {
        "/serving-endpoints/two/invocations": "ours",
        "/serving-endpoints/two/served-models/theirs/invocations": "theirs",
        "/invocations": "score-1",
    }
    for path, entity in paths.items():
        answer = client.post(path, body)
        assert ({"predictions": ["1:a"]}, entity) == (answer.json(), answer.headers["served-model-name"])
    plane = description["endpoint_url"].removeprefix(client.endpoints.url)
    assert ["1:a"] == client.post(plane, body, headers={"Authorization": f"Bearer {token}"}).json()["predictions"]
    assert 404 == client.post("/serving-endpoints/two/served-models/nobody/invocations", body).status_code


def test_there_may_be_no_custom_model() -> None:
    """Without a custom model, the path of MLflow's server is not found."""
    with connected(LocalEndpoints()) as client:
        assert 404 == client.post("/invocations", {"inputs": 1}).status_code


def test_features_are_outputs(client: Client) -> None:
    """A feature specification answers with `outputs`."""
    assert {"outputs": ["1:a"]} == client.query("features", {"dataframe_records": RECORDS[:1]}).json()


def test_faults_reach_custom_models(client: Client) -> None:
    """Refusals, misbehaviours and poison are as for other models; an empty answer has no predictions."""
    client.endpoints.reset()
    client.endpoints.faults = Faults("429@1.5 errorbody empty cut", poison="cyanide")
    try:
        body = {"dataframe_records": RECORDS}
        refused, error, empty = (client.query("score", body) for _ in range(3))
        with pytest.raises(Exception, match=r"IncompleteRead|Connection broken"):
            client.query("score", body)
        poisoned = client.query("score", {"dataframe_records": [*RECORDS, {"age": 1, "text": "some cyanide"}]})
    finally:
        client.endpoints.faults = Faults()

    assert (429, "1.5") == (refused.status_code, refused.headers["Retry-After"])
    assert (200, "INTERNAL_ERROR") == (error.status_code, error.json()["error_code"])
    assert {"predictions": []} == empty.json()
    assert (400, "INVALID_PARAMETER_VALUE") == (poisoned.status_code, poisoned.json()["error_code"])


def test_a_custom_model_is_described_as_documented(client: Client) -> None:
    """The description has the entity and no task; OpenAI's list has the models of its own tasks only."""
    names = ("score", "features", "two")
    documents = [client.get(f"/api/2.0/serving-endpoints/{name}").json() for name in names]
    entities = [document["config"]["served_entities"] for document in documents]

    assert [False] * 3 == ["task" in document or "endpoint_type" in document for document in documents]
    assert [("score", "1"), ("main.shop.features", None)] == [
        (entity["entity_name"], entity.get("entity_version")) for [entity] in entities[:2]
    ]
    assert ["score", "rival"] == [entity["entity_name"] for entity in entities[2]]
    assert not any("foundation_model" in entity for each in entities for entity in each)
    assert ["chat"] == [model["id"] for model in client.get("/v1/models").json()["data"]]
    openapi = client.get("/api/2.0/serving-endpoints/score/openapi").json()
    assert {"PredictionRequest", "PredictionResponse"} == set(openapi["components"]["schemas"])


@pytest.mark.waits
def test_recorded_bodies_have_a_limit() -> None:
    """Recorded bodies have at most 128 MB together: older requests are forgotten."""
    with connected(LocalEndpoints({"same": len})) as client:
        for number in range(9):
            client.query("same", {"inputs": [number, "x" * (15 * 2**20)]})
        kept = [request.body["inputs"][0] for request in client.endpoints.requests if request.body]

    assert [1, 2, 3, 4, 5, 6, 7, 8] == kept
