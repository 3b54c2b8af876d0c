"""Measure, and compare with baselines of the same run: `python -m benchmarks [NAME ...] [--short]`."""

import argparse
import datetime as dt
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks import chat, imports, memory, vectors, window
from benchmarks.figures import Figure, table

MEASUREMENTS: dict[str, Callable[..., list[Figure]]] = {
    "chat": chat.measure,
    "window": window.measure,
    "vectors": vectors.measure,
    "memory": memory.measure,
    "imports": imports.measure,
}
RESULTS = Path(__file__).with_name("RESULTS.md")

_PAGE = """\
# What was measured

Made by `python -m benchmarks` (`make bench`), which replaces this page.

{table}

{machine}

## How to read it

- Every ratio has both sides from one run on one machine, in turn: compare ratios, not rows a second, with those of
  another machine. Where there were rounds, the ratio is the median of the rounds' ratios, and the least and the
  greatest stand beside it.
- The endpoint is a process of its own on the same machine, over loopback. It shares the cores with Spark's JVM and the
  Python worker, and what it counted is held against the rows of each job.
- The time is that of the whole Spark action (`write.format("noop")`): planning, the JVM, the worker and the way between
  them. Workers are warm: the same job ran before, on the same session.
{notes}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the measurements that were named, or all; print the table, and write the page when all ran in full."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(MEASUREMENTS)}; all when left out")
    parser.add_argument(
        "--short", action="store_true", help="few rows and one round: shows that it runs, measures little"
    )
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.names if name not in MEASUREMENTS]
    if unknown:
        parser.error(f"there is no measurement {unknown[0]!r}; there are {', '.join(MEASUREMENTS)}")
    figures: list[Figure] = []
    for name in asked.names or MEASUREMENTS:
        began = time.perf_counter()
        measured = MEASUREMENTS[name](short=asked.short)
        took = f"{time.perf_counter() - began:.0f} s" if measured else "cannot be measured on this system"
        print(f"{name}: {took}", file=sys.stderr, flush=True)
        figures += measured
    print(table(figures))
    if not asked.names and not asked.short:
        RESULTS.write_text(_page(figures), encoding="utf-8")
        print(f"\nWritten to {RESULTS}.", file=sys.stderr)


def _page(figures: Sequence[Figure]) -> str:
    notes = "\n".join(f"- {figure.note}" for figure in figures if figure.note)
    return _PAGE.format(table=table(figures), machine=_machine(), notes=notes)


def _machine() -> str:
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    libraries = ", ".join(f"{name} {version(name)}" for name in ("pyspark", "pyarrow", "aiohttp"))
    today = dt.datetime.now(dt.timezone.utc).date()
    return (
        f"{today}; {os.cpu_count()} cores ({platform.machine()}), {memory_gb:.0f} GB of memory, {platform.system()}; "
        f"Python {platform.python_version()}, {libraries}."
    )


if __name__ == "__main__":
    main()
