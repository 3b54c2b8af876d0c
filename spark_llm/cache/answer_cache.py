"""What was answered on this machine before, found for the rows of a task, and kept for the next one.

A cache is a convenience: whatever happens to its file, no row and no job fails, and one warning says so. Spark's thread
looks rows up as it takes them in; answers are written by a thread of their own, so that the event loop never waits for
a disk. A worker that is killed loses what was answered in its last quarter of a second.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from spark_llm.cache.entry import Entry, Keys, read, written
from spark_llm.cache.sqlite_store import DamagedError, Store, move_aside
from spark_llm.flow.batcher import Indexed
from spark_llm.flow.dedupe import shared_result
from spark_llm.protocol.task import PLAIN
from spark_llm.protocol.values import Answer, Result

GATHER_S = 0.25  # how long answers gather before they are written together
WAITING_BYTES = 16 * 2**20  # of answers that wait to be written; beyond it, they are not kept
CLOSE_S = 6.0  # for the last writing of a task, where another process may have the file locked
WRITE_PATIENCE_S = 5.0  # with a file that another process has locked
_LOOK_PATIENCE_S = 1.0  # rows wait for it
_ATTEMPTS = 3

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")


class Cache:
    """What one task finds in the cache, and puts there: answers, and never an error.

    It is for two threads, as `Stream` is: `find` is called by Spark's, `settle` by the event loop's.
    """

    def __init__(self, folder: str, keys: Keys) -> None:
        """Keep answers in `folder`; nothing is opened before the first row."""
        self._keys = keys
        self._disk = Disk(folder)
        self._asked: dict[int, bytes] = {}  # the keys of rows that are being asked
        self._lock = threading.Lock()

    def find(self, inputs: Sequence[Indexed]) -> tuple[list[Indexed], list[tuple[int, Result]]]:
        """Return the inputs to ask, and the results of those that were answered before, which cost nothing now."""
        keyed = [(entry, self._keys.of(entry[1])) for entry in inputs]
        found = self._disk.find([key for _, key in keyed if key is not None])
        task = self._keys.task
        to_ask: list[Indexed] = []
        known: list[tuple[int, Result]] = []
        asked: dict[int, bytes] = {}
        for entry, key in keyed:
            if key is not None and (answer := found.get(key)) is not None:
                result = shared_result(answer)
                task.parse_output(Answer([result], None), [entry[1]], PLAIN)
                known.append((entry[0], result))
                continue
            to_ask.append(entry)
            if key is not None:
                asked[entry[0]] = key
        with self._lock:
            self._asked.update(asked)
        return to_ask, known

    def settle(self, results: Iterable[tuple[int, Result]], to_ask: Iterable[Indexed]) -> None:
        """Keep those of `results` that are answers to what `find` let through; take note of what is asked after all."""
        late = {number: key for number, item in to_ask if (key := self._keys.of(item)) is not None}
        with self._lock:
            keyed = [(self._asked.pop(number, None), result) for number, result in results]
            self._asked.update(late)
        self._disk.keep([(key, result) for key, result in keyed if key is not None and result.error is None])

    def close(self) -> None:
        """Write what was not written yet, and let go of the file."""
        self._disk.close()


class Disk:
    """The file behind a cache, for one task: it never fails, and says once what is wrong."""

    def __init__(self, folder: str, *, gather_s: float = GATHER_S, patience_s: float = WRITE_PATIENCE_S) -> None:
        """Find and keep answers in `folder`; write those that came within `gather_s` together.

        `patience_s` is how long a writing waits for other processes.
        """
        self._folder = Path(os.path.expanduser(folder))  # noqa: PTH111 -- Path's own raises where there is no home
        self._gather_s = gather_s
        self._looking = _Connection(self._folder, _LOOK_PATIENCE_S)
        self._writing = _Connection(self._folder, patience_s)
        self._waiting: dict[bytes, Entry] = {}
        self._waiting_bytes = 0
        self._writer: threading.Thread | None = None
        self._lock = threading.Lock()  # of what waits
        self._come = threading.Event()  # something waits, or nothing will any more
        self._closed = threading.Event()
        self._off = False  # whether the file was given up
        self._warned = False

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Result]:
        """Return the answers that there are for `keys`."""
        entries = self._attempt(self._looking, lambda store: store.get(keys, time.time())) if keys else None
        answers = ((key, read(entry)) for key, entry in (entries or {}).items())
        return {key: answer for key, answer in answers if answer is not None}

    def keep(self, answers: Iterable[tuple[bytes, Result]]) -> None:
        """Have answers written soon."""
        try:
            entries = {} if self._off else {key: written(answer) for key, answer in answers}
            if entries:
                self._keep(entries)
        except Exception as error:  # noqa: BLE001 -- a cache is a convenience: no task fails by it
            self._give_up(error)

    def _keep(self, entries: dict[bytes, Entry]) -> None:
        with self._lock:
            if self._closed.is_set() or self._waiting_bytes > WAITING_BYTES:
                return
            self._waiting.update(entries)
            self._waiting_bytes += sum(map(_bytes, entries.values()))
            if self._writer is None:
                writer = threading.Thread(target=self._write, name="spark_llm cache", daemon=True)
                writer.start()
                self._writer = writer  # one that could not be started cannot be waited for
            self._come.set()

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Write what waits, unless that takes too long, and close the file."""
        with self._lock:
            self._closed.set()
            self._come.set()
        if self._writer is not None:
            self._writer.join(timeout_s)
        self._looking.release()

    def _write(self) -> None:
        """Write what gathers, again and again, until the cache is closed and nothing waits."""
        over = False
        while not over:
            self._come.wait()
            self._closed.wait(self._gather_s)
            with self._lock:
                entries, self._waiting, self._waiting_bytes = self._waiting, {}, 0
                over = self._closed.is_set()
                if not over:
                    self._come.clear()
            if entries:
                self._put(entries)
        self._writing.release()

    def _put(self, entries: dict[bytes, Entry]) -> None:
        self._attempt(self._writing, lambda store: store.put(entries, time.time()))

    def _attempt(self, hand: "_Connection", act: Callable[[Store], _T]) -> _T | None:
        """Do something with the file; on a new one where it is damaged; not at all after anything else went wrong."""
        for _ in range(_ATTEMPTS):
            if self._off:
                return None
            try:
                return act(hand.store())
            except DamagedError as damage:
                hand.release()
                self._begin_anew(damage)
            except Exception as error:  # noqa: BLE001 -- a cache is a convenience: no task fails by it
                hand.release()
                self._give_up(error)
        if not self._off:
            self._give_up("it is damaged again and again")
        return None

    def _begin_anew(self, damage: DamagedError) -> None:
        try:
            aside = move_aside(damage.path, time.time())
        except OSError as error:
            self._give_up(error)
            return
        self._warn(
            f"The cache {damage.path} is damaged ({damage.why}): it is {aside.name} now, and a new one is begun."
            " Hint: see that the folder is on a local disk, with room on it."
        )

    def _give_up(self, why: object) -> None:
        self._off = True
        self._warn(
            f"The cache in {self._folder} is not used for the rest of this task: {why}. Its rows are asked as without a"
            " cache. Hint: name a folder on a local disk that the worker can write to, with room on it."
        )

    def _warn(self, words: str) -> None:
        _logger.log(logging.DEBUG if self._warned else logging.WARNING, words)
        self._warned = True


class _Connection:
    """One thread's connection to the file, opened when it is needed, and again where the file is another by now."""

    def __init__(self, folder: Path, patience_s: float) -> None:
        self._folder = folder
        self._patience_s = patience_s
        self._store: Store | None = None

    def store(self) -> Store:
        if self._store is not None and not self._store.is_current:
            self.release()
        if self._store is None:
            self._store = Store(self._folder, patience_s=self._patience_s)
        return self._store

    def release(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None


def _bytes(entry: Entry) -> int:
    return len(entry.answer) + len(entry.vector or b"")
