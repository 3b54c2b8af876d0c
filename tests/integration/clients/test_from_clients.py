"""`Endpoint.from_openai`, `from_workspace` and `from_mlflow`: the library uses a client's URL and credentials."""

from collections.abc import Callable
from typing import Any

import pytest

from spark_llm import Endpoint
from spark_llm.serving import LocalEndpoints
from tests.integration.clients.client import ENDPOINTS, Workspace
from tests.integration.clients.clients import (
    CLIENTS,
    SDK,
    AzureClient,
    OpenAIAtGateway,
    OpenAIAtV1,
    OpenAIClient,
    SDKWithOAuth,
)
from tests.integration.clients.runner import ClientRunner
from tests.integration.clients.test_servers import TASKS
from tests.support.asking import ask, engine_at, kinds, texts

CONSTRUCTORS: list[tuple[Callable[..., Endpoint], type[Any]]] = [
    (Endpoint.from_openai, OpenAIClient),
    (Endpoint.from_openai, OpenAIAtV1),
    (Endpoint.from_openai, OpenAIAtGateway),
    (Endpoint.from_openai, AzureClient),
    (Endpoint.from_workspace, SDK),
    (Endpoint.from_workspace, SDKWithOAuth),
]


@pytest.mark.waits
@pytest.mark.parametrize(("constructor", "client"), CONSTRUCTORS, ids=lambda value: value.__name__)
@pytest.mark.parametrize("task", ENDPOINTS)
def test_an_endpoint_from_a_client_uses_its_path(
    constructor: Callable[..., Endpoint], client: type[Any], task: str, workspace: Workspace, endpoints: LocalEndpoints
) -> None:
    """An endpoint made of a real client gets answers, at the same path as the client."""
    wrapper = client(workspace)
    wrapper.run(task)
    results = ask(
        engine_at(constructor(wrapper.client, ENDPOINTS[task]), task=TASKS[task]), [["red", None]], TASKS[task]
    )
    [their_path, our_path] = [request.path for request in endpoints.requests]

    assert [None, None] == kinds(results)
    assert their_path == our_path
    if task != "embeddings":
        assert ["red", None] == texts(results)


@pytest.mark.slow
@pytest.mark.parametrize("client", [name for name, client in CLIENTS.items() if client.__name__ == "MLflowClient"])
def test_an_endpoint_from_an_mlflow_client_uses_its_path(
    client: str, runner: ClientRunner, endpoints: LocalEndpoints
) -> None:
    """An endpoint made of MLflow's client, in MLflow's environment, gets answers at the client's path."""
    runner.run(client, "chat")
    results = runner.run_in_mlflow_environment(from_mlflow="chat")
    [their_path, our_path] = [request.path for request in endpoints.requests]

    assert ["red", None] == results
    assert their_path == our_path
