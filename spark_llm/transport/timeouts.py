"""One time limit for many tasks of an event loop."""

import asyncio
import sys
from types import TracebackType


class Deadline:
    """What `asyncio.timeout` does, for many tasks that all have the same time: `with` it, one is called off when late.

    As the time is the same, who came first is due first: one timer is enough, set for whoever has waited longest. A
    timer for each request is a tenth of what a request costs.
    """

    def __init__(self, seconds: float) -> None:
        """Give everybody who enters so many `seconds`; belongs to the running loop."""
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._due: dict[asyncio.Task[object], float] = {}  # in the order of entering, so of the times too
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        due = self._loop.time() + self._seconds
        self._due[self._task()] = due
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._call_off_the_late)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task = self._task()
        if self._due.pop(task, None) is not None:
            return
        called_off_by_others = sys.version_info >= (3, 11) and task.uncancel() > 0
        if kind is asyncio.CancelledError and not called_off_by_others:
            raise asyncio.TimeoutError from error

    def close(self) -> None:
        """Call nobody off any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _call_off_the_late(self) -> None:
        self._timer = None
        for task, due in list(self._due.items()):
            if due > self._loop.time():
                self._timer = self._loop.call_at(due, self._call_off_the_late)
                return
            del self._due[task]
            task.cancel()

    def _task(self) -> "asyncio.Task[object]":
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("Only a task can be called off.")
        return task
