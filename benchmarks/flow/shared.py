"""Limits of a whole job: what the user allows, or the endpoint, is shared by eight tasks that know nothing of it."""

from benchmarks.support.behaviours import Quota, Steady
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.flow import Job, Kind, share_figures
from benchmarks.support.session import Outcome, bench
from spark_llm import Policy

TASKS, SHORT_TASKS = 8, 2
IN_FLIGHT, PER_MINUTE, PER_S = 15, 1_200, 50
LATENCY_S = 0.2


def measure(*, short: bool) -> list[Figure]:
    """Measure a number of requests in flight, a quota a minute, and a quota that only refusals show."""
    return [*_in_flight(short), *_per_minute(short), *_hidden_quota(short)]


def _in_flight(short: bool) -> list[Figure]:  # noqa: FBT001 -- as `measure` has it
    job = _job(Steady(median_s=LATENCY_S, sigma=0.0), 6_000, Policy(max_in_flight=IN_FLIGHT), short)
    outcome, what = _run(job), f"max_in_flight={IN_FLIGHT}, {job.tasks} tasks"
    note = f"{what}: {job.description}. The share is the rows, times the latency, over {IN_FLIGHT} and the time."
    most = [outcome.counters.max_in_flight]
    peak = Figure("… most in flight", most, goal=Goal(at_most=IN_FLIGHT), unit="requests", digits=0)
    share, *others = share_figures(
        what, outcome, outcome.rows * LATENCY_S / IN_FLIGHT, share=Goal(at_least=0.95), note=note
    )
    return [share, peak, *others]


def _per_minute(short: bool) -> list[Figure]:  # noqa: FBT001 -- as `measure` has it
    quota = Quota(per_s=PER_MINUTE // 60, window_s=60.0, median_s=LATENCY_S, sigma=0.0)
    job = _job(quota, 2_400, Policy(requests_per_minute=PER_MINUTE), short)
    what = f"requests_per_minute={PER_MINUTE:,}, {job.tasks} tasks"
    note = f"{what}: {job.description}. A request gets a 429 if as many others, refused ones too, came in the minute."
    return _quota_figures(job, what, note, Goal(at_least=0.95), Goal(at_most=1.01))


def _hidden_quota(short: bool) -> list[Figure]:  # noqa: FBT001 -- as `measure` has it
    job = _job(Quota(per_s=PER_S, median_s=LATENCY_S), 6_000, Policy(), short)
    what = f"{PER_S} requests a second, refusals count, no hints, {job.tasks} tasks"
    note = f"{what}: {job.description}."
    return _quota_figures(job, what, note, Goal(at_least=0.90), Goal(at_most=1.05))


def _quota_figures(job: Job[Quota], what: str, note: str, share: Goal, per_row: Goal) -> list[Figure]:
    outcome = _run(job)
    return share_figures(what, outcome, outcome.rows / job.behaviour.per_s, share=share, per_row=per_row, note=note)


def _job(behaviour: Kind, rows: int, policy: Policy, short: bool) -> Job[Kind]:  # noqa: FBT001 -- as `measure` has it
    return Job(behaviour, rows // 60 if short else rows, SHORT_TASKS if short else TASKS, policy)


def _run(job: Job[Kind]) -> Outcome:
    with bench(job.tasks) as spark:
        return job.run(spark)
