"""Vectors of queries, and the most similar vectors of a corpus that comes in batches. Knows Arrow, and no Spark.

Vectors have the length 1 here, so that a product of matrices holds similarities.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_BLOCK_QUERIES, _BLOCK_ROWS = 1_024, 4_096  # of one product of matrices: 16 MB

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]


@dataclass
class Vectors:
    """Queries by the length of their vectors, and for each query the best rows so far.

    Attributes:
        errors: The message of each query whose vector cannot be compared; None for the others.
        has_none: Whether a query has no list of rows: its vector is null, or cannot be compared.
    """

    k: int
    errors: list[str | None]
    has_none: npt.NDArray[np.bool_]
    _by_length: dict[int, tuple[Places, Floats]]
    _similarities: Floats
    _places: Places  # of the best rows, as the caller numbers them; -1 for none
    _lengths: set[int]

    @classmethod
    def of(cls, columns: Sequence[pa.Array], k: int) -> "Vectors":
        """Return the queries whose vectors are in these arrays of lists of floats, to find `k` rows for each."""
        nulls = list[npt.NDArray[np.bool_]]()
        by_length: dict[int, list[tuple[Places, Floats]]] = {}
        problems: dict[int, str] = {}
        total = 0
        for column in columns:
            nulls.append(column.is_null().to_numpy(zero_copy_only=False))
            for length, places, matrix in _matrices(column):
                unit, problem = _unit(matrix)
                problems |= {int(total + places[row]): _PROBLEMS[problem[row]] for row in np.flatnonzero(problem)}
                by_length.setdefault(length, []).append((total + places[problem == 0], unit[problem == 0]))
            total += len(column)
        has_none = np.concatenate(nulls) if nulls else np.zeros(0, dtype=bool)
        errors = [problems.get(place) for place in range(total)]
        has_none |= np.array([error is not None for error in errors], dtype=bool)
        joined = {
            length: (np.concatenate([at for at, _ in found]), np.concatenate([unit for _, unit in found]))
            for length, found in by_length.items()
        }
        best = np.full((total, k), -np.inf, dtype=np.float32)
        return cls(k, errors, has_none, joined, best, np.full((total, k), -1, dtype=np.int64), set())

    def search(self, column: pa.Array, first: int) -> None:
        """Compare the queries with vectors of the corpus, whose rows have the numbers from `first` on."""
        for length, places, units in unit_vectors(column):
            self._lengths.add(length)
            if length in self._by_length:
                self._search(*self._by_length[length], first + places, units)

    def _search(self, queries: Places, query_units: Floats, rows: Places, row_units: Floats) -> None:
        for of_queries, of_rows, similarities in products(query_units, row_units):
            block, found = queries[of_queries], similarities
            numbers = np.broadcast_to(rows[of_rows], found.shape)
            if found.shape[1] > self.k:
                top = np.argpartition(found, -self.k, axis=1)[:, -self.k :]
                found, numbers = np.take_along_axis(found, top, 1), np.take_along_axis(numbers, top, 1)
            both = np.concatenate([self._similarities[block], found], axis=1)
            places = np.concatenate([self._places[block], numbers], axis=1)
            best = np.argsort(-both, axis=1, kind="stable")[:, : self.k]
            self._similarities[block] = np.take_along_axis(both, best, 1)
            self._places[block] = np.take_along_axis(places, best, 1)

    def compacted(self) -> Places:
        """Number the rows that are still among the best anew, from 0 on; return their former numbers, in order."""
        kept = self._places >= 0
        former, new = np.unique(self._places[kept], return_inverse=True)
        self._places[kept] = new
        return former

    def best(self) -> tuple[Floats, Places, Places]:
        """Return the similarities and the numbers of the best rows, query by query, and how many each query has.

        Errors come to the queries whose vectors have another length than all of the corpus.
        """
        for length, (queries, _) in self._by_length.items():
            if self._lengths and length not in self._lengths:
                others = ", ".join(map(str, sorted(self._lengths)))
                for query in queries.tolist():
                    self.errors[query] = f"its vector has {length} numbers, and those of the corpus have {others}"
                self.has_none[queries] = True
        kept = self._places >= 0
        return np.clip(self._similarities[kept], -1.0, 1.0), self._places[kept], kept.sum(axis=1)


NO_DIRECTION = "its vector has no direction: all its numbers are 0"
_PROBLEMS = {1: "its vector has a number that is not finite", 2: NO_DIRECTION}


def unit_vectors(column: pa.Array) -> Iterator[tuple[int, Places, Floats]]:
    """Yield the vectors of each length that can be compared: the length, their places in the column, and a matrix."""
    for length, places, matrix in _matrices(column):
        unit, problem = _unit(matrix)
        good = problem == 0
        if good.any():
            yield length, places[good], unit[good]


def products(units: Floats, others: Floats) -> Iterator[tuple[slice, slice, Floats]]:
    """Yield the similarities of all pairs, block by block: the rows of each matrix, and their product."""
    for start in range(0, len(units), _BLOCK_QUERIES):
        rows = slice(start, start + _BLOCK_QUERIES)
        for other in range(0, len(others), _BLOCK_ROWS):
            columns = slice(other, other + _BLOCK_ROWS)
            yield rows, columns, units[rows] @ others[columns].T


def _matrices(column: pa.Array) -> Iterator[tuple[int, Places, Floats]]:
    """Yield the vectors of each length: the length, their places in the column, and a matrix; nulls are left out."""
    lengths = column.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False)
    for length in np.unique(lengths[lengths >= 0]).tolist():
        places = np.flatnonzero(lengths == length)
        values = column.take(pa.array(places)).flatten().fill_null(np.nan).to_numpy(zero_copy_only=False)
        yield length, places, values.astype(np.float32, copy=False).reshape(len(places), length)


def _unit(matrix: Floats) -> tuple[Floats, npt.NDArray[np.int8]]:
    """Return vectors of the length 1, and what is wrong with each: 0 for nothing, else a number of `_PROBLEMS`."""
    finite = np.asarray(np.isfinite(matrix).all(axis=1))
    safe = np.where(finite[:, None], matrix, 0).astype(np.float64)
    largest = np.abs(safe).max(axis=1, initial=0.0)
    safe /= np.where(largest == 0, 1, largest)[:, None]  # squares of huge numbers would not be finite
    norm = np.sqrt((safe * safe).sum(axis=1))
    problem = np.where(finite, np.where(norm == 0, 2, 0), 1).astype(np.int8)
    return (safe / np.where(norm == 0, 1, norm)[:, None]).astype(np.float32), problem
