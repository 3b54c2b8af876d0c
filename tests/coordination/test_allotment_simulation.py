"""Whole jobs on a made-up clock: hosts that share a user's limits through the driver, over a network that loses."""

import heapq
import random
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from spark_llm.coordination.allotment import (
    FLOOR_VALID_S,
    VALID_S,
    Allotment,
    HardLimits,
    HostShare,
    Need,
    Usage,
    static_share,
)
from spark_llm.coordination.allotter import Allotter

pytestmark = pytest.mark.waits

STEP_S = 0.05
KEY = "chat"


@dataclass
class Network:
    """What it does to a datagram: the time on its way, and how many are lost or come twice."""

    dice: random.Random
    delay_s: float = 0.01
    loss: float = 0.0
    twice: float = 0.0
    on_way: list[tuple[float, int, Need | Allotment]] = field(default_factory=list)
    count: int = 0

    def carry(self, message: Need | Allotment, now: float) -> None:
        """Take a datagram."""
        for _ in range(2 if self.dice.random() < self.twice else 1):
            if self.dice.random() >= self.loss:
                self.count += 1
                heapq.heappush(self.on_way, (now + self.dice.expovariate(1 / self.delay_s), self.count, message))

    def arrived(self, now: float) -> list[Need | Allotment]:
        """Return what has arrived."""
        messages = []
        while self.on_way and self.on_way[0][0] <= now:
            messages.append(heapq.heappop(self.on_way)[2])
        return messages


class Host:
    """A host's limiter, with rows to send; its requests take `latency_s`."""

    def __init__(self, name: str, limits: HardLimits, rows: int, now: float, *, latency_s: float, tasks: int) -> None:
        """Begin at a time."""
        self.share = HostShare(name, KEY, limits, now)
        self.rows, self.latency_s, self.tasks = rows, latency_s, tasks
        self.asks_at = now
        self.ends: list[float] = []  # of the requests in flight
        self.sent: list[float] = []
        self._credit = 0.0  # of requests; a host begins without

    def usage(self) -> Usage:
        """Return what it has used; each request has 100 tokens."""
        waiting = min(self.rows, 4 * self.tasks - len(self.ends))
        return Usage(len(self.ends), waiting, len(self.sent), 100.0 * len(self.sent))

    def step(self, now: float, working: int, all_tasks: int, limits: HardLimits) -> None:
        """Take the answers that have come, and send what may go."""
        while self.ends and self.ends[0] <= now:
            heapq.heappop(self.ends)
        allowed = self.share.limits(now) or static_share(limits, all_tasks, working)
        in_flight, requests, _ = allowed
        if requests is not None:  # as `TokenBucket` does it, but it begins empty
            capacity = max(1.0, requests / 60)
            filled = max(requests - capacity, requests / 2) / 60 * STEP_S
            self._credit = min(capacity + filled / 2, self._credit + filled) if requests else 0.0
        while (
            self.rows
            and (in_flight is None or len(self.ends) < in_flight)
            and (requests is None or self._credit >= 1 - 1e-9)
            and len(self.ends) < 4 * self.tasks
        ):
            self._credit -= 1
            self.rows -= 1
            self.sent.append(now)
            heapq.heappush(self.ends, now + self.latency_s)


class Job:
    """A job over several hosts."""

    def __init__(
        self, limits: HardLimits, rows: Mapping[str, int], *, tasks: int = 8, latency_s: float = 1.0, seed: int = 1
    ) -> None:
        """Begin with hosts that have so many rows each."""
        self.limits, self.latency_s, self.tasks = limits, latency_s, tasks
        self.network = Network(random.Random(seed))
        self.allotter = Allotter()
        self.now = 50.0
        self.deaf_until = 0.0  # the driver
        self.hosts: dict[str, Host] = {}
        self.gone: list[Host] = []
        self.peak = 0  # of requests in flight
        for name, count in rows.items():
            self.add(name, count)

    def add(self, name: str, rows: int) -> None:
        """Let a host come."""
        self.hosts[name] = Host(name, self.limits, rows, self.now, latency_s=self.latency_s, tasks=self.tasks)

    def kill(self, name: str) -> None:
        """Let a host die without a word, with its requests."""
        self.gone.append(self.hosts.pop(name))

    def run(self, seconds: float) -> float:
        """Play for so long, or until all rows are answered; return how long it took."""
        began_at = self.now
        while self.now < began_at + seconds and any(host.rows or host.ends for host in self.hosts.values()):
            self.now += STEP_S
            self._step()
        return self.now - began_at

    def busy(self, name: str) -> int:
        """Return the requests that a host has in flight."""
        return len(self.hosts[name].ends)

    def worst_minute(self) -> int:
        """Return the most requests in any minute."""
        sent = sorted(at for host in [*self.hosts.values(), *self.gone] for at in host.sent)
        return max((bisect_left(sent, at + 60 - 1e-6) - index for index, at in enumerate(sent)), default=0)

    def _step(self) -> None:
        for message in self.network.arrived(self.now):
            if isinstance(message, Allotment):
                if (host := self.hosts.get(message.host)) is not None:
                    before = host.share.limits(self.now)
                    if host.share.on_allotment(message) and before != host.share.limits(self.now):
                        host.asks_at = min(host.asks_at, self.now + 0.1)
            elif self.now < self.deaf_until:
                self.network.on_way.append((self.deaf_until, self.network.count, message))
                self.network.count += 1
                heapq.heapify(self.network.on_way)
            elif (allotment := self.allotter.on_need(message, self.now)) is not None:
                self.network.carry(allotment, self.now)
        for host in list(self.hosts.values()):
            host.step(self.now, self.tasks, self.tasks * len(self.hosts), self.limits)
            if self.now >= host.asks_at:
                host.asks_at = self.now + host.share.asks_again_s(self.now)
                done = not host.rows and not host.ends
                self.network.carry(host.share.need(host.usage(), self.now, leaves=done), self.now)
        self.peak = max(self.peak, sum(len(host.ends) for host in self.hosts.values()))


def rows_of(hosts: int, rows: int) -> dict[str, int]:
    """Return hosts with so many rows each."""
    return {f"host {number:02}": rows for number in range(hosts)}


@pytest.mark.parametrize(
    ("hosts", "tasks", "share"),
    [(1, 64, 0.95), (8, 8, 0.84), pytest.param(64, 1, 0.73, marks=pytest.mark.waits)],
)
def test_a_quota_of_60_a_minute_over_64_tasks(hosts: int, tasks: int, share: float) -> None:
    """No minute has more than 60 requests; of each host's share its token bucket keeps one request a minute back."""
    job = Job(HardLimits(None, 60.0), rows_of(hosts, 320 // hosts), tasks=tasks)

    assert 320 / share >= job.run(5_000)
    assert 60 >= job.worst_minute()


@pytest.mark.parametrize(("limit", "share"), [(60, 0.95), (15, 0.9)])
def test_1000_tasks_on_50_hosts(limit: int, share: float) -> None:
    """All of the limit is used, also where there are fewer permits than hosts, and it is never passed."""
    job = Job(HardLimits(limit), rows_of(50, 4 * limit), tasks=20)

    assert 200 / share >= job.run(5_000)
    assert limit == job.peak


def test_what_is_unused_is_handed_on() -> None:
    """One host of 50 has nearly all rows, and gets nearly all of the limit."""
    job = Job(HardLimits(60), {**rows_of(50, 4), "much": 9_000}, tasks=20)

    assert 9_200 / 60 / 0.95 >= job.run(5_000)
    assert 60 == job.peak


def test_a_slow_host_leaves_the_rate_that_it_cannot_use() -> None:
    """It has one task with slow requests; the other host gets what is left of the quota within seconds."""
    job = Job(HardLimits(None, 1_200.0), {"fast": 12_000, "slow": 10_000}, tasks=40, latency_s=0.5)
    job.hosts["slow"].tasks, job.hosts["slow"].latency_s = 1, 2.0  # 120 a minute
    job.run(300)

    assert 0.93 * 1_200 * 5 <= sum(len(host.sent) for host in job.hosts.values())
    assert 1_200 >= job.worst_minute()


def test_who_is_left_has_all_of_the_limit() -> None:
    """It has it two seconds after the other host has said that it leaves."""
    job = Job(HardLimits(40), {"a": 100, "b": 5_000})
    job.tasks = 40
    job.hosts["b"].tasks = 40
    while job.hosts["a"].rows or job.hosts["a"].ends:
        job.run(0.1)
    job.run(2.0)

    assert 40 == job.busy("b") == job.peak


def test_a_dead_host_is_counted_until_its_share_and_its_floor_have_ended() -> None:
    """Then the others have all of the limit, and so has a host that came instead of the only one."""
    job = Job(HardLimits(40), {"a": 9_000, "b": 9_000})
    job.run(10)
    job.kill("a")
    job.run(FLOOR_VALID_S - 2)
    before = job.busy("b")
    job.run(5)
    after = job.busy("b")
    job.kill("b")
    job.add("c", 9_000)
    job.run(FLOOR_VALID_S + 3)

    assert (20, 32, 32) == (before, after, job.busy("c"))
    assert 40 == job.peak


def test_a_dead_host_that_had_more_than_its_part_leaves_the_rest_after_its_share() -> None:
    """Its floor is only its part of the limit."""
    job = Job(HardLimits(30), {"a": 9_000, "b": 9_000})
    job.hosts["b"].tasks = 1
    job.run(10)
    before = (job.busy("a"), job.busy("b"))
    job.kill("a")
    job.hosts["b"].tasks = 8
    job.run(VALID_S + 3)

    assert ((26, 4), 15) == (before, job.busy("b"))


def test_a_driver_that_stands_still_stops_nobody() -> None:
    """Hosts go on with their floors, within the limit, and have their shares again when it goes on."""
    job = Job(HardLimits(30), {"a": 9_000, "b": 9_000, "c": 9_000})
    job.hosts["b"].tasks = 1
    job.run(10)
    job.deaf_until = job.now + FLOOR_VALID_S - 5
    job.run(FLOOR_VALID_S - 6)
    meanwhile = [job.busy(name) for name in "abc"]
    job.run(4)

    assert ([10, 4, 10], [13, 4, 13]) == (meanwhile, [job.busy(name) for name in "abc"])
    assert 30 == job.peak


@pytest.mark.parametrize("seed", range(3))
def test_a_network_that_loses_a_third_and_mixes_up_the_rest(seed: int) -> None:
    """Above the limit are only requests of hosts that have never heard the driver, one each."""
    job = Job(HardLimits(60), rows_of(20, 600), seed=seed)
    job.network.loss, job.network.twice, job.network.delay_s = 0.3, 0.3, 0.2
    job.run(2)
    unheard = job.peak - 60
    job.peak = 0

    assert 12_000 / 60 / 0.9 >= job.run(5_000)
    assert 10 >= unheard
    assert 61 >= job.peak


def test_without_a_driver_the_number_of_tasks_decides() -> None:
    """Every host has one request at first, then its part of the limit."""
    job = Job(HardLimits(40), rows_of(5, 9_000))
    job.network.loss = 1.0
    job.run(5)
    first = job.peak
    job.run(10)

    assert (5, 40) == (first, job.peak)
    assert [8] * 5 == [job.busy(name) for name in job.hosts]


@pytest.mark.parametrize(
    ("tasks", "working", "expected"),
    [
        (8, 8, HardLimits(15, 60.0, 1_000.0)),
        (8, 4, HardLimits(7, 30.0, 500.0)),
        (8, 1, HardLimits(1, 7.5, 125.0)),
        (1, 8, HardLimits(15, 60.0, 1_000.0)),
        (64, 1, HardLimits(1, 0.9375, 15.625)),
    ],
)
def test_the_static_share_is_by_the_tasks_at_work(tasks: int, working: int, expected: HardLimits) -> None:
    """It is never more than the limit, and never less than one request in flight."""
    assert expected == static_share(HardLimits(15, 60.0, 1_000.0), tasks, working)
    assert HardLimits() == static_share(HardLimits(), tasks, working)
