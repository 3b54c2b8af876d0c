"""The shared value types: usage adds up and is shared exactly, and failures have a reach."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import KINDS, Kind
from spark_llm.protocol.values import Failure, RowError, Usage
from tests.support.strategies import usages

COUNTS = st.none() | st.integers(0, 2**30)
USAGES = usages(COUNTS)
WEIGHTS = st.lists(st.integers(0, 10_000), min_size=1, max_size=50)


@given(USAGES, WEIGHTS)
def test_shares_add_up_exactly(usage: Usage, weights: list[int]) -> None:
    """Field by field, the sum of the shares is the whole."""
    columns = zip(*(share.counts for share in usage.share(weights)), strict=True)

    assert [usage.service_tier] * len(weights) == [share.service_tier for share in usage.share(weights)]
    assert list(usage.counts) == [None if None in column else sum(n or 0 for n in column) for column in columns]


@given(USAGES, WEIGHTS)
def test_shares_are_proportional(usage: Usage, weights: list[int]) -> None:
    """Each share is within one token of its exact part; with weights of 0 all are equal."""
    total = sum(weights)
    for weight, share in zip(weights, usage.share(weights), strict=True):
        for whole, part in zip(usage.counts, share.counts, strict=True):
            if whole is not None and part is not None:
                exact = whole * weight / total if total else whole / len(weights)
                assert abs(part - exact) <= 1


@given(USAGES, WEIGHTS)
def test_no_share_is_negative(usage: Usage, weights: list[int]) -> None:
    """No row gets fewer than 0 tokens."""
    assert all(part is None or part >= 0 for share in usage.share(weights) for part in share.counts)


@given(USAGES, USAGES, USAGES)
def test_addition_is_commutative(a: Usage, b: Usage, c: Usage) -> None:
    """The sum of several attempts does not depend on their order, and None changes nothing. The first tier counts."""
    assert a.plus(b).counts == b.plus(a).counts
    assert (a.service_tier or b.service_tier) == a.plus(b).service_tier
    assert a.plus(b).plus(c) == a.plus(b.plus(c))
    assert a == a.plus(None) == a.plus(Usage())


def test_none_and_a_number_give_the_number() -> None:
    """A server may report cached tokens in one attempt and not in the next."""
    assert Usage(3, 4, 7, 2, None) == Usage(1, None, 1, 2, None).plus(Usage(2, 4, 6, None, None))


def test_sums_stay_within_32_bits() -> None:
    """Two reports of the largest number add up to the largest number."""
    most = 2**31 - 1

    largest = Usage.of([most] * 8, None)

    assert largest == largest.plus(Usage.of([1] * 8, None))


@given(USAGES)
def test_an_answer_that_is_used_again_is_not_billed(usage: Usage) -> None:
    """Each number becomes 0, and what is unknown stays so."""
    assert usage == usage.unbilled().plus(usage)
    assert {0, None} >= set(usage.unbilled().counts)


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_decides_the_reach_of_a_failure(kind: Kind) -> None:
    """Some kinds stop all rows, some are about the input, and none is both."""
    failure = Failure(RowError(kind, 400, "no", retryable=False))

    assert (kind in ("quota", "not_found", "unauthorized")) == failure.stops_all
    assert (kind in ("invalid_request", "context_length", "content_filter")) == failure.about_input
