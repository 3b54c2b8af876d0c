"""The worker that holds the host's limiter is killed again and again: what the job loses, and for how long."""

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from benchmarks.support.behaviours import Capacity
from benchmarks.support.counters import Sample
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.flow import Job, row_error_figures
from benchmarks.support.session import bench
from spark_llm.coordination.place import FOLDER_VARIABLE

FULL = Job(Capacity(slots=40, median_s=0.2), rows=12_000, tasks=8), 10, 5.0
SHORT = Job(Capacity(slots=8, median_s=0.1), rows=400, tasks=2), 1, 1.0
FAILURES = 50  # of one task that Spark allows
SEEN_S = 1.5  # after a kill, in which the longest time without a new request is measured


def measure(*, short: bool) -> list[Figure]:
    """Return the share of the capacity used, and the longest time without a request after a kill."""
    job, kills, every_s = SHORT if short else FULL
    with tempfile.TemporaryDirectory() as folder:
        settings = {f"spark.executorEnv.{FOLDER_VARIABLE}": folder, "spark.log.level": "OFF"}
        with bench(job.tasks, settings, failures=FAILURES) as spark:
            job.warm(spark)
            killer = Killer(Path(folder), kills, every_s, lambda: spark.endpoint.counters().wall_s)
            killer.start()
            outcome = job.ask(spark)
            killer.join()
            series = spark.endpoint.series()
    if len(killer.killed_s) < kills:
        raise RuntimeError(f"Only {len(killer.killed_s)} of {kills} holders were killed before the job ended.")
    slots, elapsed_s = job.behaviour.slots, outcome.counters.span_s
    used_s = outcome.counters.answered * job.behaviour.mean_s / slots
    gaps = [_longest_gap_s(series, killed_s) for killed_s in killer.killed_s]
    what = f"the limiter's holder is killed {kills} times in a job"
    return [
        Figure(
            f"{what}: answered requests of the capacity",
            [used_s / elapsed_s],
            f"{elapsed_s:.1f} s",
            f"{used_s:.1f} s",
            Goal(at_least=0.90),
            digits=3,
            note=f"{what.capitalize()}: {job.description}, hidden capacity {slots}. Spark asks a killed task's rows "
            f"again: {outcome.counters.requests:,} requests. At most {outcome.counters.max_in_flight} were in work. "
            f"The time without a request is the longest in the {SEEN_S:g} s after each kill, to 0.05 s.",
        ),
        Figure("… seconds without a request after a kill", gaps, goal=Goal(at_most=1.0), unit="s", digits=2),
        *row_error_figures(outcome),
    ]


class Killer(threading.Thread):
    """Kills the worker that holds the limiter, by SIGKILL."""

    def __init__(self, folder: Path, kills: int, every_s: float, clock: Callable[[], float]) -> None:
        """Kill it so often, `every_s` apart, once there is one; `clock` is that of the endpoint's samples."""
        super().__init__(daemon=True)
        self.killed_s: list[float] = []
        self._folder, self._kills, self._every_s, self._clock = folder, kills, every_s, clock
        self._before = {path.name for path in folder.glob("*/*.state")}

    def run(self) -> None:
        """Kill."""
        while len(self.killed_s) < self._kills:
            time.sleep(self._every_s)
            states = [path for path in self._folder.glob("*/*.state") if path.name not in self._before]
            if states:
                os.kill(json.loads(states[0].read_bytes().partition(b"\n")[0])["pid"], signal.SIGKILL)
                self.killed_s.append(self._clock())


def _longest_gap_s(series: Sequence[Sample], after_s: float) -> float:
    """Return the longest time between two samples with new requests, in the seconds after a time."""
    new = [later.at_s for one, later in pairwise(series) if later.requests > one.requests]
    seen = [after_s, *(at_s for at_s in new if after_s < at_s < after_s + SEEN_S), after_s + SEEN_S]
    return max(later - one for one, later in pairwise(seen))
