"""The gate before the models: it lets requests start, wait or be refused, as `Admission` decides.

It runs on the endpoints' event loop, reads the clock and wakes waiting requests.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from spark_llm.serving.protocol.errors import Refused
from spark_llm.serving.scenario.admission import Admission
from spark_llm.serving.scenario.capacity import Capacity


class Gate:
    """Applies a capacity to the requests."""

    def __init__(self, capacity: Capacity) -> None:
        self._admission: Admission[asyncio.Event] = Admission(capacity)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def capacity(self) -> Capacity:
        """The capacity, with all its steps."""
        return self._admission.capacity

    def reset(self, capacity: Capacity | None = None) -> None:
        """Begin with a new capacity, or again with the old one: nothing is spent, and no step has passed."""
        now = time.monotonic()
        self._admission.reset(self.capacity if capacity is None else capacity, now)
        self._start_waiting(now)

    @asynccontextmanager
    async def slot(self, *, is_flex: bool = False) -> AsyncIterator[None]:
        """Wait for a slot and keep it until the block ends; raises `Refused` when the capacity refuses."""
        started = asyncio.Event()
        now = time.monotonic()
        fault = self._admission.arrive(started, now, is_flex=is_flex)
        if fault.refusal is not None:
            raise Refused(fault.refusal, retry_after=fault.retry_after)
        try:
            self._start_waiting(now)
            await started.wait()
            yield
        finally:
            self._admission.leave(started)
            self._start_waiting(time.monotonic())

    def spend(self, tokens: int) -> None:
        """Count the tokens of an answer against the quota."""
        self._admission.spend(tokens, time.monotonic())

    def _start_waiting(self, now: float) -> None:
        """Wake the requests that can start; with others in the queue, come back at the capacity's next step."""
        for started in self._admission.start(now):
            started.set()
        if self._timer is not None:
            self._timer.cancel()
        wait_s = self._admission.next_step_s(now)
        if wait_s is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(wait_s, lambda: self._start_waiting(time.monotonic()))
