"""Fixtures of the client tests: local endpoints, and other servers. Tests that need MLflow are marked `slow`."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from spark_llm.serving import Faults, LocalEndpoints, ServingEndpoint
from spark_llm.serving.stock import echo_endpoints
from tests.integration.clients import gateways, scoring_servers, servers
from tests.integration.clients.client import Workspace
from tests.integration.clients.runner import ClientRunner

if TYPE_CHECKING:
    import pandas as pd

FindServer = Callable[[str], servers.RunningServer]


def score(table: "pd.DataFrame") -> list[str]:
    """Return each row as text."""
    return [f"{age}:{text}" for age, text in zip(table["age"], table["text"], strict=True)]


@pytest.fixture(scope="session")
def shared() -> Iterator[LocalEndpoints]:
    """Echo endpoints for all client tests, one for each task, and a custom model; each has a data plane."""
    models = {**echo_endpoints(), "score": ServingEndpoint(score)}
    with LocalEndpoints({name: replace(each, route_optimized=True) for name, each in models.items()}) as running:
        yield running


@pytest.fixture
def endpoints(shared: LocalEndpoints) -> LocalEndpoints:
    """The shared endpoints, with counters at zero and no faults."""
    shared.faults = Faults()
    shared.reset()
    return shared


@pytest.fixture(scope="session")
def workspace(shared: LocalEndpoints) -> Workspace:
    """The URL and credentials of the local endpoints."""
    return Workspace(shared.url, shared.token, shared.client_id, shared.client_secret)


@pytest.fixture(scope="session")
def runner(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientRunner]:
    """A runner of the clients."""
    runner = ClientRunner(workspace, tmp_path_factory.mktemp("runner"))
    yield runner
    runner.close()


@pytest.fixture(scope="session")
def mlflow_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models for MLflow's scoring server."""
    return scoring_servers.saved_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def find_server(
    shared: LocalEndpoints, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[FindServer]:
    """Return a function from a server's name to the server, which starts at its first use."""
    running: dict[str, servers.RunningServer] = {servers.LOCAL: servers.local(shared)}
    start: dict[str, Callable[[], AbstractContextManager[servers.RunningServer]]] = {
        servers.YAML: lambda: gateways.yaml_gateway(shared, tmp_path_factory.mktemp("gateway")),
        servers.SERVER: lambda: gateways.mlflow_server(shared, tmp_path_factory.mktemp("server")),
        servers.SCORING: lambda: scoring_servers.scoring(request.getfixturevalue("mlflow_models")),
        servers.LLAMA: servers.llama,
    }
    with ExitStack() as stack:

        def find_server(name: str) -> servers.RunningServer:
            if name not in running:
                running[name] = stack.enter_context(start[name]())
            return running[name]

        yield find_server
