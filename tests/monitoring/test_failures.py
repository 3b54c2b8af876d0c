"""The sample of failed rows that become spans."""

from hypothesis import given
from hypothesis import strategies as st

from spark_llm.monitoring.telemetry.failures import ALL_UP_TO, ONE_IN, FailureSample


@given(st.lists(st.integers(0, 5_000), max_size=30))
def test_the_first_failed_rows_are_taken_and_one_in_a_thousand_of_the_others(chunks: list[int]) -> None:
    """It depends on the number of failed rows alone, and never asks for more than there are in a chunk."""
    sample = FailureSample()
    taken = [sample.take(failed) for failed in chunks]
    failed = sum(chunks)

    assert min(failed, ALL_UP_TO) + max(0, failed - ALL_UP_TO) // ONE_IN == sum(taken)
    assert all(0 <= some <= of for some, of in zip(taken, chunks, strict=True))
