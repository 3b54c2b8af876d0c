"""Helpers of the cache tests: entries, and processes that write to one file."""

import contextlib
from collections.abc import Iterable
from multiprocessing.synchronize import Barrier
from pathlib import Path

from spark_llm.cache.entry import Entry
from spark_llm.cache.sqlite_store import DamagedError, Store


def key(number: int) -> bytes:
    """Return a key as long as real ones."""
    return number.to_bytes(32, "big")


def entry(number: int, vector_bytes: int = 0) -> Entry:
    """Return an entry that contains its number, with a vector of this size or none."""
    vector = (b"%032d" % number * (vector_bytes // 32 + 1))[:vector_bytes]
    return Entry(b"answer %d" % number, vector if vector_bytes else None)


def files(folder: Path) -> list[Path]:
    """Return the cache files in a folder, without the lock and SQLite's further files."""
    return sorted(file for file in folder.iterdir() if not file.name.endswith(("-wal", "-shm", ".lock")))


def kept(store: Store, numbers: Iterable[int], now: float = 0.0) -> list[int]:
    """Return the numbers of the entries that are found; raises if one is not the entry that was put."""
    numbers = list(numbers)
    found = store.get([key(number) for number in numbers], now)
    there = [number for number in numbers if key(number) in found]
    assert [b"answer %d" % number for number in there] == [found[key(number)].answer for number in there]
    return there


def put_in_a_process(folder: str, first: int, count: int) -> None:
    """Put `count` entries in batches of five, and read each batch back."""
    with contextlib.closing(Store(Path(folder), busy_timeout_s=60)) as store:
        for number in range(first, first + count, 5):
            store.put({key(each): entry(each, 256) for each in range(number, number + 5)}, now=0.0)
            assert 5 == len(kept(store, range(number, number + 5)))


def put_after_damage(folder: str, first: int, start: Barrier) -> None:
    """Find the damage of a file at the same time as others, then put 20 entries as the next process would."""
    store = Store(Path(folder))
    start.wait()
    try:
        store.get([key(0)], now=0.0)
    except DamagedError:
        put_in_a_process(folder, first, 20)
    store.close()


def put_for_ever(folder: str) -> None:
    """Put entry after entry, and print the number of each once it is written."""
    with contextlib.closing(Store(Path(folder))) as store:
        number = 0
        while True:
            store.put({key(number): entry(number, 5_000)}, now=0.0)
            print(number, flush=True)  # noqa: T201 -- the parent process reads it
            number += 1
