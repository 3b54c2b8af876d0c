"""Rows that ask the same: each question is to be sent once."""

from benchmarks.support.behaviours import Steady
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.flow import Job, unharmed
from benchmarks.support.session import bench

# Of five rows, three are new; one asks what was asked two rows before, and one what was asked long ago.
NUMBER = "CASE id % 5 WHEN 3 THEN 3 * (id div 5) + 1 WHEN 4 THEN 3 * (id div 10) ELSE 3 * (id div 5) + id % 5 END"
FULL = Job(Steady(median_s=0.05), rows=10_000, number=NUMBER)
SHORT = Job(Steady(median_s=0.05), rows=500, number=NUMBER)


def measure(*, short: bool) -> list[Figure]:
    """Ask five rows for every three questions; return how often each was sent."""
    job = SHORT if short else FULL
    with bench(job.tasks) as spark:
        outcome = job.run(spark)
    distinct = job.rows * 3 // 5
    return [
        Figure(
            "40 % duplicate rows: requests per distinct row",
            [outcome.counted.requests / distinct],
            f"{outcome.counted.requests:,}",
            f"{distinct:,}",
            Goal(at_most=1.0),
            unit="",
            digits=3,
            note=f"Duplicates: {job.told}. Half of the duplicates come two rows after their like, often while that is "
            "in flight, half up to thousands of rows later.",
        ),
        *unharmed(outcome),
    ]
