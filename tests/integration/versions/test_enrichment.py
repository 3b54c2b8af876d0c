"""Jobs that fill a Delta table on a cluster of two executors, one of which is lost: what is asked, and what is kept."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from spark_llm.serving import After, Capacity, LocalEndpoints
from tests.integration.kills.driver import Driver
from tests.integration.versions.cluster import WORKERS, Cluster

pytestmark = [pytest.mark.slow, pytest.mark.spark]

CHUNK_ROWS = 200
ROWS = 2 * CHUNK_ROWS
ANSWERED = 40  # rows of the first chunk, and then the endpoint makes everyone wait; fewer than one executor has of it
IN_FLIGHT = 8  # requests of each executor
MERGING = "MergeIntoCommand: DELTA: MERGE operation - writing"
FIRST_MERGED = r"OptimisticTransaction: .*Committed delta #1 to \S+/target/_delta_log"  # the table was made by #0


def drive(cluster: Cluster, endpoints: LocalEndpoints, folder: Path) -> Driver:
    """Start a job that fills the folder's table in two chunks."""
    return cluster.drive(
        job="enrich",
        folder=str(folder),
        rows=ROWS,
        text="concat('row ', id)",
        chunk_rows=CHUNK_ROWS,
        policy={"max_in_flight": WORKERS * IN_FLIGHT},
        url=endpoints.invocations("chat"),
        token=endpoints.token,
    )


def asked(endpoints: LocalEndpoints) -> Counter[str]:
    """Return how often each text was asked."""
    bodies: list[Any] = [recorded.body for recorded in endpoints.requests]
    return Counter(body["messages"][0]["content"] for body in bodies)


def test_an_executor_that_is_lost_while_it_asks_costs_a_chunk_at_most(
    cluster: Cluster, endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    """The job ends by itself, with every row once; only what had been asked by then is asked again."""
    endpoints.capacity = Capacity(steps=((After(requests=ANSWERED), Capacity(concurrency=0, queue=True)),))
    stuck = (ANSWERED, ANSWERED + WORKERS * IN_FLIGHT)
    with drive(cluster, endpoints, tmp_path) as driver:
        endpoints.wait_for(lambda stats: (stats.rows_answered, stats.rows_asked) == stuck, timeout_s=300)
        before = asked(endpoints)
        cluster.kill_executor()
        endpoints.wait_for(lambda stats: stats.disconnects >= IN_FLIGHT, timeout_s=60)
        endpoints.capacity = Capacity()
        answer = driver.answer()
    after = asked(endpoints)
    again = {text for text, times in after.items() if times > 1}

    assert {"rows": ROWS, "ids": ROWS, "right": ROWS} == answer["found"]
    assert (ROWS, ROWS, 0) == tuple(answer["report"][name] for name in ("asked", "answered", "left"))
    assert ROWS == len(after)
    assert IN_FLIGHT <= len(again)
    assert set() == again - set(before)
    assert endpoints.stats.requests <= ROWS + CHUNK_ROWS


def test_an_executor_that_is_lost_while_answers_are_merged_costs_nothing(
    cluster: Cluster, endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    """Delta evaluates the source of its MERGE once more, and that asks nothing: the answers are written down."""
    with drive(cluster, endpoints, tmp_path) as driver:
        driver.wait_for(MERGING)
        cluster.kill_executor()
        driver.wait_for(FIRST_MERGED, after=driver.lines)  # else the MERGE was over by then
        answer = driver.answer()

    assert {"rows": ROWS, "ids": ROWS, "right": ROWS} == answer["found"]
    assert {1} == set(asked(endpoints).values())
    assert ROWS == endpoints.stats.requests
