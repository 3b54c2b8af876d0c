"""What the tests of peers share: local endpoints and the peers' programs; those that need MLflow are marked `slow`."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace

import pytest

from spark_llm.serving import Faults, LocalEndpoints
from spark_llm.serving.stock import echo_endpoints
from tests.integration.clients import gateways, servers
from tests.integration.clients.client import Workspace
from tests.integration.clients.desk import Desk

Find = Callable[[str], servers.Place]


@pytest.fixture(scope="session")
def shared() -> Iterator[LocalEndpoints]:
    """Echo endpoints for all tests of peers, one for each task, with a data plane."""
    models = {name: replace(endpoint, route_optimized=True) for name, endpoint in echo_endpoints().items()}
    with LocalEndpoints(models) as running:
        yield running


@pytest.fixture
def endpoints(shared: LocalEndpoints) -> LocalEndpoints:
    """The shared endpoints, nothing counted and nothing wrong."""
    shared.faults = Faults()
    shared.reset()
    return shared


@pytest.fixture(scope="session")
def workspace(shared: LocalEndpoints) -> Workspace:
    """The local endpoints as a client signs in to them."""
    return Workspace(shared.url, shared.token, shared.client_id, shared.client_secret)


@pytest.fixture(scope="session")
def desk(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Where clients are asked."""
    opened = Desk(workspace, tmp_path_factory.mktemp("desk"))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def find(shared: LocalEndpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Find]:
    """Return a server by its name; it starts when it is first asked for."""
    running: dict[str, servers.Place] = {servers.LOCAL: servers.local(shared)}
    start: dict[str, Callable[[], AbstractContextManager[servers.Place]]] = {
        servers.YAML: lambda: gateways.yaml_gateway(shared, tmp_path_factory.mktemp("gateway")),
        servers.SERVER: lambda: gateways.mlflow_server(shared, tmp_path_factory.mktemp("server")),
        servers.LLAMA: servers.llama,
    }
    with ExitStack() as stack:

        def find(name: str) -> servers.Place:
            if name not in running:
                running[name] = stack.enter_context(start[name]())
            return running[name]

        yield find
