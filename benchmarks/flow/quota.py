"""A quota of requests a second, where what is refused spends the quota too: blind retries use all of it up."""

from benchmarks.support.behaviours import Quota
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.flow import Job, lines
from benchmarks.support.session import bench

FULL = Job(Quota(per_s=50, median_s=0.2), rows=6_000)
SHORT = Job(Quota(per_s=50, median_s=0.02), rows=60)


def measure(*, short: bool) -> list[Figure]:
    """Return the share of the quota that became answers, from one task."""
    job = SHORT if short else FULL
    with bench(job.tasks) as spark:
        outcome = job.run(spark)
    per_s = job.behaviour.per_s
    what = f"{per_s} requests a second, refusals count, no hints"
    note = (
        f"{what.capitalize()}: {job.told}. A 429 where {per_s} requests, refused ones with them, came in the second "
        "before. The share is that of the rows over the rate, from the first request to the last answer."
    )
    ideal_s = outcome.counted.answered / per_s
    return lines(what, outcome, ideal_s, share=Goal(at_least=0.90), per_row=Goal(at_most=1.05), note=note)
