"""The broker's side of a group: it listens for members, and carries their messages to the broker and back."""

import asyncio
import json
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from spark_llm.coordination.broker import PermitBroker
from spark_llm.coordination.fairness import SILENT_S
from spark_llm.coordination.links import Greeting, Link
from spark_llm.coordination.messages import Message
from spark_llm.coordination.place import Place
from spark_llm.coordination.worker import Worker

BEAT_S = 0.5  # between two signs of life
LATE_S = 0.25  # a timer that rings so late says that this process stood still itself
LEASE_S = 1.5  # for which a sign of life lets a worker use permits: less than others wait for the next
AGAIN_S = 0.1  # before a broker that stood still grants permits again: others may be about to replace it
_FULL_S = 1.0  # after which to accept again, where this process has too many files open


class Predecessor(NamedTuple):
    """A broker that stood still; its requests count until it is a member, or until this time."""

    pid: int
    until: float


class BrokerSide:
    """The socket that members connect to."""

    def __init__(
        self,
        worker: Worker,
        broker: PermitBroker,
        place: Place,
        on_lock_lost: Callable[[], None],
        on_idle: Callable[[], None],
        *,
        awaited: Iterable[int] = (),
        predecessor: Predecessor | None = None,
    ) -> None:
        """Listen at the place, whose lock this process has until `on_lock_lost` is called; `start` does the rest.

        `on_idle` is called when this worker has nothing to do and others have. When the `awaited` processes, the
        members of the broker before, have joined, permits may be granted.
        """
        self._worker = worker
        self._broker = broker
        self._place = place
        self._on_lock_lost = on_lock_lost
        self._on_idle = on_idle
        self._is_idle = False
        self._awaited = Counter(awaited)
        self._predecessor = predecessor
        self._accepting = dict[asyncio.Task[None], socket.socket]()
        self._greetings: dict[Link, Greeting] = {}
        self._keys: dict[Link, int] = {}
        self._links: dict[int, Link] = {}
        self._joined = 0
        self._is_closed = False
        self._lease_until = worker.now() + LEASE_S
        self._own_peak = 0  # most requests of its own worker since the last sign of life
        self._own_written = 0  # the same, as the state's file has it
        self._granting = worker.alarm(self._grant)
        self._beating = worker.alarm(self._beat)
        self._releasing = worker.alarm(self._release)
        self._reopening = worker.alarm(self._listen)
        self._listener = place.listen()

    def start(self) -> None:
        """Accept members, and grant permits."""
        self._broker.on_due = self.grant_soon
        self._broker.renew(self._worker.now(), self._lease_until)
        self._listen()
        self._beating.set(self._worker.now())
        if self._predecessor is not None:
            self._releasing.set(self._worker.now() + BEAT_S)

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """What is still to end after `close`."""
        return list(self._accepting)

    @property
    def descriptors(self) -> list[int]:
        """The open sockets, which a child process must not keep."""
        accepted = [connected.fileno() for connected in self._accepting.values()]
        return [self._listener.fileno(), *accepted, *(link.descriptor for link in (*self._greetings, *self._keys))]

    def grant_soon(self) -> None:
        """Grant what may go, once in this turn of the loop."""
        self._granting.set(self._worker.now())

    def close(self) -> None:
        """End all connections, and write down what a successor has to know."""
        self._is_closed = True
        self._write_state()
        for alarm in (self._granting, self._beating, self._releasing, self._reopening):
            alarm.close()
        if self._listener.fileno() >= 0:
            self._worker.loop.remove_reader(self._listener)
            self._listener.close()
        for accepting, connected in self._accepting.items():
            accepting.cancel()
            connected.close()
        for link in (*self._greetings, *self._keys):
            link.close()
        self._greetings.clear()  # nothing happens when they are told that their connections have ended
        self._keys.clear()

    def on_connected(self, link: Link) -> None:
        """Wait for the member's greeting."""
        if self._is_closed:  # while it was accepted
            link.close()
            return
        self._greetings[link] = Greeting(self._worker.now())

    def on_messages(self, link: Link, messages: Sequence[Message]) -> None:
        """Hand a member's messages to the broker."""
        now = self._worker.now()
        greeting = self._greetings.get(link)
        if greeting is not None:
            rest = greeting.take(messages)
            if rest is None:
                return
            messages = rest
            del self._greetings[link]
            self._join(link, list(greeting.held), now)
        if self._broker.receive(self._keys[link], messages, now):
            self._worker.pump()
        self.grant_soon()

    def on_disconnected(self, link: Link) -> None:
        """Take back what the member held."""
        self._greetings.pop(link, None)
        key = self._keys.pop(link, None)
        if key is not None:
            del self._links[key]
            self._broker.leave(key)
            self.grant_soon()

    def _join(self, link: Link, held: Sequence[int], now: float) -> None:
        self._joined += 1
        key = self._keys[link] = self._joined
        self._links[key] = link
        if self._predecessor is not None and link.peer_pid == self._predecessor.pid:
            self._broker.hand_over.release()
        self._broker.join(key, held, now)
        if self._awaited:
            self._awaited -= Counter([link.peer_pid or 0])
            if not self._awaited:
                self._broker.hand_over.held_until = now
        link.write(self._broker.heartbeat(now)[key])
        self._write_state()

    def _listen(self) -> None:
        self._worker.loop.add_reader(self._listener, self._worker.guarded, self._accept)

    def _accept(self) -> None:
        """Accept all who wait; an asyncio server may remove the path at its end, which is a successor's by then."""
        while True:
            try:
                connected, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # too many open files
                self._worker.loop.remove_reader(self._listener)
                self._reopening.set(self._worker.now() + _FULL_S)
                return
            connected.setblocking(False)
            accepting = self._worker.loop.create_task(self._take(connected))
            self._accepting[accepting] = connected
            accepting.add_done_callback(self._accepting.pop)

    async def _take(self, connected: socket.socket) -> None:
        try:
            await self._worker.loop.connect_accepted_socket(lambda: Link(self._worker, self), connected)
        except OSError:  # it has gone again
            connected.close()

    def _grant(self) -> None:
        now = self._worker.now()
        for key, messages in self._broker.grants(now).items():
            self._links[key].write(messages)
        if (due := self._broker.next_due(now)) is not None:
            self._granting.set(max(due, now + 0.001))
        if self._broker.available(now) and self._worker.demand().requests:
            self._worker.pump()
        self._own_peak = max(self._own_peak, self._broker.in_flight)
        if self._own_peak > self._own_written:
            self._write_state()

    def _beat(self) -> None:
        """Give a sign of life, and look after members that give none."""
        if not self._place.is_held:
            self._on_lock_lost()
            return
        now = self._worker.now()
        stood_still, self._lease_until = now > self._lease_until, now + LEASE_S
        if not stood_still:
            self._broker.renew(now, self._lease_until)
        if now - self._beating.due < LATE_S:  # else there are messages to read before
            self._end_silent(now)
        self._beating.set(now + (AGAIN_S if stood_still else BEAT_S))
        for key, messages in self._broker.heartbeat(now).items():
            self._links[key].write(messages)
        self._write_state()
        self._own_peak = 0
        self._grant()
        was_idle, self._is_idle = self._is_idle, self._broker.is_idle
        if was_idle and self._is_idle:
            self._on_idle()

    def _end_silent(self, now: float) -> None:
        silent = [self._links[key] for key in self._broker.silent_members(now)]
        mute = [link for link, greeting in self._greetings.items() if now - greeting.since > SILENT_S]
        for link in (*silent, *mute):
            link.close()

    def _release(self) -> None:
        """Count a predecessor's requests no more when they are over, or when nothing else would go."""
        now, others = self._worker.now(), [member for member in self._broker.members.values() if member.out]
        if self._predecessor is None or now >= self._predecessor.until or not (others or self._broker.in_flight):
            self._broker.hand_over.release()
            self.grant_soon()
        else:
            self._releasing.set(min(self._predecessor.until, now + BEAT_S))

    def _write_state(self) -> None:
        """Write down what a successor has to know."""
        if self._place.is_held:
            snapshot = self._broker.snapshot(self._worker.now())
            self._own_written = max(self._own_peak, snapshot["own"])
            pids = [link.peer_pid or 0 for link in self._keys]
            state = {"pid": os.getpid(), "pids": pids, **snapshot, "own": self._own_written}
            self._place.write_state(json.dumps(state).encode())
