"""The most similar vectors of a corpus that comes in batches, against the same found one by one."""

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.ai.dataframes.vectors import Vectors

Vector = list[float] | None
NUMBERS = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0, math.nan, math.inf])
VECTORS = st.lists(st.none() | st.lists(NUMBERS, min_size=0, max_size=3), max_size=12)


def column(vectors: Sequence[Vector]) -> pa.Array:
    """Return vectors as Spark passes them."""
    return pa.array(vectors, pa.list_(pa.float32()))


def search(queries: Sequence[Sequence[Vector]], corpus: Sequence[Sequence[Vector]], k: int) -> Vectors:
    """Search in the corpus batch by batch, with its rows numbered through."""
    vectors = Vectors.of([column(batch) for batch in queries], k)
    first = 0
    for batch in corpus:
        vectors.search(column(batch), first)
        first += len(batch)
    return vectors


def cosine(one: Vector, other: Vector) -> float | None:
    """Return the similarity of two vectors; None where they cannot be compared."""
    if one is None or other is None or len(one) != len(other) or not all(map(math.isfinite, [*one, *other])):
        return None
    lengths = math.hypot(*one) * math.hypot(*other)
    return sum(x * y for x, y in zip(one, other, strict=True)) / lengths if lengths else None


@given(st.lists(VECTORS, max_size=3), st.lists(VECTORS, max_size=3), st.integers(1, 4))
def test_the_best_are_found(queries: list[list[Vector]], corpus: list[list[Vector]], k: int) -> None:
    """Each query has its k most similar rows, the most similar first; of equal ones any."""
    vectors = search(queries, corpus, k)
    similarities, places, counts = vectors.best()
    rows, found = [row for batch in corpus for row in batch], 0
    for query, count in zip([each for batch in queries for each in batch], counts.tolist(), strict=True):
        every = sorted(-each for row in rows if (each := cosine(query, row)) is not None)
        mine, at = similarities[found : found + count], places[found : found + count]
        found += count

        assert len(every[:k]) == count == len(set(at.tolist()))
        assert np.allclose(mine, [-each for each in every[:k]], atol=1e-6)
        assert np.allclose(mine, [cosine(query, rows[place]) or 0.0 for place in at.tolist()], atol=1e-6)


@given(VECTORS, VECTORS)
def test_a_query_has_a_list_an_error_or_a_null(queries: list[Vector], corpus: list[Vector]) -> None:
    """A null vector has neither a list nor an error."""
    vectors = search([queries], [corpus], 2)
    vectors.best()

    for query, error, has_none in zip(queries, vectors.errors, vectors.has_none.tolist(), strict=True):
        comparable = query is not None and all(map(math.isfinite, query)) and any(query)
        assert has_none == (query is None or error is not None)
        assert (error is None) or not comparable or "numbers, and those of the corpus have" in error


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ([math.nan, 1.0], "a number that is not finite"),
        ([0.0, 0.0], "no direction"),
        ([], "no direction"),
        ([1.0, 2.0, 3.0], "has 3 numbers, and those of the corpus have 2"),
    ],
)
def test_a_vector_that_cannot_be_compared_has_an_error(query: list[float], message: str) -> None:
    """It says why, and the query beside it is answered."""
    vectors = search([[query, [1.0, 1.0]]], [[[1.0, 0.0]]], 1)
    _, _, counts = vectors.best()

    assert [0, 1] == counts.tolist()
    assert message in (vectors.errors[0] or "")
    assert vectors.errors[1] is None


def test_huge_and_tiny_numbers_are_compared() -> None:
    """Their squares are beyond the range of floats."""
    vectors = search([[[1e38, 1e38], [1e-38, 1e-38]]], [[[1.0, 1.0]]], 1)

    assert np.allclose([1.0, 1.0], vectors.best()[0])


def test_rows_that_are_no_longer_among_the_best_are_forgotten() -> None:
    """The others are numbered anew, in their order."""
    vectors = search([[[1.0, 0.0]]], [[[1.0, 3.0], [1.0, 2.0], [1.0, 1.0]]], 2)

    assert [1, 2] == vectors.compacted().tolist()
    vectors.search(column([[1.0, 0.0]]), first=2)
    assert [1, 2] == vectors.compacted().tolist()
    assert [1, 0] == vectors.best()[1].tolist()
