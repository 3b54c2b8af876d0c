"""The share of a hidden capacity that is used, when excess requests are refused without a hint."""

from statistics import fmean

from benchmarks.support.behaviours import Capacity
from benchmarks.support.counters import Sample
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.flow import Job, share_figures
from benchmarks.support.session import Outcome, bench

TASKS = 8
ALONE = Job(Capacity(slots=40, median_s=0.2), rows=12_000)
TOGETHER = Job(Capacity(slots=40, median_s=0.2), rows=12_000, tasks=TASKS)
ALONE_SHORT = Job(Capacity(slots=8, median_s=0.02), rows=200)
TOGETHER_SHORT = Job(Capacity(slots=8, median_s=0.02), rows=200, tasks=2)


def measure(*, short: bool) -> list[Figure]:
    """Measure one task, and several, whose workers share one limiter."""
    alone, together = (ALONE_SHORT, TOGETHER_SHORT) if short else (ALONE, TOGETHER)
    outcome, _ = _run(alone)
    what, note = _title_and_note(alone, outcome)
    used_s = outcome.counters.service_s / alone.behaviour.slots
    figures = share_figures(what, outcome, used_s, share=Goal(at_least=0.95), per_row=Goal(at_most=1.03), note=note)

    outcome, series = _run(together)
    what, note = _title_and_note(together, outcome)
    note += " Side by side is the use until half of the rows are answered."
    slots, in_work = together.behaviour.slots, fmean(_in_work(series, outcome))
    used_s = outcome.counters.service_s / slots
    whole, *others = share_figures(
        what, outcome, used_s, share=Goal(at_least=0.93), per_row=Goal(at_most=1.05), note=note
    )
    beside = Figure("… side by side", [in_work / slots], f"{in_work:.1f} in work", f"{slots}", digits=3)
    return [*figures, whole, beside, *others]


def _run(job: Job[Capacity]) -> tuple[Outcome, list[Sample]]:
    with bench(job.tasks) as spark:
        return job.run(spark), spark.endpoint.series()


def _title_and_note(job: Job[Capacity], outcome: Outcome) -> tuple[str, str]:
    """Return the title of the figures, and their note."""
    slots = job.behaviour.slots
    what = f"hidden capacity {slots}, no hints, {job.tasks} task{'s' * (job.tasks > 1)}"
    return what, (
        f"{what.capitalize()}: {job.description}. With all {slots} slots taken, a request gets a 429 at once. "
        "The share is the sum of the latencies, over the slots and the time from the first request to the last answer. "
        f"At most {outcome.counters.max_in_flight} were in work."
    )


def _in_work(series: list[Sample], outcome: Outcome) -> list[int]:
    """Return the requests in work in the samples until half of the rows were answered."""
    first_s = outcome.counters.first_s or 0.0
    return [sample.in_flight for sample in series if sample.at_s >= first_s and 2 * sample.answered <= outcome.rows]
