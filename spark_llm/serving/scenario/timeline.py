"""Counts by the second, over the last five minutes. The time is an argument."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

SECONDS = 300


@dataclass
class _Second:
    in_flight: int
    requests: int = 0
    tokens: int = 0
    disconnects: int = 0
    by_status: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Series:
    """One number for each of the last 300 seconds, oldest first; the last is the second that still runs.

    Attributes:
        in_flight: The maximum of requests in flight.
        requests: Requests that arrived.
        tokens: Tokens, as answers reported them.
        disconnects: Requests without a response.
        by_status: Responses, by each HTTP status that occurs.
    """

    in_flight: list[int]
    requests: list[int]
    tokens: list[int]
    disconnects: list[int]
    by_status: Mapping[int, list[int]]


class Timeline:
    """Counts by the second, and forgets all older than five minutes."""

    def __init__(self) -> None:
        self._seconds: deque[_Second] = deque((_Second(0) for _ in range(SECONDS)), maxlen=SECONDS)
        self._number = 0  # of the last second
        self._in_flight = 0

    def add(self, amounts: Mapping[str, int], status: int | None, now: float) -> None:
        """Count a change at `now`: amounts by the names of `Stats`, and the status of a response."""
        self._advance(now)
        second = self._seconds[-1]
        self._in_flight += amounts.get("in_flight", 0)
        second.in_flight = max(second.in_flight, self._in_flight)
        second.requests += amounts.get("requests", 0)
        second.tokens += amounts.get("total_tokens", 0)
        second.disconnects += amounts.get("disconnects", 0)
        if status is not None:
            second.by_status[status] = second.by_status.get(status, 0) + 1

    def series(self, now: float) -> Series:
        """Return the last five minutes; requests in flight stay so in a second without a change."""
        self._advance(now)
        seconds = self._seconds
        statuses = sorted({status for second in seconds for status in second.by_status})
        return Series(
            in_flight=[second.in_flight for second in seconds],
            requests=[second.requests for second in seconds],
            tokens=[second.tokens for second in seconds],
            disconnects=[second.disconnects for second in seconds],
            by_status={status: [second.by_status.get(status, 0) for second in seconds] for status in statuses},
        )

    def _advance(self, now: float) -> None:
        if int(now) == self._number:
            return
        missing = min(int(now) - self._number, SECONDS)
        self._seconds.extend(_Second(self._in_flight) for _ in range(missing))
        self._number = max(self._number, int(now))
