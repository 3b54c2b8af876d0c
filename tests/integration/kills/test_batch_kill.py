"""Drivers of jobs in batches that are killed and run again: whatever dies, each request is paid once."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spark_llm.serving import Batches, Faults, LocalEndpoints
from tests.integration.kills.driver import Driver, DriverEndedError
from tests.integration.kills.job import READY
from tests.integration.kills.test_kill import StartDriver, beside
from tests.support.waiting import until

pytestmark = pytest.mark.slow

ROWS = 300  # two of them share a request
SPEED = Batches(requests_per_s=60)
SUFFIX = 12  # characters of a request's id after its digest
UPLOADED = "what is not sent yet is uploaded"
SETTLED = "the rows with replies are settled"
COMMITTED = r" OptimisticTransaction: .*Committed delta .*/batches/ledger/_delta_log"
LOGGED = {  # the log lines of each moment, one after another
    "uploading": (UPLOADED,),  # and two files are there
    "uploaded": (UPLOADED, r" DeltaFileFormatWriter: Start to commit write Job"),  # no file is in the ledger
    "created": (r"batch \S+ is created",),  # and another one; no batch is in the ledger
    "ended": ("batches have ended; their replies are downloaded",),
    "replied": (r"batch \S+ is completed",),  # the replies are in the ledger
    "answered": (SETTLED, r" FileFormatWriter: Start to commit write Job"),
    "merging": (SETTLED, r" MergeIntoCommand: DELTA: MERGE operation"),
    "merged": (SETTLED, r" OptimisticTransaction: .*Committed delta .*/target/_delta_log"),
    "cleaning": ("batches are left to later runs: 0",),
}
SLOWED = {  # a driver that is killed at these moments is still at its second request
    "uploading": replace(SPEED, on_upload=Faults("ok hang*9")),
    "created": replace(SPEED, on_create=Faults("ok hang*9")),  # the second batch exists, and no driver was told so
}
UNWRITTEN = ("uploaded", "created")  # moments at which the ledger does not know what just happened


@pytest.fixture
def options(options: dict[str, Any], endpoints: LocalEndpoints) -> dict[str, Any]:
    """Return the options of drivers that fill the table in batches of at most 60 requests."""
    batch = {"poll_s": 0.1, "max_requests": 60}
    text = "concat('row ', id div 2)"
    return {**options, "url": endpoints.openai_url, "model": "chat", "batch": batch, "text": text}


def kill_at(moment: str, driver: Driver, endpoints: LocalEndpoints) -> None:
    """Let a driver begin, and kill it at a moment."""
    endpoints.batches = SLOWED.get(moment, SPEED)
    driver.begin()
    driver.wait_for(*LOGGED[moment])
    if moment == "uploading":
        until(lambda: len(endpoints.files) >= 2)
    driver.kill()
    endpoints.batches = SPEED
    if moment in UNWRITTEN:
        assert not driver.has_printed(*LOGGED[moment], COMMITTED), driver.last_lines


def check(endpoints: LocalEndpoints, answer: Mapping[str, Any], folder: Path, rows: int) -> None:
    """Assert that each request was answered once, each row has its answer, and nothing is left behind."""
    times = Counter[str]()
    for custom_id, count in endpoints.answered.items():
        times[custom_id[:-SUFFIX]] += count

    assert {"rows": rows, "ids": rows, "right": rows} == answer["found"]
    assert (rows // 2, {1}) == (len(times), set(times.values()))
    assert endpoints.stats.total_tokens == answer["tokens"]
    assert (0, 0, None) == tuple(answer["report"][it] for it in ("left", "out", "stopped"))
    assert [] == endpoints.files
    assert {"target__spark_llm": ["batches", "lease", "rows"]} == beside(folder / "target")
    emptied = [folder / "target__spark_llm" / name for name in ("batches", "rows")]
    assert [] == [each for one in emptied for each in one.iterdir() if each.is_dir()]


@pytest.mark.parametrize(
    "kills",
    [
        ["created", "replied"],
        ["uploading", "uploaded", "created", "ended", "replied", "merging", "cleaning"],
        ["created", "created", "answered"],
        ["merged", "cleaning"],
    ],
    ids=", ".join,
)
def test_a_killed_job_in_batches_pays_once(
    kills: Sequence[str], endpoints: LocalEndpoints, start_driver: StartDriver, tmp_path: Path
) -> None:
    """Killed between each two of its steps, a job finds its batches again, and sends nothing twice."""
    endpoints.batches = SPEED
    driver = start_driver(ROWS)
    for kill in kills:
        driver.wait_for(READY)
        following = start_driver(ROWS)  # it gets ready meanwhile
        kill_at(kill, driver, endpoints)
        driver = following
    driver.wait_for(READY)
    driver.begin()

    check(endpoints, driver.answer(), tmp_path, ROWS)


def test_files_of_a_failed_attempt_of_a_task_are_removed(
    options: dict[str, Any], endpoints: LocalEndpoints, start_driver: StartDriver, tmp_path: Path
) -> None:
    """A task uploads a file and fails at the next one: its second attempt uploads both, and only those have batches."""
    options.update(master="local[2,2]", batch={"poll_s": 0.1, "max_mb": 0.015})  # a task may fail once
    endpoints.batches = Batches(on_upload=Faults("ok 400"))
    driver = start_driver(ROWS)
    driver.begin()

    check(endpoints, driver.answer(), tmp_path, ROWS)
    driver.wait_for(r"TaskSetManager: Lost task 0\.0")


@pytest.mark.parametrize("seed", [1, 2])
def test_a_job_in_batches_killed_at_ten_random_moments_pays_once(
    seed: int, options: dict[str, Any], endpoints: LocalEndpoints, start_driver: StartDriver, tmp_path: Path
) -> None:
    """Each driver has more rows than the one before; after the last one, one more run has nothing to ask."""
    kills, rows = 10, 200
    total = rows * (kills + 1)
    endpoints.batches = SPEED
    dice = random.Random(seed)

    def started(number: int) -> Driver:
        options["first"] = rows * number
        return start_driver(total)

    driver = started(1)
    for number in range(1, kills + 1):
        driver.wait_for(READY)
        following = started(number + 1)
        driver.begin()
        with suppress(DriverEndedError):  # it had nothing more to say
            driver.wait_for("", after=driver.lines + dice.randrange(50))
        driver.run_for(dice.random())
        driver.kill()
        driver = following
    driver.wait_for(READY)
    one_more = started(kills + 1)
    driver.begin()

    check(endpoints, driver.answer(), tmp_path, total)
    one_more.begin()
    assert 0 == one_more.answer()["report"]["asked"]
    assert total // 2 == len(endpoints.answered)
