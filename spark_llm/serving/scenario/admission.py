"""Who may begin, who waits in line and who is refused: the rule behind a `Capacity`.

It reads no clock and wakes nobody: the time is an argument, and what it returns is for the `Gate` to act on.
"""

from bisect import bisect_right
from collections.abc import Hashable
from itertools import islice
from math import inf
from typing import Generic, TypeVar

from spark_llm.serving.scenario.capacity import Capacity, Quota
from spark_llm.serving.scenario.faults import Fault

_ADMITTED = Fault()
Who = TypeVar("Who", bound=Hashable)


class Admission(Generic[Who]):
    """The requests in line and in work under one capacity, and what has been spent of its quotas.

    A request arrives, begins when it is its turn, and leaves, from the line as well. `now` never goes back.

    Attributes:
        in_work: Who has begun and has not left.
        line: Who waits, first come first.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.in_work: set[Who] = set()
        self.line: dict[Who, None] = {}  # a set that keeps the order
        self.reset(capacity, now=0.0)

    def reset(self, capacity: Capacity, now: float) -> None:
        """Begin with `capacity` and nothing spent; who is in line or in work stays there."""
        self.capacity = capacity
        # The steps count from the first request, but whoever waits in line already must not wait for that one too.
        self._first = now if self.line else None
        self._arrivals = 0
        self._requests = _Spent(capacity.window_s)
        self._tokens = _Spent(capacity.window_s)

    def arrive(self, who: Who, now: float) -> Fault:
        """Put a request in line and return the fault that is none, or return its refusal."""
        self._first = now if self._first is None else self._first
        self._arrivals += 1
        capacity = self._capacity(now)
        fault = self._fault(capacity, now)
        admitted = fault.refusal is None
        if admitted or (capacity.quota is not None and capacity.quota.refusals_count):
            self._requests.add(1, now)
        if admitted:
            self.line[who] = None
        return fault

    def begin(self, now: float) -> list[Who]:
        """Return those whose turn it is, in the order of the line; they are in work from now on."""
        limit = self._capacity(now).concurrency
        room = len(self.line) if limit is None else max(0, limit - len(self.in_work))
        begun = list(islice(self.line, room))
        for who in begun:
            del self.line[who]
        self.in_work.update(begun)
        return begun

    def spend(self, tokens: int, now: float) -> None:
        """Count the tokens of an answer."""
        self._tokens.add(tokens, now)

    def leave(self, who: Who) -> None:
        """Free the place of a request, in work or in line."""
        self.in_work.discard(who)
        self.line.pop(who, None)

    def next_step_s(self, now: float) -> float | None:
        """Return the seconds until time alone changes the capacity; None where nobody waits for that."""
        if not self.line:
            return None
        elapsed_s = self._elapsed_s(now)
        times = (after.elapsed_s for after, _ in self.capacity.steps if after.elapsed_s is not None)
        return min((time - elapsed_s for time in times if time > elapsed_s), default=None)

    def _capacity(self, now: float) -> Capacity:
        # A request begins under the capacity that it was admitted by, so a step comes with a request, not after one.
        return self.capacity.at(elapsed_s=self._elapsed_s(now), requests=max(0, self._arrivals - 1))

    def _elapsed_s(self, now: float) -> float:
        return 0.0 if self._first is None else now - self._first

    def _fault(self, capacity: Capacity, now: float) -> Fault:
        if capacity.quota is not None and self._is_spent(capacity.quota, now):
            return capacity.quota.refusal
        full = capacity.concurrency is not None and len(self.in_work) + len(self.line) >= capacity.concurrency
        return capacity.refusal if full and not capacity.queue else _ADMITTED

    def _is_spent(self, quota: Quota, now: float) -> bool:
        return any(
            limit is not None and spent.since(now - quota.window_s) >= limit
            for limit, spent in ((quota.requests, self._requests), (quota.tokens, self._tokens))
        )


class _Spent:
    """Amounts and when they were spent, as far back as a window of `keep_s` looks."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        # The sums up to each time; the first one stands for all that is forgotten.
        self._times, self._sums = [-inf], [0]

    def add(self, amount: int, now: float) -> None:
        forgotten = bisect_right(self._times, now - self._keep_s) - 1
        del self._times[:forgotten], self._sums[:forgotten]
        self._times.append(now)
        self._sums.append(self._sums[-1] + amount)

    def since(self, time: float) -> int:
        """Return what was spent after `time`."""
        return self._sums[-1] - self._sums[bisect_right(self._times, time) - 1]
