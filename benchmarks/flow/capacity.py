"""How much of a hidden capacity is found and used, when nothing is known of it and what is too much is refused."""

from statistics import fmean

from benchmarks.support.behaviours import Capacity
from benchmarks.support.counters import Sample
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.flow import Job, lines
from benchmarks.support.session import Outcome, bench

TASKS = 8
ALONE = Job(Capacity(places=40, median_s=0.2), rows=12_000)
TOGETHER = Job(Capacity(places=40, median_s=0.5), rows=9_000, tasks=TASKS)
ALONE_SHORT = Job(Capacity(places=8, median_s=0.02), rows=200)
TOGETHER_SHORT = Job(Capacity(places=8, median_s=0.02), rows=200, tasks=2)


def measure(*, short: bool) -> list[Figure]:
    """Measure one task, and several that find the capacity each for itself: each has an engine of its own."""
    alone, together = (ALONE_SHORT, TOGETHER_SHORT) if short else (ALONE, TOGETHER)
    outcome, _ = _run(alone)
    what, note = _told(alone, outcome)
    used_s = outcome.counted.service_s / alone.behaviour.places
    figures = lines(what, outcome, used_s, share=Goal(at_least=0.95), per_row=Goal(at_most=1.03), note=note)

    outcome, series = _run(together)
    what, note = _told(together, outcome)
    note += (
        " The tasks end at different times, and the last one works alone; side by side is what they use while the "
        "first half of the rows is answered."
    )
    places, in_work = together.behaviour.places, fmean(_in_work(series, outcome))
    used_s = outcome.counted.service_s / places
    whole, *others = lines(what, outcome, used_s, share=Goal(at_least=0.90), per_row=Goal(at_most=1.15), note=note)
    beside = Figure("… side by side", [in_work / places], f"{in_work:.1f} in work", f"{places}", digits=3)
    return [*figures, whole, beside, *others]


def _run(job: Job[Capacity]) -> tuple[Outcome, list[Sample]]:
    with bench(job.tasks) as spark:
        return job.run(spark), spark.endpoint.series()


def _told(job: Job[Capacity], outcome: Outcome) -> tuple[str, str]:
    """Return the name of the figures, and the note."""
    places = job.behaviour.places
    what = f"hidden capacity {places}, no hints, {job.tasks} task{'s' * (job.tasks > 1)}"
    return what, (
        f"{what.capitalize()}: {job.told}. A request that comes when all {places} places are taken is refused with "
        "a 429 on the spot. The share is the sum of the latencies, over the places and the time from the first "
        f"request to the last answer. At most {outcome.counted.max_in_flight} were in work."
    )


def _in_work(series: list[Sample], outcome: Outcome) -> list[int]:
    """Return how many requests were in work at the moments from the first one until half of the rows were answered."""
    first_s = outcome.counted.first_s or 0.0
    return [sample.in_flight for sample in series if sample.at_s >= first_s and 2 * sample.answered <= outcome.rows]
