"""The CPU time that the shared limiter adds to a row, at zero latency: engines with it and without, in turn."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from statistics import median

from benchmarks.support.endpoint_process import CHAT, endpoint_process
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.session import ROOT

IN_FLIGHT = 64  # of the whole host
TASKS = 8
FULL = {"pairs": 24, "rows": 4_000}
SHORT = {"pairs": 1, "rows": 200}


def measure(*, short: bool) -> list[Figure]:
    """Compare one worker alone, and eight side by side."""
    size = SHORT if short else FULL
    return [
        _figure("CPU time that the shared limiter adds to a row, one task", 1, size, Goal(at_most=3)),
        _figure(f"… {TASKS} tasks side by side", 2 if short else TASKS, size, Goal(at_most=10)),
    ]


def _figure(name: str, workers: int, size: dict[str, int], goal: Goal) -> Figure:
    rows = size["rows"] // workers
    with endpoint_process() as endpoint, _workers(endpoint.url(CHAT), workers) as started:
        for kind in ("shared", "alone"):
            _cpu_us(started, kind, rows)
        pairs = [(_cpu_us(started, "shared", rows), _cpu_us(started, "alone", rows)) for _ in range(size["pairs"])]
    with_us, without_us = (median(times) for times in zip(*pairs, strict=True))
    return Figure(
        name,
        [100 * (shared / alone - 1) for shared, alone in pairs],
        f"{with_us:.0f} µs",
        f"{without_us:.0f} µs",
        goal,
        unit="%",
        digits=1,
        note=f"Shared limiter: zero latency, {IN_FLIGHT} in flight, {rows:,} rows in each of {workers} processes "
        f"without Spark, {size['pairs']} pairs of a run with the limiter and one without. CPU time of all processes.",
    )


@contextlib.contextmanager
def _workers(url: str, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    arguments = [url, f"benchmark {os.getpid()} {count}", str(IN_FLIGHT), str(count)]
    command = [sys.executable, "-m", "benchmarks.support.shared_worker", *arguments]
    started = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    try:
        yield started
    finally:
        for worker in started:
            worker.communicate()


def _cpu_us(workers: list[subprocess.Popen[str]], kind: str, rows: int) -> float:
    """Return the CPU time of a row in microseconds, over all workers; raises `RuntimeError` where a row failed."""
    for worker in workers:
        assert worker.stdin is not None  # noqa: S101 -- it is a pipe
        worker.stdin.write(f"{kind} {rows}\n")
        worker.stdin.flush()
    answers = [worker.stdout.readline().split() for worker in workers if worker.stdout is not None]
    if any(failed != "0" for _, failed in answers):
        raise RuntimeError(f"Rows were not answered: {answers}")
    return 1e6 * sum(float(seconds) for seconds, _ in answers) / (rows * len(workers))
