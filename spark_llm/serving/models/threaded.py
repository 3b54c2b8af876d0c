"""Models that compute in threads of this process, and stop soon after the client has hung up."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class ThreadedModel(ABC):
    """A model that computes in threads; a context manager starts and stops it."""

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

    def __exit__(self, *_: object) -> None:
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
        """Release the model."""

    async def run_in_threads(self, function: Callable[..., Any], jobs: Sequence[Any]) -> list[Any]:
        """Return `function(is_cancelled, job)` of each job; `is_cancelled()` turns true when no caller waits."""
        cancelled = threading.Event()

        def is_cancelled() -> bool:
            return cancelled.is_set() or self._stopping.is_set()

        loop = asyncio.get_running_loop()
        try:
            return await asyncio.gather(
                *(loop.run_in_executor(self._pool, function, is_cancelled, job) for job in jobs)
            )
        finally:
            cancelled.set()


def missing_package_error(package: str) -> ImportError:
    """Return the error for an engine that is not installed."""
    return ImportError(f"The local models need {package}: pip install 'spark-llm-endpoints[local]'", name=package)
