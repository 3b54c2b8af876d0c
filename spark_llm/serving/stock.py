"""The endpoints that are there where no others are asked for: chat, complete and embed."""

from spark_llm.serving.catalog import ServingEndpoint
from spark_llm.serving.models.base import Echo, Model
from spark_llm.serving.models.minilm import MiniLM
from spark_llm.serving.models.smollm2 import SmolLM2


def echo_endpoints() -> dict[str, ServingEndpoint]:
    """Return endpoints of an `Echo` each: exact, repeatable, nothing to download."""
    return _three(text=Echo(), vectors=Echo())


def real_endpoints(*, n_threads: int = 2) -> dict[str, ServingEndpoint]:
    """Return endpoints of small real models: SmolLM2 as chat and complete, MiniLM as embed.

    They need the extra `local`; their weights (115 MB) are fetched at the first start.

    >>> LocalEndpoints(real_endpoints(), latency_s=0.5)
    """
    return _three(text=SmolLM2(n_threads=n_threads), vectors=MiniLM(n_threads=n_threads))


def _three(*, text: Model, vectors: Model) -> dict[str, ServingEndpoint]:
    return {
        "chat": ServingEndpoint(text, tasks=["chat"]),
        "complete": ServingEndpoint(text, tasks=["completions"]),
        "embed": ServingEndpoint(vectors, tasks=["embeddings"]),
    }
