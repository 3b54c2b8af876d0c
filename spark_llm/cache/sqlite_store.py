"""The file of a cache: entries under their keys, in SQLite, for many processes at once on a local disk.

A file is whole from its first moment: it is made under another name, and linked to its own when it is done. A file that
turns out to be damaged is moved aside, and the next one has a number of its own. So no process ever moves, opens or
deletes a file that another one has just begun, however many find the damage at once.
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

MOST_BYTES = 4 * 2**30
MAX_AGE_S = 30 * 86_400.0
_KEYS_AT_ONCE = 500  # SQLite's limit was 999 for long
_DROPPED_AT_ONCE = 8
_EXPIRED_AT_ONCE = 1_024  # so that nobody waits long for the file when a month of entries is over on one day
_OPENINGS = 5  # others may move the file aside while it is being opened
_TAILS = ("", "-wal", "-shm")  # of the names of SQLite's files
_NAME = re.compile(rf"answers-{FORMAT}-(\d+)\.sqlite3(\.corrupt-\d+)?")
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
    """A file that does not hold what was written to it."""

    def __init__(self, path: Path, why: str) -> None:
        """Say which file, and what SQLite says of it."""
        super().__init__(path, why)
        self.path = path
        self.why = why


class Store:
    """One connection to a cache's newest file, for one thread at a time.

    Raises `DamagedError` for a file that cannot be what was written, and else what SQLite and the system raise.

    >>> with contextlib.closing(Store(Path("/local_disk0/answers"))) as store:
    ...     store.put({key: entry}, now=time.time())
    ...     store.get([key], now=time.time())
    """

    def __init__(
        self,
        folder: Path,
        *,
        patience_s: float = 5.0,
        most_bytes: int = MOST_BYTES,
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        """Open the newest file in `folder`, or make both; wait `patience_s` where another process has it locked.

        Beyond `most_bytes` the oldest entries go; those older than `max_age_s` are found no more.
        """
        self._most_bytes, self._max_age_s = most_bytes, max_age_s
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path, self._connection = _opened(folder, patience_s)
        try:
            self._identity = _identity(self.path)
            with self._damage_told():
                self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        ((version,),) = self._connection.execute("PRAGMA user_version")
        if version != FORMAT:
            raise DamagedError(self.path, f"its format is {version}, and not {FORMAT}")
        self._connection.execute("PRAGMA synchronous = NORMAL")  # a power cut costs the last seconds, and no more
        self._connection.execute(f"PRAGMA journal_size_limit = {16 * 2**20}")

    @property
    def is_current(self) -> bool:
        """Whether the file is still where it was opened: others may have moved it aside, a person deleted it."""
        try:
            return _identity(self.path) == self._identity
        except OSError:
            return False

    def get(self, keys: Sequence[bytes], now: float) -> dict[bytes, Entry]:
        """Return the entries that there are for `keys`; one whose checksum is wrong is none."""
        found = {}
        with self._damage_told():
            for start in range(0, len(keys), _KEYS_AT_ONCE):
                some = keys[start : start + _KEYS_AT_ONCE]
                select = (
                    "SELECT key, checksum, answer, vector FROM answers "  # noqa: S608 -- question marks are put in
                    f"WHERE key IN ({','.join('?' * len(some))}) AND at >= ?"
                )
                for key, checksum, answer, vector in self._connection.execute(
                    select, [*some, now - self._max_age_s]
                ).fetchall():
                    entry = Entry(answer, vector)
                    if _are_bytes(key, answer, vector) and checksum == _checksum(key, entry):
                        found[key] = entry
        return found

    def put(self, entries: Mapping[bytes, Entry], now: float) -> None:
        """Keep entries, in the place of older ones under their keys, and forget what is too much or too old."""
        rows = ((key, now, _checksum(key, entry), *entry) for key, entry in entries.items())
        with self._damage_told(), self._transaction():
            self._connection.executemany(
                "INSERT OR REPLACE INTO answers (key, at, checksum, answer, vector) VALUES (?, ?, ?, ?, ?)", rows
            )
            while self._used_bytes() > self._most_bytes and self._drop_oldest(before=float("inf")):
                pass
            for _ in range(0, _EXPIRED_AT_ONCE, _DROPPED_AT_ONCE):
                if not self._drop_oldest(before=now - self._max_age_s):
                    break

    def close(self) -> None:
        """Close the connection; the last one to a file puts its parts together."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _used_bytes(self) -> int:
        ((pages, free, page_bytes),) = self._connection.execute(
            "SELECT * FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
        )
        return int((pages - free) * page_bytes)

    def _drop_oldest(self, before: float) -> int:
        """Forget a few of the oldest entries, as far as they are from `before`; return how many."""
        done = self._connection.execute(
            "DELETE FROM answers WHERE at < ? AND number IN (SELECT number FROM answers ORDER BY number LIMIT ?)",
            (before, _DROPPED_AT_ONCE),
        )
        return done.rowcount

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _damage_told(self) -> Iterator[None]:
        """Tell damage from all else that SQLite complains of: it has no class of its own before Python 3.11."""
        try:
            yield
        except sqlite3.Error as error:
            its_own = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InternalError)
            if type(error) is sqlite3.DatabaseError or isinstance(error, its_own) or "no such" in str(error):
                raise DamagedError(self.path, str(error)) from error
            raise


def move_aside(path: Path, now: float) -> Path:
    """Give a damaged file another name, which is returned; nothing happens where another process did so.

    One of them is kept, for whoever wants to look at it: those of earlier damage are deleted.
    """
    aside = path.with_name(f"{path.name}.corrupt-{int(now)}")
    for other in list(path.parent.iterdir()):
        name = _NAME.fullmatch(other.name)
        if name and name[2] and int(name[1]) < _number(path):
            for tail in _TAILS:
                other.with_name(other.name + tail).unlink(missing_ok=True)
    for tail in _TAILS:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + tail).replace(aside.with_name(aside.name + tail))
    return aside


def _opened(folder: Path, patience_s: float) -> tuple[Path, sqlite3.Connection]:
    """Return the newest file and a connection to it; SQLite must not make one, which would not be whole."""
    for left in reversed(range(_OPENINGS)):
        path = _newest(folder) or _made(folder)
        try:
            connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=patience_s,
                isolation_level=None,
                check_same_thread=False,  # whoever ends a task closes its connections
            )
        except sqlite3.OperationalError:
            if left and not path.exists():
                continue
            raise
        connection.text_factory = bytes  # a damaged file may hold texts, which would have to be UTF-8
        return path, connection
    raise AssertionError("the last opening raises")


def _newest(folder: Path) -> Path | None:
    names = filter(None, (_NAME.fullmatch(file.name) for file in folder.iterdir()))
    numbers = [int(name[1]) for name in names if not name[2]]
    return _file(folder, max(numbers)) if numbers else None


def _made(folder: Path) -> Path:
    """Make an empty file that its owner alone can read, under the next number; another process may be faster."""
    path = _file(folder, 1 + max(map(_number, folder.iterdir()), default=0))
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as workshop:
        new = Path(workshop) / path.name
        with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as connection:
            connection.executescript(_SCHEMA)
        new.chmod(0o600)  # SQLite's further files get the same
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(new)
    return path


def _file(folder: Path, number: int) -> Path:
    return folder / f"answers-{FORMAT}-{number}.sqlite3"


def _number(file: Path) -> int:
    """Return the number in a file's name, moved aside or not; 0 where there is none."""
    name = _NAME.fullmatch(file.name)
    return int(name[1]) if name else 0


def _identity(path: Path) -> tuple[int, int]:
    found = os.stat(path)  # noqa: PTH116 -- a microsecond less than Path.stat, at every look
    return found.st_dev, found.st_ino


def _checksum(key: bytes, entry: Entry) -> int:
    """Return what shows that these bytes are those that were written: SQLite would not tell a flipped bit in them."""
    running = zlib.crc32(entry.answer, zlib.crc32(key))
    return running if entry.vector is None else zlib.crc32(entry.vector, running ^ 1)


def _are_bytes(key: object, answer: object, vector: object) -> bool:
    """Return whether these have the types that were written, which a damaged file may not keep."""
    return isinstance(key, bytes) and isinstance(answer, bytes) and isinstance(vector, (bytes, type(None)))
