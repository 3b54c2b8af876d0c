"""Local serving endpoints: a real HTTP server on this machine, for tests, demos and a first try without a key.

>>> from spark_llm.serving import LocalEndpoints
>>> with LocalEndpoints() as endpoints:  # Echo models: exact, repeatable, nothing to download
...     endpoints.invocations("chat"), endpoints.token

It shares no code with the client: each implements the documented wire format by itself. Names load at first use, so
the import costs nothing. Imports go down only: `endpoints`, `stock`, `http`, `auth`, `catalog`, `scenario`, `models`,
`protocol`. Begin with `endpoints`.
"""

import importlib
from typing import TYPE_CHECKING, Any

_MODULE_OF = {
    "After": "scenario.capacity",
    "Capacity": "scenario.capacity",
    "ChatModel": "models.base",
    "ChatRequest": "protocol.requests",
    "Choice": "protocol.requests",
    "CompletionModel": "models.base",
    "CompletionRequest": "protocol.requests",
    "Echo": "models.echo",
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
    "echo_vector": "models.echo",
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
    from spark_llm.serving.models.base import ChatModel, CompletionModel, EmbeddingModel, Model, StreamingModel
    from spark_llm.serving.models.echo import Echo, echo_vector
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


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- a public name of any type
    """Load a public name at its first use (PEP 562)."""
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted(__all__)
