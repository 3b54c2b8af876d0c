"""The share of a host: what it may use when an allotment was heard, was heard long ago, or was never heard."""

import pytest

from spark_llm.coordination.allotment import (
    ASK_INTERVAL_S,
    BEGINNING_S,
    FIRST_ANSWER_S,
    FLOOR_VALID_S,
    MIN_ASK_INTERVAL_S,
    UNHEARD_S,
    VALID_S,
    Allotment,
    HardLimits,
    HostShare,
    Usage,
)
from spark_llm.policy import Policy

LIMITS = HardLimits(15, 60.0)
SHARE, FLOOR = HardLimits(8, 40.0), HardLimits(5, 20.0)
NOTHING, ONE = HardLimits(0, 0.0), HardLimits(1, 1.0)


def allotment(serial: int = 7, asked_at: float = 101.0, host: str = "a", key: str = "chat") -> Allotment:
    """Return an allotment."""
    return Allotment(host, key, serial, asked_at, SHARE, FLOOR)


def test_a_host_that_never_hears_waits_then_sends_one_then_goes_by_tasks() -> None:
    """It tells when it will change."""
    share = HostShare("a", "chat", LIMITS, 100.0)
    times = [100.0, 100.0 + FIRST_ANSWER_S, 100.0 + UNHEARD_S]

    assert [NOTHING, ONE, None] == [share.limits(at) for at in times]
    assert ["waiting", "waiting", "tasks"] == [share.source(at) for at in times]
    assert not any(share.is_lost(at) for at in times)
    assert [times[1], times[2], None] == [share.next_change_at(at) for at in times]


def test_a_host_without_a_share_asks_often_in_the_beginning() -> None:
    """It does whether it has heard nothing, or that others still have all."""
    share = HostShare("a", "chat", LIMITS, 100.0)
    intervals = [share.asks_again_s(at) for at in (100.0, 100.0 + BEGINNING_S)]
    share.on_allotment(allotment(6)._replace(share=HardLimits(0, 40.0)))
    intervals.append(share.asks_again_s(101.0))
    share.on_allotment(allotment(7))
    intervals.append(share.asks_again_s(101.0))

    assert [MIN_ASK_INTERVAL_S, ASK_INTERVAL_S, MIN_ASK_INTERVAL_S, ASK_INTERVAL_S] == intervals


def test_a_share_ends_in_its_floor_and_the_floor_in_one_request() -> None:
    """All times count from when the host asked, and not from when it heard."""
    share = HostShare("a", "chat", LIMITS, 100.0)
    assert share.on_allotment(allotment())
    times = [101.0, 101.0 + VALID_S, 101.0 + FLOOR_VALID_S]

    assert [SHARE, FLOOR, ONE] == [share.limits(at) for at in times]
    assert ["driver", "floor", "waiting"] == [share.source(at) for at in times]
    assert [times[1], times[2], None] == [share.next_change_at(at) for at in times]
    assert [False, False, True] == [share.is_lost(at) for at in times]


@pytest.mark.parametrize(
    "other", [allotment(7), allotment(6), allotment(8, 99.0), allotment(8, host="b"), allotment(8, key="embed")]
)
def test_only_a_newer_allotment_of_its_own_is_taken(other: Allotment) -> None:
    """An older one was overtaken; one for a time before its own was for an earlier holder of the host's limiter."""
    share = HostShare("a", "chat", LIMITS, 100.0)
    assert share.on_allotment(allotment())

    assert not share.on_allotment(other)
    assert share.on_allotment(allotment(9))


def test_a_need_tells_what_the_host_uses() -> None:
    """Rates are those of the last seconds."""
    share = HostShare("a", "chat", LIMITS, 100.0)
    first = share.need(Usage(3, 5, 10, 1_000.0), 100.0)
    for second in range(1, 20):
        share.need(Usage(3, 5, 10 + 2 * second, 1_000.0 + 50 * second), 100.0 + second)
    share.on_allotment(allotment())
    last = share.need(Usage(4, 0, 50, 2_000.0), 120.0, leaves=True)

    assert ("a", "chat", LIMITS, 100.0, 0, 8, HardLimits(3, 0.0, 0.0), False) == first
    assert ("a", "chat", LIMITS, 120.0, 7, 4, HardLimits(4, 120.0, 3_000.0), True) == last


def test_limits_are_those_of_a_policy() -> None:
    """A policy without any needs no driver."""
    assert HardLimits(5, 60.0, 1_000.0) == HardLimits.of(
        Policy(max_in_flight=5, requests_per_minute=60.0, tokens_per_minute=1_000.0)
    )
    assert [False, True] == [HardLimits.of(Policy()).are_set, HardLimits.of(Policy(tokens_per_minute=9.0)).are_set]
