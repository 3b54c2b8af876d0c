"""A client that is there already, taken over: the library asks what the client asks, as whom the client asks."""

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
from tests.integration.clients.desk import Desk
from tests.integration.clients.test_servers import TASKS
from tests.support.asking import ask, engine_at, kinds, texts

TAKEN: list[tuple[Callable[..., Endpoint], type[Any]]] = [
    (Endpoint.from_openai, OpenAIClient),
    (Endpoint.from_openai, OpenAIAtV1),
    (Endpoint.from_openai, OpenAIAtGateway),
    (Endpoint.from_openai, AzureClient),
    (Endpoint.from_workspace, SDK),
    (Endpoint.from_workspace, SDKWithOAuth),
]


@pytest.mark.parametrize(("take", "client"), TAKEN, ids=lambda value: value.__name__)
@pytest.mark.parametrize("task", TASKS)
def test_a_client_is_taken_over(
    take: Callable[..., Endpoint], client: type[Any], task: str, workspace: Workspace, endpoints: LocalEndpoints
) -> None:
    """An endpoint made of a real client is answered, and its requests have the path of the client's own."""
    taken = client(workspace)
    taken.do(task)
    results = ask(engine_at(take(taken.client, ENDPOINTS[task]), task=TASKS[task]), [["red", None]], TASKS[task])
    [its, ours] = [request.path for request in endpoints.requests]

    assert [None, None] == kinds(results)
    assert its == ours
    if task != "embeddings":
        assert ["red", None] == texts(results)


@pytest.mark.slow
@pytest.mark.parametrize("client", [name for name, client in CLIENTS.items() if client.__name__ == "MLflowClient"])
def test_an_mlflow_client_is_taken_over(client: str, desk: Desk, endpoints: LocalEndpoints) -> None:
    """An endpoint made of MLflow's own client, where MLflow is, is answered at the client's own path."""
    desk.ask(client, "chat")
    told = desk.elsewhere(taken_over="chat")
    [its, ours] = [request.path for request in endpoints.requests]

    assert ["red", None] == told
    assert its == ours
