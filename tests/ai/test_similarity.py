"""What a row of `ai_similarity` gets from the results of its two texts."""

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


def embedded(vector: list[float], tokens: int = 1) -> Result:
    """Return what an embedded text gets."""
    usage = Usage(prompt_tokens=tokens, total_tokens=tokens)
    return Result(embedding=array("f", vector).tobytes(), usage=usage, model="m", attempts=1, latency_ms=float(tokens))


def compared(one: Result | None, other: Result | None) -> Result | None:
    """Return the result of one pair."""
    [[result]] = similarities(iter([[one, other]]))
    return result


@given(VECTORS)
def test_it_is_the_cosine(pair: tuple[list[float], list[float]]) -> None:
    """Of the angle between the vectors: within -1 and 1, the same both ways, and 1 for equal ones, exactly."""
    a, b = pair
    both = [compared(embedded(one), embedded(other)) for one, other in ((a, b), (b, a), (a, a))]
    forth, back, same = (result.parsed for result in both if result)
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))

    assert math.isclose(dot / math.hypot(*a) / math.hypot(*b), forth, abs_tol=1e-9)
    assert math.isclose(forth, back, abs_tol=1e-12)
    assert -1.0 <= forth <= 1.0
    assert 1.0 == same


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_pairs_do_not_depend_on_where_chunks_end(sizes: list[int]) -> None:
    """However the engine hands results out, each row has its own two; an empty chunk is a beat and passes."""
    sizes = [*sizes, 1 if sum(sizes) % 2 else 0]
    results: list[Result | None] = [embedded([1.0, number]) for number in range(sum(sizes))]
    ends = [sum(sizes[:place]) for place in range(len(sizes) + 1)]
    chunks = [results[start:end] for start, end in pairwise(ends)]
    out = list(similarities(iter(chunks)))

    assert [compared(*results[at : at + 2]) for at in range(0, len(results), 2)] == [r for chunk in out for r in chunk]
    assert sizes.count(0) == out.count([])


def test_both_texts_are_accounted_for() -> None:
    """Tokens and requests add up; the time is the longer one's."""
    result = compared(embedded([1.0], tokens=3), embedded([2.0], tokens=5))

    assert result is not None
    assert (8, 2, 5.0, "m", None) == (
        result.usage and result.usage.total_tokens,
        result.attempts,
        result.latency_ms,
        result.model,
        result.error,
    )


@pytest.mark.parametrize("failed", [(True, False), (False, True), (True, True)])
def test_a_text_that_failed_fails_its_pair(failed: tuple[bool, bool]) -> None:
    """With the error, and what the other one has cost."""
    result = compared(*[Result(error=ERROR, attempts=1) if each else embedded([1.0]) for each in failed])

    assert result is not None
    assert (ERROR, None, 2) == (result.error, result.parsed, result.attempts)
    assert (failed == (True, True)) == (result.usage is None)


def test_vectors_that_have_no_angle_are_an_error() -> None:
    """One of zeros, or two of different lengths."""
    for other in ([0.0, 0.0], [1.0]):
        result = compared(embedded([1.0, 1.0]), embedded(other))

        assert result is not None
        assert result.parsed is None
        assert result.error
        assert result.error.kind == "invalid_response"


def test_a_null_makes_a_null() -> None:
    """Whichever of the two it is."""
    assert [None] * 3 == [compared(None, None), compared(None, embedded([1.0])), compared(embedded([1.0]), None)]
