"""Live counts over real sockets: the driver gets the tasks' counts and no others, and no task fails for it."""

import contextlib
import os
import pickle
import socket
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_llm.livecounts.counts import (
    PENDING_ROWS,
    SEND_INTERVAL_S,
    Address,
    LiveCounts,
    Reporter,
    connected_socket,
    local_address_for,
    process_secret,
)
from spark_llm.livecounts.datagrams import Sender
from spark_llm.livecounts.signing import signed, verified
from spark_llm.metering.tally import Tally
from spark_llm.protocol.values import Result, RowError, Usage

ANSWERED = Result(text="yes", usage=Usage(5, 2, 7, 1), requests=1)
FAILED = Result(error=RowError("timeout", None, "too late.", retryable=True), requests=4)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def address_of(live: LiveCounts) -> Address:
    """Return the address where it listens."""
    assert live.address is not None
    return live.address


def sender(chunk: int = 1, partition: int = 0) -> Sender:
    """Return the first attempt at a partition."""
    return Sender(chunk, 0, partition, partition, 0)


def counts_when(live: LiveCounts, condition: Callable[[dict[str, Tally]], bool]) -> dict[str, Tally]:
    """Return the counts as soon as they meet the condition, or after five seconds."""
    pause = threading.Event()
    polls = (live.counts() for _ in range(1_000) if not pause.wait(0.005))
    return next(filter(condition, polls), live.counts())


def counts_after_all_sent(live: LiveCounts, chunk: int) -> dict[str, Tally]:
    """Return the counts once every datagram so far is read: on loopback, none overtakes another."""
    with contextlib.closing(Reporter(address_of(live), sender(chunk, 10**6))) as last:
        last.add("last", [None])
    return counts_when(live, lambda counts: "last" in counts)


def has_ipv6() -> bool:
    """Return whether this machine has IPv6's loopback."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        return True
    return False


IPV6 = pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", IPV6])
def test_the_driver_gets_the_counts_of_all_tasks(host: str) -> None:
    """The counts have every partition and column, over IPv4 and IPv6."""
    with LiveCounts(host) as live:
        live.begin(3)
        for partition in range(4):
            reporter = Reporter(address_of(live), sender(3, partition))
            reporter.add("mood", [ANSWERED, None, FAILED])
            reporter.add("vector", [ANSWERED] * 3)
            reporter.close()
        counts = counts_when(
            live, lambda counts: {"mood": 8, "vector": 12} == {name: each.asked for name, each in counts.items()}
        )
        rows = live.rows()

    assert Tally(8, {"timeout": 4}, 20, 8, 4, 28, 20) == counts["mood"]
    assert Tally(12, {}, 60, 24, 12, 84, 12) == counts["vector"]
    assert 12 == rows


def test_a_task_sends_at_most_twice_a_second() -> None:
    """The first datagram is sent at once; later counts wait for the interval or for the end."""
    clock = Clock()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as driver:
        driver.bind(("127.0.0.1", 0))
        driver.setblocking(False)
        host, port = driver.getsockname()
        reporter = Reporter(Address(host, port, b"s" * 16), sender(), clock)

        def datagrams_after(column: str, results: list[Result | None], after_s: float) -> int:
            clock.now_s += after_s
            reporter.add(column, results)
            return arrived(driver)

        counts = [
            datagrams_after("mood", [ANSWERED], 0.0),
            datagrams_after("mood", [ANSWERED] * 50, SEND_INTERVAL_S / 2),
            datagrams_after("vector", [ANSWERED], SEND_INTERVAL_S / 4),
            datagrams_after("mood", [], SEND_INTERVAL_S / 4),
            datagrams_after("mood", [], SEND_INTERVAL_S),
            datagrams_after("mood", [ANSWERED], SEND_INTERVAL_S),
            datagrams_after("mood", [ANSWERED], 0.0),
        ]
        reporter.close()
        counts.append(arrived(driver))
        reporter.close()

        assert [1, 0, 0, 1, 0, 1, 0, 1] == counts
        assert 0 == arrived(driver)


def arrived(driver: socket.socket) -> int:
    """Return the number of datagrams that wait; on loopback they arrive at once."""
    count = 0
    while True:
        try:
            driver.recv(65_535)
        except BlockingIOError:
            return count
        count += 1


def test_the_last_datagram_of_a_stream_says_that_it_has_ended() -> None:
    """It counts then, whatever a later attempt at its partition has reported."""
    with LiveCounts("127.0.0.1") as live:
        live.begin(1)
        first, copy = (Reporter(address_of(live), Sender(1, 0, 0, attempt, attempt)) for attempt in (1, 2))
        first.add("mood", [ANSWERED] * 5)
        copy.add("mood", [ANSWERED])
        copy.close()
        begun = counts_when(live, lambda counts: bool(counts) and counts["mood"].asked == 1)
        first.close(ended=True)
        ended = counts_when(live, lambda counts: counts["mood"].asked == 5)

    assert (1, 5) == (begun["mood"].asked, ended["mood"].asked)


@given(st.lists(st.integers(0, PENDING_ROWS + 10), max_size=8))
def test_counting_late_loses_no_row(sizes: list[int]) -> None:
    """Results are counted when they are sent, or when there are many of them."""
    clock = Clock()
    with LiveCounts("127.0.0.1") as live:
        live.begin(1)
        reporter = Reporter(address_of(live), sender(), clock)
        for size in sizes:
            reporter.add("mood", [ANSWERED] * size)
        reporter.close()

    assert sum(sizes) == live.rows() == live.counts().get("mood", Tally()).asked


def test_what_has_arrived_is_read_before_the_end() -> None:
    """The last counts of a job are in the driver's socket when Spark says that it is done."""
    with LiveCounts("127.0.0.1") as live:
        live.begin(1)
        for partition in range(200):
            with contextlib.closing(Reporter(address_of(live), sender(partition=partition))) as reporter:
                reporter.add("mood", [ANSWERED])

    assert (200, 200) == (live.rows(), live.counts()["mood"].asked)


def test_hosts_that_need_answers_get_them_after_the_end() -> None:
    """A job may go on when its block has ended; it is counted no more, and the port is free when nobody asks."""
    needed = threading.Event()
    needed.set()
    with LiveCounts("127.0.0.1", lambda payload, _: payload[::-1], is_needed=lambda _: needed.is_set()) as live:
        live.begin(1)
        address = address_of(live)
    with connected_socket(address) as host:
        with contextlib.closing(Reporter(address, sender())) as reporter:
            reporter.add("mood", [ANSWERED])
        host.settimeout(5)
        host.send(signed(address.secret, b"abc"))
        reply = host.recv(100)
        needed.clear()
        host.send(signed(address.secret, b"the last"))
    reader = next((each for each in threading.enumerate() if each.name == "spark_llm-live"), None)
    if reader is not None:
        reader.join(5)

    assert b"cba" == verified(address.secret, reply)
    assert (None, 0) == (live.address, live.rows())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as same:
        same.bind(("127.0.0.1", address.port))


@settings(max_examples=20)
@given(st.lists(st.binary(max_size=100), min_size=1, max_size=20))
def test_datagrams_of_strangers_do_not_count(garbage: list[bytes]) -> None:
    """Neither do datagrams with the signature of another secret."""
    with LiveCounts("127.0.0.1") as live:
        live.begin(1)
        address = address_of(live)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for datagram in garbage:
                stranger.sendto(datagram, (address.host, address.port))
        with contextlib.closing(Reporter(replace(address, secret=b"?" * 16), sender())) as reporter:
            reporter.add("mood", [ANSWERED])

        assert ["last"] == list(counts_after_all_sent(live, 1))


def test_a_signed_payload_is_answered_to_its_sender() -> None:
    """The answer is signed too; strangers, and senders that are gone, change nothing."""
    heard: list[bytes] = []

    def answer(payload: bytes, now: float) -> bytes | None:
        heard.append(payload)
        return payload[::-1] if payload == b"abc" else None

    with LiveCounts("127.0.0.1", answer) as live:
        address = address_of(live)
        with connected_socket(address) as gone:
            gone.send(signed(address.secret, b"abc"))
        with connected_socket(address) as sender:
            for datagram in (b"abc", signed(b"?" * 16, b"abc"), signed(address.secret, b"no"), b""):
                sender.send(datagram)
            sender.send(signed(address.secret, b"abc"))
            sender.settimeout(5)
            reply = sender.recv(100)

    assert b"cba" == verified(address.secret, reply)
    assert [b"abc", b"no", b"abc"] == heard


def test_a_task_of_another_chunk_does_not_count() -> None:
    """A task may still send when its chunk is over."""
    with LiveCounts("127.0.0.1") as live:
        live.begin(1)
        late = Reporter(address_of(live), sender())
        live.begin(2)
        late.add("mood", [ANSWERED])
        late.close()
        during = counts_after_all_sent(live, 2)
        live.end()
        after_end = live.counts()

    assert (["last"], {}) == (list(during), after_end)


@pytest.mark.parametrize("host", ["", "0", "0" + ".0" * 3, "::", "192.0.2.1", "no such host", "a" * 70, "nul\0"])
def test_on_another_machines_address_nothing_is_counted(host: str) -> None:
    """The same holds for the address of all interfaces; the job goes on without live counts."""
    with LiveCounts(host) as live:
        live.begin(1)
        Reporter(live.address, sender()).add("mood", [ANSWERED])

        assert live.address is None
        assert ({}, 0) == (live.counts(), live.rows())


def test_it_listens_on_one_address_and_releases_the_port() -> None:
    """After the `with` block the port is free, and no thread is left."""
    with LiveCounts("127.0.0.1") as live:
        address = address_of(live)
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
        Address("192.0.2.1", 9, b"s" * 16),  # no such machine
        Address("127.0.0.1", 1, b"s" * 16),  # nobody listens
        Address("255.255.255.255", 9, b"s" * 16),  # not allowed
        Address("driver.example", 9, b"s" * 16),  # a name, which is not looked up
        Address("2001:db8::1", 9, b"s" * 16),  # often without a route
        Address("a" * 70, 9, b"s" * 16),
        Address("127.0.0.1", -1, b"s" * 16),
        Address("127.0.0.1", 2**40, b"s" * 16),
    ],
)
def test_a_task_without_a_listener_does_not_fail(address: Address | None) -> None:
    """It neither waits nor raises, and it closes its socket."""
    reporter = Reporter(address, sender())
    for _ in range(3):
        reporter.add("mood", [ANSWERED])
    reporter.close()


def test_columns_in_several_threads_are_all_counted() -> None:
    """One task asks its columns in parallel, with one reporter."""
    with LiveCounts("127.0.0.1") as live:
        live.begin(1)
        reporter = Reporter(address_of(live), sender())

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
        counts = counts_when(live, lambda counts: expected == {name: tally.asked for name, tally in counts.items()})

    assert expected == {name: tally.asked for name, tally in counts.items()}


def test_an_address_can_be_pickled_and_does_not_print_its_secret() -> None:
    """It travels to the workers in a UDF's plan."""
    address = Address("127.0.0.1", 40_000, b"sixteen-bytes-ab")

    assert address == pickle.loads(pickle.dumps(address))  # noqa: S301 -- our own
    assert "Address(host='127.0.0.1', port=40000, secret='***')" == repr(address) == str(address)


def test_every_run_has_a_secret_of_its_own() -> None:
    """A task of one run does not count for another one that got its port."""
    with LiveCounts("127.0.0.1") as one, LiveCounts("127.0.0.1") as other:
        assert address_of(one).secret != address_of(other).secret
        assert 16 == len(address_of(one).secret)


def test_a_process_has_one_secret_and_a_forked_one_another() -> None:
    """A UDF that was made in one process is not counted by another one that listens at the same port."""
    reads, writes = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writes, process_secret())
        os._exit(0)
    os.waitpid(child, 0)
    forked = os.read(reads, 100)
    for end in (reads, writes):
        os.close(end)

    assert process_secret() == process_secret()
    assert (16, 16) == (len(process_secret()), len(forked))
    assert forked != process_secret()


def test_a_listener_uses_the_secret_that_it_is_given() -> None:
    """The UDFs of a process know it before a block begins."""
    with LiveCounts("127.0.0.1", secret=process_secret()) as live:
        assert process_secret() == address_of(live).secret


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", "127.0.0.1"), ("a" * 70, ""), ("", "")])
def test_the_local_address_for_a_host_is_on_the_route(host: str, expected: str) -> None:
    """It is loopback for loopback, and empty for a host without a route."""
    assert expected == local_address_for(host)
