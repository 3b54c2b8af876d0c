"""Groups of near vectors, against the same found pair by pair."""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.ai.dataframes.groups import Forest, NamedGroups, NearPairs

Vector = list[float] | None
NUMBERS = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0, math.nan])
VECTORS = st.lists(st.none() | st.lists(NUMBERS, min_size=0, max_size=3), max_size=12)
THRESHOLDS = st.sampled_from([0.05, 0.5, 0.8, 0.95, 1.0])
LINKS = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=30)


def column(vectors: Sequence[Vector]) -> pa.Array:
    """Return vectors as Spark passes them."""
    return pa.array(vectors, pa.list_(pa.float32()))


def near(one: Vector, other: Vector, threshold: float) -> bool:
    """Return whether two vectors are near; a threshold may be the similarity exactly."""
    if one is None or other is None or len(one) != len(other) or not all(map(math.isfinite, [*one, *other])):
        return False
    lengths = math.hypot(*one) * math.hypot(*other)
    return bool(lengths) and sum(x * y for x, y in zip(one, other, strict=True)) / lengths >= threshold - 1e-7


def groups_of(count: int, links: Sequence[tuple[int, int]]) -> list[int]:
    """Return the least node of each node's group, by spreading it over the links until nothing changes."""
    least = list(range(count))
    while True:
        before = list(least)
        for one, other in links:
            least[one] = least[other] = min(least[one], least[other])
        if before == least:
            return least


def name(number: int) -> str:
    """Return the name of a node; their alphabetical order is that of their numbers."""
    return f"{number:03}"


@given(LINKS, st.integers(1, 5))
def test_linked_nodes_are_one_group(links: list[tuple[int, int]], size: int) -> None:
    """Whatever the links, and in whatever batches they come."""
    forest = Forest()
    forest.add(5)
    forest.add(7)
    for start in range(0, len(links), size):
        nodes, others = (np.array(each, dtype=np.int64) for each in zip(*links[start : start + size], strict=True))
        forest.link(nodes, others)

    assert groups_of(12, links) == forest.roots().tolist()


@given(LINKS)
def test_a_group_has_the_first_of_its_names(links: list[tuple[int, int]]) -> None:
    """Whichever name came first; a node without a link is not among them."""
    groups = NamedGroups()
    for one, other in links:
        groups.link([name(11 - one)], [name(11 - other)])

    expected = groups_of(12, [(11 - one, 11 - other) for one, other in links])
    named = {number for one, other in links for number in (11 - one, 11 - other)}
    assert {name(number): name(expected[number]) for number in named} == dict(zip(*groups.first_names(), strict=True))


@given(st.lists(VECTORS, min_size=1, max_size=3), st.lists(VECTORS, max_size=3), THRESHOLDS)
def test_the_links_of_a_part_connect_its_near_pairs(
    own: list[list[Vector]], others: list[list[Vector]], threshold: float
) -> None:
    """Pairs of the part's vectors, and of these with others, are compared; there are fewer links than nodes."""
    pairs, known = NearPairs(threshold), list[Vector]()
    for batch, add in [*((batch, pairs.add) for batch in own), *((batch, pairs.search) for batch in others)]:
        add(pa.array([name(len(known) + place) for place in range(len(batch))], pa.string()), column(batch))
        known += batch
    nodes, linked = pairs.links()
    links = [(int(one), int(other)) for one, other in zip(nodes.to_pylist(), linked.to_pylist(), strict=True)]
    count = sum(map(len, own))

    expected = [
        (one, other)
        for one, other in combinations(range(len(known)), 2)
        if one < count and near(known[one], known[other], threshold)
    ]
    assert groups_of(len(known), expected) == groups_of(len(known), links)
    assert not known or len(links) < len(known)


def test_equal_directions_reach_the_highest_threshold() -> None:
    """Rounding does not part them."""
    dice = np.random.default_rng(1)
    vectors = dice.standard_normal((50, 384)).astype(np.float32)
    pairs = NearPairs(1.0)
    pairs.add(pa.array(map(name, range(50))), column(vectors.tolist()))
    pairs.search(pa.array(map(name, range(50, 100))), column((3 * vectors).tolist()))
    nodes, linked = pairs.links()

    assert {name(number + 50): name(number) for number in range(50)} == dict(
        zip(nodes.to_pylist(), linked.to_pylist(), strict=True)
    )
