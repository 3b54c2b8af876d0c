"""Place of a host's group: the lock that makes one worker the broker, its socket, and what it last knew.

The lock decides, and not the socket: a socket file outlives its process. A process that dies frees its lock. Of one
that stands still the lock is replaced by a new file, so the broker checks from time to time that the file is its own.
Only this user may enter the folder.
"""

import contextlib
import errno
import hashlib
import os
import socket
import stat
import struct
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # None in place of the module

FOLDER_VARIABLE = "SPARK_LLM_LIMITS_FOLDER"
MEMORY_S = 600.0  # how long a group without workers is remembered
_MAX_PATH_BYTES = 103  # of a socket, on macOS
_DIGITS = 20  # of a group's key in the names of its files
_LOCK_DIGITS = 16  # of the lock's number in the name of its socket
_SWEEP_S = 86_400.0
_SWEEP_EVERY_S = 3_600.0
_BACKLOG = 1024
_PRIVATE = 0o700


class LockId(NamedTuple):
    """A process's hold of the lock: another process that gets it has another one."""

    file: int
    since_ns: int


class Place:
    """The files of one group; `OSError` where this host has no place for it."""

    def __init__(self, key: Iterable[object]) -> None:
        """Find the folder; raises `OSError` where no folder is private, or the system has no such sockets."""
        if fcntl is None or not hasattr(socket, "AF_UNIX"):
            raise OSError("this system has no Unix sockets")
        self._folder = _private_folder()
        digest = hashlib.sha256(repr(tuple(key)).encode("utf-8", "surrogatepass")).hexdigest()
        self._base = self._folder / digest[:_DIGITS]
        self._lock_path = self._base.with_suffix(".lock")
        self._state_path = self._base.with_suffix(".state")
        self._swept_path = self._folder / "swept"
        self._lock: int | None = None

    @property
    def folder_id(self) -> str:
        """The folder's identity: that of another host or container is another one, whatever its path is."""
        found = self._folder.stat()
        return f"{found.st_dev}:{found.st_ino}"

    def lock(self) -> bool:
        """Take the lock if nobody has it; return whether this process has it now."""
        _make_private(self._folder)  # it may have been removed
        found = _locked(self._lock_path)
        if found is not None and not _is_at(self._lock_path, found):
            os.close(found)
            found = None
        return self._take(found)

    def replace_lock(self, seen: LockId) -> bool:
        """Take the lock of a broker that stands still, if the same one still has it; one process does so at a time."""
        turn = _locked(self._base.with_suffix(".turn"))
        if turn is None:
            return False
        try:
            return self.lock_id() == seen and self._replace_lock(seen)
        finally:
            os.close(turn)

    def lock_id(self) -> LockId | None:
        """Return who has, or last had, the lock; None where nobody ever had."""
        try:
            found = self._lock_path.stat()
        except OSError:
            return None
        return LockId(found.st_ino, found.st_mtime_ns)

    def socket_path(self, lock: LockId) -> str:
        """Return where the process with this lock listens; a broker whose lock was replaced has another path."""
        return f"{self._base}.{lock.file:x}"

    @property
    def is_held(self) -> bool:
        """Whether this process has the lock, and nobody replaced or removed its file."""
        return self._lock is not None and _is_at(self._lock_path, self._lock)

    @property
    def descriptors(self) -> list[int]:
        """The open files, which a child process must not keep."""
        return [] if self._lock is None else [self._lock]

    def listen(self) -> socket.socket:
        """Return a socket that listens for members; raises `OSError` where this process has not the lock."""
        lock = self.lock_id()
        if lock is None or not self.is_held:
            raise OSError("the lock was lost")
        path = self.socket_path(lock)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            Path(path).unlink(missing_ok=True)
            listener.setblocking(False)
            listener.bind(path)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        return listener

    def unlock(self) -> None:
        """Give the lock up."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read_state(self) -> tuple[bytes, float] | None:
        """Return what the last broker knew, and how many seconds ago; None where that is too long ago."""
        try:
            age_s = max(0.0, time.time() - self._state_path.stat().st_mtime)
            return (self._state_path.read_bytes().partition(b"\n")[0], age_s) if age_s < MEMORY_S else None
        except OSError:
            return None

    def write_state(self, state: bytes) -> None:
        """Write down what a successor has to know, in one line.

        It is written in place, in 13 µs: a new file that replaces the old one costs milliseconds on a busy disk.
        """
        with contextlib.suppress(OSError):  # the disk is full, say: a successor begins anew
            written = os.open(self._state_path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(written, state + b"\n", 0)
            finally:
                os.close(written)

    @property
    def needs_sweep(self) -> bool:
        """Whether nobody has swept the folder for an hour."""
        try:
            return time.time() - self._swept_path.stat().st_mtime > _SWEEP_EVERY_S
        except OSError:
            return True

    def sweep(self) -> None:
        """Remove the files of groups that ended a day ago."""
        with contextlib.suppress(OSError):
            self._swept_path.touch()
            groups: dict[str, list[Path]] = {}
            for path in self._folder.iterdir():
                groups.setdefault(path.name.partition(".")[0], []).append(path)
            for paths in groups.values():
                _remove_unused(paths)

    def _replace_lock(self, seen: LockId) -> bool:
        new = self._base.with_suffix(".next")
        if not self._take(_locked(new)):
            return False
        try:
            Path(self.socket_path(seen)).unlink(missing_ok=True)
            new.replace(self._lock_path)
        except OSError:
            self.unlock()
            raise
        return True

    def _take(self, found: int | None) -> bool:
        if found is not None:
            now = time.time_ns()
            os.utime(found, ns=(now, now))  # another time is another `LockId`
            self._lock = found
        return found is not None


def peer_of(connected: socket.socket) -> tuple[int | None, int | None]:
    """Return the process and the user at the other end of a Unix socket; None where the system does not say."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None, None
    pid, uid, _ = struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    return pid, uid


def _private_folder() -> Path:
    """Return a folder that only this user may enter, on this host's own disk; raises `OSError` for none."""
    error = OSError("there is no folder for it")
    for parent in _parents():
        folder = parent / f"spark_llm-{os.getuid()}"
        try:
            _check_length(folder)
            _make_private(folder)
        except OSError as cause:
            error = cause
        else:
            return folder
    raise error


def _check_length(folder: Path) -> None:
    """Raise `OSError` for a folder in which the path of a socket would be too long."""
    if len(os.fsencode(folder)) + len("/.") + _DIGITS + _LOCK_DIGITS > _MAX_PATH_BYTES:
        raise OSError(f"the path of a socket in {folder} is longer than {_MAX_PATH_BYTES} bytes")


def _make_private(folder: Path) -> None:
    """Make a folder that only this user may enter, if there is none; raises `OSError` where another thing is there."""
    folder.mkdir(mode=_PRIVATE, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != _PRIVATE:
        raise OSError(f"{folder} is not a private folder of this user")


def _parents() -> Iterator[Path]:
    if named := os.environ.get(FOLDER_VARIABLE):
        yield Path(named)
        return
    yield Path("/tmp")  # noqa: S108 -- the folder in it is private, and its path is short enough for a socket
    yield Path(tempfile.gettempdir())


def _locked(path: Path) -> int | None:
    """Return the open file, locked; None where another process has locked it."""
    found = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(found)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return None
        raise
    return found


def _is_at(path: Path, found: int) -> bool:
    """Return whether an open file is still the one at this path."""
    try:
        return os.path.samestat(os.fstat(found), path.stat())
    except OSError:
        return False


def _remove_unused(paths: Iterable[Path]) -> None:
    """Remove a group's files if none was used for a day, the lock last; whoever takes it meanwhile finds it removed."""
    with contextlib.suppress(OSError):
        if time.time() - max(path.stat().st_mtime for path in paths) < _SWEEP_S:
            return
        lock_path = next((path for path in paths if path.suffix == ".lock"), None)
        found = None if lock_path is None else _locked(lock_path)
        if found is None and lock_path is not None:
            return
        try:
            for path in sorted(paths, key=lambda path: path == lock_path):
                path.unlink(missing_ok=True)
        finally:
            if found is not None:
                os.close(found)
