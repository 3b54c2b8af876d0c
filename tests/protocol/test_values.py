"""The nouns that the floors hand each other: tokens add up, and are shared out to the last one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import KINDS, Kind
from spark_llm.protocol.values import Failure, RowError, Usage

COUNTS = st.none() | st.integers(0, 2**30)
USAGES = st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
WEIGHTS = st.lists(st.integers(0, 10_000), min_size=1, max_size=50)


@given(USAGES, WEIGHTS)
def test_shares_add_up_exactly(usage: Usage, weights: list[int]) -> None:
    """No token is lost and none is made up: field by field the shares' sum is the whole."""
    columns = zip(*usage.share(weights), strict=True)

    assert len(weights) == len(usage.share(weights))
    assert list(usage) == [None if None in column else sum(n or 0 for n in column) for column in columns]


@given(USAGES, WEIGHTS)
def test_a_share_is_in_proportion(usage: Usage, weights: list[int]) -> None:
    """Each row's part is within one token of its exact share; where nothing has length, all are equal."""
    total = sum(weights)
    for weight, share in zip(weights, usage.share(weights), strict=True):
        for whole, part in zip(usage, share, strict=True):
            if whole is not None and part is not None:
                exact = whole * weight / total if total else whole / len(weights)
                assert abs(part - exact) <= 1


@given(USAGES, WEIGHTS)
def test_no_share_is_negative(usage: Usage, weights: list[int]) -> None:
    """A row is never given tokens back."""
    assert all(part is None or part >= 0 for share in usage.share(weights) for part in share)


@given(USAGES, USAGES, USAGES)
def test_reports_add_up_in_any_order(a: Usage, b: Usage, c: Usage) -> None:
    """The sum of several tries does not depend on which came first, and none at all changes nothing."""
    assert a.plus(b) == b.plus(a)
    assert a.plus(b).plus(c) == a.plus(b.plus(c))
    assert a == a.plus(None) == a.plus(Usage())


def test_a_number_and_nothing_give_the_number() -> None:
    """A server that reports cached tokens in one try and not in the next has reported them."""
    assert Usage(3, 4, 7, 2, None) == Usage(1, None, 1, 2, None).plus(Usage(2, 4, 6, None, None))


def test_tokens_fit_their_column() -> None:
    """Two reports that are each as large as a column can hold add up to what it can hold, and sink no job."""
    most = 2**31 - 1

    assert Usage(most, most, most, most, most) == Usage(most, most, most, most, most).plus(Usage(1, 1, 1, 1, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_reach_of_a_failure_follows_its_kind(kind: Kind) -> None:
    """Some stop every row, some are about what was sent, and none is both."""
    failure = Failure(RowError(kind, 400, "no", retryable=False))

    assert (kind in ("quota", "not_found", "unauthorized")) == failure.stops_all
    assert (kind in ("invalid_request", "context_length", "content_filter")) == failure.about_input
