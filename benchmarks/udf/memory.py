"""A worker's peak memory: it grows with the requests in flight, and not with the rows of its partition."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from benchmarks.support.behaviours import Steady
from benchmarks.support.endpoint_process import CHAT, NO_LATENCY
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.session import bench
from spark_llm import Policy, chat_udf

IN_FLIGHT = 64
FEW, MANY = 32, 512  # in flight
RATE = 1_200  # rows a second in both: latencies are so long that the requests are in flight together
FULL = {"few": 10_000, "many": 1_000_000, "in_flight": 20_000}
SHORT = {"few": 1_000, "many": 3_000, "in_flight": 400}


def measure(*, short: bool) -> list[Figure]:
    """Return the worker's peak memory with many rows over that with few, each in a new session and worker.

    The list is empty on a system without /proc.
    """
    if not Path("/proc/self/status").exists():
        return []
    size = SHORT if short else FULL
    few, many = (_peak_mb(size[name], IN_FLIGHT, NO_LATENCY)[0] for name in ("few", "many"))
    (narrow, narrow_most), (wide, wide_most) = (
        _peak_mb(size["in_flight"], in_flight, Steady(median_s=in_flight / RATE)) for in_flight in (FEW, MANY)
    )
    return [
        Figure(
            f"peak memory of a worker, {size['many']:,} rows against {size['few']:,}",
            [many / few],
            f"{many:.0f} MB",
            f"{few:.0f} MB",
            Goal(at_most=1.10),
            note=f"Memory: chat at zero latency, {IN_FLIGHT} in flight, one partition on `local[1]` in Arrow batches "
            "of 10,000, Spark's default. The peak is the worker's VmHWM, read after the job.",
        ),
        Figure(
            f"… {wide_most} requests in flight against {narrow_most}: for each request",
            [(wide - narrow) * 1_024 / (wide_most - narrow_most)],
            f"{wide:.0f} MB",
            f"{narrow:.0f} MB",
            unit="KB",
            digits=0,
            note=f"Memory of requests in flight: {size['in_flight']:,} rows, latencies with medians of "
            f"{FEW / RATE:.3f} and {MANY / RATE:.3f} s; the numbers are the maximum in flight.",
        ),
    ]


def _peak_mb(rows: int, in_flight: int, behaviour: Steady) -> tuple[float, int]:
    """Run a job; return the peak memory of its only worker in MB, and its maximum of requests in flight."""
    with bench(1) as spark:
        url = spark.endpoint.url(CHAT, behaviour)
        _, counters = spark.time_job(chat_udf(url, policy=Policy(max_in_flight=in_flight)), rows)
        peaks = list(workers_mb())
    if len(peaks) != 1:
        raise RuntimeError(f"There were {len(peaks)} Python workers, not one, so the memory cannot be attributed.")
    return peaks[0], counters.max_in_flight


def workers_mb() -> Iterator[float]:
    """Yield the peak memory of each Python worker of this process's Spark: the children of its daemons."""
    parents = {int(folder.name): _parent(folder) for folder in Path("/proc").iterdir() if folder.name.isdecimal()}
    daemons = {process for process in parents if _is_ours(process, parents) and _is_daemon(process)}
    for process in daemons:
        peak = re.search(r"VmHWM:\s+(\d+) kB", _read(Path(f"/proc/{process}/status")))
        if peak and parents[process] in daemons:
            yield int(peak[1]) / 1_024


def _is_ours(process: int, parents: dict[int, int]) -> bool:
    while process in parents and process != os.getpid():
        process = parents[process]
    return process == os.getpid()


def _is_daemon(process: int) -> bool:
    return "pyspark.daemon" in _read(Path(f"/proc/{process}/cmdline"))


def _parent(folder: Path) -> int:
    parent = re.search(r"^PPid:\s+(\d+)", _read(folder / "status"), re.MULTILINE)
    return int(parent[1]) if parent else 0


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:  # the process has ended
        return ""
