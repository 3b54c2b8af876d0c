"""A broker's socket, when it closes among members that arrive."""

import asyncio
import socket
from collections.abc import Callable

import pytest

from spark_llm import Policy
from spark_llm.coordination.broker import PermitBroker
from spark_llm.coordination.broker_side import BrokerSide
from spark_llm.coordination.member import Demand
from spark_llm.coordination.messages import Kind, Message, encoded
from spark_llm.coordination.place import Place
from spark_llm.coordination.worker import Worker, clock
from spark_llm.engine.loop_thread import new_event_loop
from spark_llm.flow.controller import FlowController

PATIENCE_S = 10.0
GREETING = encoded([Message(Kind.HELLO, 0), Message(Kind.WANT, 1)])


@pytest.mark.parametrize("new_loop", [new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize("turns", range(8))
def test_a_member_that_arrives_while_the_broker_closes_is_let_go(
    turns: int, new_loop: Callable[[], asyncio.AbstractEventLoop], limits_folder: str
) -> None:
    """It closes so many turns of its loop after members have called: none of them waits for it, nothing stays open."""
    place = Place(("group",))
    assert place.lock()
    lock = place.lock_id()
    assert lock is not None
    path = place.socket_path(lock)
    errors = list[BaseException]()
    members = [socket.socket(socket.AF_UNIX) for _ in range(3)]

    async def run(loop: asyncio.AbstractEventLoop) -> None:
        def guarded(callback: Callable[..., None], *arguments: object) -> None:
            try:
                callback(*arguments)
            except Exception as error:  # noqa: BLE001 -- the test says so at its end
                errors.append(error)

        worker = Worker(loop, guarded, Demand, lambda: 0, lambda: None, 1, clock(loop))
        broker = PermitBroker(FlowController(Policy()), Demand, lambda: 0.5)
        side = BrokerSide(worker, broker, place, lambda: None, lambda: None)
        side.start()
        for member in members:
            member.settimeout(PATIENCE_S)
            member.connect(path)
            member.sendall(GREETING)
        for _ in range(turns):
            await asyncio.sleep(0)
        tasks = side.tasks
        side.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)
        assert [] == [descriptor for descriptor in side.descriptors if descriptor >= 0]

    try:
        loop = new_loop()
        loop.run_until_complete(run(loop))
        loop.close()
        for member in members:
            assert ended(member)
    finally:
        place.unlock()
        for member in members:
            member.close()
    assert [] == errors


def ended(member: socket.socket) -> bool:
    """Read to the end of the connection."""
    try:
        while member.recv(4096):
            pass
    except ConnectionError:  # the broker has not read all
        pass
    return True
