"""Whether a worker's memory grows with its partition: it must not."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, Goal
from benchmarks.session import bench
from spark_llm import Policy, chat_udf

IN_FLIGHT = 64
FULL = (10_000, 200_000)
SHORT = (1_000, 3_000)


def measure(*, short: bool) -> list[Figure]:
    """Return the worker's peak memory with many rows over that with few, each in a session and a worker of its own.

    Nothing is returned where there is no /proc to read it from.
    """
    if not Path("/proc/self/status").exists():
        return []
    few, many = SHORT if short else FULL
    peaks = {rows: _peak_mb(rows) for rows in (few, many)}
    return [
        Figure(
            f"peak memory of a worker, {many:,} rows against {few:,}",
            [peaks[many] / peaks[few]],
            f"{peaks[many]:.0f} MB",
            f"{peaks[few]:.0f} MB",
            Goal(at_most=1.10),
            note="Memory: chat at zero latency, one partition on `local[1]` in Arrow batches of 10,000, Spark's "
            "default. The peak is what the kernel counted for the worker (VmHWM), read when the job had ended.",
        )
    ]


def _peak_mb(rows: int) -> float:
    """Ask about so many rows and return the peak of the one process that ran the UDF."""
    with bench(1) as spark:
        url = spark.endpoint.url("zero/chat/completions")
        spark.timed(chat_udf(url, policy=Policy(max_in_flight=IN_FLIGHT)), rows)
        peaks = list(_workers_mb())
    if len(peaks) != 1:
        raise RuntimeError(f"There were {len(peaks)} Python workers, not one, so it is not known whose memory this is.")
    return peaks[0]


def _workers_mb() -> Iterator[float]:
    """Find the Python workers of this process's Spark: what its daemons have forked."""
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
    except OSError:  # the process has gone
        return ""
