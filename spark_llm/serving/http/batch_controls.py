"""What the owner of the endpoints sets and sees of files and batches, from any thread."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from spark_llm.serving.batches.worker import BatchWorker
from spark_llm.serving.http.batch_api import BatchApi
from spark_llm.serving.scenario.batches import Batches


class BatchControls(ABC):
    """The part of `LocalEndpoints` that is about files and batches."""

    _batch_worker: BatchWorker
    _batch_api: BatchApi

    @abstractmethod
    def _on_loop(self, action: Callable[[], None]) -> None:
        """Run `action` on the application's event loop, and wait for it."""

    @property
    def batches(self) -> Batches:
        """The speed and the faults of the Batch API.

        Setting it counts batches and requests from 0 again. Batches that run keep what the old script had for them; the
        speed and the quota are those of the new one.
        """
        return self._batch_worker.script

    @batches.setter
    def batches(self, batches: Batches) -> None:
        self._on_loop(lambda: self._batch_api.set_script(batches))

    def release_batches(self) -> None:
        """Let every batch that stalls go on."""
        self._on_loop(self._batch_worker.release)

    @property
    def files(self) -> list[str]:
        """The names of the files that exist now, oldest first: those of clients, and those that batches wrote."""
        files: list[str] = []
        self._on_loop(lambda: files.extend(file.filename for file in self._batch_worker.store.all()))
        return files

    @property
    def answered(self) -> Mapping[str, int]:
        """How often each `custom_id` of a batch was answered, since the start or the last `reset`."""
        answered: dict[str, int] = {}
        self._on_loop(lambda: answered.update(self._batch_worker.answered))
        return answered
