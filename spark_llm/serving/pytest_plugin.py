"""The pytest fixture `local_endpoints`; the plugin imports nothing else until a test uses it."""

from typing import TYPE_CHECKING

import pytest

from spark_llm import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spark_llm.serving.endpoints import LocalEndpoints


@pytest.fixture
def local_endpoints() -> "Iterator[LocalEndpoints]":
    """Local endpoints named chat, complete and embed, new for each test.

    Set faults, latency and capacity on it: `local_endpoints.faults = Faults("429 ok*3")`.
    """
    with serving.LocalEndpoints() as endpoints:
        yield endpoints
