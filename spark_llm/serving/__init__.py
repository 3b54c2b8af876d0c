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
    "After": "limits",
    "Capacity": "limits",
    "ChatModel": "models",
    "ChatRequest": "wire",
    "Choice": "wire",
    "CompletionModel": "models",
    "CompletionRequest": "wire",
    "Echo": "models",
    "EmbeddingModel": "models",
    "EmbeddingRequest": "wire",
    "Fault": "faults",
    "Faults": "faults",
    "LocalEndpoints": "endpoints",
    "MiniLM": "minilm",
    "Model": "models",
    "Piece": "wire",
    "Quota": "limits",
    "Recorded": "ledger",
    "Refused": "refusals",
    "ServingEndpoint": "catalog",
    "SmolLM2": "smollm2",
    "Stats": "ledger",
    "StreamingModel": "models",
    "Texts": "wire",
    "Usage": "wire",
    "Vectors": "wire",
    "echo_vector": "models",
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
    from spark_llm.serving.faults import Fault, Faults
    from spark_llm.serving.ledger import Recorded, Stats
    from spark_llm.serving.limits import After, Capacity, Quota
    from spark_llm.serving.minilm import MiniLM
    from spark_llm.serving.models import (
        ChatModel,
        CompletionModel,
        Echo,
        EmbeddingModel,
        Model,
        StreamingModel,
        echo_vector,
    )
    from spark_llm.serving.refusals import Refused
    from spark_llm.serving.smollm2 import SmolLM2
    from spark_llm.serving.stock import real_endpoints
    from spark_llm.serving.wire import (
        ChatRequest,
        Choice,
        CompletionRequest,
        EmbeddingRequest,
        Piece,
        Texts,
        Usage,
        Vectors,
    )


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- whatever the name stands for
    """Load a public name when it is first asked for (PEP 562)."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
