"""Local endpoints, and engines that end with their test."""

from collections.abc import Iterator

import pytest

from spark_llm.serving import LocalEndpoints
from tests.world.asking import started


@pytest.fixture
def endpoints() -> Iterator[LocalEndpoints]:
    """Echo endpoints with nothing wrong yet."""
    with LocalEndpoints() as running:
        yield running


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Close a test's engines when it is over."""
    yield
    while started:
        started.pop().close()
