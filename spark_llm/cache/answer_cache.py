"""The answer cache of one task: it finds the answers that this machine has, and keeps new ones for the next task.

A cache never fails a row or a job: an error costs one warning. Spark's thread looks rows up. A background thread writes
answers, so that the event loop never waits for a disk. A killed worker loses the answers of its last 0.25 s.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from spark_llm.cache.entry import Entry, Keys, decoded_answer, encoded_answer
from spark_llm.cache.sqlite_store import DamagedError, Store
from spark_llm.errors import HINT
from spark_llm.flow.batcher import Indexed
from spark_llm.flow.dedupe import shared_result
from spark_llm.protocol.predictions.scalars import Misfit
from spark_llm.protocol.task import PLAIN
from spark_llm.protocol.values import Answer, Item, Result

FLUSH_INTERVAL_S = 0.25  # answers of this time are written together
MAX_PENDING_BYTES = 16 * 2**20  # of answers that wait to be written; beyond it, new ones are not kept
CLOSE_TIMEOUT_S = 6.0  # for the last write of a task, where another process may have the file locked
WRITE_BUSY_TIMEOUT_S = 5.0  # for a file that another process has locked
FOLDER_HINT = "name a folder on a local disk with free space that the worker can write to."
_READ_BUSY_TIMEOUT_S = 1.0  # rows wait for it

_logger = logging.getLogger(__name__)
_damaged_folders: set[Path] = set()  # this process uses no cache there any more


def check_folder(folder: str) -> str:
    """Open and write the cache in `folder` as a task does; return its path, or raise what a task would meet."""
    path = _expanded(folder)
    with contextlib.closing(Store(path, busy_timeout_s=_READ_BUSY_TIMEOUT_S)) as store:
        store.put({}, time.time())
    return str(path)


def _expanded(folder: str) -> Path:
    return Path(os.path.expanduser(folder))  # noqa: PTH111 -- Path's own raises where there is no home


class Cache:
    """The cache as one task sees it: answers, and never an error.

    Two threads use it, as they do `Stream`: Spark's calls `find`, the event loop's calls `settle`.
    """

    def __init__(self, folder: str, keys: Keys) -> None:
        """Keep answers in `folder`; nothing is opened before the first row."""
        self._keys = keys
        self._store = WriteBehindStore(folder)
        self._keys_in_flight: dict[int, bytes] = {}  # by the number of the row
        self._lock = threading.Lock()

    def find(self, inputs: Sequence[Indexed]) -> tuple[list[Indexed], list[tuple[int, Result]]]:
        """Return the inputs to ask, and the cached results of the others, which cost nothing now.

        An answer that the task reads as an error is none: it was kept under another reading, and is asked again.
        """
        keyed = [(indexed, self._keys.of(indexed[1])) for indexed in inputs]
        found = self._store.find([key for _, key in keyed if key is not None])
        to_ask: list[Indexed] = []
        cached: list[tuple[int, Result]] = []
        keys_to_ask: dict[int, bytes] = {}
        for indexed, key in keyed:
            answer = None if key is None else found.get(key)
            if answer is not None and (result := self._read(answer, indexed[1])) is not None:
                cached.append((indexed[0], result))
                continue
            to_ask.append(indexed)
            if key is not None:
                keys_to_ask[indexed[0]] = key
        with self._lock:
            self._keys_in_flight.update(keys_to_ask)
        return to_ask, cached

    def _read(self, answer: Result, item: Item) -> Result | None:
        """Return the result of a cached answer; None where the task finds an error in it."""
        result = shared_result(answer)
        outcome = self._keys.task.parse_output(Answer([result], None), [item], PLAIN)
        misfits = not isinstance(outcome, Answer) or result.error or isinstance(result.prediction, Misfit)
        return None if misfits else result

    def settle(self, results: Iterable[tuple[int, Result]], to_ask: Iterable[Indexed]) -> None:
        """Keep the answers to inputs that were not in the cache; `to_ask` are duplicates that are sent after all."""
        duplicates = {number: key for number, item in to_ask if (key := self._keys.of(item)) is not None}
        with self._lock:
            keyed = [(self._keys_in_flight.pop(number, None), result) for number, result in results]
            self._keys_in_flight.update(duplicates)
        self._store.keep([(key, result) for key, result in keyed if key is not None and result.error is None])

    def close(self) -> None:
        """Write the pending answers, and close the file."""
        self._store.close()


class WriteBehindStore:
    """One task's access to the cache file, which writes later and in batches. It never raises, and warns once."""

    def __init__(
        self, folder: str, *, flush_interval_s: float = FLUSH_INTERVAL_S, busy_timeout_s: float = WRITE_BUSY_TIMEOUT_S
    ) -> None:
        """Find and keep answers in `folder`; a write waits `busy_timeout_s` for a lock of another process."""
        self._folder = _expanded(folder)
        self._flush_interval_s = flush_interval_s
        self._busy_timeout_s = busy_timeout_s
        self._reader: Store | None = None
        self._pending: dict[bytes, Entry] = {}
        self._pending_bytes = 0
        self._writer: threading.Thread | None = None
        self._lock = threading.Lock()  # of the pending entries
        self._wake = threading.Event()  # entries are pending, or the store is closed
        self._closed = threading.Event()
        self._failed = False
        self._warned = False

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Result]:
        """Return the answers that exist for `keys`, by key."""
        entries: dict[bytes, Entry] = {}
        if keys and self._is_usable:
            with self._failing_softly():
                if self._reader is not None and not self._reader.is_current:
                    self._reader.close()
                    self._reader = None
                self._reader = self._reader or Store(self._folder, busy_timeout_s=_READ_BUSY_TIMEOUT_S)
                entries = self._reader.get(keys, time.time())
        answers = ((key, decoded_answer(entry)) for key, entry in entries.items())
        return {key: answer for key, answer in answers if answer is not None}

    def keep(self, answers: Iterable[tuple[bytes, Result]]) -> None:
        """Have answers written soon; beyond `MAX_PENDING_BYTES` they are dropped."""
        with self._failing_softly():
            entries = {key: encoded_answer(answer) for key, answer in answers} if self._is_usable else {}
            with self._lock:
                if not entries or self._closed.is_set() or self._pending_bytes > MAX_PENDING_BYTES:
                    return
                self._pending.update(entries)
                self._pending_bytes += sum(len(answer) + len(vector or b"") for answer, vector in entries.values())
                if self._writer is None:
                    writer = threading.Thread(target=self._write, name="spark_llm cache", daemon=True)
                    writer.start()
                    self._writer = writer  # one that could not be started cannot be waited for
                self._wake.set()

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Write the pending answers, unless that takes too long, and close the file."""
        with self._lock:
            self._closed.set()
            self._wake.set()
        if self._writer is not None:
            self._writer.join(timeout_s)
        if self._reader is not None:
            self._reader.close()

    def _write(self) -> None:
        """Write the pending entries in batches, until the store is closed and none is pending."""
        closed = False
        while not closed:
            self._wake.wait()
            self._closed.wait(self._flush_interval_s)
            with self._lock:
                entries, self._pending, self._pending_bytes = self._pending, {}, 0
                closed = self._closed.is_set()
                if not closed:
                    self._wake.clear()
            if entries and self._is_usable:
                with (
                    self._failing_softly(),
                    contextlib.closing(Store(self._folder, busy_timeout_s=self._busy_timeout_s)) as store,
                ):
                    store.put(entries, time.time())

    @property
    def _is_usable(self) -> bool:
        return not self._failed and self._folder not in _damaged_folders

    @contextlib.contextmanager
    def _failing_softly(self) -> Iterator[None]:
        """Turn an error into a warning; after damage this process uses the folder no more, else this task does not."""
        try:
            yield
        except DamagedError as damage:
            if self._folder not in _damaged_folders:  # else another task has warned
                _damaged_folders.add(self._folder)
                self._warn(
                    f"The cache {damage}. This process goes on without a cache; the next one begins a new file."
                    " Hint: check that the folder is on a local disk with free space."
                )
        except Exception as error:  # noqa: BLE001 -- a cache is a convenience: no task fails by it
            self._failed = True
            self._warn(
                f"The cache in {self._folder} is not used for the rest of this task: {error}.{HINT}{FOLDER_HINT}"
            )

    def _warn(self, message: str) -> None:
        _logger.log(logging.DEBUG if self._warned else logging.WARNING, message)
        self._warned = True
