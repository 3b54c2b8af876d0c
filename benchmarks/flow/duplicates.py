"""Duplicate rows: each distinct prompt should be sent once."""

from benchmarks.support.behaviours import Steady
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.flow import Job, row_error_figures
from benchmarks.support.session import bench

# Of five rows, three are new; one repeats the row two before it, and one repeats a much earlier row.
NUMBER = "CASE id % 5 WHEN 3 THEN 3 * (id div 5) + 1 WHEN 4 THEN 3 * (id div 10) ELSE 3 * (id div 5) + id % 5 END"
FULL = Job(Steady(median_s=0.05), rows=10_000, number=NUMBER)
SHORT = Job(Steady(median_s=0.05), rows=500, number=NUMBER)


def measure(*, short: bool) -> list[Figure]:
    """Send five rows for every three distinct prompts; return the requests per distinct prompt."""
    job = SHORT if short else FULL
    with bench(job.tasks) as spark:
        outcome = job.run(spark)
    distinct = job.rows * 3 // 5
    return [
        Figure(
            "40 % duplicate rows: requests per distinct row",
            [outcome.counters.requests / distinct],
            f"{outcome.counters.requests:,}",
            f"{distinct:,}",
            Goal(at_most=1.0),
            unit="",
            digits=3,
            note=f"Duplicates: {job.description}. Half of the duplicates come two rows after the original, "
            "often while it is in flight; half come up to thousands of rows later.",
        ),
        *row_error_figures(outcome),
    ]
