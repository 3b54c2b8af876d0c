"""Time limits of an event loop: one for many tasks, and one for the pauses of a long transfer."""

import asyncio
import sys
from types import TracebackType


class Deadline:
    """A timeout for many tasks with one limit: an overdue task gets `asyncio.TimeoutError`, as by `asyncio.timeout`.

    The limit is the same for all, so the first to enter is the first to be due, and one timer is enough. A timer for
    each request would be a tenth of a request's cost.
    """

    def __init__(self, seconds: float) -> None:
        """Give each task that enters `seconds`, on the running loop."""
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._deadlines: dict[asyncio.Task[object], float] = {}  # in the order of entering, so of time
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        due = self._loop.time() + self._seconds
        self._deadlines[self._current_task()] = due
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._cancel_overdue)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task = self._current_task()
        if self._deadlines.pop(task, None) is not None:
            return
        cancelled_by_others = sys.version_info >= (3, 11) and task.uncancel() > 0
        if kind is asyncio.CancelledError and not cancelled_by_others:
            raise asyncio.TimeoutError from error

    def close(self) -> None:
        """Cancel no further task."""
        if self._timer is not None:
            self._timer.cancel()

    def _cancel_overdue(self) -> None:
        self._timer = None
        for task, due in list(self._deadlines.items()):
            if due > self._loop.time():
                self._timer = self._loop.call_at(due, self._cancel_overdue)
                return
            del self._deadlines[task]
            task.cancel()

    def _current_task(self) -> "asyncio.Task[object]":
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("A deadline needs a running task.")
        return task


class IdleLimit(Deadline):
    """A timeout for one task that may take any time as long as it goes on: each `touch` gives it its seconds again."""

    def __enter__(self) -> None:
        self._task = self._current_task()
        super().__enter__()

    def touch(self) -> None:
        """Begin the time anew, from any task of the loop; an overdue task stays so."""
        if self._task in self._deadlines:
            self._deadlines[self._task] = self._loop.time() + self._seconds

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        super().__exit__(kind, error, traceback)
