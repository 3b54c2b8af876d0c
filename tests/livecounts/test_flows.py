"""The flow of hosts: the driver sums what they tell, whatever the network does to it."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.flow.reasons import REASONS, Reason
from spark_llm.livecounts.flows import (
    FRESH_S,
    HostFlow,
    JobFlow,
    RunningFlows,
    decoded_flow,
    encoded_flow,
)
from spark_llm.livecounts.signing import signed
from tests.support.strategies import JSON, TEXTS

SECRET = b"0123456789abcdef"
WHOLE = st.integers(0, 2**53)
FLOWS = st.builds(
    HostFlow,
    *[TEXTS] * 3,
    st.floats(allow_nan=False, allow_infinity=False),
    *[WHOLE] * 3,
    st.none() | st.sampled_from(list(REASONS)),
)


def told(  # noqa: PLR0917 -- the fields of a flow
    host: str, at: float, in_flight: int, window: int, reason: Reason | None, endpoint: str = "llama"
) -> bytes:
    """Return what a host tells of an endpoint without limits; its peak is two requests more."""
    return encoded_flow(SECRET, HostFlow(host, endpoint, endpoint, at, in_flight, in_flight + 2, window, reason))


def running(*datagrams: bytes, now: float = 0.0) -> RunningFlows:
    """Return the sum of datagrams that came at once."""
    flows = RunningFlows(SECRET)
    for datagram in datagrams:
        flows.receive(datagram, now)
    return flows


@given(FLOWS)
def test_a_flow_survives_its_datagram(flow: HostFlow) -> None:
    """It comes back as it was, with its signature and no other."""
    datagram = encoded_flow(SECRET, flow)

    assert flow == decoded_flow(SECRET, datagram)
    assert decoded_flow(SECRET[::-1], datagram) is None


@given(st.binary(max_size=64) | JSON.map(lambda value: json.dumps(["flow", value, value]).encode()))
def test_signed_garbage_is_no_flow(payload: bytes) -> None:
    """A datagram of another kind raises nothing."""
    assert decoded_flow(SECRET, signed(SECRET, payload)) is None


@pytest.mark.parametrize(
    "payload",
    [
        b'["flow","a","b","c",1.0,2,3,"a reason of a later version"]',
        b'["flow","a","b","c",1.0,-2,3,null]',
        b'["flow","a","b","c",NaN,2,3,null]',
        b'["flow","a","b",3,1.0,2,3,null]',
        b'["flow","a","b","c",1.0,2,3,[]]',
        b'["need","a","b","c",1.0,2,3,null]',
        b'["flow","a","b","c",1.0,2,3,null,"more"]',
    ],
)
def test_a_flow_of_another_version_is_not_counted(payload: bytes) -> None:
    """Nor does it raise anything."""
    assert decoded_flow(SECRET, signed(SECRET, payload)) is None


def test_hosts_are_summed() -> None:
    """The reason of most hosts is shown; of as many, the one that holds back most."""
    two = [told("a", 1.0, 3, 4, "spark"), told("b", 1.0, 5, 6, "refusals")]

    assert "8 in flight of 10 · limited by the endpoint's 429s and 503s" == str(running(*two).current(0.0))
    three = [*two, told("c", 1.0, 1_000, 1_001, "spark")]
    assert "1,008 in flight of 1,011 · limited by Spark: rows come too slowly" == str(running(*three).current(0.0))


def test_endpoints_are_named_where_their_reasons_differ() -> None:
    """Two reasons are shown, those that hold back most."""
    flows = [told("a", 1.0, 3, 4, "refusals"), told("a", 1.0, 5, 6, "refusals", "bge")]
    assert "8 in flight of 10 · limited by the endpoint's 429s and 503s" == str(running(*flows).current(0.0))

    flows.append(told("a", 1.0, 0, 1, "outage", "gte"))
    reasons = "an outage of the endpoint (gte), the endpoint's 429s and 503s (llama, bge)"
    expected = f"8 in flight of 11 · limited by {reasons}"
    assert expected == str(running(*flows).current(0.0))
    flows.append(told("a", 1.0, 0, 1, "spark", "x"))
    assert f"{expected.replace('11', '12')}, …" == str(running(*flows).current(0.0))


def test_only_the_latest_of_a_host_counts() -> None:
    """What overtook it, or came twice, changes nothing."""
    flows = running(told("a", 2.0, 5, 6, "refusals"), told("a", 1.0, 9, 9, "spark"), told("a", 2.0, 9, 9, "spark"))
    current = flows.current(0.0)

    assert current is not None
    assert (5, 6, {"llama": "refusals"}) == current
    assert JobFlow(7, 6, {"refusals": 1.0}) == flows.job()


def test_an_idle_host_and_one_that_is_silent_are_not_shown() -> None:
    """What they told before stays in the job's sum."""
    flows = running(told("a", 1.0, 5, 6, "refusals"), told("b", 1.0, 1, 2, "spark"))
    flows.receive(told("b", 2.0, 0, 2, None), 1.0)

    assert "5 in flight of 6 · limited by the endpoint's 429s and 503s" == str(flows.current(FRESH_S - 0.1))
    assert flows.current(FRESH_S) is None
    assert JobFlow(10, 8, {"refusals": 0.5, "spark": 0.5}) == flows.job()


def test_nothing_was_heard() -> None:
    """A host that has asked no rows says nothing of the job."""
    assert (None, None) == (running().current(0.0), running().job())
    idle = running(told("a", 1.0, 0, 1, None), signed(SECRET, b"[]"))
    assert (None, None) == (idle.current(0.0), idle.job())


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from(list(REASONS))), min_size=1, max_size=50))
def test_shares_of_time_sum_up_to_one(tellings: list[tuple[int, Reason]]) -> None:
    """A host tells once a second, so what it tells counts for a second; the greatest share is first."""
    flows = RunningFlows(SECRET)
    for second, (in_flight, reason) in enumerate(tellings):
        flows.receive(told("a", float(second), in_flight, 40, reason), float(second))
    job = flows.job()

    assert job is not None
    shares = list(job.limited_by.values())
    assert sum(shares) == pytest.approx(1.0)
    assert sorted(shares, reverse=True) == shares
    assert (max(in_flight for in_flight, _ in tellings) + 2, 40) == (job.peak_in_flight, job.window)
    for reason, share in job.limited_by.items():
        assert share == pytest.approx([each for _, each in tellings].count(reason) / len(tellings))


def test_a_job_says_what_limited_it_for_how_long() -> None:
    """Less than one percent is left out."""
    job = JobFlow(1_040, 38, {"refusals": 0.62, "spark": 0.375, "slow_start": 0.005})

    expected = (
        "1,040 at most, window 38 in the end; "
        "limited by the endpoint's 429s and 503s 62%, Spark: rows come too slowly 38%"
    )
    assert expected == str(job)
    assert str(replace(job, limited_by={"outage": 1.0})).endswith("; limited by an outage of the endpoint 100%")


def test_a_host_that_gave_its_part_back_does_not_close_the_window() -> None:
    """The window in the end is the last one that let requests go."""
    job = running(told("a", 0.0, 6, 6, "max_in_flight"), told("a", 1.0, 0, 0, "spark")).job()

    assert job is not None
    assert (8, 6) == (job.peak_in_flight, job.window)
