"""Run the benchmarks, each against baselines of the same run: `python -m benchmarks [NAME ...] [--short]`."""

import argparse
import datetime as dt
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks import imports
from benchmarks.ai import aggregates, nearest, sample, typed
from benchmarks.cache import cache
from benchmarks.enrich import batches, enrichment
from benchmarks.flow import (
    backlog,
    capacity,
    cluster,
    duplicates,
    outage,
    poison,
    quota,
    shared,
    shared_cpu,
    shared_kills,
    steps,
    weather,
)
from benchmarks.support.figures import Figure, table
from benchmarks.udf import chat, counting, images, memory, predictions, show, vectors, window

MEASUREMENTS: dict[str, Callable[..., list[Figure]]] = {
    "window": window.measure,
    "chat": chat.measure,
    "vectors": vectors.measure,
    "counting": counting.measure,
    "capacity": capacity.measure,
    "quota": quota.measure,
    "shared": shared.measure,
    "shared_cpu": shared_cpu.measure,
    "shared_kills": shared_kills.measure,
    "cluster": cluster.measure,
    "backlog": backlog.measure,
    "steps": steps.measure,
    "weather": weather.measure,
    "outage": outage.measure,
    "duplicates": duplicates.measure,
    "cache": cache.measure,
    "typed": typed.measure,
    "nearest": nearest.measure,
    "sample": sample.measure,
    "aggregates": aggregates.measure,
    "enrichment": enrichment.measure,
    "batches": batches.measure,
    "poison": poison.measure,
    "memory": memory.measure,
    "images": images.measure,
    "predictions": predictions.measure,
    "show": show.measure,
    "imports": imports.measure,
}
RESULTS = Path(__file__).with_name("RESULTS.md")
PICTURE = RESULTS.with_name("limit.svg")

_PAGE = """\
# Benchmark results

Written by `python -m benchmarks` (`make bench`), which replaces this page.

{table}

{machine}

![Requests in flight follow the hidden capacity]({picture})

## How to read it

- Both sides of a ratio come from one run on one machine, in turn. Compare ratios between machines, not rows a second.
  With several rounds, the ratio is the median of the rounds' ratios, with their minimum and maximum.
- The endpoint is a separate process on the same machine, over loopback. It shares the cores with Spark's JVM and the
  Python worker. Its counters are checked against the rows of each job.
- The time is that of the whole Spark action (`write.format("noop")`): planning, the JVM, the worker and the transfer
  between them. Workers are warm: the same job ran before, on the same session.
- From the hidden capacity to the duplicates, a worker is warm but knows nothing of the endpoint: its warm-up was on
  another path, and the policy has only the settings named here. The endpoint measures the time. Each row has its own
  answer, so a wrong answer is detected.
{notes}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named measurements, or all; print the table, and write the page after a full run of all.

    Returns 1 if one failed; the others still run.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(MEASUREMENTS)}; all when left out")
    parser.add_argument("--short", action="store_true", help="few rows and one round: a test that it runs")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in MEASUREMENTS]
    if unknown:
        parser.error(f"unknown measurement {unknown[0]!r}. Hint: choose one of {', '.join(MEASUREMENTS)}")
    measured = [_run(name, short=options.short) for name in options.names or MEASUREMENTS]
    figures = [figure for part in measured if part is not None for figure in part]
    print(f"{table(figures)}\n\n{_notes(figures)}")
    if None in measured:
        return 1
    if not options.names and not options.short:
        RESULTS.write_text(_page(figures), encoding="utf-8")
        PICTURE.write_text(next(figure.picture for figure in figures if figure.picture), encoding="utf-8")
        print(f"\nWritten to {RESULTS}.", file=sys.stderr)
    return 0


def _run(name: str, *, short: bool) -> list[Figure] | None:
    """Run one measurement; return its figures, or None if it failed, and print that."""
    start_s = time.perf_counter()
    try:
        figures = MEASUREMENTS[name](short=short)
    except Exception:  # noqa: BLE001 -- half an hour of other results must not be lost
        traceback.print_exc()
        print(f"{name}: failed", file=sys.stderr, flush=True)
        return None
    elapsed = f"{time.perf_counter() - start_s:.0f} s" if figures else "cannot be measured on this system"
    print(f"{name}: {elapsed}", file=sys.stderr, flush=True)
    return figures


def _page(figures: Sequence[Figure]) -> str:
    return _PAGE.format(table=table(figures), machine=_machine(), notes=_notes(figures), picture=PICTURE.name)


def _notes(figures: Sequence[Figure]) -> str:
    return "\n".join(f"- {figure.note}" for figure in figures if figure.note)


def _machine() -> str:
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    libraries = ", ".join(f"{name} {version(name)}" for name in ("pyspark", "pyarrow", "aiohttp"))
    today = dt.datetime.now(dt.timezone.utc).date()
    return (
        f"{today}; {os.cpu_count()} cores ({platform.machine()}), {memory_gb:.0f} GB of memory, {platform.system()}; "
        f"Python {platform.python_version()}, {libraries}."
    )


if __name__ == "__main__":
    sys.exit(main())
