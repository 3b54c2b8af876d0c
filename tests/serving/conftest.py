"""Local endpoints under test, each with a client."""

from collections.abc import Iterator

import pytest

from spark_llm.serving import LocalEndpoints
from tests.support.local_client import Client, connected


@pytest.fixture(scope="module")
def shared() -> Iterator[Client]:
    """Endpoints shared by tests that need no exact counters."""
    with connected(LocalEndpoints(token="t0ken")) as client:
        yield client


@pytest.fixture
def client() -> Iterator[Client]:
    """Endpoints for one test, with counters at zero."""
    with connected(LocalEndpoints()) as client:
        yield client
