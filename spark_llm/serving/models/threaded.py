"""Models whose work is done in threads of this process, and stops soon after the client that asked has gone."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any


class Threaded(ABC):
    """A model whose work is done in threads, started and stopped as a context manager."""

    def __init__(self, n_threads: int, workers: int) -> None:
        if n_threads < 1:
            raise ValueError(f"n_threads={n_threads} is not 1 or more.")
        self._n_threads = n_threads
        self._workers = workers
        self._pool: ThreadPoolExecutor | None = None
        self._stopping = threading.Event()

    def __enter__(self) -> None:
        self._start()
        self._stopping.clear()
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix=type(self).__name__)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        self._stop()

    @abstractmethod
    def _start(self) -> None:
        """Load the model."""

    @abstractmethod
    def _stop(self) -> None:
        """Let the model go."""

    async def in_threads(self, work: Callable[..., Any], jobs: Sequence[Any]) -> list[Any]:
        """Run `work(gone, job)` for each job; `gone()` turns true when nobody waits for it any more."""
        left = threading.Event()

        def gone() -> bool:
            return left.is_set() or self._stopping.is_set()

        loop = asyncio.get_running_loop()
        try:
            return await asyncio.gather(*(loop.run_in_executor(self._pool, work, gone, job) for job in jobs))
        finally:
            left.set()


def missing(package: str) -> ImportError:
    """Make the error of an engine that is not installed."""
    return ImportError(f"The local models need {package}: pip install 'spark-llm-endpoints[local]'", name=package)
