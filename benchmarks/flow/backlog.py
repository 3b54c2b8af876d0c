"""A server that queues excess requests and never refuses: more in flight gains nothing."""

from statistics import fmean, quantiles

from benchmarks.support.behaviours import Backlog
from benchmarks.support.counters import Sample
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.flow import Job, share_figures
from benchmarks.support.session import bench

FULL = Job(Backlog(slots=40, median_s=0.2), rows=12_000)
SHORT = Job(Backlog(slots=8, median_s=0.02), rows=300)


def measure(*, short: bool) -> list[Figure]:
    """Return the share of the server's rate that one task gets, and its requests in flight when settled."""
    job = SHORT if short else FULL
    with bench(job.tasks) as spark:
        outcome = job.run(spark)
        series = spark.endpoint.series()
    counters, slots = outcome.counters, job.behaviour.slots
    settled = _settled(series, counters.first_s or 0.0, counters.last_s)
    what = f"a server that queues past {slots} and never refuses"
    note = (
        f"{what.capitalize()}: {job.description}. Settled is the second half of the time, "
        f"sampled every 50 ms. The maximum in flight is {counters.max_in_flight}."
    )
    rate, per_row, *errors = share_figures(
        what, outcome, counters.service_s / slots, share=Goal(at_least=0.95), note=note
    )
    in_flight = Figure(
        "… in flight when settled (95th percentile)",
        [quantiles(settled, n=20)[-1]],
        f"{fmean(settled):.0f} on average",
        f"{slots}",
        Goal(at_most=60),
        unit="requests",
        digits=0,
    )
    return [rate, in_flight, per_row, *errors]


def _settled(series: list[Sample], first_s: float, last_s: float) -> list[int]:
    """Return the requests in flight in the samples of the second half."""
    middle_s = (first_s + last_s) / 2
    return [sample.in_flight for sample in series if middle_s <= sample.at_s <= last_s]
