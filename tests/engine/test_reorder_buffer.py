"""The rows of one task on their way through: read no faster than asked, put in order again, waited for."""

import random
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.engine.row_stream import ReorderBuffer, Rows
from spark_llm.protocol.values import Item, Result, Row, RowError

BATCHES = st.lists(st.lists(st.none() | st.text(max_size=3), max_size=9), max_size=6)
PATIENCE_S = 10.0  # how long a thread may take that should be done at once


def result(number: int) -> Result:
    """Make the result of a row."""
    return Result(text=f"answer {number}")


def settle(line: ReorderBuffer, *numbers: int) -> None:
    """Give these rows their results."""
    line.settle((number, result(number)) for number in numbers)


def settle_one_by_one(line: ReorderBuffer, rows: int) -> None:
    """Give all rows their results, the last one first."""
    for number in reversed(range(rows)):
        settle(line, number)


def five_rows() -> ReorderBuffer:
    """Return a line of five rows that no request carries yet."""
    line = ReorderBuffer()
    line.take_in(["a"] * 5)
    line.queue(5)
    return line


class Waiting:
    """Spark's thread, waiting at the line."""

    def __init__(self, line: ReorderBuffer, *, ready: int, unsent: int = -1) -> None:
        """Wait, and be seen to wait, or to have found no reason to."""
        self._line = line
        self._thread = threading.Thread(target=line.wait, args=(PATIENCE_S, ready, unsent), daemon=True)
        self._thread.start()

    def is_over(self) -> bool:
        """Whether the thread went on, long before its patience ended."""
        self._thread.join(PATIENCE_S / 2)
        return not self._thread.is_alive()


@given(BATCHES, st.integers(1, 12))
def test_rows_are_taken_in_their_order(batches: list[list[str | None]], most: int) -> None:
    """Piece by piece all rows come out, none twice, never more at once than asked for, and then the end is known."""
    rows = Rows(iter(batches))
    taken: list[Row] = []
    while not rows.ended:
        piece = rows.take(most)
        taken += piece

        assert len(piece) <= most

    assert [row for batch in batches for row in batch] == taken
    assert () == rows.take(most)


def test_the_next_batch_is_not_read_before_it_is_needed() -> None:
    """Spark's batches are read one at a time: who wants five rows does not pull the partition."""
    read: list[int] = []

    def batches() -> Iterator[Sequence[Item | None]]:
        for number in range(3):
            read.append(number)
            yield ["row"] * 4

    rows = Rows(batches())
    seen = [list(read)]
    for most in (1, 3, 1):
        rows.take(most)
        seen.append(list(read))

    assert [[], [0], [0], [0, 1]] == seen


@given(st.lists(st.booleans(), max_size=30), st.randoms(use_true_random=False), st.integers(1, 5))
def test_results_leave_in_the_rows_order(nulls: list[bool], dice: random.Random, at_once: int) -> None:
    """In whatever order answers come, they leave in the order of the rows, each once, with null for null."""
    line = ReorderBuffer()
    asked = [number for number, _ in line.take_in([None if null else "?" for null in nulls])]
    order = dice.sample(asked, len(asked))
    left: list[Result | None] = line.pop()
    for start in range(0, len(order), at_once):
        settle(line, *order[start : start + at_once])
        left += line.pop()

    assert [None if null else result(number) for number, null in enumerate(nulls)] == left
    assert (0, 0) == (line.ready, line.held)


def test_a_null_is_answered_at_once() -> None:
    """It is not among the rows to be asked, and holds nobody up."""
    line = ReorderBuffer()

    assert [(1, "a"), (3, "b")] == list(line.take_in([None, "a", None, "b", None]))
    assert (1, 5, 0) == (line.ready, line.held, line.unsent)
    assert [None] == line.pop()


def test_rows_are_numbered_across_batches() -> None:
    """A row's number is its place in the task."""
    line = ReorderBuffer()
    line.take_in(["a", None])

    assert [(2, "b"), (3, "c")] == list(line.take_in(["b", "c"]))


def test_the_head_holds_back_what_is_behind_it() -> None:
    """The second row's answer waits for the first's; then both leave together."""
    line = ReorderBuffer()
    line.take_in(["a", "b", "c"])
    settle(line, 1)
    before = (line.ready, line.pop())
    settle(line, 0)

    assert (0, []) == before
    assert (2, 3) == (line.ready, line.held)
    assert [result(0), result(1)] == line.pop()


def test_what_is_sent_is_no_longer_unsent() -> None:
    """Rows that a request carries are counted out."""
    line = five_rows()
    line.sent(3)

    assert (2, 5) == (line.unsent, line.held)


def test_a_stopped_line_says_why() -> None:
    """The reason that no further row is asked stands with the line."""
    line, error = ReorderBuffer(), RowError("not_found", 404, "no such endpoint", retryable=False)
    before = line.stopped
    line.stop(error)

    assert [None, error] == [before, line.stopped]


@pytest.mark.parametrize(("ready", "unsent"), [(2, -1), (3, 5), (1, -1), (9, 6)])
def test_nobody_waits_for_what_is_there(ready: int, unsent: int) -> None:
    """With enough results, or few enough rows unsent, the thread goes straight on."""
    line = five_rows()
    settle(line, 0, 1)

    assert Waiting(line, ready=ready, unsent=unsent).is_over()


@pytest.mark.parametrize(
    "happens",
    [
        lambda line: settle(line, 1, 0),
        lambda line: line.sent(4),
        lambda line: settle_one_by_one(line, 5),
    ],
    ids=["results", "sending", "one by one"],
)
def test_who_waits_is_woken(happens: Callable[[ReorderBuffer], object]) -> None:
    """By results at the head, or by rows that were sent: whichever is first."""
    line = five_rows()
    waiting = Waiting(line, ready=2, unsent=1)
    happens(line)

    assert waiting.is_over()


def test_a_wait_ends_with_its_time() -> None:
    """Where nothing happens, the thread goes on when the time is over; a time that has passed is no wait."""
    line = ReorderBuffer()
    line.take_in(["a"])
    line.wait(0.0, 1, -1)
    line.wait(-1.0, 1, -1)

    assert (0, 1) == (line.ready, line.held)


@given(st.integers(1, 200), st.integers(1, 20))
def test_two_threads_lose_nothing(rows: int, enough: int) -> None:
    """While one thread settles, the other waits and takes out: every row leaves once, in order."""
    line = ReorderBuffer()
    line.take_in(["a"] * rows)
    settling = threading.Thread(target=settle_one_by_one, args=(line, rows), daemon=True)
    settling.start()
    left: list[Result | None] = []
    while line.held:
        line.wait(PATIENCE_S, min(enough, line.held), -1)
        left += line.pop()
    settling.join(PATIENCE_S)

    assert [result(number) for number in range(rows)] == left
