"""What a group needs of its worker's engine: the event loop, the demand of its scheduler, and a way to wake it."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from spark_llm.coordination.member import Demand


@dataclass(frozen=True)
class Worker:
    """One engine of this process, as its group sees it; everything runs on its event loop."""

    loop: asyncio.AbstractEventLoop
    guarded: Callable[..., None]  # calls a function, and hands its exception to the engine
    demand: Callable[[], Demand]
    queued: Callable[[], int]  # requests that wait, those included that may not go yet, such as retries
    pump: Callable[[], None]  # sends what may go
    connections: int  # that it may open
    now: Callable[[], float]  # the loop's time, by `clock`

    def alarm(self, callback: Callable[[], None]) -> "Alarm":
        """Return an alarm that calls back on the loop."""
        return Alarm(self, callback)


class Alarm:
    """A timer that is set again and again, and rings at the earliest time that it was set to."""

    def __init__(self, worker: Worker, callback: Callable[[], None]) -> None:
        """Begin without a time."""
        self.due = 0.0  # the time that it was last set to
        self._worker = worker
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None
        self._is_closed = False

    def set(self, at: float) -> None:
        """Ring at this time, unless it is set to an earlier one, or was closed."""
        if self._is_closed:
            return
        if self._handle is not None:
            if at >= self.due:
                return
            self._handle.cancel()
        self.due = at
        self._handle = self._worker.loop.call_at(at, self._ring)

    def close(self) -> None:
        """Never ring again."""
        self._is_closed = True
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _ring(self) -> None:
        self._handle = None
        self._worker.guarded(self._callback)


def clock(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return a function for the loop's time as it is now.

    The time of uvloop's loop is that of its last look at the sockets. A thread that holds the GIL makes it seconds old,
    and a permit of that time may be another worker's by now.
    """
    ahead_s = loop.time() - time.monotonic()
    return time.monotonic if abs(ahead_s) < 1.0 else lambda: time.monotonic() + ahead_s
