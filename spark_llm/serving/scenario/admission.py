"""Admission control: which requests start, which wait in the queue and which are refused under a `Capacity`.

It reads no clock and wakes no request: the time is an argument, and the `Gate` acts on the results.
"""

from bisect import bisect_right
from collections.abc import Hashable
from itertools import islice
from math import inf
from typing import Generic, TypeVar

from spark_llm.serving.scenario.capacity import Capacity, Quota
from spark_llm.serving.scenario.faults import Fault

_ADMITTED = Fault()
_NO_FLEX = Fault("flex")
RequestKey = TypeVar("RequestKey", bound=Hashable)


class Admission(Generic[RequestKey]):
    """The requests in the queue and in work under one capacity, and what is spent of its quotas.

    A request arrives, starts in its turn, and leaves; it may also leave the queue. `now` never goes back.

    Attributes:
        in_work: The requests that have started and not left.
        queue: The waiting requests, in order of arrival.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.in_work: set[RequestKey] = set()
        self.queue: dict[RequestKey, None] = {}  # a set that keeps the order
        self.reset(capacity, now=0.0)

    def reset(self, capacity: Capacity, now: float) -> None:
        """Begin with `capacity` and nothing spent; requests in the queue or in work stay there."""
        self.capacity = capacity
        # Steps count from the first request; with a queue already there, they count from the reset.
        self._first_arrival = now if self.queue else None
        self._arrivals = 0
        self._requests = _WindowedSum(capacity.window_s)
        self._tokens = _WindowedSum(capacity.window_s)

    def arrive(self, request: RequestKey, now: float, *, is_flex: bool = False) -> Fault:
        """Queue a request and return the fault "ok", or return its refusal; some are for the flex tier only."""
        self._first_arrival = now if self._first_arrival is None else self._first_arrival
        self._arrivals += 1
        capacity = self._capacity(now)
        fault = self._arrival_fault(capacity, now) if capacity.flex or not is_flex else _NO_FLEX
        is_admitted = fault.refusal is None
        if is_admitted or (capacity.quota is not None and capacity.quota.refusals_count):
            self._requests.add(1, now)
        if is_admitted:
            self.queue[request] = None
        return fault

    def start(self, now: float) -> list[RequestKey]:
        """Move requests from the queue into work while there is room; return them in the order of the queue."""
        concurrency = self._capacity(now).concurrency
        room = len(self.queue) if concurrency is None else max(0, concurrency - len(self.in_work))
        started = list(islice(self.queue, room))
        for request in started:
            del self.queue[request]
        self.in_work.update(started)
        return started

    def spend(self, tokens: int, now: float) -> None:
        """Count the tokens of an answer."""
        self._tokens.add(tokens, now)

    def leave(self, request: RequestKey) -> None:
        """Remove a request from work or from the queue."""
        self.in_work.discard(request)
        self.queue.pop(request, None)

    def next_step_s(self, now: float) -> float | None:
        """Return the seconds until a timed step changes the capacity; None without one, or without a queue."""
        if not self.queue:
            return None
        elapsed_s = self._elapsed_s(now)
        times = (after.elapsed_s for after, _ in self.capacity.steps if after.elapsed_s is not None)
        return min((time - elapsed_s for time in times if time > elapsed_s), default=None)

    def _capacity(self, now: float) -> Capacity:
        # A request starts under the capacity that admitted it, so a step takes effect with a request, not after one.
        return self.capacity.at(elapsed_s=self._elapsed_s(now), requests=max(0, self._arrivals - 1))

    def _elapsed_s(self, now: float) -> float:
        return 0.0 if self._first_arrival is None else now - self._first_arrival

    def _arrival_fault(self, capacity: Capacity, now: float) -> Fault:
        if capacity.quota is not None and self._is_spent(capacity.quota, now):
            return capacity.quota.refusal
        is_full = capacity.concurrency is not None and len(self.in_work) + len(self.queue) >= capacity.concurrency
        return capacity.refusal if is_full and not capacity.queue else _ADMITTED

    def _is_spent(self, quota: Quota, now: float) -> bool:
        return any(
            limit is not None and spent.since(now - quota.window_s) >= limit
            for limit, spent in ((quota.requests, self._requests), (quota.tokens, self._tokens))
        )


class _WindowedSum:
    """Sums amounts over a sliding window of at most `window_s` seconds."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        # The cumulative sums at each time; the first one covers all older amounts.
        self._times, self._sums = [-inf], [0]

    def add(self, amount: int, now: float) -> None:
        expired = bisect_right(self._times, now - self._window_s) - 1
        del self._times[:expired], self._sums[:expired]
        self._times.append(now)
        self._sums.append(self._sums[-1] + amount)

    def since(self, time: float) -> int:
        """Return the sum of the amounts after `time`."""
        return self._sums[-1] - self._sums[bisect_right(self._times, time) - 1]
