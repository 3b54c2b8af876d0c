"""The way to work: requests pass, wait or are refused here, as `Admission` says.

Lives on the endpoints' own loop, reads its clock and wakes those whose turn it is.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from spark_llm.serving.protocol.errors import Refused
from spark_llm.serving.scenario.admission import Admission
from spark_llm.serving.scenario.capacity import Capacity


class Gate:
    """Holds requests to a capacity."""

    def __init__(self, capacity: Capacity) -> None:
        self._admission: Admission[asyncio.Event] = Admission(capacity)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def capacity(self) -> Capacity:
        """The capacity, with all its steps."""
        return self._admission.capacity

    def reset(self, capacity: Capacity | None = None) -> None:
        """Begin with a new capacity, or again with the old one: nothing is spent, and no step has come."""
        now = time.monotonic()
        self._admission.reset(self.capacity if capacity is None else capacity, now)
        self._move(now)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place in work and keep it until the block ends; raises `Refused` where there is none."""
        turn = asyncio.Event()
        now = time.monotonic()
        fault = self._admission.arrive(turn, now)
        if fault.refusal is not None:
            raise Refused(fault.refusal, retry_after=fault.retry_after)
        try:
            self._move(now)
            await turn.wait()
            yield
        finally:
            self._admission.leave(turn)
            self._move(time.monotonic())

    def spend(self, tokens: int) -> None:
        """Count the tokens of an answer against the quota."""
        self._admission.spend(tokens, time.monotonic())

    def _move(self, now: float) -> None:
        """Wake those whose turn it is; while others wait, look again when the capacity's next step comes."""
        for turn in self._admission.begin(now):
            turn.set()
        if self._timer is not None:
            self._timer.cancel()
        wait_s = self._admission.next_step_s(now)
        if wait_s is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(wait_s, lambda: self._move(time.monotonic()))
