"""What a broker makes of peers that are no members."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from spark_llm import Endpoint, Policy
from spark_llm.coordination.links import Greeting
from spark_llm.coordination.messages import Kind, Message, encoded
from spark_llm.coordination.place import Place
from spark_llm.engine.engine import Engine
from spark_llm.serving import LocalEndpoints
from tests.support.asking import CHAT, ask, comes_true, distinct, kinds, started

NOBODY = 65534


@pytest.fixture
def engine(endpoints: LocalEndpoints, limits_folder: str) -> Iterator[Engine]:
    """Return an engine that is a group's broker."""
    route = Endpoint(endpoints.invocations("chat"), token=endpoints.token).resolve(CHAT.route, {})
    started.append(Engine(route, Policy(max_in_flight=2), None, ("group",)))
    assert comes_true(listens)
    yield started[-1]
    started[-1].close()


def path() -> Path:
    """Return the path where the broker listens."""
    place = Place(("group",))
    lock = place.lock_id()
    return Path("nowhere") if lock is None else Path(place.socket_path(lock))


def peer(socket_path: Path | None = None) -> socket.socket:
    """Return a connection to the broker."""
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(10.0)
    try:
        connected.connect(str(socket_path or path()))
    except OSError:
        connected.close()
        raise
    return connected


def listens() -> bool:
    """Return whether the broker takes connections; its socket is there a moment earlier."""
    with suppress(OSError), peer():
        return True
    return False


def until_closed(connected: socket.socket) -> bytes:
    """Return all that the broker says until it ends the connection."""
    said = b""
    try:
        while data := connected.recv(4096):
            said += data
    except ConnectionResetError:  # it has not read all
        pass
    return said


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        encoded([Message(Kind.WANT, 1)]),
        encoded([Message(Kind.HELLO, 0xFFFFFFFF)]),
        encoded([Message(Kind.HELLO, 2), Message(Kind.HELD, 7), Message(Kind.HELD, 7)]),
        encoded([Message(Kind.HELLO, 0), Message(Kind.WANT, 1, float("nan"))]),
        encoded([Message(Kind.HELLO, 0), Message(Kind.WANT, 1, float("inf"))]),
        encoded([Message(Kind.HELLO, 0)]) + b"\xff" * 13,
    ],
    ids=["HTTP", "no greeting", "too many permits", "a permit twice", "NaN", "infinite", "unknown kind"],
)
def test_what_is_no_message_ends_the_connection(data: bytes, engine: Engine) -> None:
    """Nothing else happens: the broker has the same socket, and rows are answered."""
    inode = path().stat().st_ino
    with peer() as connected:
        connected.sendall(data)
        until_closed(connected)

    assert [None] * 5 == kinds(ask(engine, [distinct(5)]))
    assert inode == path().stat().st_ino


@pytest.mark.slow
def test_a_peer_that_says_nothing_is_not_kept(engine: Engine) -> None:
    """Its connection ends after some seconds."""
    with peer() as connected:
        assert b"" == until_closed(connected)

    assert engine.is_alive


def test_half_a_message_waits_for_its_rest(engine: Engine) -> None:
    """A member that greets in pieces gets the broker's state."""
    greeting = encoded([Message(Kind.HELLO, 0)])
    with peer() as connected:
        connected.sendall(greeting[:5])
        connected.sendall(greeting[5:])

        assert Kind.STATE == connected.recv(1)[0]
    assert engine.is_alive


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_not_let_in(engine: Engine) -> None:
    """Even where the folder was opened to all, the broker ends the connection."""
    socket_path = path()
    for opened in (socket_path, socket_path.parent, socket_path.parent.parent):
        opened.chmod(0o777)
    try:
        os.seteuid(NOBODY)
        with peer(socket_path) as connected:
            os.seteuid(0)
            with suppress(BrokenPipeError):  # it was faster
                connected.sendall(encoded([Message(Kind.HELLO, 0), Message(Kind.WANT, 1)]))
            assert b"" == until_closed(connected)
    finally:
        os.seteuid(0)
        socket_path.parent.chmod(0o700)

    assert [None] * 5 == kinds(ask(engine, [distinct(5)]))


def test_a_greeting_ends_with_its_last_permit() -> None:
    """What follows it in the same bytes is left for the broker."""
    greeting = Greeting(0.0)
    held = [Message(Kind.HELD, 3), Message(Kind.HELD, 5)]

    assert greeting.take([Message(Kind.HELLO, 2), held[0]]) is None
    assert [Message(Kind.ALIVE)] == greeting.take([held[1], Message(Kind.ALIVE)])
    assert [3, 5] == list(greeting.held)
