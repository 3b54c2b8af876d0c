"""What the holder of a host's limiter tells the driver, over real sockets, and what it takes for the limit."""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.coordination.broker import PermitBroker
from spark_llm.coordination.flow_reporter import FIRST_TELL_S, SAMPLE_S, FlowReporter, limited_by, short_name
from spark_llm.coordination.member import Demand
from spark_llm.coordination.messages import Kind, Message
from spark_llm.coordination.worker import Worker, clock
from spark_llm.flow.controller import FlowController
from spark_llm.flow.reasons import Reason
from spark_llm.livecounts.counts import Address, LiveCounts
from spark_llm.livecounts.flows import TELL_S, HostFlow, JobFlow, decoded_flow
from spark_llm.policy import Policy

if TYPE_CHECKING:
    from spark_llm.flow.limiter import Permit

SECRET = b"s" * 16
LABEL = "https://host/serving-endpoints/llama/invocations"


class SteppedLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is a number of the test's."""

    now = 100.0

    def time(self) -> float:
        """Return the time that the last step has made."""
        return self.now

    def step(self, seconds: float) -> None:
        """Let so much time pass, and call back what is due then."""
        self.now += seconds
        self.run_until_complete(asyncio.sleep(0))


class Host:
    """A worker that holds its host's limiter; the test sets what it has to do."""

    def __init__(self, loop: asyncio.AbstractEventLoop, policy: Policy, connections: int = 512) -> None:
        """Begin with an open stream that wants nothing."""
        self.demand, self.queued = Demand(0, 0, 1), 0
        self._permits: list[Permit] = []
        guarded: Callable[..., None] = lambda callback, *arguments: callback(*arguments)  # noqa: E731 -- a callback
        self.worker = Worker(
            *(loop, guarded, lambda: self.demand, lambda: self.queued, lambda: None, connections),
            loop.time if isinstance(loop, SteppedLoop) else clock(loop),
        )
        self.broker = PermitBroker(FlowController(policy), lambda: self.demand, lambda: 0.5, connections)
        self.broker.widen(policy.ceiling)
        self.reporter = FlowReporter(self.worker, self.broker, policy, "host-7", LABEL)

    def send(self, requests: int) -> None:
        """Have so many more in flight."""
        for _ in range(requests):
            self._permits.append(self.broker.acquire(0.0))

    def answer_all(self) -> None:
        """Have none in flight any more."""
        while self._permits:
            self.broker.on_answer(self._permits.pop(), 0.0)

    def limited_by(self, wanted: int = 0, queued: int = 0) -> Reason | None:
        """Return what limits it, where its own worker wants to send so many, and has so many that wait."""
        self.demand, self.queued = Demand(wanted, 0, 1), queued
        return limited_by(self.broker, self.worker, 0.0)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    """Yield an event loop."""
    made = request.param()
    yield made
    made.close()


def run_until(loop: asyncio.AbstractEventLoop, condition: Callable[[], bool]) -> bool:
    """Run the loop until the condition is met, for ten seconds at most; return whether it is."""
    end = loop.time() + 10
    while not condition() and loop.time() < end:
        loop.run_until_complete(asyncio.sleep(0.01))
    return condition()


def test_free_permits_and_no_rows_are_a_slow_spark(loop: asyncio.AbstractEventLoop) -> None:
    """A retry or two that wait would not fill the window either; as many as it has room for would."""
    host = Host(loop, Policy(max_in_flight=8))
    host.send(5)

    assert ["spark", "spark", "retries"] == [host.limited_by(queued=queued) for queued in (0, 2, 3)]
    host.send(3)
    assert "max_in_flight" == host.limited_by()


def test_a_worker_that_may_open_no_more_connections_says_so(loop: asyncio.AbstractEventLoop) -> None:
    """Its rows wait, and the window has room."""
    host = Host(loop, Policy(max_in_flight=8), connections=3)
    host.send(3)

    assert "connections" == host.limited_by(queued=20)


def test_rows_that_wait_in_other_workers_count(loop: asyncio.AbstractEventLoop) -> None:
    """The quota of the host is spent: its own worker wants nothing, and a member does."""
    host = Host(loop, Policy(requests_per_minute=60))
    host.send(2)
    assert "spark" == host.limited_by()

    host.broker.join(1, [], 0.0)
    host.broker.receive(1, [Message(Kind.WANT, 3, 0, 1)], 0.0)
    assert "requests_per_minute" == host.limited_by()


def test_a_host_without_a_stream_is_limited_by_nothing(loop: asyncio.AbstractEventLoop) -> None:
    """An outage that is over for nobody is none of the next job's."""
    host = Host(loop, Policy())
    host.demand = Demand()

    assert limited_by(host.broker, host.worker, 0.0) is None


@pytest.mark.waits
def test_the_driver_is_told_until_the_host_is_idle(loop: asyncio.AbstractEventLoop) -> None:
    """It is told without hard limits; a second holder of the limiter goes on; a closed one tells nothing."""
    with LiveCounts("127.0.0.1") as live:
        first, second = Host(loop, Policy()), Host(loop, Policy())
        first.send(3)
        first.reporter.set_driver(live.address)
        assert run_until(loop, lambda: live.flow() is not None)
        assert (3, 512, {"llama": "spark"}) == live.flow()

        first.reporter.close()
        second.send(5)
        second.reporter.set_driver(live.address)
        assert run_until(loop, lambda: live.flow() == (5, 512, {"llama": "spark"}))
        second.demand = Demand()
        assert run_until(loop, lambda: live.flow() is None)
        second.reporter.set_driver(None)
        second.reporter.close()

        assert JobFlow(5, 512, {"spark": 1.0}) == live.job_flow()


@given(is_full=st.lists(st.booleans(), min_size=15, max_size=40))
def test_the_driver_is_told_what_limited_most_of_the_time(is_full: list[bool]) -> None:
    """The window has room between an answer and the next request: such a moment is not what limits the job."""
    told, reasons, samples = list[HostFlow](), list[str](), list[str]()
    with contextlib.closing(SteppedLoop()) as loop, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as driver:
        driver.bind(("127.0.0.1", 0))
        driver.setblocking(False)
        host = Host(loop, Policy(max_in_flight=2))
        host.reporter.set_driver(Address("127.0.0.1", driver.getsockname()[1], SECRET))
        for number, is_limited in enumerate(is_full, 1):
            host.answer_all()
            host.send(2 if is_limited else 1)
            loop.step(SAMPLE_S)
            samples.append("max_in_flight" if is_limited else "spark")
            if number % 8 == 4:  # half a second, and each second after it
                most, *others = Counter(samples).most_common()
                reasons.append(most[0] if not others or most[1] > others[0][1] else samples[0])
                samples.clear()
            with contextlib.suppress(BlockingIOError):
                told += filter(None, [decoded_flow(SECRET, driver.recv(4096))])
        host.reporter.close()

    assert reasons == [flow.limited_by for flow in told]


@pytest.mark.waits
def test_nobody_who_listens_fails_nothing(loop: asyncio.AbstractEventLoop) -> None:
    """The system refuses the second telling, and knows no route to a malformed address."""
    errors = list[object]()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    hosts = [Host(loop, Policy()), Host(loop, Policy())]
    for host, name in zip(hosts, ("127.0.0.1", "no host"), strict=True):
        host.reporter.set_driver(Address(name, 1, b"s" * 16))
    loop.run_until_complete(asyncio.sleep(FIRST_TELL_S + 1.1 * TELL_S))
    for host in hosts:
        host.reporter.close()

    assert [] == errors


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (LABEL, "llama"),
        ("https://host/v1/chat/completions meta-llama/Llama-3", "Llama-3"),
        ("https://host/v1/embeddings bge", "bge"),
        ("https://host/", "host"),
    ],
)
def test_an_endpoint_has_a_short_name(endpoint: str, expected: str) -> None:
    """The model's where there is one, else the serving endpoint's."""
    assert expected == short_name(endpoint)
