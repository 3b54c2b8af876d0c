"""A server that never refuses and lets what is too much wait in line: asking more of it gains nothing."""

from statistics import fmean, quantiles

from benchmarks.support.behaviours import Backlog
from benchmarks.support.counters import Sample
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.flow import Job, lines
from benchmarks.support.session import bench

FULL = Job(Backlog(places=40, median_s=0.2), rows=12_000)
SHORT = Job(Backlog(places=8, median_s=0.02), rows=300)


def measure(*, short: bool) -> list[Figure]:
    """Return the share of the server's rate that one task gets, and how many requests it settles at."""
    job = SHORT if short else FULL
    with bench(job.tasks) as spark:
        outcome = job.run(spark)
        series = spark.endpoint.series()
    counted, places = outcome.counted, job.behaviour.places
    settled = _settled(series, counted.first_s or 0.0, counted.last_s)
    what = f"a server that queues past {places} and never refuses"
    note = (
        f"{what.capitalize()}: {job.told}. Settled is the second half of the time in which requests came, sampled "
        f"every 50 ms. The most that was ever in flight is {counted.max_in_flight}."
    )
    rate, per_row, *unharmed = lines(what, outcome, counted.service_s / places, share=Goal(at_least=0.95), note=note)
    in_flight = Figure(
        "… in flight when settled (95th percentile)",
        [quantiles(settled, n=20)[-1]],
        f"{fmean(settled):.0f} on average",
        f"{places}",
        Goal(at_most=60),
        unit="requests",
        digits=0,
    )
    return [rate, in_flight, per_row, *unharmed]


def _settled(series: list[Sample], first_s: float, last_s: float) -> list[int]:
    """Return what was in flight at the moments of the second half."""
    middle_s = (first_s + last_s) / 2
    return [sample.in_flight for sample in series if middle_s <= sample.at_s <= last_s]
