"""The engines of a worker: kept for the next task, shared, and closed when they have been idle longest.

Each engine has a thread, a loop and connections, and a worker may live for days: a notebook's cell that is run again
makes a new token function, and a column may name a thousand endpoints. The one registry here is the only state of a
module in this library.
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

IDLE_MOST = 16  # engines that no stream uses
LOG_VARIABLE = "SPARK_LLM_LOG"

Key = tuple[Route, Policy, str]


@dataclass(eq=False)
class _Kept:
    engine: Engine
    streams: int = 0


class Engines:
    """Engines by endpoint, policy and kind of task, and the tokens that they share; any thread may use it."""

    def __init__(self, idle_most: int = IDLE_MOST) -> None:
        """Keep so many idle engines; one that is in use is never closed."""
        self._idle_most = idle_most
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()  # last used last
        self._keepers: WeakValueDictionary[Credential, TokenKeeper] = WeakValueDictionary()  # of the engines there are
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many engines there are."""
        return len(self._kept)

    @contextmanager
    def engine(self, recipe: RequestSpec) -> Iterator[Engine]:
        """Give the engine of a recipe, made where there is none; it is not closed before the block ends."""
        kept = self._taken(recipe)
        try:
            yield kept.engine
        finally:
            self._given_back(kept)

    def close(self) -> None:
        """Close every engine."""
        with self._lock:
            engines = [kept.engine for kept in self._kept.values()]
            self._kept.clear()
        for engine in engines:
            engine.close()

    def _taken(self, recipe: RequestSpec) -> _Kept:
        route = recipe.route
        key = (route, recipe.policy, recipe.task.name)
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or not kept.engine.is_alive:
                log_as_asked(os.environ)
                keeper = self._keepers.get(route.credential) or TokenKeeper(route.credential, route.ca_bundle)
                self._keepers[route.credential] = keeper
                kept = self._kept[key] = _Kept(Engine(route, recipe.policy, keeper))
            kept.streams += 1
            self._kept.move_to_end(key)
            return kept

    def _given_back(self, kept: _Kept) -> None:
        with self._lock:
            kept.streams -= 1
            idle = [key for key, each in self._kept.items() if not each.streams]
            too_many = [self._kept.pop(key).engine for key in idle[: max(0, len(idle) - self._idle_most)]]
        for engine in too_many:
            engine.close()


@dataclass(frozen=True)
class Asking:
    """The engine of a recipe as it is used: taken when the first row is read, given back after the last."""

    engines: Engines
    recipe: RequestSpec

    def stream(self, task: Task, batches: Iterator[Sequence[Row]]) -> Iterator[list[Result | None]]:
        """Do what `Engine.stream` does."""
        with self.engines.engine(self.recipe) as engine:
            yield from engine.stream(task, batches)


def log_as_asked(environ: Mapping[str, str]) -> None:
    """Log from the level that SPARK_LLM_LOG names, to stderr where no handler is set; a UDF's user has no other way."""
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
        logger.warning("%s=%s is not a level. Hint: set it to DEBUG or INFO.", LOG_VARIABLE, level)


ENGINES = Engines()


def engine_for(recipe: RequestSpec) -> Asking:
    """Return the worker's engine for this endpoint, policy and kind of task."""
    return Asking(ENGINES, recipe)
