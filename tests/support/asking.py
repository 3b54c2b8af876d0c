"""Engines for tests without Spark, and readers of their results."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from spark_llm import Endpoint, Policy
from spark_llm.engine.engine import Engine
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Item, Result, Row
from spark_llm.serving import LocalEndpoints

CHAT = Chat()
started: list[Engine] = []  # closed when a test is over


def engine_at(endpoint: Endpoint, policy: Policy = Policy(), task: Task = CHAT) -> Engine:
    """Return a new engine."""
    started.append(Engine(endpoint.resolve(task.route, {}), policy))
    return started[-1]


def engine(endpoints: LocalEndpoints, name: str = "chat", policy: Policy = Policy(), task: Task = CHAT) -> Engine:
    """Return a new engine for one of the local endpoints."""
    return engine_at(Endpoint(endpoints.invocations(name), token=endpoints.token), policy, task)


def ask(asked: Engine, batches: Iterable[Sequence[Row]], task: Task = CHAT) -> list[Result | None]:
    """Return the results of all rows."""
    return [result for chunk in asked.stream(task, iter(batches)) for result in chunk]


def texts(results: Sequence[Result | None]) -> list[str | None]:
    """Return the results' texts."""
    return [None if result is None else result.text for result in results]


def kinds(results: Sequence[Result | None]) -> list[str | None]:
    """Return the kinds of the results' errors."""
    return [None if result is None or result.error is None else result.error.kind for result in results]


def distinct(count: int) -> list[Item | None]:
    """Return so many different texts."""
    return [f"row {number}" for number in range(count)]


class Held(NamedTuple):
    """The threads and open files, with sockets, of this process."""

    threads: int
    files: int

    @classmethod
    def now(cls) -> "Held":
        """Count them."""
        return cls(threading.active_count(), len(list(Path("/proc/self/fd").iterdir())))

    def is_within(self, other: "Held") -> bool:
        """Return whether there are no more of either."""
        return self.threads <= other.threads and self.files <= other.files


def comes_true(condition: Callable[[], bool], patience_s: float = 10.0) -> bool:
    """Poll a condition until it holds; return whether it did in time."""
    ends_at = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > ends_at:
            return False
        threading.Event().wait(0.01)
    return True
