"""Exact counters of requests and responses, for readers in other threads.

Only the endpoints' event loop writes, under a lock, and each change wakes the waiting readers. A response is counted
before its first byte is sent, so a client that has it finds it counted. Knows no HTTP library.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from spark_llm.serving.protocol.values import Usage
from spark_llm.serving.scenario.timeline import Series, Timeline

MAX_RECORDED = 10_000
MAX_RECORDED_BYTES = 2**27

_ARRIVAL = {"requests": 1, "in_flight": 1}
_BATCH_ARRIVAL = {**_ARRIVAL, "batch_requests": 1}
_MAXIMA = (("in_flight", "max_in_flight"), ("in_work", "max_in_work"))


@dataclass(frozen=True)
class Stats:
    """The counters at one moment: of all endpoints, or of one.

    No request is lost: `requests` is the sum of `by_status`, `in_flight` and `disconnects`.

    Attributes:
        requests: Requests for a model, with any outcome.
        batch_requests: Those of them that stood in a batch.
        by_status: Responses by HTTP status; a cut response counts by the status that it began with.
        rows_asked: Inputs in well-formed requests: a conversation, each prompt, each text to embed.
        rows_answered: Inputs in requests that got a whole answer.
        prompt_tokens: Tokens of the inputs, as answers reported them.
        completion_tokens: Tokens of the replies, as answers reported them.
        total_tokens: Both together.
        image_tokens: Tokens of images, as answers reported them; part of `prompt_tokens`.
        audio_tokens: Tokens of audio; likewise.
        in_flight: Requests that have arrived and have no response yet.
        max_in_flight: The maximum of `in_flight`.
        in_work: Requests that have passed the capacity and are held, delayed, with the model, or dripping.
        max_in_work: The maximum of `in_work`.
        disconnects: Requests without a response: the client hung up, or the endpoints stopped.
        endpoints: The same counters for each endpoint that got a request, by its name.
    """

    requests: int = 0
    batch_requests: int = 0
    by_status: Mapping[int, int] = field(default_factory=dict)
    rows_asked: int = 0
    rows_answered: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    image_tokens: int = 0
    audio_tokens: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    in_work: int = 0
    max_in_work: int = 0
    disconnects: int = 0
    endpoints: Mapping[str, "Stats"] = field(default_factory=dict)


@dataclass(frozen=True)
class LiveStats:
    """The counters at one moment, and the last five minutes by the second.

    Attributes:
        stats: The counters.
        total: The last five minutes of all endpoints together.
        endpoints: Those of each endpoint that got a request, by its name.
    """

    stats: Stats
    total: Series
    endpoints: Mapping[str, Series]


class Recorded(NamedTuple):
    """A request as received: `body` is None if it was not a JSON object; the token's value is masked."""

    endpoint: str
    body: Mapping[str, Any] | None
    headers: Mapping[str, str]
    path: str


class _RecentRequests:
    """The last requests as received: the last 10,000, and fewer if their bodies have more than 128 MB."""

    def __init__(self) -> None:
        self.requests: deque[Recorded] = deque()
        self._sizes: deque[int] = deque()
        self._bytes = 0

    def append(self, request: Recorded, size: int) -> None:
        """Add a request with a body of `size` bytes; the last one stays, of any size."""
        self.requests.append(request)
        self._sizes.append(size)
        self._bytes += size
        while len(self.requests) > MAX_RECORDED or (self._bytes > MAX_RECORDED_BYTES and len(self.requests) > 1):
            self.requests.popleft()
            self._bytes -= self._sizes.popleft()


class _Counters:
    """The counters of `Stats`, while they change."""

    def __init__(self) -> None:
        self.amounts = {each.name: 0 for each in fields(Stats) if each.name not in ("by_status", "endpoints")}
        self.by_status: dict[int, int] = {}
        self.endpoints: dict[str, _Counters] = {}
        self.timeline = Timeline()

    def add(self, amounts: Mapping[str, int], status: int | None = None) -> None:
        """Add to the counters of these names, and count the status of a response; a maximum follows its counter."""
        if status is not None:
            self.by_status[status] = self.by_status.get(status, 0) + 1
        for name, amount in amounts.items():
            self.amounts[name] += amount
        for name, most in _MAXIMA:
            self.amounts[most] = max(self.amounts[most], self.amounts[name])
        if "in_flight" in amounts:  # every change that the timeline shows comes with an arrival or an end
            self.timeline.add(amounts, status, time.monotonic())

    def endpoint(self, name: str) -> "_Counters":
        """Return the counters of one endpoint."""
        if name not in self.endpoints:
            self.endpoints[name] = _Counters()
        return self.endpoints[name]

    def snapshot(self) -> Stats:
        endpoints = {name: counters.snapshot() for name, counters in sorted(self.endpoints.items())}
        return Stats(**self.amounts, by_status=dict(sorted(self.by_status.items())), endpoints=endpoints)


class RequestStats:
    """Counts one request, from its arrival to its response."""

    def __init__(self, change: threading.Condition, total: _Counters, recent: _RecentRequests) -> None:
        """Count an arrival; `number` is the number of requests before it."""
        self._change = change
        self._counters = [total]
        self._recent = recent
        with change:
            self.number = total.amounts["requests"]
            total.add(_ARRIVAL)
            change.notify_all()

    def record(self, request: Recorded, size: int) -> None:
        """Record the request, with a body of `size` bytes, for tests to read."""
        with self._change:
            self._recent.append(request, size)
            self._change.notify_all()

    def set_endpoint(self, name: str) -> None:
        """Count the request for this endpoint too."""
        with self._change:
            counters = self._counters[0].endpoint(name)
            self._counters.append(counters)
            counters.add(_ARRIVAL)
            self._change.notify_all()

    def add_rows(self, rows: int) -> None:
        """Count the rows of the request."""
        self._add(rows_asked=rows)

    @contextmanager
    def in_work(self) -> Iterator[None]:
        """Count the request as in work until the block ends."""
        self._add(in_work=1)
        try:
            yield
        finally:
            self._add(in_work=-1)

    def end(self, status: int, rows: int = 0, usage: Usage | None = None) -> None:
        """Count the response, and the rows and tokens that it answers."""
        self._add(status, in_flight=-1, rows_answered=rows, **_tokens(usage))

    def disconnect(self) -> None:
        """Count that the client hung up."""
        self._add(in_flight=-1, disconnects=1)

    def _add(self, status: int | None = None, **amounts: int) -> None:
        with self._change:
            for counters in self._counters:
                counters.add(amounts, status)
            self._change.notify_all()


class BatchRequestStats:
    """Counts one request of a batch, with as few steps as it can: at its beginning, and at its end for its endpoint."""

    def __init__(self, change: threading.Condition, total: _Counters, recent: _RecentRequests) -> None:
        """Count the beginning; `number` is the number of requests before it."""
        self._change = change
        self._total = total
        self._recent = recent
        self.rows = 0
        with change:
            self.number = total.amounts["requests"]
            total.add(_BATCH_ARRIVAL)

    def end(self, request: Recorded, size: int, status: int, rows: int = 0, usage: Usage | None = None) -> None:
        """Count the response, and the rows and tokens that it answers; record the request."""
        amounts = {"rows_asked": self.rows, "rows_answered": rows, **_tokens(usage)}
        with self._change:
            self._total.add({**amounts, "in_flight": -1}, status)
            if request.endpoint:
                amounts |= {"requests": 1, "batch_requests": 1, "in_flight": 0}
                self._total.endpoint(request.endpoint).add(amounts, status)
            self._recent.append(request, size)
            self._change.notify_all()

    def interrupt(self) -> None:
        """Count that the endpoints stopped before the response."""
        with self._change:
            self._total.add({"in_flight": -1, "disconnects": 1})


def _tokens(usage: Usage | None) -> dict[str, int]:
    if usage is None:
        return {}
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "image_tokens": usage.image_tokens or 0,
        "audio_tokens": usage.audio_tokens or 0,
    }


class StatsCollector:
    """Collects all counters, and the last requests as received."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._total = _Counters()
        self._recent = _RecentRequests()

    def begin_request(self) -> RequestStats:
        """Count an arriving request, and return its counter."""
        return RequestStats(self._change, self._total, self._recent)

    def begin_batch_request(self) -> BatchRequestStats:
        """Count a request of a batch, and return its counter."""
        return BatchRequestStats(self._change, self._total, self._recent)

    @property
    def recorded(self) -> deque[Recorded]:
        """The last requests, as a copy that no longer changes."""
        with self._change:
            return self._recent.requests.copy()

    def snapshot(self) -> Stats:
        """Return the counters at this moment."""
        with self._change:
            return self._total.snapshot()

    def live(self) -> LiveStats:
        """Return the counters and the last five minutes at this moment."""
        with self._change:
            now, total = time.monotonic(), self._total
            endpoints = {name: counters.timeline.series(now) for name, counters in sorted(total.endpoints.items())}
            return LiveStats(total.snapshot(), total.timeline.series(now), endpoints)

    def reset(self) -> None:
        """Set all counters to zero; requests in flight are no longer counted."""
        with self._change:
            self._total = _Counters()
            self._recent = _RecentRequests()
            self._change.notify_all()

    def wait_for(self, predicate: Callable[[Stats], bool], timeout_s: float) -> Stats:
        """Block until the counters satisfy `predicate`, and return them; raises `TimeoutError`."""
        with self._change:
            if not self._change.wait_for(lambda: predicate(self._total.snapshot()), timeout_s):
                raise TimeoutError(f"The predicate was false for {timeout_s} s: {self._total.snapshot()}")
            return self._total.snapshot()
