"""The file of a cache: what was put is found, within bounds, by many processes, whatever happens to the bytes."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spark_llm.cache.entry import FORMAT, Entry
from spark_llm.cache.sqlite_store import DamagedError, Store, move_aside
from tests.conftest import ROOT
from tests.support.keeping import entry, files, kept, key, put_in_a_process

MAX_AGE_S = 100.0
NUMBERS = st.integers(0, 9)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "cache"


@contextlib.contextmanager
def store_in(folder: Path, patience_s: float = 5.0, most_bytes: int = 2**30) -> Iterator[Store]:
    """Open a store, and close it."""
    with contextlib.closing(Store(folder, patience_s=patience_s, most_bytes=most_bytes, max_age_s=MAX_AGE_S)) as store:
        yield store


class Keeping(RuleBasedStateMachine):
    """Two processes' worth of connections to one file, held against a dictionary and a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.stores = [self.opened(), self.opened()]
        self.now = 1_000.0
        self.expected: dict[bytes, tuple[float, Entry]] = {}

    def opened(self) -> Store:
        """Open another connection."""
        return Store(self.folder, max_age_s=MAX_AGE_S)

    def teardown(self) -> None:
        """Leave nothing behind."""
        for store in self.stores:
            store.close()
        shutil.rmtree(self.folder)

    @rule(which=st.integers(0, 1), numbers=st.lists(NUMBERS, max_size=5), answer=st.binary(max_size=9))
    def put(self, which: int, numbers: list[int], answer: bytes) -> None:
        """Keep some entries, new ones and others in the place of old ones."""
        entries = {key(number): Entry(answer, None if number % 2 else answer * number) for number in numbers}
        self.stores[which].put(entries, self.now)
        self.expected |= {each: (self.now, entry) for each, entry in entries.items()}

    @rule(seconds=st.floats(0, MAX_AGE_S))
    def wait(self, seconds: float) -> None:
        """Let time go by."""
        self.now += seconds

    @rule(which=st.integers(0, 1))
    def open_again(self, which: int) -> None:
        """End one process and begin another."""
        self.stores[which].close()
        self.stores[which] = self.opened()

    @precondition(lambda self: self.expected)
    @invariant()
    def all_is_found(self) -> None:
        """Each connection finds what any of them put, as long as it is not too old."""
        since = self.now - MAX_AGE_S
        young = {each: entry for each, (at, entry) in self.expected.items() if at >= since}
        for store in self.stores:
            assert young == store.get([key(number) for number in range(10)], self.now)


TestKeeping = Keeping.TestCase
TestKeeping.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 80), st.sampled_from([0, 100, 4_000, 20_000])), min_size=1, max_size=12))
def test_a_file_grows_no_larger_than_it_may_and_the_oldest_go_first(
    tmp_path: Path, batches: list[tuple[int, int]]
) -> None:
    """What is left is what came last, without a gap, and fills the room; the file is larger by no more than a batch."""
    most_bytes = 1_000_000
    bytes_of: list[int] = []
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    with store_in(folder, most_bytes=most_bytes) as store:
        for entries, vector_bytes in batches:
            new = range(len(bytes_of), len(bytes_of) + entries)
            store.put({key(number): entry(number, vector_bytes) for number in new}, now=0.0)
            bytes_of += [vector_bytes + 100] * entries
            left = kept(store, range(len(bytes_of)))

            assert list(range(len(bytes_of) - len(left), len(bytes_of))) == left
            assert sum(bytes_of[number] for number in left) <= most_bytes
            dropped = bytes_of[: len(bytes_of) - len(left)]
            assert not dropped or sum(bytes_of[number] for number in left) + sum(dropped[-8:]) > most_bytes * 3 // 4
        path = store.path

    assert path.stat().st_size <= most_bytes + max(
        sum([vector_bytes + 1_000] * entries) for entries, vector_bytes in batches
    )


def test_entries_that_are_too_old_make_room(folder: Path) -> None:
    """They are not found, and are deleted a few at a time as others come."""
    with store_in(folder) as store:
        store.put({key(number): entry(number) for number in range(200)}, now=0.0)
        before = kept(store, range(200), now=MAX_AGE_S)
        after = kept(store, range(200), now=MAX_AGE_S + 1)
        store.put({key(1_000): entry(1_000)}, now=MAX_AGE_S + 1)
        with contextlib.closing(sqlite3.connect(store.path)) as connection:
            ((rows,),) = connection.execute("SELECT COUNT(*) FROM answers")

    assert list(range(200)) == before
    assert [] == after
    assert 1 == rows


def test_more_keys_than_a_statement_takes_are_found(folder: Path) -> None:
    """SQLite allows so many question marks in one."""
    with store_in(folder) as store:
        store.put({key(number): entry(number) for number in range(1_700)}, now=0.0)

        assert 1_700 == len(kept(store, range(2_000)))
        assert {} == store.get([], now=0.0)


@pytest.mark.waits
def test_many_processes_write_at_once(folder: Path) -> None:
    """Four processes, none of which finds a file, make one together, and each entry of each is in it."""
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=put_in_a_process, args=(str(folder), 500 * each, 500)) for each in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)

    assert [0, 0, 0, 0] == [process.exitcode for process in processes]
    with store_in(folder) as store:
        assert 2_000 == len(kept(store, range(2_000)))
        assert [store.path] == files(folder)


@pytest.mark.waits
def test_a_process_that_is_killed_leaves_all_that_was_kept(folder: Path) -> None:
    """SIGKILL in the middle of writing: the next process finds every entry that had been put, and goes on."""
    program = f"from tests.support.keeping import put_for_ever; put_for_ever({str(folder)!r})"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ROOT},
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(300)]
        process.send_signal(signal.SIGKILL)
        said += process.stdout.readlines()
    put = [int(line) for line in said if line.endswith("\n")]

    assert -signal.SIGKILL == process.returncode
    with store_in(folder) as store:
        assert put == kept(store, put)
        store.put({key(10**6): entry(10**6)}, now=0.0)
        assert [10**6] == kept(store, [10**6])


def test_nobody_else_can_read_the_file(folder: Path) -> None:
    """Answers are somebody's data: folder, file and what SQLite puts beside it are their owner's alone."""
    with store_in(folder) as store:
        store.put({key(1): entry(1)}, now=0.0)
        modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}

    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    assert {0o600} == modes


def test_a_locked_file_is_waited_for_and_then_told(folder: Path) -> None:
    """Reading goes on meanwhile; a lock is no damage."""
    with store_in(folder) as other, store_in(folder, patience_s=0.01) as store:
        other.put({key(1): entry(1)}, now=0.0)
        with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                store.put({key(2): entry(2)}, now=0.0)
            there = kept(store, [1, 2])
            holder.execute("ROLLBACK")
        store.put({key(2): entry(2)}, now=0.0)

        assert [1] == there
        assert [1, 2] == kept(store, [1, 2])


@pytest.mark.parametrize(
    "content",
    [b"", b"no database", b"SQLite format 3\0", bytes(8_192), b"\xff" * 100_000],
    ids=["empty", "text", "cut", "zeros", "ones"],
)
def test_a_file_that_is_none_of_ours_is_damaged(folder: Path, content: bytes) -> None:
    """Whatever stands in the place of the file, and is not what was written."""
    folder.mkdir()
    (folder / f"answers-{FORMAT}-1.sqlite3").write_bytes(content)

    with pytest.raises(DamagedError):
        Store(folder)


def test_a_file_of_another_format_is_left_alone(folder: Path) -> None:
    """Another version of the library has a file of its own."""
    folder.mkdir()
    other = folder / f"answers-{FORMAT + 1}-7.sqlite3"
    other.write_bytes(b"another version's")
    with store_in(folder) as store:
        store.put({key(1): entry(1)}, now=0.0)

        assert [f"answers-{FORMAT}-1.sqlite3"] == [file.name for file in files(folder) if file != other]
    assert b"another version's" == other.read_bytes()


def test_a_file_that_says_another_format_is_damaged(folder: Path) -> None:
    """The name says one format, and the file another."""
    with store_in(folder) as store:
        path = store.path
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT + 1}")

    with pytest.raises(DamagedError, match=f"its format is {FORMAT + 1}"):
        Store(folder)


def test_two_that_find_the_damage_at_once_go_on_with_one_new_file(folder: Path) -> None:
    """The second one moves nothing: what it knows as damaged is gone, and what is there has another name."""
    with store_in(folder) as one, store_in(folder) as other:
        damaged = one.path
        aside = move_aside(damaged, now=7.0)
        assert (False, False) == (one.is_current, other.is_current)
        with store_in(folder) as new:
            new.put({key(1): entry(1)}, now=0.0)
            move_aside(other.path, now=8.0)

            assert new.is_current
            assert [1] == kept(new, [1])
            assert new.path != damaged
            assert [new.path, aside] == sorted(files(folder), key=lambda file: "corrupt" in file.name)
        other.put({key(2): entry(2)}, now=0.0)  # late, and to the file that was moved: it harms nobody
    with store_in(folder) as later:
        assert [1] == kept(later, [1, 2])


def test_one_damaged_file_is_kept(folder: Path) -> None:
    """Damage again and again does not fill the disk."""
    asides = []
    for now in (7.0, 8.0, 9.0):
        with store_in(folder) as store:
            asides.append(move_aside(store.path, now))

    assert [3, 1] == [len(set(asides)), len(files(folder))]
    assert asides[-1:] == files(folder)


def test_a_file_that_was_deleted_is_no_longer_current(folder: Path) -> None:
    """A person may delete the folder while a job runs, and another job may have made it again."""
    with store_in(folder) as store:
        before = store.is_current
        shutil.rmtree(folder)
        gone = store.is_current
        with store_in(folder) as another:
            assert (another.path, True) == (store.path, another.is_current)
            assert (True, False, False) == (before, gone, store.is_current)


ENTRIES = {key(number): entry(number, 5_000 if number % 10 == 0 else 0) for number in range(120)}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a cache as a process leaves them that is killed: some entries in the file, some beside it."""
    folder = tmp_path_factory.mktemp("sound")
    half = len(ENTRIES) // 2
    with store_in(folder) as store:
        store.put(dict(list(ENTRIES.items())[:half]), now=0.0)
    with store_in(folder) as store:
        store.put(dict(list(ENTRIES.items())[half:]), now=0.0)
        return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith("-shm")}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.data())
def test_damage_anywhere_is_told_or_does_no_harm(tmp_path: Path, sound: dict[str, bytes], data: st.DataObject) -> None:
    """Bytes that are flipped, overwritten or cut off: what is found is what was put, or the file is told as damaged."""
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    hit = data.draw(st.sampled_from(sorted(sound)))
    content = bytearray(sound[hit])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 200))
        new = data.draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\0" * 600, b"\xff" * 600]))
        content[at : at + len(new)] = new
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    for name, whole in sound.items():
        (folder / name).write_bytes(bytes(content) if name == hit else whole)
    try:
        with store_in(folder) as store:
            found = store.get(list(ENTRIES), now=0.0)
            assert found.items() <= ENTRIES.items()
            store.put({key(1_000): entry(1_000)}, now=0.0)
            assert [1_000] == kept(store, [1_000])
    except DamagedError as damage:
        move_aside(damage.path, now=7.0)
        with store_in(folder) as store:
            store.put(ENTRIES, now=0.0)
            assert ENTRIES == store.get(list(ENTRIES), now=0.0)
