"""An outage: the endpoint is killed in the middle of a job, and started again later."""

from benchmarks.support.behaviours import Steady
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.flow import Job, row_error_figures
from benchmarks.support.session import bench
from spark_llm import Policy

POLICY = Policy(max_in_flight=40)
FULL = Job(Steady(median_s=0.2), rows=8_000, policy=POLICY), 15.0, 20.0
SHORT = Job(Steady(median_s=0.1), rows=400, policy=POLICY), 0.5, 1.0


def measure(*, short: bool) -> list[Figure]:
    """Return the attempts per row, and the lost rows."""
    job, after_s, for_s = SHORT if short else FULL
    with bench(job.tasks) as spark:
        job.warm(spark)
        spark.endpoint.plan_outage(after_s, for_s)
        outcome = job.ask(spark)
    if not outcome.lost and outcome.counters.ended_s < after_s + for_s:
        raise RuntimeError(f"The job ended after {outcome.counters.ended_s:.0f} s, before the outage.")
    return [
        Figure(
            f"the endpoint is gone for {for_s:.0f} s: tries per row",
            [outcome.attempts / outcome.rows],
            f"{outcome.attempts:,}",
            f"{outcome.rows:,}",
            Goal(at_most=1.10),
            unit="",
            digits=3,
            note=f"Outage: {job.description}, {POLICY.max_in_flight} in flight. After {after_s:g} s every "
            f"connection is cut, and the port is closed. The endpoint got {outcome.counters.requests:,} requests; "
            "attempts at the closed port are only in the rows' `attempts`.",
        ),
        *row_error_figures(outcome),
    ]
