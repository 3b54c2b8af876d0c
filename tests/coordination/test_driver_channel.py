"""The channel to the driver over real sockets: hosts get their shares, and lose them where nothing is heard."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import uvloop

from spark_llm.coordination.allotment import HardLimits, Usage
from spark_llm.coordination.allotment_datagrams import answer_to_need
from spark_llm.coordination.allotter import Allotter
from spark_llm.coordination.driver_channel import DriverChannel
from spark_llm.coordination.member import Demand
from spark_llm.coordination.worker import Worker, clock
from spark_llm.livecounts.counts import Address, LiveCounts, Reporter
from spark_llm.livecounts.datagrams import Sender
from spark_llm.protocol.values import Result

pytestmark = pytest.mark.waits

LIMITS = HardLimits(12, 90.0, 5_000.0)
NOBODY = Address("127.0.0.1", 1, b"s" * 16)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    """Yield an event loop."""
    made = request.param()
    yield made
    made.close()


class Host:
    """A host with a channel, and what it was told."""

    def __init__(self, loop: asyncio.AbstractEventLoop, address: Address, name: str, waiting: int) -> None:
        """Begin to ask."""
        self.waiting = waiting
        self.told: list[HardLimits | None] = []
        usage = lambda: Usage(0, self.waiting, 0, 0.0)  # noqa: E731 -- it is a callback
        guarded: Callable[..., None] = lambda callback, *arguments: callback(*arguments)  # noqa: E731 -- likewise
        worker = Worker(loop, guarded, Demand, lambda: 0, lambda: None, 1, clock(loop))
        self.channel = DriverChannel(worker, address, name, "chat", LIMITS, usage, self.told.append, "http://x")


def run_until(loop: asyncio.AbstractEventLoop, condition: Callable[[], bool], within_s: float = 10) -> None:
    """Run the loop until the condition is met, for `within_s` at most."""
    end = loop.time() + within_s

    def check() -> None:
        if condition() or loop.time() > end:
            loop.stop()
        else:
            loop.call_later(0.002, check)

    loop.call_soon(check)
    loop.run_forever()


def test_hosts_share_the_limits_and_one_that_is_left_has_all(loop: asyncio.AbstractEventLoop) -> None:
    """A host that leaves gives its share back; live counts arrive on the same socket."""
    allotter = Allotter()
    with LiveCounts("127.0.0.1", partial(answer_to_need, allotter)) as live:
        assert live.address is not None
        live.begin(1)
        with contextlib.closing(Reporter(live.address, Sender(1, 0, 0, 0, 0))) as reporter:
            reporter.add("mood", [Result(requests=1)])
        first = Host(loop, live.address, "a", 100)
        run_until(loop, lambda: first.told[-1:] == [LIMITS])
        second = Host(loop, live.address, "b", 100)
        half = HardLimits(6, 45.0, 2_500.0)
        run_until(loop, lambda: [half] == first.told[-1:] == second.told[-1:])
        shared = (first.told, second.told[0], second.told[-1])
        second.waiting = 0
        second.channel.close()
        first.channel.ask()
        run_until(loop, lambda: first.told[-1:] == [LIMITS])
        first.channel.close()

        nothing = HardLimits(0, 0.0, 0.0)
        assert ([nothing, LIMITS, half, LIMITS], nothing, half) == shared
        assert {"a", "b"} == allotter.hosts
        assert 1 == live.rows()


@pytest.mark.parametrize("address", [NOBODY, Address("192.0.2.1", 9, b"s" * 16), Address("no host", 9, b"s" * 16)])
def test_a_host_that_hears_nobody_sends_one_request(address: Address, loop: asyncio.AbstractEventLoop) -> None:
    """It waits half a second for an answer, and fails nothing."""
    host = Host(loop, address, "a", 100)
    run_until(loop, lambda: len(host.told) == 2)
    host.channel.close()

    assert [HardLimits(0, 0.0, 0.0), HardLimits(1, 1.0, 1.0)] == host.told


@pytest.mark.slow
def test_new_rows_of_a_host_that_has_lost_its_driver_go_by_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """The driver's block has ended, and a stream of Spark goes on: its next batch is not held at one request."""
    with LiveCounts("127.0.0.1", partial(answer_to_need, Allotter())) as live:
        assert live.address is not None
        host = Host(loop, live.address, "a", 100)
        run_until(loop, lambda: host.told[-1:] == [LIMITS])
    one = HardLimits(1, 1.0, 1.0)
    run_until(loop, lambda: host.told[-1:] == [one], within_s=40)
    host.channel.ask()
    run_until(loop, lambda: host.told[-1:] == [None], within_s=15)
    host.channel.close()

    assert [LIMITS, one, HardLimits(0, 0.0, 0.0), one, None] == host.told[1:]


def test_strangers_are_not_heard(loop: asyncio.AbstractEventLoop) -> None:
    """A reply without the job's signature, or with garbage in it, changes nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as driver:
        driver.bind(("127.0.0.1", 0))
        driver.setblocking(False)
        host = Host(loop, Address("127.0.0.1", driver.getsockname()[1], b"s" * 16), "a", 100)
        asked: list[bytes] = []

        def answered() -> bool:
            with contextlib.suppress(BlockingIOError):
                datagram, sender = driver.recvfrom(65_535)
                asked.append(datagram)
                driver.sendto(datagram, sender)  # its own need
                driver.sendto(b"garbage", sender)
            return len(host.told) == 2

        run_until(loop, answered)
        host.channel.close()
        host.channel.close()

    assert [HardLimits(0, 0.0, 0.0), HardLimits(1, 1.0, 1.0)] == host.told
    assert asked
