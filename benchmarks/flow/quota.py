"""A quota of requests a second that refused requests spend too, so blind retries use it up."""

from benchmarks.support.behaviours import Quota
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.flow import Job, share_figures
from benchmarks.support.session import bench

FULL = Job(Quota(per_s=50, median_s=0.2), rows=6_000)
SHORT = Job(Quota(per_s=50, median_s=0.02), rows=60)


def measure(*, short: bool) -> list[Figure]:
    """Return the share of the quota that one task turns into answers."""
    job = SHORT if short else FULL
    with bench(job.tasks) as spark:
        outcome = job.run(spark)
    per_s = job.behaviour.per_s
    what = f"{per_s} requests a second, refusals count, no hints"
    note = (
        f"{what.capitalize()}: {job.description}. A request gets a 429 if {per_s} others, including refused "
        "ones, came in the second before. The share is the rows over the rate, from the first request to the last "
        "answer."
    )
    ideal_s = outcome.counters.answered / per_s
    return share_figures(what, outcome, ideal_s, share=Goal(at_least=0.90), per_row=Goal(at_most=1.05), note=note)
