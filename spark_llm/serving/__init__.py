"""A real serving endpoint on this machine, for tests, demos and a first try without a key.

>>> from spark_llm.serving import LocalEndpoints
>>> with LocalEndpoints() as endpoints:  # Echo models: exact, repeatable, nothing to download
...     endpoints.invocations("chat"), endpoints.token

Nothing here shares code with the client: both keep to the documented wire format, each by itself. Names are loaded
when they are first used, so the import costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "After": "scenario.capacity",
    "Capacity": "scenario.capacity",
    "ChatModel": "models.base",
    "ChatRequest": "protocol.requests",
    "Choice": "protocol.requests",
    "CompletionModel": "models.base",
    "CompletionRequest": "protocol.requests",
    "Echo": "models.base",
    "EmbeddingModel": "models.base",
    "EmbeddingRequest": "protocol.requests",
    "Fault": "scenario.faults",
    "Faults": "scenario.faults",
    "LocalEndpoints": "endpoints",
    "MiniLM": "models.minilm",
    "Model": "models.base",
    "Piece": "protocol.requests",
    "Quota": "scenario.capacity",
    "Recorded": "scenario.stats",
    "Refused": "protocol.errors",
    "ServingEndpoint": "catalog",
    "SmolLM2": "models.smollm2",
    "Stats": "scenario.stats",
    "StreamingModel": "models.base",
    "Texts": "protocol.requests",
    "Usage": "protocol.requests",
    "Vectors": "protocol.requests",
    "echo_vector": "models.base",
    "real_endpoints": "stock",
}

__all__ = [
    "After",
    "Capacity",
    "ChatModel",
    "ChatRequest",
    "Choice",
    "CompletionModel",
    "CompletionRequest",
    "Echo",
    "EmbeddingModel",
    "EmbeddingRequest",
    "Fault",
    "Faults",
    "LocalEndpoints",
    "MiniLM",
    "Model",
    "Piece",
    "Quota",
    "Recorded",
    "Refused",
    "ServingEndpoint",
    "SmolLM2",
    "Stats",
    "StreamingModel",
    "Texts",
    "Usage",
    "Vectors",
    "echo_vector",
    "real_endpoints",
]

if TYPE_CHECKING:
    from spark_llm.serving.catalog import ServingEndpoint
    from spark_llm.serving.endpoints import LocalEndpoints
    from spark_llm.serving.models.base import (
        ChatModel,
        CompletionModel,
        Echo,
        EmbeddingModel,
        Model,
        StreamingModel,
        echo_vector,
    )
    from spark_llm.serving.models.minilm import MiniLM
    from spark_llm.serving.models.smollm2 import SmolLM2
    from spark_llm.serving.protocol.errors import Refused
    from spark_llm.serving.protocol.requests import (
        ChatRequest,
        Choice,
        CompletionRequest,
        EmbeddingRequest,
        Piece,
        Texts,
        Usage,
        Vectors,
    )
    from spark_llm.serving.scenario.capacity import After, Capacity, Quota
    from spark_llm.serving.scenario.faults import Fault, Faults
    from spark_llm.serving.scenario.stats import Recorded, Stats
    from spark_llm.serving.stock import real_endpoints


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- whatever the name stands for
    """Load a public name when it is first asked for (PEP 562)."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
