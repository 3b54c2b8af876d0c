"""The rows of one task, and what becomes of each: asked, a duplicate's answer, or nothing."""

import random
import threading
from collections.abc import Iterator, Sequence
from queue import SimpleQueue

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.engine.row_stream import RowReader, Stream, job_number, unanswered_error
from spark_llm.errors import Kind
from spark_llm.flow.batcher import Indexed
from spark_llm.flow.negotiation import WireFormatNegotiation
from spark_llm.policy import Policy
from spark_llm.protocol.chat.content import item_bytes
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.completions import Complete
from spark_llm.protocol.embeddings import Embed
from spark_llm.protocol.task import Task
from spark_llm.protocol.values import Item, Result, Row, RowError, Usage

PATIENCE_S = 10.0  # how long a thread may take that should be done at once
BATCHES = st.lists(st.lists(st.none() | st.text(max_size=3), max_size=9), max_size=6)
CHAT = Chat()
DRAWN = Chat(parameters=b'{"temperature":1.0}')
REFUSED = RowError("invalid_request", 400, "not allowed", retryable=False)


def stream_of(policy: Policy, task: Task = CHAT) -> Stream:
    """Begin a task."""
    return Stream(WireFormatNegotiation(task, policy.batch_size), policy)


def answers(asked: list[Indexed]) -> list[tuple[int, Result]]:
    """Answer each input by its text."""
    return [(number, Result(text="to " + str(item), usage=Usage(3, 4, 7))) for number, item in asked]


def fails(number: int) -> list[tuple[int, Result]]:
    """Make the result of a row that was refused."""
    return [(number, Result(error=REFUSED))]


def texts(stream: Stream) -> list[str | None]:
    """Take out what can leave, as texts; None for a null and for an error."""
    return [None if result is None else result.text for result in stream.buffer.pop_ready()]


@given(BATCHES, st.integers(1, 12))
def test_rows_are_read_in_their_order(batches: list[list[str | None]], most: int) -> None:
    """Piece by piece all rows are read, none twice, never more than the limit, and then the end is known."""
    rows = RowReader(iter(batches))
    taken: list[Row] = []
    while not rows.ended:
        piece = rows.take(most)
        taken += piece

        assert len(piece) <= most

    assert [row for batch in batches for row in batch] == taken
    assert () == rows.take(most)


def test_the_next_batch_is_not_read_before_it_is_needed() -> None:
    """Spark's batches are read one at a time: a reader of five rows does not pull the partition."""
    read: list[int] = []

    def batches() -> Iterator[Sequence[Item | None]]:
        for number in range(3):
            read.append(number)
            yield ["row"] * 4

    rows = RowReader(batches())
    seen = [list(read)]
    for most in (1, 3, 1):
        rows.take(most)
        seen.append(list(read))

    assert [[], [0], [0], [0, 1]] == seen


def test_one_of_several_equal_rows_is_sent() -> None:
    """The others get its answer, and cost nothing."""
    stream = stream_of(Policy())
    asked = stream.admit(["a", "b", "a", None, "a"])
    stream.settle(answers(asked))
    results = [result for result in stream.buffer.pop_ready() if result is not None]

    assert [(0, "a"), (1, "b")] == asked
    assert ["to a", "to b", "to a", "to a"] == [result.text for result in results]
    assert 14 == sum(result.usage.total_tokens or 0 for result in results if result.usage is not None)


def test_duplicates_are_not_unsent() -> None:
    """A row that waits for its duplicate needs no request, so a batch does not wait for it."""
    stream = stream_of(Policy())
    stream.admit(["a", "a", "b", "a"])

    assert (2, 4) == (stream.buffer.unsent, stream.buffer.held)


def test_a_known_answer_settles_at_once() -> None:
    """A row that was answered before leaves without a request."""
    stream = stream_of(Policy())
    stream.settle(answers(stream.admit(["a"])))

    assert [] == stream.admit(["a", "a"])
    assert ["to a"] * 3 == texts(stream)
    assert 1 == stream.buffer.unsent


def test_the_duplicates_of_a_failed_row_are_sent_by_themselves() -> None:
    """An error is its row's alone: each of the others gets its own request, and counts as unsent."""
    stream = stream_of(Policy(), Embed())
    ((number, _),) = stream.admit(["a", "a", "a"])
    stream.buffer.remove_unsent(1, 1)

    assert [[(1, "a")], [(2, "a")]] == stream.settle(fails(number))
    assert 2 == stream.buffer.unsent
    assert [] == stream.settle(answers([(1, "a"), (2, "a")]))
    assert [None, "to a", "to a"] == texts(stream)


@pytest.mark.parametrize(
    ("task", "dedupe", "asked"),
    [
        (CHAT, None, 1),
        (CHAT, False, 2),
        (DRAWN, None, 2),
        (DRAWN, True, 1),
        (Complete(), None, 1),
        (Embed(), None, 1),
        (Embed(), False, 2),
    ],
)
def test_the_policy_or_the_task_decides_on_dedupe(task: Task, asked: int, *, dedupe: bool | None) -> None:
    """The user's `dedupe` decides; without it, random answers are drawn for each row."""
    assert asked == len(stream_of(Policy(dedupe=dedupe), task).admit(["a", "a"]))


def test_a_blank_input_is_not_sent() -> None:
    """A blank text has no vector: its result is null, as for a null."""
    stream = stream_of(Policy(), Embed())

    assert [(2, "a")] == stream.admit([" ", None, "a"])
    assert [None, None] == texts(stream)


def test_too_many_failures_stop_the_stream() -> None:
    """The reason names the setting, the rows that failed and the last error, and the rows are retryable."""
    stream = stream_of(Policy(max_failure_rate=0.003))
    stream.admit(["a", "b", "c", "d"])
    stream.settle([*fails(0), *fails(1)])
    before = stream.buffer.stop_error
    stream.settle(fails(2))
    stopped = stream.buffer.stop_error

    assert None is before
    assert stopped is not None
    assert ("cancelled", None, True) == (stopped.kind, stopped.status, stopped.retryable)
    assert (
        "not sent: max_failure_rate=0.003 allows fewer than 3 failed rows of the last 1,000; this task had 3 of 3; "
        "last: invalid_request: not allowed"
    ) == stopped.message


def test_a_task_that_others_stop_names_their_failures() -> None:
    """The rows of all tasks of a host count, and this one knows its own."""
    stream = stream_of(Policy(max_failure_rate=0.29))
    stream.admit(["a", "b"])
    stream.settle([(0, Result("so")), *fails(1)])

    assert (
        "max_failure_rate=0.29 allows fewer than 290 failed rows of the last 1,000; this task had 1 of 2, other "
        "tasks of its host the rest; last: "
    ) in stream.failure_rate_error.message


def test_rows_that_were_not_sent_are_not_counted() -> None:
    """Nulls neither; a row that has the answer of an earlier one is an answered row."""
    stream = stream_of(Policy(max_failure_rate=0.002))
    stream.admit(["a", "b", "c", None, "d"])
    stream.settle([(0, Result("so"))])
    stream.admit(["a"])
    stream.settle(fails(1))
    counted = list[tuple[float, ...]]()
    stream.count_rows(lambda *counts: counted.append(counts))
    assert [] == counted
    stream.job = 7
    stream.count_rows(lambda *counts: counted.append(counts))
    stream.settle(fails(2))
    stream.settle([(4, Result(error=stream.buffer.stop_error))])
    for _ in range(2):
        stream.count_rows(lambda *counts: counted.append(counts))

    assert [(7, 3, 1, 0.002), (7, 1, 1, 0.002)] == counted


def test_all_workers_know_a_job_by_one_number() -> None:
    """Another stage of Spark, task or rate is another job; outside Spark, and without a rate, there is none."""
    numbers = [
        job_number(3, Chat(), 0.2),
        job_number(3, Chat(), 0.2),
        job_number(4, Chat(), 0.2),
        job_number(3, Chat("Be brief."), 0.2),
        job_number(3, Chat(), 0.3),
    ]

    assert 4 == len(set(numbers))
    assert numbers[0] == numbers[1]
    assert (None, None) == (job_number(None, Chat(), 0.2), job_number(3, Chat(), None))


def test_the_first_reason_to_stop_stands() -> None:
    """A stream that was stopped for another reason keeps it, however many rows fail after that."""
    stream = stream_of(Policy(max_failure_rate=0.001))
    stream.admit(["a", "b"])
    stream.buffer.stop(REFUSED)
    stream.settle(fails(0))

    assert REFUSED is stream.buffer.stop_error


@pytest.mark.parametrize("kind", ["invalid_request", "invalid_response", "connection", "unavailable"])
def test_rows_that_a_stopped_task_had_not_answered_can_be_sent_again(kind: Kind) -> None:
    """They are cancelled, and say which error stopped the task, with its hint."""
    error = unanswered_error(RowError(kind, 400, "not allowed Hint: write x.", retryable=False))

    assert ("cancelled", None, True, "write x.") == (error.kind, error.status, error.retryable, error.hint)
    assert f"{kind}: not allowed" in error.message


@pytest.mark.parametrize("kind", ["unauthorized", "not_found", "quota", "cancelled"])
def test_an_error_of_the_endpoint_is_that_of_every_row(kind: Kind) -> None:
    """It keeps its kind in the rows that were not sent."""
    error = RowError(kind, 403, "no", retryable=False)

    assert error is unanswered_error(error)


def test_without_a_rate_no_failure_stops() -> None:
    """Without `max_failure_rate` every row is sent."""
    stream = stream_of(Policy())
    for number, _ in stream.admit([str(number) for number in range(2_000)]):
        stream.settle(fails(number))

    assert None is stream.buffer.stop_error


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 4))
def test_a_partial_batch_that_waits_alone_is_known(nulls: list[bool], batch_size: int) -> None:
    """When all else was sent and a batch is not full, waiting for more rows gains nothing."""
    stream = stream_of(Policy(batch_size=batch_size), Embed())
    rows = [None if null else str(number) for number, null in enumerate(nulls)]
    packs = stream.batcher.add(stream.admit(rows))
    before = stream.only_partial_batch_unsent()
    for pack in packs:
        stream.buffer.remove_unsent(len(pack), sum(item_bytes(item) for _, item in pack))

    assert before == (not packs and len(stream.batcher) > 0)
    assert stream.only_partial_batch_unsent() == (len(stream.batcher) > 0)


@given(
    st.lists(st.sampled_from("abcde"), min_size=1, max_size=60),
    st.sets(st.integers(0, 59)),
    st.randoms(use_true_random=False),
)
def test_every_row_gets_its_own_answer(rows: list[str], bad: set[int], dice: random.Random) -> None:
    """In whatever order answers and failures come, each row leaves once, with its text's answer or its own error."""
    stream = stream_of(Policy())
    out: list[Indexed] = []
    coming = list(rows)
    while coming or out:
        if coming and dice.random() < 0.5:
            out += stream.admit([coming.pop(0)])
        elif out:
            number, item = out.pop(dice.randrange(len(out)))
            again = stream.settle(fails(number) if number in bad else answers([(number, item)]))
            out += [entry for pack in again for entry in pack]
    left = texts(stream)

    assert [f"to {row}" if text else None for row, text in zip(rows, left, strict=True)] == left
    assert {number for number, text in enumerate(left) if text is None} <= bad
    assert 0 == stream.buffer.held


def test_two_threads_lose_no_duplicate() -> None:
    """While one thread admits rows, another settles them, one in ten with an error: every row leaves, in order."""
    rows = [str(number % 50) for number in range(5_000)]
    stream = stream_of(Policy())
    handed = SimpleQueue[list[Indexed]]()

    def settling() -> None:
        while asked := handed.get(timeout=PATIENCE_S):
            for number, item in asked:
                for pack in stream.settle(fails(number) if number % 10 == 0 else answers([(number, item)])):
                    handed.put(pack)

    loop = threading.Thread(target=settling, daemon=True)
    loop.start()
    for start in range(0, len(rows), 7):
        if asked := stream.admit(rows[start : start + 7]):
            handed.put(asked)
    stream.buffer.wait(PATIENCE_S, len(rows), (-1, 0))
    handed.put([])
    loop.join(PATIENCE_S)
    left = texts(stream)

    assert [f"to {row}" if text else None for row, text in zip(rows, left, strict=True)] == left
    assert {number for number, text in enumerate(left) if text is None} <= set(range(0, len(rows), 10))
