"""Measure, and compare with baselines of the same run: `python -m benchmarks [NAME ...] [--short]`."""

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
from benchmarks.ai import typed
from benchmarks.cache import cache
from benchmarks.enrich import enrichment
from benchmarks.flow import backlog, capacity, duplicates, outage, poison, quota, steps, weather
from benchmarks.support.figures import Figure, table
from benchmarks.udf import chat, memory, show, vectors, window

MEASUREMENTS: dict[str, Callable[..., list[Figure]]] = {
    "window": window.measure,
    "chat": chat.measure,
    "vectors": vectors.measure,
    "capacity": capacity.measure,
    "quota": quota.measure,
    "backlog": backlog.measure,
    "steps": steps.measure,
    "weather": weather.measure,
    "outage": outage.measure,
    "duplicates": duplicates.measure,
    "cache": cache.measure,
    "typed": typed.measure,
    "enrichment": enrichment.measure,
    "poison": poison.measure,
    "memory": memory.measure,
    "show": show.measure,
    "imports": imports.measure,
}
RESULTS = Path(__file__).with_name("RESULTS.md")
PICTURE = RESULTS.with_name("limit.svg")

_PAGE = """\
# What was measured

Made by `python -m benchmarks` (`make bench`), which replaces this page.

{table}

{machine}

![Requests in flight follow the capacity, which nobody told the client]({picture})

## How to read it

- Every ratio has both sides from one run on one machine, in turn: compare ratios, not rows a second, with those of
  another machine. Where there were rounds, the ratio is the median of the rounds' ratios, and the least and the
  greatest stand beside it.
- The endpoint is a process of its own on the same machine, over loopback. It shares the cores with Spark's JVM and the
  Python worker, and what it counted is held against the rows of each job.
- The time is that of the whole Spark action (`write.format("noop")`): planning, the JVM, the worker and the way between
  them. Workers are warm: the same job ran before, on the same session.
- From the hidden capacity to the duplicates, a worker is warm and knows nothing: it was asked on another path of the
  endpoint, and the policy says nothing but what stands here. The time is the endpoint's own, and each row has an
  answer of its own, so that a wrong one shows.
{notes}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurements that were named, or all; print the table, and write the page when all ran in full.

    Returns 1 where one broke off, which does not cost the others' results.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(MEASUREMENTS)}; all when left out")
    parser.add_argument(
        "--short", action="store_true", help="few rows and one round: shows that it runs, measures little"
    )
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.names if name not in MEASUREMENTS]
    if unknown:
        parser.error(f"there is no measurement {unknown[0]!r}; there are {', '.join(MEASUREMENTS)}")
    measured = [_measured(name, short=asked.short) for name in asked.names or MEASUREMENTS]
    figures = [figure for part in measured if part is not None for figure in part]
    print(f"{table(figures)}\n\n{_notes(figures)}")
    if None in measured:
        return 1
    if not asked.names and not asked.short:
        RESULTS.write_text(_page(figures), encoding="utf-8")
        PICTURE.write_text(next(figure.picture for figure in figures if figure.picture), encoding="utf-8")
        print(f"\nWritten to {RESULTS}.", file=sys.stderr)
    return 0


def _measured(name: str, *, short: bool) -> list[Figure] | None:
    """Run one measurement; return its figures, or None where it broke off, and say so."""
    began = time.perf_counter()
    try:
        figures = MEASUREMENTS[name](short=short)
    except Exception:  # noqa: BLE001 -- half an hour of others' results must not go with it
        traceback.print_exc()
        print(f"{name}: broke off", file=sys.stderr, flush=True)
        return None
    took = f"{time.perf_counter() - began:.0f} s" if figures else "cannot be measured on this system"
    print(f"{name}: {took}", file=sys.stderr, flush=True)
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
