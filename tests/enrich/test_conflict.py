"""Conflicts with other writers: which errors are conflicts, and how long a statement is retried."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.enrich.conflict import MAX_PAUSE_S, MAX_RETRY_S, MIN_ATTEMPTS, conflict_name, pause_after_conflict

CONFLICTS = {  # as classic Spark, Connect and Iceberg hand them on
    "An error occurred while calling o62.sql.\n: io.delta.exceptions.ConcurrentAppendException: [DELTA_CONCURRENT_A": (
        "ConcurrentAppendException"
    ),
    "[DELTA_CONCURRENT_DELETE_READ.WITHOUT_HINT] Transaction conflict detected.": "DELTA_CONCURRENT_DELETE_READ",
    "(io.delta.exceptions.MetadataChangedException) MetadataChangedException: The metadata": "MetadataChangedException",
    "[DELTA_METADATA_CHANGED] The metadata of the Delta table": "DELTA_METADATA_CHANGED",
    "[DELTA_MAX_COMMIT_RETRIES_EXCEEDED] This commit has failed": "DELTA_MAX_COMMIT_RETRIES_EXCEEDED",
    "org.apache.iceberg.exceptions.CommitFailedException: Cannot commit": "CommitFailedException",
    "org.apache.iceberg.exceptions.ValidationException: Found conflicting files that can contain": (
        "ValidationException: Found conflicting"
    ),
}


@pytest.mark.parametrize(("message", "name"), CONFLICTS.items())
def test_a_conflict_is_known_by_its_name(message: str, name: str) -> None:
    """The message has it, in every class of exception that Spark raises."""
    assert name == conflict_name(message)


@pytest.mark.parametrize(
    "message",
    [
        "[DELTA_VIOLATE_CONSTRAINT_WITH_VALUES] CHECK constraint low (id < 10) violated by row with values: - id : 10",
        "org.apache.iceberg.exceptions.ValidationException: Cannot write incompatible data",
        "Job 12 cancelled as part of cancellation of all jobs",
        "",
    ],
)
def test_another_error_is_not_a_conflict(message: str) -> None:
    """Another attempt would fail in the same way."""
    assert "" == conflict_name(message)


RANDOM = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 1_000), st.floats(0, 10 * MAX_RETRY_S), RANDOM)
def test_a_pause_ends_in_time(attempt: int, elapsed_s: float, random_value: float) -> None:
    """No pause is long, none begins after `MAX_RETRY_S`, and a slow statement still has `MIN_ATTEMPTS`."""
    pause_s = pause_after_conflict(attempt, elapsed_s, random_value)

    assert pause_s is None or 0 <= pause_s <= MAX_PAUSE_S
    assert (pause_s is not None) == (
        attempt < MIN_ATTEMPTS or elapsed_s + (pause_after_conflict(attempt, 0, random_value) or 0) <= MAX_RETRY_S
    )


@given(st.integers(1, 1_000), RANDOM)
def test_pauses_grow_with_the_attempts(attempt: int, random_value: float) -> None:
    """They grow up to `MAX_PAUSE_S`, and two writers that draw differently do not meet again."""
    first, second = (pause_after_conflict(number, 0, random_value) or 0 for number in (attempt, attempt + 1))

    assert first <= second
    assert random_value == 0 or 0 < first
