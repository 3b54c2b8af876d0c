"""The lock, the socket and the state of a group's place."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spark_llm.coordination.place import FOLDER_VARIABLE, MEMORY_S, LockId, Place

DAY_S = 86_400


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return an empty folder with a short path, in which places are."""
    path = Path(tempfile.mkdtemp(prefix="p-", dir="/tmp"))
    monkeypatch.setenv(FOLDER_VARIABLE, str(path))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def folder(parent: Path) -> Path:
    """Return the folder that the library makes there."""
    return parent / f"spark_llm-{os.getuid()}"


def age(path: Path, seconds: float) -> None:
    """Make a file look old."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_one_has_the_lock(parent: Path) -> None:
    """A second one gets it when the first has given it up."""
    first, second = Place("k"), Place("k")

    assert first.lock()
    assert not second.lock()
    first.unlock()
    assert second.lock()
    assert second.is_held
    assert not first.is_held
    second.unlock()


def test_keys_have_places_of_their_own(parent: Path) -> None:
    """Parts of a key are told apart."""
    places = [Place(key) for key in (("a", "b"), ("a\nb",), ("a", "b", None), (1,), ("1",))]

    assert all(place.lock() for place in places)
    for place in places:
        place.unlock()


def test_a_lock_is_replaced_by_one_of_many(parent: Path) -> None:
    """Of twenty that depose the same broker at once, one has its place; nobody deposes the successor by mistake."""
    stopped = Place("k")
    assert stopped.lock()
    seen = stopped.lock_id()
    assert seen is not None
    others = [Place("k") for _ in range(20)]
    taken: list[Place] = []

    def depose(place: Place) -> None:
        taken.extend(place for _ in range(50) if place.replace_lock(seen))

    threads = [threading.Thread(target=depose, args=(place,)) for place in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 1 == len(taken)
    assert taken[0].is_held
    assert not stopped.is_held
    for place in (stopped, *taken):
        place.unlock()


def test_a_lock_that_was_taken_anew_is_not_replaced(parent: Path) -> None:
    """The broker that stood still has died, and another one has the same file since."""
    stopped, successor, late = Place("k"), Place("k"), Place("k")
    stopped.lock()
    seen = stopped.lock_id()
    assert seen is not None
    stopped.unlock()
    assert successor.lock()

    assert not late.replace_lock(seen)
    assert successor.is_held
    successor.unlock()


def test_a_deposed_broker_takes_no_socket(parent: Path) -> None:
    """It comes back between the lock and the socket: it can listen no more, and its successor's socket stays."""
    stopped, successor = Place("k"), Place("k")
    stopped.lock()
    seen = stopped.lock_id()
    assert seen is not None
    assert successor.replace_lock(seen)
    lock = successor.lock_id()
    assert lock is not None
    with successor.listen():
        with pytest.raises(OSError, match="lock"):
            stopped.listen()

        assert Path(successor.socket_path(lock)).is_socket()
        assert successor.socket_path(lock) != stopped.socket_path(seen)
    stopped.unlock()
    successor.unlock()


def test_a_removed_folder_is_made_again(folder: Path) -> None:
    """A lock whose file was removed is lost, and can be taken again."""
    first, second = Place("k"), Place("k")
    first.lock()
    shutil.rmtree(folder)

    assert not first.is_held
    assert second.lock()
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    first.unlock()
    second.unlock()


@pytest.mark.parametrize("what", ["file", "symlink", "open to others", "of another user"])
def test_a_folder_that_is_not_private_is_refused(what: str, folder: Path, tmp_path: Path) -> None:
    """Nothing is read from it or written to it."""
    if what == "file":
        folder.touch(0o700)
    elif what == "symlink":
        tmp_path.chmod(0o700)
        folder.symlink_to(tmp_path)
    else:
        folder.mkdir(0o700)
        if what == "open to others":
            folder.chmod(0o755)
        elif os.getuid() == 0:
            os.chown(folder, 65534, 65534)
        else:
            pytest.skip("only root can give a folder away")

    with pytest.raises(OSError, match=r"private|exists"):
        Place("k")
    assert not folder.is_dir() or not list(folder.iterdir())


def test_a_long_path_is_refused(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's path has 103 bytes at most, on macOS; no folder is made that cannot be used, and any other can."""
    longest = 103 - len(f"/spark_llm-{os.getuid()}/{'d' * 20}.{2**64 - 1:x}")
    for length in (longest, longest + 1):
        deep = parent / ("d" * (length - len(f"{parent}/")))
        deep.mkdir()
        monkeypatch.setenv(FOLDER_VARIABLE, str(deep))
        if length == longest:
            place = Place("k")
            assert 103 == len(place.socket_path(LockId(2**64 - 1, 0)))
        else:
            with pytest.raises(OSError, match="longer than 103 bytes"):
                Place("k")

    assert [] == list(deep.iterdir())


def test_the_state_is_the_last_one_written(parent: Path) -> None:
    """A short state that was written over a long one is read alone, with its age."""
    place = Place("k")
    assert place.read_state() is None
    place.write_state(b"long" * 2_000)
    place.write_state(b"short")

    found = Place("k").read_state()
    assert found is not None
    assert b"short" == found[0]
    assert found[1] < 10.0


def test_a_state_is_kept_for_ten_minutes(folder: Path) -> None:
    """What is older is forgotten."""
    place = Place("k")
    place.write_state(b"{}")
    [state] = folder.glob("*.state")

    age(state, MEMORY_S - 60)
    assert place.read_state() is not None
    age(state, MEMORY_S + 1)
    assert place.read_state() is None


def test_groups_that_ended_a_day_ago_are_swept(folder: Path) -> None:
    """Files of groups at work and of younger ones stay; nobody looks again for an hour."""
    old, held, young = Place("old"), Place("held"), Place("young")
    for place in (old, held, young):
        place.lock()
        place.listen().close()
        place.write_state(b"{}")
    files = {place: set(folder.glob(f"{Path(place.socket_path(place.lock_id())).stem}*")) for place in (old, held)}  # type: ignore[arg-type]
    for path in (*files[old], *files[held]):
        age(path, DAY_S + 60)
    old.unlock()
    young.unlock()

    assert young.needs_sweep
    young.sweep()
    assert not young.needs_sweep
    assert not any(path.exists() for path in files[old])
    assert all(path.exists() for path in files[held])
    assert held.is_held
    assert young.lock()
    held.unlock()
    young.unlock()


@pytest.mark.waits
def test_the_library_works_without_unix_locks() -> None:
    """Where Python has no `fcntl`, as on Windows, everything can be imported, and there is no place."""
    code = """
import sys
sys.modules["fcntl"] = None
import spark_llm.engine.engine
from spark_llm.coordination.place import Place
try:
    Place(("k",))
except OSError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "this system has no Unix sockets\n" == ran.stdout
