"""What sharing comes to: whole jobs of one host against simulated endpoints, and what holds whatever happens to it.

Shares, requests a row and endpoints are those of `tests/flow/test_simulation.py`, where workers share nothing.
"""

from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_llm.policy import Policy
from tests.flow.test_simulation import FORTY, SEEDS, Made, concurrency, fifty_a_second, metered, queue
from tests.support.host_simulation import Fault, HostJob
from tests.support.servers import Concurrency, Gone, Latency, Metered, Picky, SlidingWindow

pytestmark = pytest.mark.waits

FEW = settings(max_examples=min(100, settings().max_examples // 3))  # each is a whole job


def jobs(
    endpoint: Made, rows: int, workers: int = 8, policy: Policy | None = None, network_s: tuple[float, float] = (0, 0)
) -> list[HostJob]:
    """Play a job once for every seed."""
    return [
        HostJob(endpoint(seed), rows, workers=workers, policy=policy or Policy(), seed=seed, network_s=network_s)
        for seed in SEEDS
    ]


def share(played: list[HostJob]) -> float:
    """Return the mean share of the capacity, over the whole job."""
    return fmean(job.share() for job in played)


def cost(played: list[HostJob]) -> float:
    """Return the requests a row of the job that took most, of which no row may have failed."""
    assert [0] * len(played) == [job.failed for job in played]
    return max(job.requests_per_row for job in played)


def spread(played: list[HostJob]) -> float:
    """Return the longest time between the first and the last end of a worker, as a share of the job."""
    return max(job.spread for job in played)


@pytest.mark.parametrize(
    ("network_s", "at_least"), [pytest.param((0.0, 0.0), 0.95, marks=pytest.mark.slow), ((0.0002, 0.002), 0.94)]
)
def test_eight_workers_find_a_hidden_concurrency_as_one_does(network_s: tuple[float, float], at_least: float) -> None:
    """They use a limit of 40 to the end of the job, and end together, also where requests overtake each other."""
    played = jobs(concurrency(FORTY, median_s=0.2), 12_000, network_s=network_s)

    assert at_least <= share(played)
    assert 1.03 >= cost(played)
    assert 0.05 >= spread(played)


@pytest.mark.slow
@pytest.mark.parametrize(("median_s", "at_least"), [(1.0, 0.88), (0.2, 0.91)])
def test_eight_workers_keep_a_quota_though_refused_requests_count(median_s: float, at_least: float) -> None:
    """50 a second are used as by one worker, and are not run into by eight."""
    played = jobs(metered(fifty_a_second, median_s=median_s), 8_000)

    assert at_least <= share(played)
    assert 1.05 >= cost(played)
    assert 0.05 >= spread(played)


@pytest.mark.parametrize("limit", [3, 5, 15])
def test_a_limit_of_requests_in_flight_is_used_whole(limit: int) -> None:
    """Fewer than there are workers, or no multiple of them: all of it is in use, and workers end together."""
    played = jobs(concurrency(((0, limit),), median_s=0.2), 200 * limit, policy=Policy(max_in_flight=limit))

    assert [limit] * len(played) == [job.most_in_flight for job in played]
    assert 0.95 <= share(played)
    assert 1.0 == cost(played)
    assert 0.05 >= spread(played)


def test_a_quota_of_one_a_second_goes_round_64_tasks() -> None:
    """Each waits for its turn of 64 seconds, and none of the quota is lost."""
    job = HostJob(metered(lambda: SlidingWindow(1, 60))(0), 256, workers=64, policy=Policy(requests_per_minute=60))

    assert 0.95 <= job.share()
    assert 60 >= job.most_in_a_minute()
    assert 1.0 == job.requests_per_row
    assert 70 >= job.longest_wait_s


@pytest.mark.parametrize(
    ("policy", "most"), [(Policy(requests_per_minute=1200), 1200), (Policy(tokens_per_minute=3_600), 1201)]
)
def test_a_quota_is_used_whole_and_never_passed(policy: Policy, most: int) -> None:
    """1,200 requests in any minute, or as many as the tokens allow: the last of these may take a part of the next."""
    played = jobs(lambda seed: Metered(Latency(seed, 0.2), SlidingWindow(20, 60)), 3_600, policy=policy)

    assert 0.95 <= share(played)
    assert all(most >= job.most_in_a_minute() for job in played)
    assert 1.001 >= cost(played)
    assert 0.05 >= spread(played)


def test_a_queue_is_found_by_all_together() -> None:
    """40 servers are kept busy, and hardly more wait than when one worker finds them."""
    played = jobs(queue(FORTY, median_s=0.2), 8_000)

    assert 0.92 <= share(played)
    assert all(job.in_flight(0.3, 0.9) <= 100 for job in played)


def test_one_probe_looks_for_the_end_of_an_outage() -> None:
    """Eight workers send at most as many probes as one would."""
    job = HostJob(Gone(concurrency(FORTY, median_s=0.2)(0), 5.0, 65.0), 4_000)

    assert 0 == job.failed
    assert 25 >= sum(1 for at in job.sent_at if 7.0 < at < 65.0)


KILLS = st.builds(
    Fault, st.floats(0.0, 12.0), st.just("kill"), st.sampled_from(["broker", "member"]), st.integers(0, 7)
)
STOPS = st.builds(
    Fault,
    st.floats(0.0, 8.0),
    st.just("stop"),
    st.sampled_from(["broker", "member"]),
    st.integers(0, 7),
    st.floats(0.0, 5.0),
)
SEEDED = st.integers(0, 1_000)
DELAYS = (0.0001, 0.001), (0.005, 0.05)  # of a message, by the seed: on an idle host, and on a busy one


@FEW
@given(
    st.lists(KILLS, max_size=6),
    st.sampled_from([3, 15, 40]),
    st.integers(1, 8),
    st.sampled_from([0.05, 0.2, 1.0]),
    SEEDED,
)
def test_no_limit_is_passed_whoever_is_killed(
    faults: list[Fault], limit: int, workers: int, median_s: float, seed: int
) -> None:
    """Brokers and members are killed and begun again: permits come back at once, and never twice."""
    endpoint = Concurrency(Latency(seed, median_s), ((0, 10_000),))
    policy, delay_s = Policy(max_in_flight=limit), DELAYS[seed % 2]
    job = HostJob(endpoint, limit * 30, workers=workers, policy=policy, faults=faults, delay_s=delay_s, seed=seed)

    assert 0 == job.failed
    assert limit >= job.most_in_flight
    assert 20 * median_s + 3 >= job.longest_wait_s


@FEW
@given(STOPS, st.sampled_from([3, 15, 40]), st.integers(1, 8), SEEDED)
def test_no_limit_is_passed_when_one_stands_still(stop: Fault, limit: int, workers: int, seed: int) -> None:
    """The broker or a member stands still: the others go on, and it joins them again."""
    endpoint = Concurrency(Latency(seed, 0.2, sigma=0.1), ((0, 10_000),))
    policy, delay_s = Policy(max_in_flight=limit), DELAYS[seed % 2]
    job = HostJob(endpoint, limit * 60, workers=workers, policy=policy, faults=[stop], delay_s=delay_s, seed=seed)

    assert 0 == job.failed
    assert limit >= job.most_in_flight
    assert 4.5 >= job.longest_wait_s


@FEW
@given(st.lists(st.one_of(KILLS, STOPS), max_size=4), st.sampled_from([60, 300]), SEEDED)
def test_no_minute_passes_the_quota_whatever_happens(faults: list[Fault], per_minute: int, seed: int) -> None:
    """A new broker begins with an empty quota, in debt for what the earlier one may have sent."""
    endpoint = Concurrency(Latency(seed, 0.2), ((0, 10_000),))
    policy = Policy(requests_per_minute=per_minute)
    job = HostJob(endpoint, 2 * per_minute, policy=policy, faults=faults, seed=seed)

    assert 0 == job.failed
    assert per_minute >= job.most_in_a_minute()


def test_a_job_goes_on_while_its_broker_is_killed_again_and_again() -> None:
    """Ten times: more than 0.9 of the limit is in use, and little is asked twice."""
    faults = [Fault(4.0 * count, "kill", "broker") for count in range(1, 11)]
    played = [
        HostJob(
            concurrency(FORTY, median_s=0.2)(seed), 9_000, faults=faults, seed=seed, policy=Policy(max_in_flight=40)
        )
        for seed in SEEDS
    ]

    assert 0.90 <= share(played)
    assert all(40 >= job.most_in_flight for job in played)


@FEW
@given(st.lists(KILLS, max_size=3), st.integers(1, 8), st.sampled_from([0.3, 0.6, 1.0]), SEEDED)
def test_a_job_stops_by_the_failed_rows_of_all_its_tasks(
    faults: list[Fault], workers: int, bad: float, seed: int
) -> None:
    """A fifth of the last 1,000 rows of a host may fail, however many tasks have them, and whoever is killed."""
    endpoint = Picky(Concurrency(Latency(seed, 0.2), ((0, 10_000),)), bad, seed)
    policy = Policy(max_in_flight=40, max_failure_rate=0.2)
    job = HostJob(endpoint, 8_000, workers=workers, policy=policy, faults=faults, delay_s=DELAYS[seed % 2], seed=seed)

    # What is in flight when it stops ends; of a broker that is killed, the counts of half a second are lost.
    killed = sum(fault.at < 10.0 for fault in faults)
    assert 200 <= endpoint.refused <= 200 + 40 + killed * 150
    assert job.sent < 8_000


@pytest.mark.slow
@FEW
@given(st.lists(KILLS, max_size=3), SEEDED)
def test_a_job_goes_on_while_fewer_rows_fail(faults: list[Fault], seed: int) -> None:
    """A tenth fails where a fifth may: no killed worker, and no new broker, counts a row twice."""
    endpoint = Picky(Concurrency(Latency(seed, 0.2), ((0, 10_000),)), 0.1, seed)
    policy = Policy(max_in_flight=40, max_failure_rate=0.2)
    job = HostJob(endpoint, 2_000, policy=policy, faults=faults, delay_s=DELAYS[seed % 2], seed=seed)

    assert 2_000 <= job.sent
