"""Third-party clients against local endpoints: the first table of docs/clients.md."""

import re
import shutil

import pytest
import requests

from spark_llm.serving import Echo, LocalEndpoints, ServingEndpoint, echo_media, echo_vector
from tests.integration.clients.client import BODIES, INPUTS, PNG, TIMEOUT_S, Workspace
from tests.integration.clients.clients import CLIENTS, OpenAIClient, SDKDataPlane
from tests.integration.clients.runner import ClientRunner

REPLY = {"text": "red green", "model": "echo", "tokens": [3, 2, 5]}
STREAM = {**REPLY, "pieces": 2, "finish_reason": ["length"]}
SEEN = f"See {echo_media(PNG).text}"
CALLS = [["add", '{"a": 1}'], ["add", '{"a": 2}']]
RESPONSE = {"text": f"Look.\n{SEEN}", "calls": [], "status": "completed", "model": "echo", "tokens": [3, 7, 10]}
EXPECTED: dict[str, object] = {
    "chat": REPLY,
    "chat streamed": STREAM,
    "completions": REPLY,
    "completions streamed": STREAM,
    "embeddings": {"vectors": [echo_vector(text) for text in INPUTS], "model": "echo", "tokens": 2},
    "list": ["chat", "complete", "embed", "score"],
    "describe": {"name": "chat", "task": "llm/v1/chat", "ready": "READY"},
    "image": {"text": SEEN, "model": "echo", "tokens": [2, 6, 8]},
    "tools": {"calls": CALLS, "text": None, "finish_reason": "tool_calls"},
    "tools streamed": {"calls": CALLS, "pieces": 6, "finish_reason": ["tool_calls"]},
    "responses": RESPONSE,
    "responses streamed": {**RESPONSE, "pieces": 7},
    "responses tools": {"text": "", "calls": CALLS, "status": "completed", "model": "echo", "tokens": [8, 6, 14]},
    "records": ["1:red", "2:green"],
    "split": ["1:red", "2:green"],
}

WITH_CURL = [pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed.")]


@pytest.mark.waits
@pytest.mark.parametrize(
    ("client", "column"),
    [
        pytest.param(
            name, column, marks=[pytest.mark.slow] if client.with_mlflow else WITH_CURL if "curl" in name else []
        )
        for name, client in CLIENTS.items()
        for column in client.columns
    ],
)
def test_a_client_gets_the_exact_answer(
    client: str, column: str, runner: ClientRunner, endpoints: LocalEndpoints
) -> None:
    """Each client gets the exact text, calls, tokens and model by its own calls, streamed or not."""
    expected = EXPECTED[column]
    if column == "list" and issubclass(CLIENTS[client], OpenAIClient):
        expected = ["chat", "complete", "embed"]  # a custom model is none of OpenAI's

    assert expected == runner.run(client, column)


def test_the_data_plane_has_its_own_url(workspace: Workspace, endpoints: LocalEndpoints) -> None:
    """The SDK queries the data plane under the workspace's id, and the control plane only for a description."""
    SDKDataPlane(workspace).run("chat")
    [request] = endpoints.requests

    assert re.fullmatch(r"/\d+/serving-endpoints/chat/invocations", request.path)


def test_a_client_can_query_one_model_of_an_endpoint() -> None:
    """A served-model path reaches the named model, and an unknown name gets a 404."""
    models = {"first": Echo(), "second": Echo(name="rival")}
    with LocalEndpoints({"chat": ServingEndpoint(models)}) as endpoints:
        base = f"{endpoints.url}/serving-endpoints/chat"
        paths = ("/invocations", "/served-models/second/invocations", "/served-models/third/invocations")
        answers = [
            requests.post(base + path, json=BODIES["chat"], auth=("token", endpoints.token), timeout=TIMEOUT_S)
            for path in paths
        ]

    assert ["echo", "rival"] == [answer.json()["model"] for answer in answers[:2]]
    assert ["first", "second"] == [answer.headers["served-model-name"] for answer in answers[:2]]
    assert (404, "ENDPOINT_NOT_FOUND") == (answers[2].status_code, answers[2].json()["error_code"])
