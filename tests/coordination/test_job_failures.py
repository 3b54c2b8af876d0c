"""Failed rows of the jobs on a host, as the broker counts them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.coordination.job_failures import MAX_JOBS, ROWS_A_MESSAGE, JobFailures, UntoldRows, count_told
from spark_llm.coordination.messages import Decoder, Kind, Message, encoded

COUNTS = st.lists(st.integers(0, 64).flatmap(lambda rows: st.tuples(st.just(rows), st.integers(0, rows))), max_size=60)


def test_a_job_stops_once_by_the_rows_of_all() -> None:
    """At a fifth of 1,000 rows, however they are counted; the rows after that change nothing."""
    failures = JobFailures()

    assert [False, False, False, True, False, False] == [
        failures.count(7, rows, failed, 0.2)
        for rows, failed in [(500, 90), (40, 40), (69, 69), (1, 1), (1, 1), (999, 0)]
    ]
    assert {7} == failures.stopped


def test_jobs_do_not_stop_each_other() -> None:
    """Each has its own rows."""
    failures = JobFailures()
    failures.count(7, 199, 199, 0.2)
    failures.count(8, 199, 199, 0.2)

    assert frozenset() == failures.stopped


@pytest.mark.parametrize("failed", [199, 200])
def test_a_successor_goes_on_from_the_same_counts(failed: int) -> None:
    """It neither forgets a stopped job nor stops one early."""
    earlier = JobFailures()
    earlier.count(7, 700, failed, 0.2)
    later = JobFailures(json.loads(json.dumps(earlier.snapshot())))

    assert earlier.stopped == later.stopped
    assert earlier.snapshot() == later.snapshot()
    assert (failed < 200) == later.count(7, 1, 1, 0.2)


@pytest.mark.parametrize("counted", [[1], [[1, 2]], [["x", 1, 1, 0.5]], 3, [[1, None, 0, 0.5]]])
def test_a_malformed_snapshot_is_an_error(counted: object) -> None:
    """The group begins anew then."""
    with pytest.raises((TypeError, ValueError)):
        JobFailures(counted)  # type: ignore[arg-type]  # as a file may hold it


def test_the_job_that_was_counted_longest_ago_is_forgotten() -> None:
    """A worker that lives for days counts no more than `MAX_JOBS`."""
    failures = JobFailures()
    failures.count(0, 200, 200, 0.2)
    for job in range(1, MAX_JOBS + 1):
        failures.count(job, 1, 0, 0.2)

    assert frozenset() == failures.stopped
    assert list(range(1, MAX_JOBS + 1)) == [job for job, *_ in failures.snapshot()]


@given(COUNTS)
def test_a_member_tells_all_that_matters(counts: list[tuple[int, int]]) -> None:
    """Each failed row is told with the rows before it; of answered ones fewer than `ROWS_A_MESSAGE` stay untold."""
    untold, told = UntoldRows(), list[Message]()
    for rows, failed in counts:
        untold.count(7, rows, failed, 0.2)
        told += Decoder().decode(encoded(untold.messages()))
    of_kind = {
        kind: sum(message.a for message in told if message.kind == kind)
        for kind in (Kind.ANSWERED_ROWS, Kind.FAILED_ROWS)
    }

    assert sum(failed for _, failed in counts) == of_kind[Kind.FAILED_ROWS]
    assert 0 <= sum(rows - failed for rows, failed in counts) - of_kind[Kind.ANSWERED_ROWS] < ROWS_A_MESSAGE
    assert all((7, 0.2) == (message.number, round(message.b, 6)) for message in told)


@pytest.mark.parametrize("share", [0.001, 0.029, 0.2, 0.29, 1.0])
def test_a_share_is_the_same_after_its_way(share: float) -> None:
    """Single precision stops a job neither a row early nor a row late."""
    here, there = JobFailures(), JobFailures()

    def first_stop(failures: JobFailures, *, sent: bool) -> int:
        message = Message(Kind.FAILED_ROWS, 7, 1, share)
        [arrived] = Decoder().decode(encoded([message]))
        return next(
            rows
            for rows in range(1, 1_001)
            if (count_told(failures, arrived) if sent else failures.count(7, 1, 1, share))
        )

    assert first_stop(here, sent=False) == first_stop(there, sent=True)
