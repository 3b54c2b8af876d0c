"""Local endpoints for the tests of them, and a client of each."""

from collections.abc import Iterator

import pytest

from spark_llm.serving import LocalEndpoints
from tests.support.local_client import Client, connected


@pytest.fixture(scope="module")
def shared() -> Iterator[Client]:
    """Endpoints that the tests of a request and its answer share."""
    with connected(LocalEndpoints(token="t0ken")) as client:
        yield client


@pytest.fixture
def client() -> Iterator[Client]:
    """Endpoints of one test's own, whose counters begin at zero."""
    with connected(LocalEndpoints()) as client:
        yield client
