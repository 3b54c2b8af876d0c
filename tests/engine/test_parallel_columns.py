"""Columns asked at the same time: simulated columns, each in its thread, over one input. No endpoint, no Spark."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.engine.parallel_columns import Ask, ParallelResults, Results, ask_in_parallel
from spark_llm.protocol.values import Result

PATIENCE_S = 10.0  # how long something may take that should be done at once
BATCHES = st.lists(st.lists(st.none() | st.integers(0, 99), max_size=8), max_size=8)


def answers(rows: Sequence[int | None], name: str = "") -> list[Result | None]:
    """Answer each row by its number."""
    return [None if row is None else Result(text=f"{name}{row}") for row in rows]


def plain(name: str = "") -> Ask:
    """Make a column that answers each batch when it has read it."""

    def ask(batches: Iterator[Any]) -> Results:
        for batch in batches:
            yield answers(batch, name)

    return ask


def in_chunks(name: str, sizes: Sequence[int]) -> Ask:
    """Make a column that reads everything and gives chunks of these sizes, in turn; 0 is a flush."""

    def ask(batches: Iterator[Any]) -> Results:
        left = [row for batch in batches for row in batch]
        turn = 0
        while left:
            size = sizes[turn % len(sizes)]
            turn += 1
            yield answers(left[:size], name)
            left = left[size:]

    return ask


def texts(chunks: Iterator[ParallelResults]) -> list[tuple[str | None, ...]]:
    """Return the texts of whole rows, flushes left out."""
    rows = (row for chunk in chunks for row in zip(*chunk, strict=True))
    return [tuple(None if result is None else result.text for result in row) for row in rows]


class Gate:
    """A column that answers one batch, or flushes, each time that it is let to; it says how far it came."""

    def __init__(self) -> None:
        """Begin closed."""
        self.read = 0
        self.ended_in: threading.Thread | None = None
        self._let = threading.Semaphore(0)
        self._came = threading.Condition()

    def __call__(self, batches: Iterator[Any]) -> Results:
        """Answer batches as it is let to."""
        try:
            for batch in batches:
                with self._came:
                    self.read += 1
                    self._came.notify_all()
                assert self._let.acquire(timeout=PATIENCE_S)
                yield answers(batch)
        finally:
            self.ended_in = threading.current_thread()

    def let(self, times: int = 1) -> None:
        """Let it answer so many batches more."""
        self._let.release(times)

    def has_read(self, batches: int) -> bool:
        """Wait until it has read so many batches."""
        with self._came:
            return self._came.wait_for(lambda: self.read >= batches, PATIENCE_S)


@given(BATCHES, st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any), min_size=1, max_size=3))
def test_every_column_gives_every_row_in_order(batches: list[list[int | None]], sizes: list[list[int]]) -> None:
    """However each column cuts its results, a row leaves with all columns' results of it, in the rows' order."""
    columns = [in_chunks(f"{number}:", each) for number, each in enumerate(sizes)]
    rows = [row for batch in batches for row in batch]
    expected = [tuple(None if row is None else f"{at}:{row}" for at in range(len(columns))) for row in rows]

    assert expected == texts(ask_in_parallel(iter(batches), [*columns]))
    assert expected == texts(ask_in_parallel(iter(batches), [*columns], ahead_rows=1))


@given(BATCHES, st.integers(1, 4))
def test_columns_that_read_as_they_go_share_the_input(batches: list[list[int | None]], columns: int) -> None:
    """The input is fetched once, whatever number of columns read it."""
    fetched = []

    def source() -> Iterator[list[int | None]]:
        for number, batch in enumerate(batches):
            fetched.append(number)
            yield batch

    rows = [row for batch in batches for row in batch]

    assert [(None if row is None else str(row),) * columns for row in rows] == texts(
        ask_in_parallel(source(), [plain()] * columns)
    )
    assert list(range(len(batches))) == fetched


def test_a_single_column_needs_no_thread() -> None:
    """It runs in the caller's own."""
    threads = []

    def ask(batches: Iterator[Any]) -> Results:
        threads.append(threading.current_thread())
        yield from plain()(batches)

    assert [("1",), ("2",)] == texts(ask_in_parallel(iter([[1], [2]]), [ask]))
    assert [threading.current_thread()] == threads


def test_a_fast_column_waits_for_a_slow_one() -> None:
    """It is ahead by at most `ahead_rows` and the chunk that it was yielding, and reads no further."""
    fast, slow = Gate(), Gate()
    fast.let(10_000)
    chunks = ask_in_parallel(iter([[number] * 10 for number in range(1_000)]), [fast, slow], ahead_rows=100)
    first: list[ParallelResults] = []
    reading = threading.Thread(target=lambda: first.append(next(chunks)), daemon=True)
    reading.start()

    assert slow.has_read(1)
    assert fast.has_read(10)
    slow.let()
    reading.join(PATIENCE_S)
    assert [10, 10] == [len(results) for results in first[0]]
    assert (10, 1) == (fast.read, slow.read)
    slow.let(10_000)
    assert 9_990 == len(texts(chunks))


def test_batches_are_freed_when_every_column_has_them() -> None:
    """Only batches that the slowest column has not read are kept, not the whole input."""
    held = 0

    class Batch(list[int]):
        def __init__(self, rows: list[int]) -> None:
            nonlocal held
            super().__init__(rows)
            held += 1

        def __del__(self) -> None:
            nonlocal held
            held -= 1

    most = 0
    for _ in ask_in_parallel((Batch([number] * 10) for number in range(500)), [plain(), plain("b")], ahead_rows=50):
        most = max(most, held)

    assert most <= 2 + 50 // 10 + 2


@pytest.mark.parametrize("failing", [0, 1])
def test_an_exception_in_one_column_is_raised(failing: int) -> None:
    """The very exception is raised, and the other column is closed in its own thread."""
    error = LookupError("not this one")
    other = Gate()

    def fails(batches: Iterator[Any]) -> Results:
        yield answers(next(batches))
        assert other.has_read(1)
        other.let()
        raise error

    columns: list[Ask] = [other, other]
    columns[failing] = fails
    with pytest.raises(LookupError) as raised:
        texts(ask_in_parallel(iter([[1], [2], [3]]), columns))

    assert error is raised.value
    assert other.ended_in is not None
    assert threading.current_thread() is not other.ended_in
    assert not other.ended_in.is_alive()


def test_an_exception_of_the_input_is_raised() -> None:
    """An exception from upstream passes through, whichever column was reading."""

    def source() -> Iterator[list[int]]:
        yield [1]
        raise LookupError("upstream")

    with pytest.raises(LookupError, match="upstream"):
        texts(ask_in_parallel(source(), [plain(), plain(), plain()]))


def test_a_thread_that_still_reads_the_input_fails_the_task() -> None:
    """Where one column has failed and another one is held by Spark's iterator, both exceptions are shown."""
    gate, waits = threading.Event(), threading.Event()

    def source() -> Iterator[list[int]]:
        yield [1]
        waits.set()
        gate.wait(PATIENCE_S)

    def fails(batches: Iterator[Any]) -> Results:
        yield answers(next(batches))
        assert waits.wait(PATIENCE_S)
        raise LookupError("first")

    with pytest.raises(RuntimeError, match=r"1 of 2 columns did not end within 0\.1 s.* Hint: .+\.") as raised:
        texts(ask_in_parallel(source(), [plain(), fails], end_s=0.1))
    gate.set()

    assert "first" == str(raised.value.__context__)


def test_a_column_that_does_not_end_fails_the_task_of_a_reader_that_goes() -> None:
    """Closing raises an exception, and leaves no thread behind silently."""
    gate = threading.Event()

    def stuck(batches: Iterator[Any]) -> Results:
        try:
            yield answers(next(batches))
            yield answers(next(batches))
        finally:
            gate.wait(PATIENCE_S)

    chunks = ask_in_parallel(iter([[1], [2]]), [plain(), stuck], end_s=0.1)
    next(chunks)
    with pytest.raises(RuntimeError, match="1 of 2 columns did not end"):
        chunks.close()  # type: ignore[attr-defined]
    gate.set()


def test_a_reader_that_goes_ends_every_column() -> None:
    """When the caller closes, each column is closed in the thread that ran it, and all threads have ended."""
    columns = [Gate(), Gate(), Gate()]
    for column in columns:
        column.let(1_000)
    chunks = ask_in_parallel(iter([[number] for number in range(1_000)]), [*columns], ahead_rows=4)
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    threads = [column.ended_in for column in columns]

    assert 3 == len(set(threads) - {None, threading.current_thread()})
    assert [False] * 3 == [thread is None or thread.is_alive() for thread in threads]
    assert max(column.read for column in columns) <= 1 + 4 + 1


def test_nothing_is_sent_while_the_caller_is_away() -> None:
    """Between two chunks no column goes on past the one that it was yielding."""
    read = [0, 0]

    def counting(at: int) -> Ask:
        def ask(batches: Iterator[Any]) -> Results:
            for batch in batches:
                read[at] += 1
                yield answers(batch)

        return ask

    chunks = ask_in_parallel(iter([[number] for number in range(1_000)]), [counting(0), counting(1)], ahead_rows=4)
    left = 0
    for chunk in chunks:
        left += len(chunk[0]) if chunk else 0
        assert max(read) <= left + 4 + 1
    assert 1_000 == left


def flushing(script: str, let: Callable[[], None] = lambda: None) -> Ask:
    """Make a column that answers a batch for each "r" and flushes for each "b"."""

    def ask(batches: Iterator[Any]) -> Results:
        for letter in script:
            let()
            yield answers(next(batches)) if letter == "r" else []

    return ask


def test_a_flush_is_passed_on_while_no_row_is_complete() -> None:
    """The caller pushes out what it has, and sees whether its reader is there, while a column is slow."""
    chunks = list(ask_in_parallel(iter([[1], [2]]), [flushing("rr"), flushing("bbrr")]))

    assert [[], []] == chunks[:2]
    assert [("1", "1"), ("2", "2")] == texts(iter(chunks))


def test_two_columns_flush_as_one() -> None:
    """Where both are slow the caller flushes as often as one of them does, and not twice as often."""
    turns = threading.Barrier(2, timeout=PATIENCE_S)

    def in_step() -> None:
        turns.wait()

    chunks = list(ask_in_parallel(iter([[1]]), [flushing("b" * 20 + "r", in_step), flushing("b" * 20 + "r", in_step)]))

    assert 20 <= chunks.count([]) <= 21
    assert [("1", "1")] == texts(iter(chunks))


@pytest.mark.parametrize("short", [0, 1])
def test_a_column_that_loses_rows_raises(short: int) -> None:
    """A lost row is an exception, never a missing row or a hanging job."""

    def loses(batches: Iterator[Any]) -> Results:
        for batch in batches:
            yield answers(batch[1:])

    columns = [plain(), plain()]
    columns[short] = loses
    with pytest.raises(RuntimeError, match="fewer rows than another"):
        texts(ask_in_parallel(iter([[1, 2], [3, 4]]), columns, ahead_rows=2))
