"""An endpoint on a bad day: it is unavailable, cuts an answer short, or hangs."""

from benchmarks.support.behaviours import Weather
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.flow import Job, unharmed
from benchmarks.support.session import bench
from spark_llm import Policy

POLICY = Policy(max_in_flight=40, timeout_s=3)
FULL = Job(Weather(median_s=0.1), rows=5_000, policy=POLICY)
SHORT = Job(Weather(median_s=0.02, hung=0.0), rows=200, policy=POLICY)


def measure(*, short: bool) -> list[Figure]:
    """Return the requests that were sent beyond those that the faults make necessary, and the harm to the rows."""
    job = SHORT if short else FULL
    with bench(job.tasks) as spark:
        outcome = job.run(spark)
    weather = job.behaviour
    needed = outcome.rows / (1 - weather.faults)
    return [
        Figure(
            f"{weather.unavailable:.0%} 503, {weather.cut:.0%} cut, {weather.hung:.0%} hung: requests to those needed",
            [outcome.counted.requests / needed],
            f"{outcome.counted.requests:,}",
            f"{needed:,.0f}",
            Goal(at_most=1.03),
            note=f"Faults: {job.told}, {POLICY.max_in_flight} in flight, a time-out of {POLICY.timeout_s:g} s. Each "
            f"request goes wrong by chance, p = {weather.faults:g}, so a row needs 1/(1 - p) of them. Every row has an "
            "answer of its own, so that another row's would show.",
        ),
        *unharmed(outcome),
    ]
