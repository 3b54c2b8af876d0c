"""The cache file: entries under their keys, in SQLite, for many processes at once on a local disk.

A damaged file is moved aside, and the next process begins a new one under the same name. A lock in the folder keeps
openings and moves apart, so no process opens a file while another one moves it, or moves a new file aside.
"""

import contextlib
import os
import re
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from spark_llm.cache.entry import FORMAT, Entry

MAX_BYTES = 4 * 2**30
MAX_AGE_S = 30 * 86_400.0
_MAX_KEYS_PER_SELECT = 500  # SQLite's limit was 999 for long
_EVICTION_BATCH = 8
_MAX_EXPIRED_PER_PUT = 1_024  # keeps a write short on the day when a month of entries expires
_SUFFIXES = ("", "-wal", "-shm")  # of SQLite's files
_NAME = re.compile(rf"answers-{FORMAT}-(\d+)\.sqlite3")
_LOCK_NAME = f"answers-{FORMAT}.lock"
_SCHEMA = f"""
PRAGMA journal_mode = WAL;
CREATE TABLE answers (
    number INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    at REAL NOT NULL,
    checksum INTEGER NOT NULL,
    answer BLOB NOT NULL,
    vector BLOB
);
PRAGMA user_version = {FORMAT};
"""


class DamagedError(Exception):
    """The cache file does not hold what was written to it; the message says which file, and where it was moved."""


class Store:
    """One connection to the cache file of a folder, for one thread at a time.

    Raises `DamagedError` for a damaged file, once it is moved aside. Other errors of SQLite and the system are raised
    as they are.

    >>> with contextlib.closing(Store(Path("/local_disk0/answers"))) as store:
    ...     store.put({key: entry}, now=time.time())
    ...     store.get([key], now=time.time())
    """

    def __init__(
        self,
        folder: Path,
        *,
        busy_timeout_s: float = 5.0,
        max_bytes: int = MAX_BYTES,
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        """Open the file in `folder`, or create both; wait `busy_timeout_s` for a lock of another process.

        Beyond `max_bytes` the oldest entries are deleted. Entries older than `max_age_s` are not found.
        """
        self._busy_timeout_s, self._max_bytes, self._max_age_s = busy_timeout_s, max_bytes, max_age_s
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(folder, busy_timeout_s):
            self.path, self._connection = _opened(folder, busy_timeout_s)
            self._identity = _identity(self.path)
            with contextlib.suppress(sqlite3.Error):  # `_check_format` meets it again
                self._connection.execute("PRAGMA user_version").fetchall()  # opens the write-ahead log too, by its name
        try:
            with self._moving_damage_aside():
                self._check_format()
        except BaseException:
            self.close()
            raise

    def _check_format(self) -> None:
        ((version,),) = self._connection.execute("PRAGMA user_version")
        if version != FORMAT:
            raise sqlite3.DatabaseError(f"the format is {version}, not {FORMAT}")
        self._connection.execute("PRAGMA synchronous = NORMAL")  # a power cut costs the last seconds, and no more
        self._connection.execute(f"PRAGMA journal_size_limit = {16 * 2**20}")

    @property
    def is_current(self) -> bool:
        """Whether the path still leads to the file that was opened: it may have been moved aside or deleted."""
        try:
            return _identity(self.path) == self._identity
        except OSError:
            return False

    def get(self, keys: Sequence[bytes], now: float) -> dict[bytes, Entry]:
        """Return the entries that exist for `keys`, by key."""
        found = {}
        with self._moving_damage_aside():
            for start in range(0, len(keys), _MAX_KEYS_PER_SELECT):
                some = keys[start : start + _MAX_KEYS_PER_SELECT]
                select = (
                    "SELECT key, checksum, answer, vector FROM answers "  # noqa: S608 -- question marks are put in
                    f"WHERE key IN ({','.join('?' * len(some))}) AND at >= ?"
                )
                for key, checksum, answer, vector in self._connection.execute(
                    select, [*some, now - self._max_age_s]
                ).fetchall():
                    entry = Entry(answer, vector)
                    if not all(isinstance(part, bytes) for part in (key, answer, vector or b"")) or (
                        checksum != _checksum(key, entry)
                    ):
                        raise sqlite3.DatabaseError("the checksum of an entry is wrong")
                    found[key] = entry
        return found

    def put(self, entries: Mapping[bytes, Entry], now: float) -> None:
        """Write entries, replacing older ones under their keys; delete entries beyond the size and the age."""
        rows = ((key, now, _checksum(key, entry), *entry) for key, entry in entries.items())
        with self._moving_damage_aside(), self._connection:  # commits, or rolls back
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(
                "INSERT OR REPLACE INTO answers (key, at, checksum, answer, vector) VALUES (?, ?, ?, ?, ?)", rows
            )
            while self._used_bytes() > self._max_bytes and self._delete_oldest(before=float("inf")):
                pass
            for _ in range(0, _MAX_EXPIRED_PER_PUT, _EVICTION_BATCH):
                if not self._delete_oldest(before=now - self._max_age_s):
                    break

    def close(self) -> None:
        """Close the connection; the last one to a file merges its write-ahead log."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _used_bytes(self) -> int:
        ((pages, free, page_bytes),) = self._connection.execute(
            "SELECT * FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
        )
        return int((pages - free) * page_bytes)

    def _delete_oldest(self, before: float) -> int:
        """Delete up to `_EVICTION_BATCH` of the oldest entries that were written before this time; return how many."""
        cursor = self._connection.execute(
            "DELETE FROM answers WHERE at < ? AND number IN (SELECT number FROM answers ORDER BY number LIMIT ?)",
            (before, _EVICTION_BATCH),
        )
        return cursor.rowcount

    @contextlib.contextmanager
    def _moving_damage_aside(self) -> Iterator[None]:
        """Move a damaged file aside and raise `DamagedError`; SQLite's error codes came with Python 3.11."""
        try:
            yield
        except sqlite3.Error as error:
            damage = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InternalError)
            if type(error) is sqlite3.DatabaseError or isinstance(error, damage) or "no such" in str(error):
                raise DamagedError(f"{self.path} is damaged ({error}) and {self._move_aside()}") from error
            raise

    def _move_aside(self) -> str:
        """Rename the file, over one that was damaged earlier, and return a clause that says so.

        The connection is still open, so no new file can have the identity of the damaged one.
        """
        aside = f"{self.path}.corrupt"
        with _locked(self.path.parent, self._busy_timeout_s):
            if not self.is_current:
                return "another process has moved it aside"
            for suffix in _SUFFIXES:
                Path(aside + suffix).unlink(missing_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self.path}{suffix}").rename(aside + suffix)
        return f"was moved to {aside}"


@contextlib.contextmanager
def _locked(folder: Path, timeout_s: float) -> Iterator[None]:
    """Hold the lock of a cache folder; it ends with the process. SQLite's own lock works on every system."""
    path = folder / _LOCK_NAME
    with contextlib.suppress(FileExistsError):
        path.touch(0o600, exist_ok=False)
    with contextlib.closing(sqlite3.connect(path, timeout=timeout_s, isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        yield


def _opened(folder: Path, busy_timeout_s: float) -> tuple[Path, sqlite3.Connection]:
    """Return the cache file, created if missing, and a connection to it.

    An earlier version counted up after damage: the highest number is its newest file.
    """
    numbers = [int(name[1]) for file in folder.iterdir() if (name := _NAME.fullmatch(file.name))]
    path = folder / f"answers-{FORMAT}-{max(numbers, default=1)}.sqlite3"
    if not numbers:
        _create(path)
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=busy_timeout_s,
        isolation_level=None,
        check_same_thread=False,  # the thread that ends a task closes its connections
    )
    connection.text_factory = bytes  # a damaged file may hold texts that are not UTF-8
    return path, connection


def _create(path: Path) -> None:
    """Create an empty cache file that only its owner can read; a killed process leaves no half of it."""
    for suffix in _SUFFIXES:  # SQLite would read the log of a file that was deleted alone
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=path.parent) as folder:
        new = Path(folder) / path.name
        with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as connection:
            connection.executescript(_SCHEMA)
        new.chmod(0o600)  # SQLite gives its further files the same mode
        new.rename(path)


def _identity(path: Path) -> tuple[int, int]:
    found = os.stat(path)  # noqa: PTH116 -- a microsecond less than Path.stat, at every look
    return found.st_dev, found.st_ino


def _checksum(key: bytes, entry: Entry) -> int:
    """Return the CRC-32 of a key and its entry: SQLite would not notice a flipped bit in them."""
    running = zlib.crc32(entry.answer, zlib.crc32(key))
    return running if entry.vector is None else zlib.crc32(entry.vector, running ^ 1)
