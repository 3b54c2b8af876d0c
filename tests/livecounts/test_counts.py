"""Live counts over real sockets: what tasks tell is heard, strangers are not, and no task is the worse for it."""

import contextlib
import pickle
import socket
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_llm.livecounts.counts import EVERY_S, Address, LiveCounts, Reporter, own_address_towards
from spark_llm.metering.tally import Tally
from spark_llm.protocol.values import Result, RowError, Usage

ANSWERED = Result(text="yes", usage=Usage(5, 2, 7, 1), requests=1)
FAILED = Result(error=RowError("timeout", None, "too late.", retryable=True), requests=4)


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def reached(live: LiveCounts) -> Address:
    """Return where it listens."""
    assert live.address is not None
    return live.address


def heard(live: LiveCounts, is_it: Callable[[dict[str, Tally]], bool]) -> dict[str, Tally]:
    """Return the counts as soon as they are so, or as they are in the end: a datagram comes when it comes."""
    patience = threading.Event()
    looks = (live.counts() for _ in range(1_000) if not patience.wait(0.005))
    return next(filter(is_it, looks), live.counts())


def after_all_before(live: LiveCounts, chunk: int) -> dict[str, Tally]:
    """Return the counts when all that was sent until now is read: on loopback, nothing overtakes."""
    last = Reporter(reached(live), chunk, partition=10**6, attempt=10**6)
    last.add("last", [None])
    return heard(live, lambda counts: "last" in counts)


def has_ipv6() -> bool:
    """Return whether this machine has IPv6's loopback."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        return True
    return False


IPV6 = pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", IPV6])
def test_what_tasks_count_is_heard(host: str) -> None:
    """Of every partition and column, over IPv4 and IPv6."""
    with LiveCounts(host) as live:
        live.begin(3)
        for partition in range(4):
            reporter = Reporter(reached(live), 3, partition, attempt=partition)
            reporter.add("mood", [ANSWERED, None, FAILED])
            reporter.add("vector", [ANSWERED] * 3)
            reporter.close()
        counts = heard(
            live, lambda counts: {"mood": 8, "vector": 12} == {name: each.asked for name, each in counts.items()}
        )
        rows = live.rows()

    assert Tally(8, {"timeout": 4}, 20, 8, 4, 28, 20) == counts["mood"]
    assert Tally(12, {}, 60, 24, 12, 84, 12) == counts["vector"]
    assert 12 == rows


def test_a_task_tells_at_most_twice_a_second() -> None:
    """The first at once; what had to wait is told when it may be, also where nothing is new, or at the end."""
    clock = Clock()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as driver:
        driver.bind(("127.0.0.1", 0))
        driver.setblocking(False)
        host, port = driver.getsockname()
        reporter = Reporter(Address(host, port, b"s" * 16), 1, 0, 0, clock)

        def told(column: str, results: list[Result | None], after_s: float) -> int:
            clock.now_s += after_s
            reporter.add(column, results)
            return arrived(driver)

        counts = [
            told("mood", [ANSWERED], 0.0),
            told("mood", [ANSWERED] * 50, EVERY_S / 2),
            told("vector", [ANSWERED], EVERY_S / 4),
            told("mood", [], EVERY_S / 4),
            told("mood", [], EVERY_S),
            told("mood", [ANSWERED], EVERY_S),
            told("mood", [ANSWERED], 0.0),
        ]
        reporter.close()
        counts.append(arrived(driver))
        reporter.close()

        assert [1, 0, 0, 1, 0, 1, 0, 1] == counts
        assert 0 == arrived(driver)


def arrived(driver: socket.socket) -> int:
    """Return how many datagrams wait; on loopback what was sent is there."""
    count = 0
    while True:
        try:
            driver.recv(65_535)
        except BlockingIOError:
            return count
        count += 1


@settings(max_examples=20)
@given(st.lists(st.binary(max_size=100), min_size=1, max_size=20))
def test_strangers_are_not_heard(garbage: list[bytes]) -> None:
    """Whatever they send, and whoever signs with another secret."""
    with LiveCounts("127.0.0.1") as live:
        live.begin(1)
        address = reached(live)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for datagram in garbage:
                stranger.sendto(datagram, (address.host, address.port))
        Reporter(replace(address, secret=b"?" * 16), 1, 0, 0).add("mood", [ANSWERED])

        assert ["last"] == list(after_all_before(live, 1))


def test_a_task_of_another_chunk_is_not_heard() -> None:
    """It may still talk when its chunk is over."""
    with LiveCounts("127.0.0.1") as live:
        live.begin(1)
        late = Reporter(reached(live), 1, 0, 0)
        live.begin(2)
        late.add("mood", [ANSWERED])
        during = after_all_before(live, 2)
        live.end()
        ended = live.counts()

    assert (["last"], {}) == (list(during), ended)


@pytest.mark.parametrize("host", ["", "0", "0" + ".0" * 3, "::", "192.0.2.1", "no such host", "a" * 70, "nul\0"])
def test_an_address_that_is_not_one_of_this_machine_is_silent(host: str) -> None:
    """So is one that would be all of them; the job goes on without."""
    with LiveCounts(host) as live:
        live.begin(1)
        Reporter(live.address, 1, 0, 0).add("mood", [ANSWERED])

        assert live.address is None
        assert ({}, 0) == (live.counts(), live.rows())


def test_it_listens_on_one_address_alone_and_lets_go() -> None:
    """The port is free again when the `with` has ended, and no thread is left."""
    with LiveCounts("127.0.0.1") as live:
        address = reached(live)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.2", address.port))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as same, pytest.raises(OSError, match="in use"):
            same.bind(("127.0.0.1", address.port))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as same:
        same.bind(("127.0.0.1", address.port))

    assert live.address is None
    assert [] == [thread for thread in threading.enumerate() if thread.name == "spark_llm-live"]


@pytest.mark.parametrize(
    "address",
    [
        None,
        Address("192.0.2.1", 9, b"s" * 16),  # nobody is there
        Address("127.0.0.1", 1, b"s" * 16),  # nobody listens
        Address("255.255.255.255", 9, b"s" * 16),  # not allowed
        Address("driver.example", 9, b"s" * 16),  # a name would have to be looked up
        Address("2001:db8::1", 9, b"s" * 16),  # often there is no way
        Address("a" * 70, 9, b"s" * 16),
        Address("127.0.0.1", -1, b"s" * 16),
        Address("127.0.0.1", 2**40, b"s" * 16),
    ],
)
def test_a_task_that_nobody_hears_is_none_the_worse(address: Address | None) -> None:
    """It neither waits nor raises, and lets go of its socket."""
    reporter = Reporter(address, 1, 0, 0)
    for _ in range(3):
        reporter.add("mood", [ANSWERED])
    reporter.close()


def test_columns_in_threads_of_their_own_are_all_counted() -> None:
    """One task asks its columns at the same time, and has one reporter."""
    with LiveCounts("127.0.0.1") as live:
        live.begin(1)
        reporter = Reporter(reached(live), 1, 0, 0)

        def ask(column: str) -> None:
            for _ in range(500):
                reporter.add(column, [ANSWERED])

        threads = [threading.Thread(target=ask, args=(name,)) for name in ("mood", "mood", "topic", "vector")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        reporter.close()
        expected = {"mood": 1_000, "topic": 500, "vector": 500}
        counts = heard(live, lambda counts: expected == {name: tally.asked for name, tally in counts.items()})

    assert expected == {name: tally.asked for name, tally in counts.items()}


def test_an_address_travels_and_does_not_print_its_secret() -> None:
    """It reaches workers in a UDF's plan."""
    address = Address("127.0.0.1", 40_000, b"sixteen-bytes-ab")

    assert address == pickle.loads(pickle.dumps(address))  # noqa: S301 -- our own
    assert "Address(host='127.0.0.1', port=40000, secret='***')" == repr(address) == str(address)


def test_every_run_has_a_secret_of_its_own() -> None:
    """So a task of one cannot be heard by another that got its port."""
    with LiveCounts("127.0.0.1") as one, LiveCounts("127.0.0.1") as other:
        assert reached(one).secret != reached(other).secret
        assert 16 == len(reached(one).secret)


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", "127.0.0.1"), ("a" * 70, ""), ("", "")])
def test_the_way_to_a_host_begins_at_an_address_of_ours(host: str, expected: str) -> None:
    """Loopback's begins at loopback; to no host there is no way."""
    assert expected == own_address_towards(host)
