"""Cosine similarity of a row's two texts, from the results of their embeddings."""

from collections.abc import Iterator

import numpy as np

from spark_llm.protocol.values import Result, RowError

_INCOMPARABLE = RowError(
    "invalid_response", 200, "a vector is zero, or the two vectors differ in length", retryable=False
)


def similarities(chunks: Iterator[list[Result | None]]) -> Iterator[list[Result | None]]:
    """Yield one result for each two embeddings; an empty chunk, which asks for a flush, passes through."""
    unpaired: list[Result | None] = []
    for results in chunks:
        unpaired += results
        pairs = [_similarity(*unpaired[start : start + 2]) for start in range(0, len(unpaired) - 1, 2)]
        unpaired = unpaired[2 * len(pairs) :]
        if pairs or not results:
            yield pairs


def _similarity(one: Result | None, other: Result | None) -> Result | None:
    """Return the cosine of two vectors as `parsed`, with the usage of both; None if one of them is None."""
    if one is None or other is None:
        return None
    cosine = None
    error = one.error or other.error
    if error is None:
        cosine = _cosine(one.embedding or b"", other.embedding or b"")
        error = _INCOMPARABLE if cosine is None else None
    return Result(
        usage=other.usage if one.usage is None else one.usage.plus(other.usage),
        model=one.model or other.model,
        attempts=one.attempts + other.attempts,
        requests=one.requests + other.requests,
        refusals=one.refusals + other.refusals,
        latency_ms=max((latency for each in (one, other) if (latency := each.latency_ms) is not None), default=None),
        error=error,
        parsed=cosine,
    )


def _cosine(one: bytes, other: bytes) -> float | None:
    """Return the cosine of the angle between two float32 vectors; None for a zero vector or different lengths."""
    a, b = (np.frombuffer(vector, "<f4").astype(np.float64) for vector in (one, other))
    norms = float(np.linalg.norm(a) * np.linalg.norm(b)) if len(a) == len(b) else 0.0
    if norms == 0.0:
        return None
    return 1.0 if one == other else float(np.clip(np.dot(a, b) / norms, -1.0, 1.0))
