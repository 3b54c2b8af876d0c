"""How near two vectors are: what a row gets from the two results that its texts got."""

from collections.abc import Iterator

import numpy as np

from spark_llm.protocol.values import Result, RowError

_NO_DIRECTION = RowError(
    "invalid_response", 200, "a vector is zero or differs from the other in length", retryable=False
)


def in_pairs(answers: Iterator[list[Result | None]]) -> Iterator[list[Result | None]]:
    """Yield a result for each two; an empty list is a beat, and passed on."""
    waiting: list[Result | None] = []
    for results in answers:
        waiting += results
        pairs = [_compared(*waiting[at : at + 2]) for at in range(0, len(waiting) - 1, 2)]
        waiting = waiting[2 * len(pairs) :]
        if pairs or not results:
            yield pairs


def _compared(one: Result | None, other: Result | None) -> Result | None:
    """Return the cosine of two vectors as `parsed`, and what both have cost."""
    if one is None or other is None:
        return None
    similarity = None
    error = one.error or other.error
    if error is None:
        similarity = _cosine(one.embedding or b"", other.embedding or b"")
        error = _NO_DIRECTION if similarity is None else None
    return Result(
        usage=other.usage if one.usage is None else one.usage.plus(other.usage),
        model=one.model or other.model,
        attempts=one.attempts + other.attempts,
        requests=one.requests + other.requests,
        latency_ms=max((latency for each in (one, other) if (latency := each.latency_ms) is not None), default=None),
        error=error,
        parsed=similarity,
    )


def _cosine(one: bytes, other: bytes) -> float | None:
    """Return the cosine of the angle between two float32 vectors; None where there is no such angle."""
    a, b = (np.frombuffer(vector, "<f4").astype(np.float64) for vector in (one, other))
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b)) if len(a) == len(b) else 0.0
    if lengths == 0.0:
        return None
    return 1.0 if one == other else float(np.clip(np.dot(a, b) / lengths, -1.0, 1.0))
