"""Local serving endpoints: a real HTTP server on this machine, for tests, demos and a first try without a key.

>>> from spark_llm.serving import LocalEndpoints
>>> with LocalEndpoints() as endpoints:  # Echo models: exact, repeatable, nothing to download
...     endpoints.invocations("chat"), endpoints.token

It shares no code with the client: each implements the documented wire format by itself. Names load at first use, so
the import costs nothing. Imports go down only: `endpoints`, `stock`, `http`, `auth`, `batches`, `catalog`, `scenario`,
`models`, `protocol`. Begin with `endpoints`.
"""

import importlib
from typing import TYPE_CHECKING, Any

_NAMES_OF = {  # the names that each module defines
    "catalog": "ServingEndpoint",
    "endpoints": "LocalEndpoints",
    "models.base": "ChatModel CompletionModel EmbeddingModel Model PredictionModel StreamingModel",
    "models.custom": "CustomModel PredictFunction",
    "models.echo": "Echo echo_vector",
    "models.echo_media": "EchoMedia echo_media",
    "models.minilm": "MiniLM",
    "models.smollm2": "SmolLM2",
    "protocol.content": "Media Message",
    "protocol.errors": "Refused",
    "protocol.predictions": "PredictionRequest Predictions",
    "protocol.requests": "ChatRequest CompletionRequest EmbeddingRequest",
    "protocol.tools": "ToolCall",
    "protocol.values": "CallPiece Choice Piece Texts Usage Vectors",
    "scenario.batches": "Batches",
    "scenario.capacity": "After Capacity Quota",
    "scenario.faults": "Fault Faults",
    "scenario.stats": "Recorded Stats",
    "stock": "real_endpoints",
}
_MODULE_OF = {name: module for module, names in _NAMES_OF.items() for name in names.split()}


if TYPE_CHECKING:
    from spark_llm.serving.catalog import ServingEndpoint as ServingEndpoint
    from spark_llm.serving.endpoints import LocalEndpoints as LocalEndpoints
    from spark_llm.serving.models.base import ChatModel as ChatModel
    from spark_llm.serving.models.base import CompletionModel as CompletionModel
    from spark_llm.serving.models.base import EmbeddingModel as EmbeddingModel
    from spark_llm.serving.models.base import Model as Model
    from spark_llm.serving.models.base import PredictionModel as PredictionModel
    from spark_llm.serving.models.base import StreamingModel as StreamingModel
    from spark_llm.serving.models.custom import CustomModel as CustomModel
    from spark_llm.serving.models.custom import PredictFunction as PredictFunction
    from spark_llm.serving.models.echo import Echo as Echo
    from spark_llm.serving.models.echo import echo_vector as echo_vector
    from spark_llm.serving.models.echo_media import EchoMedia as EchoMedia
    from spark_llm.serving.models.echo_media import echo_media as echo_media
    from spark_llm.serving.models.minilm import MiniLM as MiniLM
    from spark_llm.serving.models.smollm2 import SmolLM2 as SmolLM2
    from spark_llm.serving.protocol.content import Media as Media
    from spark_llm.serving.protocol.content import Message as Message
    from spark_llm.serving.protocol.errors import Refused as Refused
    from spark_llm.serving.protocol.predictions import PredictionRequest as PredictionRequest
    from spark_llm.serving.protocol.predictions import Predictions as Predictions
    from spark_llm.serving.protocol.requests import ChatRequest as ChatRequest
    from spark_llm.serving.protocol.requests import CompletionRequest as CompletionRequest
    from spark_llm.serving.protocol.requests import EmbeddingRequest as EmbeddingRequest
    from spark_llm.serving.protocol.tools import ToolCall as ToolCall
    from spark_llm.serving.protocol.values import CallPiece as CallPiece
    from spark_llm.serving.protocol.values import Choice as Choice
    from spark_llm.serving.protocol.values import Piece as Piece
    from spark_llm.serving.protocol.values import Texts as Texts
    from spark_llm.serving.protocol.values import Usage as Usage
    from spark_llm.serving.protocol.values import Vectors as Vectors
    from spark_llm.serving.scenario.batches import Batches as Batches
    from spark_llm.serving.scenario.capacity import After as After
    from spark_llm.serving.scenario.capacity import Capacity as Capacity
    from spark_llm.serving.scenario.capacity import Quota as Quota
    from spark_llm.serving.scenario.faults import Fault as Fault
    from spark_llm.serving.scenario.faults import Faults as Faults
    from spark_llm.serving.scenario.stats import Recorded as Recorded
    from spark_llm.serving.scenario.stats import Stats as Stats
    from spark_llm.serving.stock import real_endpoints as real_endpoints
else:  # a type checker has the names above
    __all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- a public name of any type
    """Load a public name at its first use (PEP 562)."""
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted(_MODULE_OF)
