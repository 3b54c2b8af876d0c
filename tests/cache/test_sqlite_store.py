"""The cache file: many processes find what they put, within bounds, and damage to its bytes does no harm."""

import base64
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
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spark_llm.cache.entry import FORMAT, Entry, Keys, decoded_answer
from spark_llm.cache.sqlite_store import DamagedError, Store
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.values import Result, Usage
from tests.conftest import ROOT
from tests.support.keeping import entry, files, kept, key, put_after_damage, put_in_a_process

MAX_AGE_S = 100.0
NUMBERS = st.integers(0, 9)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that does not exist yet."""
    return tmp_path / "cache"


@contextlib.contextmanager
def store_in(folder: Path, busy_timeout_s: float = 5.0, max_bytes: int = 2**30) -> Iterator[Store]:
    """Open a store, and close it."""
    store = Store(folder, busy_timeout_s=busy_timeout_s, max_bytes=max_bytes, max_age_s=MAX_AGE_S)
    with contextlib.closing(store):
        yield store


class StoreMachine(RuleBasedStateMachine):
    """Two connections to one file, as of two processes, compared with a dictionary and a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.stores = [self.new_store(), self.new_store()]
        self.now = 1_000.0
        self.expected: dict[bytes, tuple[float, Entry]] = {}

    def new_store(self) -> Store:
        """Open another connection."""
        return Store(self.folder, max_age_s=MAX_AGE_S)

    def teardown(self) -> None:
        """Close the stores and delete the folder."""
        for store in self.stores:
            store.close()
        shutil.rmtree(self.folder)

    @rule(which=st.integers(0, 1), numbers=st.lists(NUMBERS, max_size=5), answer=st.binary(max_size=9))
    def put(self, which: int, numbers: list[int], answer: bytes) -> None:
        """Put some entries, new ones and replacements."""
        entries = {key(number): Entry(answer, None if number % 2 else answer * number) for number in numbers}
        self.stores[which].put(entries, self.now)
        self.expected |= {each: (self.now, entry) for each, entry in entries.items()}

    @rule(seconds=st.floats(0, MAX_AGE_S))
    def wait(self, seconds: float) -> None:
        """Move the clock forward."""
        self.now += seconds

    @rule(which=st.integers(0, 1))
    def open_again(self, which: int) -> None:
        """Close one connection and open another, as a new process would."""
        self.stores[which].close()
        self.stores[which] = self.new_store()

    @precondition(lambda self: self.expected)
    @invariant()
    def every_young_entry_is_found(self) -> None:
        """Each connection finds the entries of both that are not too old."""
        since = self.now - MAX_AGE_S
        young = {each: entry for each, (at, entry) in self.expected.items() if at >= since}
        for store in self.stores:
            assert young == store.get([key(number) for number in range(10)], self.now)


TestStore = pytest.mark.waits(StoreMachine.TestCase)
TestStore.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)


@pytest.mark.waits
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 80), st.sampled_from([0, 100, 4_000, 20_000])), min_size=1, max_size=12))
def test_the_file_stays_within_its_size_and_the_oldest_entries_go_first(
    tmp_path: Path, batches: list[tuple[int, int]]
) -> None:
    """The newest entries are left, without a gap, and fill the size; the file exceeds it by one batch at most."""
    max_bytes = 1_000_000
    bytes_of: list[int] = []
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    with store_in(folder, max_bytes=max_bytes) as store:
        for entries, vector_bytes in batches:
            new = range(len(bytes_of), len(bytes_of) + entries)
            store.put({key(number): entry(number, vector_bytes) for number in new}, now=0.0)
            bytes_of += [vector_bytes + 100] * entries
            left = kept(store, range(len(bytes_of)))

            assert list(range(len(bytes_of) - len(left), len(bytes_of))) == left
            assert sum(bytes_of[number] for number in left) <= max_bytes
            dropped = bytes_of[: len(bytes_of) - len(left)]
            assert not dropped or sum(bytes_of[number] for number in left) + sum(dropped[-8:]) > max_bytes * 3 // 4
        path = store.path

    assert path.stat().st_size <= max_bytes + max(
        sum([vector_bytes + 1_000] * entries) for entries, vector_bytes in batches
    )


def test_expired_entries_are_deleted(folder: Path) -> None:
    """They are not found, and later puts delete them in batches."""
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


def test_more_keys_than_one_statement_allows_are_found(folder: Path) -> None:
    """A lookup of 2,000 keys finds the 1,700 that exist: SQLite limits the parameters of a statement."""
    with store_in(folder) as store:
        store.put({key(number): entry(number) for number in range(1_700)}, now=0.0)

        assert 1_700 == len(kept(store, range(2_000)))
        assert {} == store.get([], now=0.0)


@pytest.mark.waits
def test_many_processes_create_and_write_one_file_at_once(folder: Path) -> None:
    """Four processes that find no file create one together, and it has every entry of each."""
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
def test_a_killed_process_leaves_every_entry_that_was_put(folder: Path) -> None:
    """After a SIGKILL during writes the next process finds every entry that had been put, and puts more."""
    program = f"from tests.support.keeping import put_for_ever; put_for_ever({str(folder)!r})"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ROOT},
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(300)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    put = [int(line) for line in lines if line.endswith("\n")]

    assert -signal.SIGKILL == process.returncode
    with store_in(folder) as store:
        assert put == kept(store, put)
        store.put({key(10**6): entry(10**6)}, now=0.0)
        assert [10**6] == kept(store, [10**6])


def test_only_the_owner_can_read_the_files(folder: Path) -> None:
    """Folder, cache file, lock and SQLite's further files have modes 0700 and 0600."""
    with store_in(folder) as store:
        store.put({key(1): entry(1)}, now=0.0)
        modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}

    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    assert {0o600} == modes


def test_a_write_to_a_locked_file_waits_and_then_raises(folder: Path) -> None:
    """Reading goes on meanwhile, and a lock is not taken for damage."""
    with store_in(folder) as other, store_in(folder, busy_timeout_s=0.01) as store:
        other.put({key(1): entry(1)}, now=0.0)
        with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                store.put({key(2): entry(2)}, now=0.0)
            readable = kept(store, [1, 2])
            holder.execute("ROLLBACK")
        store.put({key(2): entry(2)}, now=0.0)

        assert [1] == readable
        assert [1, 2] == kept(store, [1, 2])


@pytest.mark.parametrize(
    "content",
    [b"", b"no database", b"SQLite format 3\0", bytes(8_192), b"\xff" * 100_000],
    ids=["empty", "text", "cut", "zeros", "ones"],
)
def test_a_file_that_is_not_a_cache_is_damaged(folder: Path, content: bytes) -> None:
    """Any other content under the name of the cache file is moved aside."""
    folder.mkdir()
    (folder / f"answers-{FORMAT}-1.sqlite3").write_bytes(content)

    with pytest.raises(DamagedError, match="was moved to"):
        Store(folder)

    assert [f"answers-{FORMAT}-1.sqlite3.corrupt"] == [file.name for file in files(folder)]


def test_a_file_of_another_format_is_left_alone(folder: Path) -> None:
    """Another version of the library uses a file of its own."""
    folder.mkdir()
    other = folder / f"answers-{FORMAT + 1}-7.sqlite3"
    other.write_bytes(b"another version's")
    with store_in(folder) as store:
        store.put({key(1): entry(1)}, now=0.0)

        assert [f"answers-{FORMAT}-1.sqlite3"] == [file.name for file in files(folder) if file != other]
    assert b"another version's" == other.read_bytes()


def test_a_file_with_another_format_inside_is_damaged(folder: Path) -> None:
    """The format in the file must be the one in its name."""
    with store_in(folder) as store:
        path = store.path
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT + 1}")

    with pytest.raises(DamagedError, match=f"the format is {FORMAT + 1}, not {FORMAT}"):
        Store(folder)


FILE_OF_AN_EARLIER_VERSION = (  # zlib, base64: one chat answer and one embedding, written at the time 1000.0
    "eNrt2D9oE1EcB/DfvYu2BttTEDpkeZ4dKl5LY8GpUJNwSPBMm2sy1FDD9XzSmruk5i6NQqBaJ0HEwcVBd0EdHHQUF7Wbg+LioLhU3KQE"
    "hxa8y4WGKthNHL4feH9/8Hvvbvu92byx5At+qVZ3LZ9P0CFijE5zTkQsaDL1SEGL/baW6O8YjdnSgPKT2GCbBtvKOgEAAAAAAAD8Mzdm"
    "pL6hREJaa/rWgiOsqtcUda87sIyppwo6L6TShs67m3wkzgPVhrsg6jybK+hndJPPmNlzKXOOn9XntE68Iq7xtDGd5rnpAs8VDYMXc9l8"
    "UY+iQYUdpDZ2gtGuvSjsitdwd7LuDkcX2J01iqwI269FkfjxUbZ/KJWQaKl6UVz1rjhBVV+2Gn6tsy53v6Kc7E7Cur4//BMDYZGuTJLy"
    "IOgAAAAAAAAA4A9l1kcGiy0e2Xy0mt9st259mdW3T5z/2FpvbR38VlnJZO+Ujmaat9/IGxn7VH+p2nAcrdeVktGY7O3Na6qrRjOi61OW"
    "FB6wb5lerb3devrusDl8+eXXD5Or7R/PHz+7d+HJw/sj7z9PqXdfyxtE2zdj30tqWthWwxNjURZN9fzashoedVKb0Ma18eAEx7FcS9XU"
    "+mhSnY936v8XpHwKOgAAAAAAAAD4nwzLhrTXqwM7JhsH9no5+AWs58nJ"
)


@pytest.mark.parametrize("number", [1, 12])
def test_a_file_of_an_earlier_version_is_read(folder: Path, number: int) -> None:
    """Its keys and answers are found, and of several files the one with the highest number is used."""
    url = "https://host/serving-endpoints/llama/invocations"
    chat, embed = Keys(Chat(), url, "llama").of("Why?"), Keys(Embed(), url, None).of("Why?")
    assert chat is not None
    assert embed is not None
    folder.mkdir()
    path = folder / f"answers-1-{number}.sqlite3"
    path.write_bytes(zlib.decompress(base64.b64decode(FILE_OF_AN_EARLIER_VERSION)))
    (folder / "answers-1-9.sqlite3.corrupt-1700000000").write_bytes(b"damaged")
    with store_in(folder) as store:
        found = store.get([chat, embed], now=1_000.0)

        assert path == store.path
    assert Result("Because.", None, None, "stop", Usage(1, 2, 3, 0, 0), "llama", "r-1") == decoded_answer(found[chat])
    assert Result(embedding=b"\0\0\x80?", usage=Usage(1, None, 1), model="m") == decoded_answer(found[embed])


def damage_an_entry(path: Path) -> None:
    """Give entry 0 a wrong checksum."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE answers SET checksum = checksum + 1 WHERE key = ?", [key(0)])


def test_a_wrong_checksum_is_damage(folder: Path) -> None:
    """The entry is not returned, and the file with its parts is moved aside."""
    with store_in(folder) as store:
        store.put({key(0): entry(0), key(1): entry(1)}, now=0.0)
        damage_an_entry(store.path)
        with pytest.raises(DamagedError, match=r"the checksum of an entry is wrong\) and was moved to .*\.corrupt$"):
            store.get([key(0)], now=0.0)
        names = {file.name for file in folder.iterdir() if file.suffix != ".lock"}

    assert {f"answers-{FORMAT}-1.sqlite3.corrupt{suffix}" for suffix in ("", "-wal", "-shm")} == names


def test_a_second_finder_of_the_damage_leaves_the_new_file_alone(folder: Path) -> None:
    """It compares the file's identity: the damaged file is gone, and a sound one has its name."""
    with store_in(folder) as one, store_in(folder) as other:
        one.put({key(0): entry(0)}, now=0.0)
        damage_an_entry(one.path)
        with pytest.raises(DamagedError, match="was moved to"):
            one.get([key(0)], now=0.0)
        assert (False, False) == (one.is_current, other.is_current)
        with store_in(folder) as new:
            new.put({key(1): entry(1)}, now=0.0)
            with pytest.raises(DamagedError, match="another process has moved it aside"):
                other.get([key(0)], now=0.0)

            assert new.is_current
            assert [1] == kept(new, [1])
            assert new.path == other.path
        other.put({key(2): entry(2)}, now=0.0)  # late, and to the file that was moved: it does no harm
    with store_in(folder) as later:
        assert [1] == kept(later, [1, 2])


@pytest.mark.waits
def test_processes_that_find_the_damage_at_once_go_on_with_one_new_file(folder: Path) -> None:
    """One of four moves the damaged file aside; each entry that they put afterwards is in the new one."""
    with store_in(folder) as store:
        store.put({key(0): entry(0)}, now=0.0)
        damage_an_entry(store.path)
        damaged = store.path.stat().st_ino
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(4)
    processes = [spawn.Process(target=put_after_damage, args=(str(folder), 20 * each, start)) for each in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)

    assert [0, 0, 0, 0] == [process.exitcode for process in processes]
    with store_in(folder) as store:
        assert list(range(80)) == kept(store, range(100))
        assert [store.path, Path(f"{store.path}.corrupt")] == files(folder)
    assert damaged == files(folder)[1].stat().st_ino


def test_only_the_last_damaged_file_is_kept(folder: Path) -> None:
    """Repeated damage does not fill the disk."""
    for number in range(3):
        with store_in(folder) as store:
            store.put({key(0): entry(number)}, now=0.0)
            damage_an_entry(store.path)
            with pytest.raises(DamagedError):
                store.get([key(0)], now=0.0)

    [aside] = files(folder)
    with contextlib.closing(sqlite3.connect(aside)) as connection:
        assert [(b"answer 2",)] == connection.execute("SELECT answer FROM answers").fetchall()


def test_a_deleted_file_is_not_current(folder: Path) -> None:
    """A person may delete the folder while a job runs, and another job may create it again."""
    with store_in(folder) as store:
        before = store.is_current
        shutil.rmtree(folder)
        after = store.is_current
        with store_in(folder) as another:
            assert (another.path, True) == (store.path, another.is_current)
            assert (True, False, False) == (before, after, store.is_current)


ENTRIES = {key(number): entry(number, 5_000 if number % 10 == 0 else 0) for number in range(120)}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files that a killed process leaves: some entries in the cache file, some in the write-ahead log."""
    folder = tmp_path_factory.mktemp("sound")
    half = len(ENTRIES) // 2
    with store_in(folder) as store:
        store.put(dict(list(ENTRIES.items())[:half]), now=0.0)
    with store_in(folder) as store:
        store.put(dict(list(ENTRIES.items())[half:]), now=0.0)
        return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix.endswith(("sqlite3", "-wal"))}


@pytest.mark.waits
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.data())
def test_damage_anywhere_is_found_or_does_no_harm(tmp_path: Path, sound: dict[str, bytes], data: st.DataObject) -> None:
    """With bytes overwritten or cut off, entries are found as they were put, or the file is moved aside."""
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
    except DamagedError:
        with store_in(folder) as store:
            store.put(ENTRIES, now=0.0)
            assert ENTRIES == store.get(list(ENTRIES), now=0.0)
