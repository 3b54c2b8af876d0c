"""The two ends of a connection between a broker and a member, on the event loop.

A peer of another user, and bytes that are no message, end the connection and nothing else.
"""

import asyncio
import os
from collections.abc import Sequence
from typing import Protocol, cast

from spark_llm.coordination.messages import Decoder, Kind, Message, encoded
from spark_llm.coordination.place import peer_of
from spark_llm.coordination.worker import Worker

_MAX_HELD = 100_000  # permits of one member


class LinkOwner(Protocol):
    """The object that has connections."""

    def on_connected(self, link: "Link") -> None:
        """Take a connection to a peer of this user."""

    def on_messages(self, link: "Link", messages: Sequence[Message]) -> None:
        """Take messages; an error that says that they make no sense ends the connection."""

    def on_disconnected(self, link: "Link") -> None:
        """Take note that a connection has ended."""


class Link(asyncio.Protocol):
    """One end of a connection."""

    def __init__(self, worker: Worker, owner: LinkOwner) -> None:
        """Tell the owner of what happens."""
        self.peer_pid: int | None = None
        self._guarded = worker.guarded  # asyncio only logs what a protocol raises
        self._owner = owner
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self._is_trusted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Check the peer's user."""
        self._transport = cast("asyncio.Transport", transport)
        try:
            self.peer_pid, uid = peer_of(transport.get_extra_info("socket"))
        except OSError:  # it has gone again
            uid = -1
        self._is_trusted = uid in (None, os.getuid())
        if self._is_trusted:
            self._guarded(self._owner.on_connected, self)
        else:
            self.close()

    def data_received(self, data: bytes) -> None:
        """Pass on the messages."""
        if self._is_trusted:
            self._guarded(self._receive, data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's name
        """Pass on the end."""
        self._guarded(self._owner.on_disconnected, self)

    def write(self, messages: Sequence[Message]) -> None:
        """Send messages; they are lost where the connection has ended."""
        if self._transport is not None and messages:
            self._transport.write(encoded(messages))

    def close(self) -> None:
        """End the connection at once."""
        self._is_trusted = False
        if self._transport is not None:
            self._transport.abort()

    @property
    def descriptor(self) -> int:
        """The open socket; -1 for none."""
        found = None if self._transport is None else self._transport.get_extra_info("socket")
        return -1 if found is None else found.fileno()

    def _receive(self, data: bytes) -> None:
        try:
            self._owner.on_messages(self, list(self._decoder.decode(data)))
        except (ValueError, ArithmeticError):
            self.close()


class Greeting:
    """The first messages of a member: the permits that it holds."""

    def __init__(self, since: float) -> None:
        """Wait for `HELLO`."""
        self.since = since
        self.held: dict[int, None] = {}
        self._missing: int | None = None

    def take(self, messages: Sequence[Message]) -> Sequence[Message] | None:
        """Return the messages after the greeting; None where it is not yet whole. Raises `ValueError` for others."""
        for at, message in enumerate(messages):
            if self._missing is None and message.kind == Kind.HELLO and message.number <= _MAX_HELD:
                self._missing = message.number
            elif self._missing and message.kind == Kind.HELD and message.number not in self.held:
                self.held[message.number] = None
                self._missing -= 1
            else:
                raise ValueError(message)
            if self._missing == 0:
                return messages[at + 1 :]
        return None
