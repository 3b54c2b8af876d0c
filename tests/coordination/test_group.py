"""Workers of a host share one flow controller, whatever becomes of their processes."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from spark_llm import Policy
from spark_llm.coordination.place import FOLDER_VARIABLE, Place
from spark_llm.serving import Faults, LocalEndpoints
from tests.support.asking import comes_true
from tests.support.worker_processes import Report, WorkerProcesses

pytestmark = pytest.mark.waits
slow = pytest.mark.slow
Recorder = Callable[[str, object], None]  # of pytest's junit report

FIVE = Policy(max_in_flight=5)
PACED = Policy(max_in_flight=5, requests_per_minute=1800)  # then every request waits for the broker


class Arrivals:
    """When requests arrived at the endpoint; a latency."""

    def __init__(self, latency_s: float) -> None:
        self.at: list[float] = []
        self._latency_s = latency_s

    def __call__(self, number: int) -> float:
        """Note a request's arrival; return its latency."""
        self.at.append(time.monotonic())
        return self._latency_s

    def pause_s(self, since: float) -> float:
        """Return the longest time without a request since then, until the last one."""
        times = [since, *(at for at in self.at if at > since)]
        return max((later - earlier for earlier, later in pairwise(times)), default=0.0)

    def most_in(self, seconds: float) -> int:
        """Return the most that arrived in so many seconds."""
        return max(sum(begin <= at < begin + seconds for at in self.at) for begin in self.at)


def answered(reports: Sequence[Report]) -> list[int]:
    """Return how many rows of each worker were answered."""
    return [report.answered for report in reports]


def passes(endpoints: LocalEndpoints, requests: int) -> bool:
    """Wait until so many requests have come; return whether they did."""
    target = endpoints.stats.requests + requests
    return comes_true(lambda: endpoints.stats.requests >= target, 60.0)


@pytest.mark.parametrize("loop", ["uvloop", pytest.param("asyncio", marks=slow)])
def test_the_limit_holds_over_all_workers_and_all_of_it_is_used(endpoints: LocalEndpoints, loop: str) -> None:
    """Six workers with `max_in_flight=5` have five requests in flight, and seldom fewer."""
    endpoints.latency_s = 0.1
    with WorkerProcesses(endpoints, FIVE, 6, loop=loop) as workers:
        workers.ask(15)
        reports = workers.reports()

    assert [15] * 6 == answered(reports)
    assert 90 == endpoints.stats.requests
    assert 5 == endpoints.stats.max_in_flight
    assert max(report.seconds for report in reports) < 2 * 90 * 0.1 / 5


@pytest.mark.parametrize("loop", ["uvloop", pytest.param("asyncio", marks=slow)])
@pytest.mark.parametrize("policy", [pytest.param(FIVE, marks=slow), PACED], ids=["kept", "granted"])
def test_a_killed_broker_has_a_successor(
    endpoints: LocalEndpoints, policy: Policy, loop: str, record_property: Recorder
) -> None:
    """Three brokers are killed: each time another one grants permits within a second, and never more than the limit."""
    endpoints.latency_s = arrivals = Arrivals(0.1)
    with WorkerProcesses(endpoints, policy, 6, loop=loop) as workers:
        workers.ask(30)
        living = list(workers.all)
        pauses = []
        for _ in range(3):
            assert passes(endpoints, 20)
            broker = workers.wait_for_broker(lambda worker: worker in living)
            living.remove(broker)
            killed_at = time.monotonic()
            broker.kill()
            assert passes(endpoints, 10)
            pauses.append(arrivals.pause_s(killed_at))
        reports = workers.reports(living)

    record_property("pauses", [round(pause_s, 3) for pause_s in pauses])
    assert [30] * 3 == answered(reports)
    assert 5 == endpoints.stats.max_in_flight
    assert max(pauses) < 1.0


@slow
def test_an_idle_broker_hands_the_place_to_a_worker_that_works(endpoints: LocalEndpoints) -> None:
    """A task that works may know a driver that allots the limits; the worker of one that has ended does not."""
    endpoints.latency_s = 0.1
    with WorkerProcesses(endpoints, FIVE, 3) as workers:
        workers.ask(5)
        assert [5] * 3 == answered(workers.reports())
        idle = workers.wait_for_broker()
        others = [worker for worker in workers.all if worker is not idle]
        workers.ask(100, others)
        assert workers.wait_for_broker(lambda worker: worker is not idle) in others
        assert [100] * 2 == answered(workers.reports(others))
        workers.ask(5, [idle])
        assert [5] == answered(workers.reports([idle]))

    assert (220, 5) == (endpoints.stats.requests, endpoints.stats.max_in_flight)


def test_eight_tasks_stop_by_the_failed_rows_of_all(endpoints: LocalEndpoints) -> None:
    """A tenth of the last 1,000 rows may fail; tasks of the same stage send no more then, those of the next one do."""
    endpoints.latency_s = 0.02
    endpoints.faults = Faults(poison=" row 1")  # 11 of the first 20 rows, and then 100 in a row
    policy = Policy(max_in_flight=16, max_failure_rate=0.1)
    with WorkerProcesses(endpoints, policy, 8) as workers:
        workers.ask(1_000)
        stopped = workers.reports()
        sent = endpoints.stats.requests
        workers.ask(50)
        late = workers.reports()
        sent_late = endpoints.stats.requests - sent
        endpoints.faults = Faults()
        workers.ask(50, stage=1)
        later = workers.reports()

    failed = sum(report.errors.count("invalid_request") for report in stopped)
    assert 100 <= failed < 200  # each task alone would have sent 100 that fail
    assert {"invalid_request", "cancelled"} == {kind for report in stopped for kind in report.errors}
    assert ([["cancelled"] * 50] * 8, 0) == ([report.errors for report in late], sent_late)
    assert [50] * 8 == answered(later)


def test_the_permits_of_a_killed_member_go_to_others(endpoints: LocalEndpoints) -> None:
    """Members are killed while their requests are in flight: the others use the whole limit at once."""
    endpoints.latency_s = lambda number: 0.05 if number < 10 else 2.0
    with WorkerProcesses(endpoints, FIVE, 4) as workers:
        workers.ask(8)
        broker = workers.wait_for_broker()
        members = [worker for worker in workers.all if worker is not broker]
        assert comes_true(lambda: endpoints.stats.requests >= 15 and endpoints.stats.in_flight == 5, 60.0)
        for member in members[:2]:
            member.kill()
        assert comes_true(lambda: endpoints.stats.disconnects > 0 and endpoints.stats.in_flight == 5, 1.5)
        reports = workers.reports([broker, members[2]])

    assert [8, 8] == answered(reports)
    assert 5 == endpoints.stats.max_in_flight


@slow
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("policy", [FIVE, PACED], ids=["kept", "granted"])
@pytest.mark.parametrize("how", ["stopped", "gil"])
def test_a_broker_that_stands_still_is_replaced(
    endpoints: LocalEndpoints, policy: Policy, how: str, loop: str, record_property: Recorder
) -> None:
    """The others go on within three seconds; when it comes back it joins them, and its rows are answered."""
    endpoints.latency_s = arrivals = Arrivals(0.1)
    with WorkerProcesses(endpoints, policy, 4, loop=loop) as workers:
        workers.ask(60)
        assert passes(endpoints, 20)
        broker = workers.wait_for_broker()
        stopped_at = time.monotonic()
        if how == "gil":
            broker.tell("hold_gil", 4)
        else:
            broker.signal(signal.SIGSTOP)
        workers.wait_for_broker(lambda worker: worker is not broker)
        assert passes(endpoints, 5)
        pause_s = arrivals.pause_s(stopped_at)
        broker.signal(signal.SIGCONT)
        reports = workers.reports()

    record_property("pause", round(pause_s, 3))
    assert [60] * 4 == answered(reports)
    assert 5 == endpoints.stats.max_in_flight
    assert pause_s < 3.0


@slow
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("how", ["stopped", "gil"])
def test_a_member_that_stands_still_loses_its_permits(endpoints: LocalEndpoints, how: str, loop: str) -> None:
    """Others use them; when it comes back it sends nothing before it has new ones, and its rows are answered."""
    endpoints.latency_s = 0.1
    with WorkerProcesses(endpoints, FIVE, 3, loop=loop) as workers:
        workers.ask(70)
        assert passes(endpoints, 20)
        broker = workers.wait_for_broker()
        member, other = (worker for worker in workers.all if worker is not broker)
        if how == "gil":
            member.tell("hold_gil", 4)
        else:
            member.signal(signal.SIGSTOP)
        time.sleep(2.6)
        assert comes_true(lambda: endpoints.stats.in_flight == 5, 10.0)
        member.signal(signal.SIGCONT)
        reports = workers.reports([broker, member, other])

    assert [70] * 3 == answered(reports)
    assert 5 == endpoints.stats.max_in_flight


@pytest.mark.parametrize("loop", ["uvloop", pytest.param("asyncio", marks=slow)])
def test_a_fork_that_outlives_its_parent_keeps_no_place(
    endpoints: LocalEndpoints, loop: str, record_property: Recorder
) -> None:
    """A broker forks, goes on, and is killed: another one has the place at once, though the fork lives."""
    endpoints.latency_s = arrivals = Arrivals(0.1)
    with WorkerProcesses(endpoints, PACED, 3, loop=loop) as workers:
        workers.ask(30)
        broker = workers.wait_for_broker()
        broker.tell("fork", 60.0)
        child = broker.hear()
        assert passes(endpoints, 20)
        assert broker is workers.broker
        killed_at = time.monotonic()
        broker.kill()
        assert passes(endpoints, 5)
        pause_s = arrivals.pause_s(killed_at)
        reports = workers.reports([worker for worker in workers.all if worker is not broker])

    record_property("pause", round(pause_s, 3))
    os.kill(child, signal.SIGKILL)
    assert [30, 30] == answered(reports)
    assert pause_s < 1.0


@slow
def test_requests_a_minute_are_counted_over_all_workers(endpoints: LocalEndpoints) -> None:
    """Four workers together send as many requests as one may, and no fewer."""
    endpoints.latency_s = arrivals = Arrivals(0.02)
    with WorkerProcesses(endpoints, Policy(requests_per_minute=1200), 4) as workers:
        workers.ask(20)
        reports = workers.reports()

    assert [20] * 4 == answered(reports)
    assert arrivals.most_in(2.0) <= 61  # a second's worth at once, and then 19 a second
    assert arrivals.at[-1] - arrivals.at[0] < 8.0


@slow
def test_the_retry_budget_is_shared(endpoints: LocalEndpoints) -> None:
    """Eight workers at a dead endpoint probe it with one request between them."""
    endpoints.faults = Faults("cut*10000")
    with WorkerProcesses(endpoints, Policy(), 8) as workers:
        workers.ask(100)
        time.sleep(5.0)
        requests = endpoints.stats.requests
        assert passes(endpoints, 1)

    assert requests <= 8 + 8 + 6


def test_groups_share_nothing_with_each_other(endpoints: LocalEndpoints) -> None:
    """Workers of another application, say, have limits of their own."""
    endpoints.latency_s = 0.3
    with (
        WorkerProcesses(endpoints, Policy(max_in_flight=1), 2) as ours,
        WorkerProcesses(endpoints, Policy(max_in_flight=1), 2, group="another", beside=ours) as others,
    ):
        ours.ask(2)
        others.ask(2)
        reports = [*ours.reports(), *others.reports()]

    assert [2] * 4 == answered(reports)
    assert 2 == endpoints.stats.max_in_flight


def test_workers_that_cannot_share_keep_to_their_part(endpoints: LocalEndpoints) -> None:
    """A file is in place of the folder: each of three tasks has a third of the limit, and says so once."""
    endpoints.latency_s = 0.2
    with WorkerProcesses(endpoints, Policy(max_in_flight=6, tasks=3), 0) as workers:
        (Path(workers.folder) / f"spark_llm-{os.getuid()}").touch()
        workers.add(3)
        workers.ask(10)
        reports = workers.reports()

    assert [10] * 3 == answered(reports)
    assert 6 == endpoints.stats.max_in_flight
    for report in reports:
        assert 1 == sum("cannot share" in line for line in report.log)


@slow
def test_a_worker_that_finds_no_broker_goes_on_alone(
    endpoints: LocalEndpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process has the lock and another one is replacing it, both for ever: each of two tasks has its part."""
    endpoints.latency_s = 0.1
    with WorkerProcesses(endpoints, Policy(max_in_flight=6, tasks=2), 0) as workers:
        monkeypatch.setenv(FOLDER_VARIABLE, workers.folder)
        place = Place(("group",))
        assert place.lock()
        lock = place.lock_id()
        assert lock is not None
        with Path(place.socket_path(lock)).with_suffix(".turn").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            workers.add(2)
            workers.ask(20)
            reports = workers.reports()
        assert place.is_held
        place.unlock()

    assert [20] * 2 == answered(reports)
    assert endpoints.stats.max_in_flight <= 6
    for report in reports:
        assert 1 == sum("cannot share" in line for line in report.log)


def test_a_worker_that_cannot_listen_goes_on_alone(endpoints: LocalEndpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is in place of the socket: the worker keeps to its part, and leaves the lock to others."""
    with WorkerProcesses(endpoints, Policy(max_in_flight=6, tasks=2), 0) as workers:
        monkeypatch.setenv(FOLDER_VARIABLE, workers.folder)
        place = Place(("group",))
        assert place.lock()
        lock = place.lock_id()
        assert lock is not None
        Path(place.socket_path(lock)).mkdir()
        place.unlock()
        workers.add(1)
        workers.ask(10)
        reports = workers.reports()
        assert comes_true(place.lock)
        place.unlock()

    assert [10] == answered(reports)
    assert endpoints.stats.max_in_flight <= 3


def test_a_lock_without_a_broker_is_replaced(endpoints: LocalEndpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process has the lock, such as a fork of a broker that died, and nobody listens: a worker takes its place."""
    with WorkerProcesses(endpoints, FIVE, 0) as workers:
        monkeypatch.setenv(FOLDER_VARIABLE, workers.folder)
        place = Place(("group",))
        assert place.lock()
        workers.add(3)
        workers.ask(10)
        reports = workers.reports()
        assert not place.is_held
        place.unlock()

    assert [10] * 3 == answered(reports)
    assert max(report.seconds for report in reports) < 5.0
    assert not any("cannot share" in line for report in reports for line in report.log)


@slow
@pytest.mark.parametrize("removed", ["files", "folder"])
def test_a_group_survives_the_removal_of_its_files(endpoints: LocalEndpoints, removed: str) -> None:
    """The host removes old files from /tmp: the workers find each other again, and keep the limit."""
    endpoints.latency_s = 0.1
    with WorkerProcesses(endpoints, FIVE, 3) as workers:
        workers.ask(60)
        assert passes(endpoints, 20)
        [folder] = Path(workers.folder).iterdir()
        if removed == "folder":
            shutil.rmtree(folder)
        else:
            for path in folder.iterdir():
                path.unlink()
        assert passes(endpoints, 80)
        [lock] = folder.glob("*.lock")
        reports = workers.reports()

    assert lock.name
    assert [60] * 3 == answered(reports)
    assert 5 == endpoints.stats.max_in_flight


def test_what_was_learned_is_kept_for_the_next_workers(endpoints: LocalEndpoints) -> None:
    """All workers end; those of the next action begin with their window, not with one request."""
    in_flight: list[int] = []

    def note_in_flight(number: int) -> float:
        in_flight.append(endpoints.stats.in_flight)
        return 0.4

    endpoints.latency_s = note_in_flight
    with WorkerProcesses(endpoints, Policy(), 2) as workers:
        workers.ask(40)
        workers.reports()
        for worker in workers.all:
            worker.tell("close")
            worker.hear()
        before = len(in_flight)
        workers.add(1)
        workers.ask(20, workers.all[2:])
        workers.reports(workers.all[2:])

    assert in_flight[9] < 8
    assert in_flight[before + 9] >= 8


def test_a_closed_engine_leaves_nothing_open(endpoints: LocalEndpoints) -> None:
    """A member and then the broker were closed: they have the files and threads of before."""
    with WorkerProcesses(endpoints, FIVE, 2) as workers:
        workers.ask(5)
        workers.reports()
        broker = workers.wait_for_broker()
        for worker in sorted(workers.all, key=lambda worker: worker is broker):
            worker.tell("close")
            worker.hear()
            worker.tell("count")
            threads, files = worker.hear()
            assert "spark_llm engine" not in threads
            assert not [file for file in files if "lock" in file or "eventpoll" in file], files
            assert sum("socket" in file for file in files) == 1, files  # to the test


_ENGINES_OF_ONE_PROCESS = """
import sys, threading
if sys.argv[3] == "asyncio":
    sys.modules["uvloop"] = None
from spark_llm import Endpoint, Policy
from spark_llm.engine.engine import Engine
from spark_llm.protocol.chat.task import Chat

chat = Chat()
route = Endpoint(sys.argv[1], token=sys.argv[2]).resolve(chat.route, {})
for rows in (5, 0, 5, 0):  # with 0 they are closed before they have found each other
    engines = [Engine(route, Policy(max_in_flight=1), None, ("group",)) for _ in range(4)]
    def ask(engine):
        for chunk in engine.stream(chat, iter([[f"{id(engine)} {row}" for row in range(rows)]])):
            assert all(result.error is None for result in chunk)
    threads = [threading.Thread(target=ask, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for engine in engines:
        engine.close()
"""


@pytest.mark.parametrize("loop", ["uvloop", pytest.param("asyncio", marks=slow)])
def test_engines_of_one_process_share_and_leave_nothing_open(endpoints: LocalEndpoints, loop: str) -> None:
    """Four engines have one request in flight, and Python has no warning about what they leave."""
    endpoints.latency_s = 0.01
    with WorkerProcesses(endpoints, FIVE, 0) as workers:
        arguments = [endpoints.invocations("chat"), endpoints.token, loop]
        ran = subprocess.run(
            [sys.executable, "-W", "always::ResourceWarning", "-c", _ENGINES_OF_ONE_PROCESS, *arguments],
            env={**os.environ, FOLDER_VARIABLE: workers.folder},
            capture_output=True,
            text=True,
            check=False,
        )

    assert "" == ran.stderr
    assert 40 == endpoints.stats.requests
    assert 1 == endpoints.stats.max_in_flight
