"""The registry of a worker's engines: shared, kept for the next task, and closed when they have been idle longest.

Each engine has a thread, a loop and connections, and a worker may live for days. A notebook's cell that is run again
makes a new token function, and a column may name a thousand endpoints. The registry here is the only state of a module
in this library, but for the open groups (`coordination.group`), which a forked process closes, a driver's secret
(`livecounts.counts`), the bars that it shows (`monitoring.bar`) and the one warning of large batches (`udf.slices`).
"""

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from spark_llm.auth.tokens import TokenKeeper
from spark_llm.endpoint.route import Route
from spark_llm.engine.engine import Engine
from spark_llm.engine.request_spec import RequestSpec
from spark_llm.policy import Policy
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Result, Row

if TYPE_CHECKING:
    from spark_llm.auth.credentials import Credential

MAX_IDLE = 16  # engines that no stream uses
LOG_VARIABLE = "SPARK_LLM_LOG"

Key = tuple[Route, Policy, str]


@dataclass(eq=False)
class _Entry:
    engine: Engine
    streams: int = 0


class EngineRegistry:
    """Engines by endpoint, policy and kind of task, and the tokens that they share; any thread may use it."""

    def __init__(self, max_idle: int = MAX_IDLE) -> None:
        """Keep so many idle engines; one that is in use is never closed."""
        self._max_idle = max_idle
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()  # last used last
        self._keepers: WeakValueDictionary[Credential, TokenKeeper] = WeakValueDictionary()  # of the engines here
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many engines there are."""
        return len(self._entries)

    @contextmanager
    def engine(self, spec: RequestSpec) -> Iterator[Engine]:
        """Yield the engine for a spec, made where there is none; it is not closed before the block ends."""
        entry = self._acquire(spec)
        try:
            yield entry.engine
        finally:
            self._release(entry)

    def close(self) -> None:
        """Close every engine."""
        with self._lock:
            engines = [entry.engine for entry in self._entries.values()]
            self._entries.clear()
        for engine in engines:
            engine.close()

    def _acquire(self, spec: RequestSpec) -> _Entry:
        route = spec.route
        key = (route, spec.policy, spec.task.name)
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or not entry.engine.is_alive:
                set_log_level(os.environ)
                keeper = self._keepers.get(route.credential) or TokenKeeper(route.credential, route.ca_bundle)
                self._keepers[route.credential] = keeper
                entry = self._entries[key] = _Entry(Engine(route, spec.policy, keeper, spec.group))
            entry.streams += 1
            self._entries.move_to_end(key)
            return entry

    def _release(self, entry: _Entry) -> None:
        with self._lock:
            entry.streams -= 1
            idle = [key for key, each in self._entries.items() if not each.streams]
            too_many = [self._entries.pop(key).engine for key in idle[: max(0, len(idle) - self._max_idle)]]
        for engine in too_many:
            engine.close()


@dataclass(frozen=True)
class SharedEngine:
    """The engine for a spec: acquired when the first row is read, released after the last."""

    registry: EngineRegistry
    spec: RequestSpec
    stage: int | None = None

    def stream(self, task: Task, batches: Iterator[Sequence[Row]]) -> Iterator[list[Result | None]]:
        """Do what `Engine.stream` does."""
        with self.registry.engine(self.spec) as engine:
            yield from engine.stream(task, batches, self.spec.job(task, self.stage))


def set_log_level(environ: Mapping[str, str]) -> None:
    """Set the log level that SPARK_LLM_LOG names, and log to stderr where no handler is set.

    A UDF's user has no other way to the logging of a Python worker.
    """
    level = environ.get(LOG_VARIABLE, "").upper()
    logger = logging.getLogger("spark_llm")
    if not level:
        return
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
    try:
        logger.setLevel(level)
    except ValueError:
        logger.warning("%s=%s is not a log level. Hint: set it to DEBUG or INFO.", LOG_VARIABLE, level)


ENGINES = EngineRegistry()


def engine_for(spec: RequestSpec, stage: int | None = None) -> SharedEngine:
    """Return the worker's engine for this endpoint, policy and kind of task, in a stage of Spark."""
    return SharedEngine(ENGINES, spec, stage)
