"""Drivers that are killed and run again, on a real Delta table: no row is lost, and few are paid twice."""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from spark_llm.serving import LocalEndpoints
from tests.integration.kills.conftest import CHUNK_ROWS
from tests.integration.kills.driver import Driver, DriverEndedError
from tests.integration.kills.job import READY
from tests.support.media import image
from tests.support.waiting import settled_requests

pytestmark = pytest.mark.waits

StartDriver = Callable[[int], Driver]

ROWS = 5_000
LOGGED = {  # the log line of each moment
    "answered": r" FileFormatWriter: Start to commit write Job",  # the files of a chunk's answers are not final yet
    "written": r" FileFormatWriter: Write Job \S+ committed",
    "merging": r" MergeIntoCommand: DELTA: MERGE operation",
    "merged": r" OptimisticTransaction: .*Committed delta .*/target/_delta_log",
}
KEPT = ("written", "merging")  # moments at which all answers are written down, and the next chunk is not asked yet


class Moment(NamedTuple):
    """When a driver is killed: after this many requests of all drivers, and `then` at a log line."""

    requests: int
    then: str = ""

    def __str__(self) -> str:
        return f"{self.requests} {self.then}".rstrip()

    def wait(self, endpoints: LocalEndpoints, driver: Driver) -> None:
        """Wait until the moment has come."""
        try:
            endpoints.wait_for(lambda stats: stats.requests >= self.requests, timeout_s=300)
        except TimeoutError as error:
            raise DriverEndedError(driver.last_lines) from error
        if self.then:
            driver.wait_for(LOGGED[self.then], after=driver.lines)


def moments(seed: int, rows: int, *then: str) -> tuple[Moment, ...]:
    """Return a moment for each of these, at random over the run."""
    dice = random.Random(seed)
    requests = sorted(dice.sample(range(1, rows), len(then)))
    return tuple(map(Moment, requests, dice.sample(then, len(then))))


def names(kills: Sequence[Moment]) -> str:
    """Return the moments as the name of a test."""
    return ", ".join(map(str, kills))


def asked(endpoints: LocalEndpoints) -> list[str]:
    """Return every text that was asked, in the order of the requests."""
    bodies: list[Any] = [recorded.body for recorded in endpoints.requests]
    contents = [body["messages"][0]["content"] for body in bodies]
    return [content if isinstance(content, str) else content[0]["text"] for content in contents]


def run_killed(
    endpoints: LocalEndpoints, start_driver: StartDriver, rows: int, kills: Sequence[Moment]
) -> tuple[list[Counter[str]], Mapping[str, Any]]:
    """Kill a driver at each moment and let one end; return the texts that each asked, and the answer of the last."""
    ends = [0]
    driver = start_driver(rows)
    for kill in kills:
        driver.wait_for(READY)
        driver.begin()
        following = start_driver(rows)  # it gets ready meanwhile
        kill.wait(endpoints, driver)
        driver.kill()
        settled_requests(endpoints)  # Spark's Python workers have ended too
        ends.append(len(endpoints.requests))
        driver = following
    driver.wait_for(READY)
    driver.begin()
    answer: Mapping[str, Any] = driver.answer()
    texts = asked(endpoints)
    ends.append(len(texts))
    return [Counter(texts[begun:ended]) for begun, ended in pairwise(ends)], answer


def beside(target: Path) -> dict[str, list[str]]:
    """Return the folders beside the target, and the folders in them."""
    return {
        folder.name: sorted(each.name for each in folder.iterdir() if each.is_dir())
        for folder in target.parent.glob(f"{target.name}_*")
    }


def check(
    endpoints: LocalEndpoints,
    kills: Sequence[Moment],
    drivers: Sequence[Counter[str]],
    answer: Mapping[str, Any],
    folder: Path,
    *,
    rows: int,
) -> None:
    """Assert that no row was lost, that a kill cost a chunk at most, and that nothing was left behind."""
    *killed, last = drivers
    again = [set(each) & set().union(*drivers[number:]) for number, each in enumerate(killed, 1)]
    report = answer["report"]

    assert {"rows": rows, "ids": rows, "right": rows} == answer["found"]
    assert {f"row {number}" for number in range(rows)} == set().union(*drivers)
    assert {1} == {times for each in drivers for times in each.values()}
    assert [] == [(kill, len(texts)) for kill, texts in zip(kills, again, strict=True) if len(texts) > CHUNK_ROWS]
    assert [] == [(kill, len(texts)) for kill, texts in zip(kills, again, strict=True) if texts and kill.then in KEPT]
    assert endpoints.stats.requests <= rows + len(kills) * CHUNK_ROWS
    assert (rows, last.total(), last.total(), 0) == tuple(report[it] for it in ("rows", "asked", "answered", "left"))
    assert {"target__spark_llm": ["lease", "rows"]} == beside(folder / "target")
    assert [] == [each for each in (folder / "target__spark_llm" / "rows").iterdir() if each.is_dir()]


@pytest.mark.parametrize("kills", [moments(1, 600, "merging")], ids=names)
def test_a_killed_driver_costs_a_chunk_at_most(
    kills: Sequence[Moment], endpoints: LocalEndpoints, start_driver: StartDriver, tmp_path: Path
) -> None:
    """A job that is killed as it merges ends well: every row is there once, and none is paid twice."""
    drivers, answer = run_killed(endpoints, start_driver, 600, kills)

    check(endpoints, kills, drivers, answer, tmp_path, rows=600)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [moments(2, ROWS, "", "", "", "", "", "", *LOGGED)], ids=names)
def test_a_driver_killed_ten_times_loses_nothing(
    kills: Sequence[Moment], endpoints: LocalEndpoints, start_driver: StartDriver, tmp_path: Path
) -> None:
    """A job that is killed ten times, in each of its steps, ends well; one more run has nothing to ask."""
    drivers, answer = run_killed(endpoints, start_driver, ROWS, kills)
    before = endpoints.stats.requests
    one_more = start_driver(ROWS)
    one_more.begin()

    check(endpoints, kills, drivers, answer, tmp_path, rows=ROWS)
    assert 0 == one_more.answer()["report"]["asked"]
    assert before == endpoints.stats.requests


@pytest.mark.slow
@pytest.mark.parametrize("kills", [moments(3, 600, "", "written", "merging")], ids=names)
def test_a_driver_killed_over_images_costs_a_chunk_at_most(
    kills: Sequence[Moment],
    options: dict[str, Any],
    endpoints: LocalEndpoints,
    start_driver: StartDriver,
    tmp_path: Path,
) -> None:
    """Each row has an image of 20 KB, and is asked for it once."""
    options["photo"] = f"concat(X'{image().hex()}', cast(rpad(id, 20000, '.') AS BINARY))"
    drivers, answer = run_killed(endpoints, start_driver, 600, kills)

    check(endpoints, kills, drivers, answer, tmp_path, rows=600)
    assert endpoints.stats.requests == endpoints.stats.image_tokens  # of a token each


@pytest.mark.slow
def test_two_drivers_at_once_pay_once(endpoints: LocalEndpoints, start_driver: StartDriver) -> None:
    """Of two jobs that begin on one target at the same time, one asks every row; the other waits and asks none."""
    rows = 2_000
    both = []
    for _ in range(2):
        both.append(start_driver(rows))
        both[-1].wait_for(READY)
    for driver in both:
        driver.begin()
    answers = [driver.answer() for driver in both]

    assert [{"rows": rows, "ids": rows, "right": rows}] * 2 == [answer["found"] for answer in answers]
    assert [0, rows] == sorted(answer["report"]["asked"] for answer in answers)
    assert rows == endpoints.stats.requests
