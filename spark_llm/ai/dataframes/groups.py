"""Groups of near vectors: the pairs whose similarity reaches a threshold, and the nodes that they connect.

Knows Arrow, and no Spark. A part finds the pairs of its own vectors, and of them with others. Its links are a spanning
forest: fewer than it has nodes, whatever the number of pairs. The links of all parts together give the groups.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from spark_llm.ai.dataframes.vectors import Floats, Places, products, unit_vectors

_TOLERANCE = 1e-6  # products of float32 miss a similarity by less


class Forest:
    """Nodes, numbered from 0 on, and the groups that their links make of them."""

    def __init__(self) -> None:
        """Begin without nodes."""
        self._roots: Places = np.empty(0, dtype=np.int64)  # of each node's group the least number

    def __len__(self) -> int:
        """Return how many nodes there are."""
        return len(self._roots)

    def add(self, count: int) -> Places:
        """Add nodes; return their numbers."""
        new = np.arange(len(self._roots), len(self._roots) + count)
        self._roots = np.concatenate([self._roots, new])
        return new

    def link(self, nodes: Places, others: Places) -> None:
        """Link each of some nodes to another one: their groups become one."""
        while True:
            roots, other_roots = self._roots[nodes], self._roots[others]
            apart = roots != other_roots
            if not apart.any():
                return
            nodes, others = roots[apart], other_roots[apart]
            np.minimum.at(self._roots, np.maximum(nodes, others), np.minimum(nodes, others))
            while not np.array_equal(upper := self._roots[self._roots], self._roots):
                self._roots = upper

    def roots(self) -> Places:
        """Return the least number of each node's group."""
        roots: Places = self._roots.copy()
        return roots


class NearPairs:
    """The vectors of one part, and the links that pairs with a similarity of at least `threshold` make."""

    def __init__(self, threshold: float) -> None:
        """Begin without vectors."""
        self._least = np.float32(threshold - _TOLERANCE)
        self._forest = Forest()
        self._names: list[pa.Array] = []
        self._own: dict[int, list[tuple[Places, Floats]]] = {}

    def add(self, names: pa.Array, vectors: pa.Array) -> None:
        """Add vectors of the part, each with its name, and compare them with those that it has."""
        for length, nodes, units in self._named(names, vectors):
            self._own.setdefault(length, []).append((nodes, units))
            self._compare(length, nodes, units)

    def search(self, names: pa.Array, vectors: pa.Array) -> None:
        """Compare vectors of another part with those of this one."""
        for length, nodes, units in self._named(names, vectors):
            self._compare(length, nodes, units)

    def links(self) -> tuple[pa.Array, pa.Array]:
        """Return the names of linked nodes, and the name of the node that each is linked to."""
        if not self._names:
            return pa.array([], pa.string()), pa.array([], pa.string())
        names, roots = pa.concat_arrays(self._names), self._forest.roots()
        linked = np.flatnonzero(roots != np.arange(len(roots)))
        return names.take(pa.array(linked)), names.take(pa.array(roots[linked]))

    def _named(self, names: pa.Array, vectors: pa.Array) -> Iterable[tuple[int, Places, Floats]]:
        nodes = self._forest.add(len(names))
        self._names.append(names)
        return [(length, nodes[places], units) for length, places, units in unit_vectors(vectors)]

    def _compare(self, length: int, nodes: Places, units: Floats) -> None:
        for own_nodes, own_units in self._own.get(length, []):
            for of_own, of_others, similarities in products(own_units, units):
                rows, columns = np.nonzero(similarities >= self._least)
                self._forest.link(own_nodes[of_own][rows], nodes[of_others][columns])


class NamedGroups:
    """Groups of named nodes, from the links of all parts."""

    def __init__(self) -> None:
        """Begin without links."""
        self._forest = Forest()
        self._numbers: dict[str, int] = {}

    def link(self, names: Iterable[str], others: Iterable[str]) -> None:
        """Link each of some nodes to another one."""
        numbers = self._numbers
        nodes, linked = (
            np.fromiter((numbers.setdefault(name, len(numbers)) for name in each), dtype=np.int64)
            for each in (names, others)
        )
        self._forest.add(len(numbers) - len(self._forest))
        self._forest.link(nodes, linked)

    def first_names(self) -> tuple[list[str], list[str]]:
        """Return the nodes' names, and of each the first name of its group, in the order of the alphabet."""
        names, roots = list(self._numbers), self._forest.roots().tolist()
        first = dict[int, str]()
        for root, name in zip(roots, names, strict=True):
            first[root] = min(name, first.get(root, name))
        return names, [first[root] for root in roots]
