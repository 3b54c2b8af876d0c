"""The pytest fixture `local_endpoints`; the import loads nothing until a test asks for it."""

from typing import TYPE_CHECKING

import pytest

from spark_llm import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spark_llm.serving.endpoints import LocalEndpoints


@pytest.fixture
def local_endpoints() -> "Iterator[LocalEndpoints]":
    """Local endpoints named chat, complete and embed, fresh for each test.

    Faults, latency and capacity can be set on it: `local_endpoints.faults = Faults("429 ok*3")`.
    """
    with serving.LocalEndpoints() as endpoints:
        yield endpoints
