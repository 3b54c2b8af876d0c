"""Jobs on a cluster of two executors: what is asked, when all goes well and when an executor is lost."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from spark_llm.serving import Capacity, LocalEndpoints, Quota
from tests.integration.versions.cluster import Cluster, Job

pytestmark = [pytest.mark.slow, pytest.mark.spark]

HALF = 200  # rows of each of the two tasks
OPEN = 50  # of them are answered at once, and the others are held back
IN_FLIGHT = 8  # requests of each task
ASKED = OPEN + IN_FLIGHT  # of each task, when nothing moves any more
PROMPT = f"concat(if(id < {HALF}, 'one ', 'two '), if(id % {HALF} < {OPEN}, 'open ', 'held '), id)"


def start(cluster: Cluster, endpoints: LocalEndpoints, **told: object) -> Job:
    """Start a job that asks the endpoint."""
    place = {"url": endpoints.invocations("chat"), "token": endpoints.token}
    return cluster.start(**place, **{"in_flight": IN_FLIGHT, **told})


def asked(endpoints: LocalEndpoints) -> Counter[str]:
    """Return how often each prompt was asked."""
    bodies: list[Any] = [recorded.body for recorded in endpoints.requests]
    return Counter(body["messages"][0]["content"] for body in bodies)


def test_both_executors_ask(cluster: Cluster, endpoints: LocalEndpoints) -> None:
    """Each host has its own window, both at work at once; each row is asked once, and answered."""
    endpoints.hold("held")
    job = start(cluster, endpoints, job="table", rows=2 * HALF, prompt=PROMPT)
    endpoints.wait_for(lambda stats: stats.in_flight == 2 * IN_FLIGHT, timeout_s=120)
    endpoints.release()
    answers = job.answer()

    assert {(True, None)} == {(text == prompt, kind) for prompt, text, kind in answers}
    assert Counter(prompt for prompt, *_ in answers) == asked(endpoints)
    assert (2 * HALF, 2 * HALF, {200: 2 * HALF}) == (
        len(answers),
        endpoints.stats.requests,
        endpoints.stats.by_status,
    )


def test_an_executor_that_is_lost_costs_what_its_task_had_asked(cluster: Cluster, endpoints: LocalEndpoints) -> None:
    """No row is lost: its task begins again elsewhere, and what it had asked, and that alone, is asked again."""
    endpoints.hold("held")
    job = start(cluster, endpoints, job="table", rows=2 * HALF, prompt=PROMPT)
    endpoints.wait_for(lambda stats: (stats.rows_answered, stats.rows_asked) == (2 * OPEN, 2 * ASKED), timeout_s=120)
    before = asked(endpoints)
    cluster.kill_executor()
    endpoints.wait_for(lambda stats: stats.disconnects == IN_FLIGHT, timeout_s=60)
    endpoints.release()
    answers = job.answer()
    after = asked(endpoints)
    [lost] = {prompt.split()[0] for prompt, times in after.items() if times > 1}

    assert {(True, None)} == {(text == prompt, kind) for prompt, text, kind in answers}
    assert {1} == set(Counter(prompt for prompt, *_ in answers).values())
    assert Counter({prompt: 1 + (prompt in before and prompt.startswith(lost)) for prompt, *_ in answers}) == after
    assert 2 * HALF + ASKED == endpoints.stats.requests


def test_the_driver_allots_a_quota_to_both_hosts(cluster: Cluster, endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """Two hosts that cannot see each other keep `requests_per_minute` together, and use nearly all of it."""
    endpoints.capacity = Capacity(quota=Quota(requests=100, window_s=4.0))  # 20 a second, and 20 at once
    arrived = list[float]()

    def arrive(_: int) -> float:
        arrived.append(time.monotonic())
        return 0.1

    endpoints.latency_s = arrive
    answer = cluster.start(
        url=endpoints.invocations("chat"),
        token=endpoints.token,
        job="enrich",
        folder=str(tmp_path),
        rows=400,
        text="concat('row ', id)",
        chunk_rows=400,
        policy={"requests_per_minute": 1_200},
    ).answer()

    assert (400, 400) == (answer["found"]["rows"], answer["found"]["right"])
    assert "shared over the cluster by the driver (2 hosts)" == answer["report"]["limits"]
    assert 1.02 * 400 >= endpoints.stats.requests
    assert 400 / 20 / (arrived[-1] - arrived[0]) >= 0.8


def test_in_a_block_the_driver_allots_the_quota_of_a_plain_query(cluster: Cluster, endpoints: LocalEndpoints) -> None:
    """Both hosts keep `requests_per_minute` together, though nothing is said of tasks; the block counts each row."""
    endpoints.capacity = Capacity(quota=Quota(requests=100, window_s=4.0))  # 20 a second, and 20 at once
    answer = start(cluster, endpoints, job="watch", rows=400, policy={"requests_per_minute": 1_200}).answer()

    assert [400, 400] == answer
    assert 1.02 * 400 >= endpoints.stats.requests
