"""Random faults: the endpoint is unavailable, cuts a response, or hangs."""

from benchmarks.support.behaviours import RandomFaults
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.flow import Job, row_error_figures
from benchmarks.support.session import bench
from spark_llm import Policy

POLICY = Policy(max_in_flight=40, timeout_s=3)
FULL = Job(RandomFaults(median_s=0.1), rows=5_000, policy=POLICY)
SHORT = Job(RandomFaults(median_s=0.02, hung=0.0), rows=200, policy=POLICY)


def measure(*, short: bool) -> list[Figure]:
    """Return the requests over those that the faults make necessary, and the lost or wrong rows."""
    job = SHORT if short else FULL
    with bench(job.tasks) as spark:
        outcome = job.run(spark)
    faults = job.behaviour
    needed = outcome.rows / (1 - faults.fault_rate)
    return [
        Figure(
            f"{faults.unavailable:.0%} 503, {faults.cut:.0%} cut, {faults.hung:.0%} hung: requests to those needed",
            [outcome.counters.requests / needed],
            f"{outcome.counters.requests:,}",
            f"{needed:,.0f}",
            Goal(at_most=1.03),
            note=f"Faults: {job.description}, {POLICY.max_in_flight} in flight, a timeout of {POLICY.timeout_s:g} s. "
            f"Each request has a fault with p = {faults.fault_rate:g}, so a row needs 1/(1 - p) requests. Each row has "
            "its own answer, so another row's is detected.",
        ),
        *row_error_figures(outcome),
    ]
