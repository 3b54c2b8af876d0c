"""What was asked and answered, counted exactly, for readers in other threads.

Only the endpoints' own loop writes, under a lock, and each change wakes those who wait for one. An answer is counted
before its first byte is sent, so whoever has an answer finds it counted. Knows no HTTP library.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from spark_llm.serving.protocol.requests import Usage

MOST_RECORDED = 10_000


@dataclass(frozen=True)
class Stats:
    """The counters at one moment: of all endpoints, or of one.

    Whatever was asked is somewhere: `requests` is the sum of `by_status`, `in_flight` and `disconnects`.

    Attributes:
        requests: Requests that arrived for a model, whatever became of them.
        by_status: Responses by HTTP status; a cut one counts by the status that it began with.
        rows_asked: Inputs in well-formed requests: a conversation, each prompt, each text to embed.
        rows_answered: Inputs in requests that were answered whole.
        prompt_tokens: Tokens of the inputs, as answers reported them.
        completion_tokens: Tokens of the replies, as answers reported them.
        total_tokens: Both together.
        in_flight: Requests that have arrived and have no response yet.
        max_in_flight: The most that were in flight at once.
        in_work: Requests that have passed the capacity and are held, late, with the model, or dripping.
        max_in_work: The most that were in work at once.
        disconnects: Requests that ended with no response: the client went away, or the endpoints were stopped.
        endpoints: The same counters for each endpoint that was asked, by its name.
    """

    requests: int = 0
    by_status: Mapping[int, int] = field(default_factory=dict)
    rows_asked: int = 0
    rows_answered: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    in_work: int = 0
    max_in_work: int = 0
    disconnects: int = 0
    endpoints: Mapping[str, "Stats"] = field(default_factory=dict)


class Recorded(NamedTuple):
    """A request as it arrived: `body` is None where it was no JSON object; the token's value is left out."""

    endpoint: str
    body: Mapping[str, Any] | None
    headers: Mapping[str, str]
    path: str


class _Tally:
    """The counters of `Stats`, while they change."""

    def __init__(self) -> None:
        self.requests = self.rows_asked = self.rows_answered = self.prompt_tokens = self.completion_tokens = 0
        self.total_tokens = self.in_flight = self.max_in_flight = self.disconnects = 0
        self.in_work = self.max_in_work = 0
        self.by_status: dict[int, int] = {}
        self.endpoints: dict[str, _Tally] = {}

    def begin(self) -> None:
        self.requests += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def begin_work(self) -> None:
        self.in_work += 1
        self.max_in_work = max(self.max_in_work, self.in_work)

    def end_work(self) -> None:
        self.in_work -= 1

    def end(self, status: int, rows: int, usage: Usage | None) -> None:
        self.in_flight -= 1
        self.by_status[status] = self.by_status.get(status, 0) + 1
        self.rows_answered += rows
        if usage is not None:
            self.prompt_tokens += usage.prompt_tokens
            self.completion_tokens += usage.completion_tokens
            self.total_tokens += usage.total_tokens

    def leave(self) -> None:
        self.in_flight -= 1
        self.disconnects += 1

    def snapshot(self) -> Stats:
        values: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(Stats)}
        values["by_status"] = dict(sorted(self.by_status.items()))
        values["endpoints"] = {name: tally.snapshot() for name, tally in sorted(self.endpoints.items())}
        return Stats(**values)


class Ticket:
    """One request's place in the ledger, from its arrival to its response."""

    def __init__(self, change: threading.Condition, total: _Tally, recorded: deque[Recorded]) -> None:
        """Count an arrival; `number` is how many came before it."""
        self._change = change
        self._tallies = [total]
        self._recorded = recorded
        with change:
            self.number = total.requests
            total.begin()
            change.notify_all()

    def record(self, request: Recorded) -> None:
        """Keep it for tests to read."""
        with self._change:
            self._recorded.append(request)
            self._change.notify_all()

    def name(self, endpoint: str) -> None:
        """Count it for this endpoint as well."""
        with self._change:
            tally = self._tallies[0].endpoints.setdefault(endpoint, _Tally())
            self._tallies.append(tally)
            tally.begin()
            self._change.notify_all()

    def ask(self, rows: int) -> None:
        """Count the rows that it brings."""
        with self._change:
            for tally in self._tallies:
                tally.rows_asked += rows
            self._change.notify_all()

    @contextmanager
    def in_work(self) -> Iterator[None]:
        """Count it as in work until the block ends."""
        self._all(_Tally.begin_work)
        try:
            yield
        finally:
            self._all(_Tally.end_work)

    def end(self, status: int, rows: int = 0, usage: Usage | None = None) -> None:
        """Count its response, and what that answered."""
        self._all(lambda tally: tally.end(status, rows, usage))

    def leave(self) -> None:
        """Count that the client went away."""
        self._all(_Tally.leave)

    def _all(self, count: Callable[[_Tally], None]) -> None:
        with self._change:
            for tally in self._tallies:
                count(tally)
            self._change.notify_all()


class Ledger:
    """All counters, and the last requests as they came."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._total = _Tally()
        self._recorded: deque[Recorded] = deque(maxlen=MOST_RECORDED)

    def arrive(self) -> Ticket:
        """Count a request that arrives."""
        return Ticket(self._change, self._total, self._recorded)

    @property
    def recorded(self) -> deque[Recorded]:
        """The last 10,000 requests, as a copy that no longer changes."""
        with self._change:
            return self._recorded.copy()

    @property
    def stats(self) -> Stats:
        """The counters at this moment."""
        with self._change:
            return self._total.snapshot()

    def reset(self) -> None:
        """Begin again at zero; what is in flight is counted nowhere any more."""
        with self._change:
            self._total = _Tally()
            self._recorded = deque(maxlen=MOST_RECORDED)
            self._change.notify_all()

    def wait_for(self, predicate: Callable[[Stats], bool], timeout_s: float) -> Stats:
        """Block until the counters satisfy `predicate`, and return them."""
        with self._change:
            if not self._change.wait_for(lambda: predicate(self._total.snapshot()), timeout_s):
                raise TimeoutError(f"The counters did not come to it in {timeout_s} s: {self._total.snapshot()}")
            return self._total.snapshot()
