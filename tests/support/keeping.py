"""What the tests of the cache share: entries, and processes that write to one file."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from spark_llm.cache.entry import Entry
from spark_llm.cache.sqlite_store import Store


def key(number: int) -> bytes:
    """Return a key as long as real ones."""
    return number.to_bytes(32, "big")


def entry(number: int, vector_bytes: int = 0) -> Entry:
    """Return an entry that tells its number, with a vector of so many bytes or none."""
    vector = (b"%032d" % number * (vector_bytes // 32 + 1))[:vector_bytes]
    return Entry(b"answer %d" % number, vector if vector_bytes else None)


def files(folder: Path) -> list[Path]:
    """Return the caches in a folder, without SQLite's further files."""
    return sorted(file for file in folder.iterdir() if not file.name.endswith(("-wal", "-shm")))


def kept(store: Store, numbers: Iterable[int], now: float = 0.0) -> list[int]:
    """Return which of these entries are there; raises where one is not what was put."""
    numbers = list(numbers)
    found = store.get([key(number) for number in numbers], now)
    there = [number for number in numbers if key(number) in found]
    assert [b"answer %d" % number for number in there] == [found[key(number)].answer for number in there]
    return there


def put_in_a_process(folder: str, first: int, count: int) -> None:
    """Put so many entries, a few at a time, and read each few back."""
    with contextlib.closing(Store(Path(folder), patience_s=60)) as store:
        for number in range(first, first + count, 5):
            store.put({key(each): entry(each, 256) for each in range(number, number + 5)}, now=0.0)
            assert 5 == len(kept(store, range(number, number + 5)))


def put_for_ever(folder: str) -> None:
    """Put entry after entry, and print the number of each when it is kept."""
    with contextlib.closing(Store(Path(folder))) as store:
        number = 0
        while True:
            store.put({key(number): entry(number, 5_000)}, now=0.0)
            print(number, flush=True)  # noqa: T201 -- whoever started this process reads it
            number += 1
