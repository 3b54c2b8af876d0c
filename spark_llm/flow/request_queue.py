"""The queue in front of one endpoint: new requests in the order of their rows, retries by the time they are due."""

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

from spark_llm.flow.negotiation import WireFormatNegotiation
from spark_llm.flow.request import Request


class RequestQueue:
    """Requests that wait to be sent; none of them holds a slot of the window."""

    def __init__(self, takes_last: Callable[[WireFormatNegotiation], bool]) -> None:
        """Begin empty; `takes_last` returns whether a task's next new request is the last in line."""
        self.new: deque[Request] = deque()
        self._retries: list[tuple[float, int, Request]] = []
        self._serial = 0
        self._takes_last = takes_last

    def push_retry(self, request: Request, due: float) -> None:
        """Add a request to send again, at this time or later."""
        self._serial += 1
        heapq.heappush(self._retries, (due, self._serial, request))

    def push_split(self, request: Request, now: float) -> None:
        """Add a request of several inputs, one of which is bad: its parts are sent by themselves."""
        request.doubt, request.has_bad_input = None, True
        self.push_retry(request, now)

    def head(self, now: float, *, takes_new: bool = False) -> tuple[float, Request | None]:
        """Return the time and the request whose turn is next: a retry that is due, or a new one.

        As long as nothing was answered a new one waits for the retry: the endpoint, or the whole job, may be wrong.
        Otherwise `takes_new` prefers the last new one, whose row is far from those that failed.
        """
        if self._retries:
            due, _, request = self._retries[0]
            if takes_new and self.new and self.new[-1].negotiation.answered:
                return now, self.new[-1]
            if due <= now and len(request.inputs) > 1 and self.new and self._takes_last(self.new[-1].negotiation):
                return now, self.new[-1]
            if due <= now or not self.new or not self.new[0].negotiation.answered:
                return due, request
        if not self.new:
            return now, None
        return now, self.new[-1] if self._takes_last(self.new[0].negotiation) else self.new[0]

    def remove(self, head: Request) -> None:
        """Remove the request that `head` returned."""
        if self._retries and self._retries[0][2] is head:
            heapq.heappop(self._retries)
        elif self.new[0] is head:
            self.new.popleft()
        else:
            self.new.pop()

    def retry_due(self, now: float) -> float:
        """Return when the next retry is due; `now` where there is none."""
        return self._retries[0][0] if self._retries else now

    def due_count(self, now: float, limit: int) -> int:
        """Return how many requests are new or due, up to a limit."""
        count = min(len(self.new), limit)
        retries = (True for due, _, _ in self._retries if due <= now)
        return count + sum(islice(retries, limit - count))

    def holds(self, negotiation: WireFormatNegotiation) -> bool:
        """Return whether a request of this task waits here."""
        return any(request.negotiation is negotiation for request in self)

    def drop(self, owner: object) -> list[Request]:
        """Remove the requests of a stream and return them."""
        dropped = [request for request in self if request.owner is owner]
        self.new = deque(request for request in self.new if request.owner is not owner)
        self._retries = [entry for entry in self._retries if entry[2].owner is not owner]
        heapq.heapify(self._retries)
        return dropped

    def __iter__(self) -> Iterator[Request]:
        """Yield the new requests, then the retries."""
        yield from self.new
        yield from (request for _, _, request in self._retries)

    def __len__(self) -> int:
        """Return how many requests wait."""
        return len(self.new) + len(self._retries)
