"""A member's side of a group: its connection to the broker, and the watch over it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from spark_llm.coordination.broker_side import BEAT_S, LATE_S, LEASE_S
from spark_llm.coordination.fairness import SILENT_S
from spark_llm.coordination.links import Link
from spark_llm.coordination.member import PermitMember
from spark_llm.coordination.messages import Kind, Message
from spark_llm.coordination.worker import Worker

CONNECT_S = 1.0
GRACE_S = 0.5  # how long permits hold without a broker; a new one grants nothing before all others could join it
PATIENT_S = 0.005  # how long messages wait that no worker waits for
_SOON_S = 0.05


class OnEnd(Protocol):
    """What a member does without its broker."""

    def __call__(self, *, was_heard: bool, stands_still: bool) -> None:
        """Look for another; the broker said something before, or nothing yet."""


class MemberSide:
    """The connection to the host's broker."""

    def __init__(
        self, worker: Worker, member: PermitMember, path: str, has_lock: Callable[[], bool], on_end: OnEnd
    ) -> None:
        """Connect to the broker that listens at `path` and has the lock; `on_end` is told once that it has ended."""
        self.was_heard = False
        self._worker = worker
        self._member = member
        self._path = path
        self._has_lock = has_lock
        self._on_end: OnEnd | None = on_end
        self._link: Link | None = None
        self._heard_at = worker.now()
        self._lease_until = self._heard_at + LEASE_S
        self._flushing = worker.alarm(self._flush)
        self._beating = worker.alarm(self._beat)
        self._connecting = worker.loop.create_task(self._connect())
        self._beating.set(self._heard_at + BEAT_S)
        member.on_due = self.flush_soon

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """What is still to end after `close`."""
        return [self._connecting]

    @property
    def descriptors(self) -> list[int]:
        """The open socket, which a child process must not keep."""
        return [] if self._link is None else [self._link.descriptor]

    def flush_soon(self) -> None:
        """Send the member's messages: in this turn of the loop where another worker may wait for them."""
        now = self._worker.now()
        self._flushing.set(now if self._member.is_urgent else now + PATIENT_S)

    def close(self) -> None:
        """End the connection; its permits go back to the broker."""
        self._on_end = None
        self._flushing.close()
        self._beating.close()
        self._connecting.cancel()
        if self._link is not None:
            self._link.close()
            self._link = None

    def on_connected(self, link: Link) -> None:
        """Tell the broker which permits are held."""
        if self._on_end is None:  # it was closed meanwhile
            link.close()
            return
        self._link = link
        self._heard_at = self._worker.now()
        link.write(self._member.join(self._heard_at))
        self._renew(self._heard_at)
        self._flush()

    def on_messages(self, link: Link, messages: Sequence[Message]) -> None:  # noqa: ARG002 -- there is one
        """Take permits and the broker's state."""
        self.was_heard = True
        self._heard_at = self._worker.now()
        if self._member.receive(messages, self._heard_at):
            self._worker.pump()
        self.flush_soon()

    def on_disconnected(self, link: Link) -> None:  # noqa: ARG002 -- there is one
        """Take note that the broker has ended, or has taken this worker's permits back."""
        self._end()

    async def _connect(self) -> None:
        connecting = self._worker.loop.create_unix_connection(lambda: Link(self._worker, self), self._path)
        try:
            await asyncio.wait_for(connecting, CONNECT_S)
        except (OSError, asyncio.TimeoutError):  # nobody listens yet
            self._worker.guarded(self._end)

    def _end(self, *, stands_still: bool = False) -> None:
        on_end = self._on_end
        if on_end is not None:
            now = self._worker.now()
            self.close()
            self._member.leave(now)
            if self.was_heard:
                self._member.renew(now, now + GRACE_S)
            on_end(was_heard=self.was_heard, stands_still=stands_still)

    def _flush(self) -> None:
        if self._link is not None:
            self._link.write(self._member.flush())

    def _renew(self, now: float) -> None:
        self._lease_until = now + LEASE_S
        if self._member.renew(now, self._lease_until):
            self._worker.pump()

    def _beat(self) -> None:
        """Give a sign of life, and look for the broker's."""
        now = self._worker.now()
        is_late = now - self._beating.due > LATE_S  # then the broker's signs are still to be read
        # One that lives finds out itself that it was replaced; until then it would grant this worker's permits again.
        is_overdue = now - self._heard_at > BEAT_S + LATE_S
        if (self._link is not None and now > self._lease_until) or (is_overdue and not self._has_lock()):
            self._end()
        elif not is_late and now - self._heard_at > SILENT_S:
            self._end(stands_still=True)
        else:
            # Others may have heard it last a beat earlier, and replace it: then this worker has to be there in time.
            self._beating.set(now + (_SOON_S if is_overdue else BEAT_S))
            if self._link is not None:
                self._link.write([Message(Kind.ALIVE)])
                self._renew(now)
