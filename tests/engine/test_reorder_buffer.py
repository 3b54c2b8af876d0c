"""The reorder buffer: results leave in the rows' order, and a thread can wait for them."""

import random
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.engine.reorder_buffer import ReorderBuffer
from spark_llm.protocol.values import Result, RowError

PATIENCE_S = 10.0  # how long a thread may take that should be done at once


def result(number: int) -> Result:
    """Make the result of a row."""
    return Result(text=f"answer {number}")


def settle(buffer: ReorderBuffer, *numbers: int) -> None:
    """Give these rows their results."""
    buffer.settle((number, result(number)) for number in numbers)


def settle_one_by_one(buffer: ReorderBuffer, rows: int) -> None:
    """Give all rows their results, the last one first."""
    for number in reversed(range(rows)):
        settle(buffer, number)


def five_rows() -> ReorderBuffer:
    """Return a buffer of five rows that no request carries yet."""
    buffer = ReorderBuffer()
    buffer.append(["a"] * 5)
    buffer.add_unsent(5, 50)
    return buffer


class Waiting:
    """Spark's thread, waiting at the buffer."""

    def __init__(self, buffer: ReorderBuffer, *, ready: int, unsent: tuple[int, int] = (-1, 0)) -> None:
        """Wait, and be seen to wait, or to have found no reason to."""
        self._buffer = buffer
        self._thread = threading.Thread(target=buffer.wait, args=(PATIENCE_S, ready, unsent), daemon=True)
        self._thread.start()

    def is_over(self) -> bool:
        """Whether the thread went on, long before its patience ended."""
        self._thread.join(PATIENCE_S / 2)
        return not self._thread.is_alive()


@given(st.lists(st.booleans(), max_size=30), st.randoms(use_true_random=False), st.integers(1, 5))
def test_results_leave_in_the_rows_order(nulls: list[bool], dice: random.Random, at_once: int) -> None:
    """In whatever order answers come, they leave in the order of the rows, each once, with null for null."""
    buffer = ReorderBuffer()
    asked = [number for number, _ in buffer.append([None if null else "?" for null in nulls])]
    order = dice.sample(asked, len(asked))
    left: list[Result | None] = buffer.pop_ready()
    for start in range(0, len(order), at_once):
        settle(buffer, *order[start : start + at_once])
        left += buffer.pop_ready()

    assert [None if null else result(number) for number, null in enumerate(nulls)] == left
    assert (0, 0) == (buffer.ready, buffer.held)


def test_a_null_is_answered_at_once() -> None:
    """It is not among the rows to send, and holds no other row."""
    buffer = ReorderBuffer()

    assert [(1, "a"), (3, "b")] == list(buffer.append([None, "a", None, "b", None]))
    assert (1, 5, 0) == (buffer.ready, buffer.held, buffer.unsent)
    assert [None] == buffer.pop_ready()


def test_rows_are_numbered_across_batches() -> None:
    """A row's number is its place in the task."""
    buffer = ReorderBuffer()
    buffer.append(["a", None])

    assert [(2, "b"), (3, "c")] == list(buffer.append(["b", "c"]))


def test_the_head_holds_back_what_is_behind_it() -> None:
    """The second row's answer waits for the first's; then both leave together."""
    buffer = ReorderBuffer()
    buffer.append(["a", "b", "c"])
    settle(buffer, 1)
    before = (buffer.ready, buffer.pop_ready())
    settle(buffer, 0)

    assert (0, []) == before
    assert (2, 3) == (buffer.ready, buffer.held)
    assert [result(0), result(1)] == buffer.pop_ready()


def test_sent_rows_are_not_unsent() -> None:
    """Rows that a request carries are not counted any more."""
    buffer = five_rows()
    buffer.remove_unsent(3, 30)

    assert (2, 20, 5) == (buffer.unsent, buffer.unsent_bytes, buffer.held)


def test_a_stopped_buffer_has_the_reason() -> None:
    """The reason why no further row is sent stays with the buffer."""
    buffer, error = ReorderBuffer(), RowError("not_found", 404, "no such endpoint", retryable=False)
    before = buffer.stop_error
    buffer.stop(error)

    assert [None, error] == [before, buffer.stop_error]


@pytest.mark.parametrize(("ready", "unsent"), [(2, (-1, 0)), (3, (5, 50)), (1, (-1, 0)), (9, (6, 60))])
def test_ready_results_need_no_wait(ready: int, unsent: tuple[int, int]) -> None:
    """With enough results, or few enough unsent rows, the thread goes straight on."""
    buffer = five_rows()
    settle(buffer, 0, 1)

    assert Waiting(buffer, ready=ready, unsent=unsent).is_over()


@pytest.mark.parametrize(
    "happens",
    [
        lambda buffer: settle(buffer, 1, 0),
        lambda buffer: (buffer.remove_unsent(3, 30), buffer.remove_unsent(1, 0), buffer.remove_unsent(0, 10)),
        lambda buffer: settle_one_by_one(buffer, 5),
    ],
    ids=["results", "sending", "one by one"],
)
def test_a_waiting_thread_is_woken(happens: Callable[[ReorderBuffer], object]) -> None:
    """By results at the head, or by rows that were sent: by the first of both."""
    buffer = five_rows()
    waiting = Waiting(buffer, ready=2, unsent=(1, 10))
    happens(buffer)

    assert waiting.is_over()


def test_a_wait_ends_with_its_timeout() -> None:
    """Without a change the thread goes on after the timeout; a negative one is no wait."""
    buffer = ReorderBuffer()
    buffer.append(["a"])
    buffer.wait(0.0, 1, (-1, 0))
    buffer.wait(-1.0, 1, (-1, 0))

    assert (0, 1) == (buffer.ready, buffer.held)


@given(st.integers(1, 200), st.integers(1, 20))
def test_two_threads_lose_nothing(rows: int, enough: int) -> None:
    """While one thread settles, the other waits and takes out: every row leaves once, in order."""
    buffer = ReorderBuffer()
    buffer.append(["a"] * rows)
    settling = threading.Thread(target=settle_one_by_one, args=(buffer, rows), daemon=True)
    settling.start()
    left: list[Result | None] = []
    while buffer.held:
        buffer.wait(PATIENCE_S, min(enough, buffer.held), (-1, 0))
        left += buffer.pop_ready()
    settling.join(PATIENCE_S)

    assert [result(number) for number in range(rows)] == left
