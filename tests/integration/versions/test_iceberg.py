"""Table jobs on Iceberg tables: what they promise for Delta, a driver that is killed and two at once among it."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from spark_llm.serving import LocalEndpoints
from tests.integration.kills.driver import Driver
from tests.integration.kills.job import READY
from tests.integration.kills.test_kill import Moment, asked
from tests.integration.versions.environments import OTHERS
from tests.integration.versions.suite import run_on

pytestmark = [pytest.mark.slow, pytest.mark.spark]

[SPARK] = (environment for environment in OTHERS if environment.name == "4.1")  # the newest that Iceberg knows
CHUNK_ROWS = 300
ROWS = 4 * CHUNK_ROWS
MERGING = r" SparkWrite: Committing .* to table ice\.\w+\.target$"
TESTS = (
    "test_only_pending_rows_are_asked",
    "test_columns_are_asked_one_by_one_and_kept_beside_the_source",
    "test_a_table_is_filled_in_place",
    "test_the_source_is_read_once",
    "test_a_budget_stops_a_run",
    "test_two_runs_at_once_pay_once",
    "test_a_stream_asks_once",
)


@pytest.fixture
def start_driver(endpoints: LocalEndpoints, tmp_path: Path) -> Iterator[Callable[[], Driver]]:
    """Start drivers that all fill the same Iceberg table."""
    told = {
        "format": "iceberg",
        "folder": str(tmp_path),
        "rows": ROWS,
        "text": "concat('row ', id)",
        "chunk_rows": CHUNK_ROWS,
        "url": endpoints.invocations("chat"),
        "token": endpoints.token,
    }
    command = [str(SPARK.python()), "-m", "tests.integration.kills.job", json.dumps(told)]
    with ExitStack() as stack:

        def start() -> Driver:
            driver = stack.enter_context(Driver(command, tmp_path, SPARK.surroundings(tmp_path)))
            driver.wait_for(READY)
            return driver

        yield start


def test_a_job_keeps_its_promises(tmp_path: Path) -> None:
    """The tests of a table job pass, in an Iceberg catalog: what is asked, in which order, and what is written."""
    tests = [f"tests/integration/spark/test_enrich.py::{name}" for name in TESTS]
    run = run_on(SPARK, "classic", tmp_path, tests, "slow or not slow", SPARK_LLM_TEST_FORMAT="iceberg")

    assert [] == run.others, run.said
    assert len(TESTS) + 1 == run.passed.by_udfs.total(), run.said  # streams have two


def test_a_killed_driver_costs_a_chunk_at_most(endpoints: LocalEndpoints, start_driver: Callable[[], Driver]) -> None:
    """Killed as it asks and then as it merges, a job comes to its end: every row once, at most a chunk paid twice."""
    for requests, then in ((CHUNK_ROWS // 2, None), (2 * CHUNK_ROWS, MERGING)):
        driver = start_driver()
        driver.begin()
        Moment(requests).wait(endpoints, driver)
        if then is not None:
            driver.wait_for(then, after=driver.lines)
        driver.kill()
        endpoints.wait_for(lambda stats: stats.in_flight == 0, timeout_s=30)
    last = start_driver()
    last.begin()
    answer = last.answer()

    assert {"rows": ROWS, "ids": ROWS, "right": ROWS} == answer["found"]
    assert ROWS == len(set(asked(endpoints)))
    assert ROWS < endpoints.stats.requests <= ROWS + CHUNK_ROWS
    assert (ROWS, 0) == (answer["report"]["rows"], answer["report"]["left"])


def test_two_drivers_at_once_pay_once(endpoints: LocalEndpoints, start_driver: Callable[[], Driver]) -> None:
    """One asks every row, the other waits and asks none: it sees what its own catalog remembers otherwise."""
    both = [start_driver(), start_driver()]
    for driver in both:
        driver.begin()
    answers = [driver.answer() for driver in both]

    assert [{"rows": ROWS, "ids": ROWS, "right": ROWS}] * 2 == [answer["found"] for answer in answers]
    assert [0, ROWS] == sorted(answer["report"]["asked"] for answer in answers)
    assert ROWS == endpoints.stats.requests
