"""Results of `ai_similarity` from the results of a row's two embeddings."""

import math
from array import array
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.ai.similarity import similarities
from spark_llm.protocol.values import Result, RowError, Usage

NUMBERS = st.floats(-100, 100, width=32).map(lambda number: number or 1.0)
VECTORS = st.integers(1, 6).flatmap(
    lambda length: st.tuples(*[st.lists(NUMBERS, min_size=length, max_size=length)] * 2)
)
ERROR = RowError("timeout", None, "slow", retryable=True)


def embedding(vector: list[float], tokens: int = 1) -> Result:
    """Return the result of an embedded text."""
    usage = Usage(prompt_tokens=tokens, total_tokens=tokens)
    return Result(embedding=array("f", vector).tobytes(), usage=usage, model="m", attempts=1, latency_ms=float(tokens))


def similarity_of(one: Result | None, other: Result | None) -> Result | None:
    """Return the result of one pair."""
    [[result]] = similarities(iter([[one, other]]))
    return result


@given(VECTORS)
def test_the_result_is_the_cosine(pair: tuple[list[float], list[float]]) -> None:
    """The cosine is within -1 and 1, symmetric, and exactly 1 for equal vectors."""
    a, b = pair
    both = [similarity_of(embedding(one), embedding(other)) for one, other in ((a, b), (b, a), (a, a))]
    forth, back, same = (result.parsed for result in both if result)
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))

    assert math.isclose(dot / math.hypot(*a) / math.hypot(*b), forth, abs_tol=1e-9)
    assert math.isclose(forth, back, abs_tol=1e-12)
    assert -1.0 <= forth <= 1.0
    assert 1.0 == same


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_pairs_do_not_depend_on_chunk_sizes(sizes: list[int]) -> None:
    """Each row gets its own two embeddings for any chunk sizes, and an empty chunk passes through."""
    sizes = [*sizes, 1 if sum(sizes) % 2 else 0]
    results: list[Result | None] = [embedding([1.0, number]) for number in range(sum(sizes))]
    ends = [sum(sizes[:place]) for place in range(len(sizes) + 1)]
    chunks = [results[start:end] for start, end in pairwise(ends)]
    out = list(similarities(iter(chunks)))

    assert [similarity_of(*results[at : at + 2]) for at in range(0, len(results), 2)] == [
        r for chunk in out for r in chunk
    ]
    assert sizes.count(0) == out.count([])


def test_usage_of_both_texts_adds_up() -> None:
    """Tokens and requests add up; the latency is the longer one."""
    result = similarity_of(embedding([1.0], tokens=3), embedding([2.0], tokens=5))

    assert result is not None
    assert (8, 2, 5.0, "m", None) == (
        result.usage and result.usage.total_tokens,
        result.attempts,
        result.latency_ms,
        result.model,
        result.error,
    )


def test_requests_and_refusals_of_both_texts_add_up() -> None:
    """The statuses of one are followed by those of the other."""
    one, other = embedding([1.0]), embedding([2.0])
    one.requests, one.refusals, other.requests, other.refusals = 3, (429, 503), 2, (500,)
    result = similarity_of(one, other)

    assert result is not None
    assert (5, (429, 503, 500)) == (result.requests, result.refusals)


@pytest.mark.parametrize("failed", [(True, False), (False, True), (True, True)])
def test_a_failed_text_fails_its_pair(failed: tuple[bool, bool]) -> None:
    """The pair has the error, and the usage of the other text."""
    result = similarity_of(*[Result(error=ERROR, attempts=1) if each else embedding([1.0]) for each in failed])

    assert result is not None
    assert (ERROR, None, 2) == (result.error, result.parsed, result.attempts)
    assert (failed == (True, True)) == (result.usage is None)


def test_vectors_without_an_angle_are_an_error() -> None:
    """A zero vector, or two vectors of different lengths, have no cosine."""
    for other in ([0.0, 0.0], [1.0]):
        result = similarity_of(embedding([1.0, 1.0]), embedding(other))

        assert result is not None
        assert result.parsed is None
        assert result.error
        assert result.error.kind == "invalid_response"


def test_a_null_gives_null() -> None:
    """Either text may be the null."""
    assert [None] * 3 == [
        similarity_of(None, None),
        similarity_of(None, embedding([1.0])),
        similarity_of(embedding([1.0]), None),
    ]
