"""The time of `import spark_llm` in a new interpreter."""

import subprocess
import sys

from benchmarks.support.figures import Figure, Goal
from benchmarks.support.session import ROOT

RUNS = {"full": 10, "short": 3}
HEAVY = ("aiohttp", "pandas", "pyarrow", "pyspark")

_PROGRAM = f"""
import sys, time
start_s = time.perf_counter()
import spark_llm
print((time.perf_counter() - start_s) * 1000, *(name for name in {HEAVY} if name in sys.modules))
"""


def measure(*, short: bool) -> list[Figure]:
    """Return the time of the import; raises `RuntimeError` if it loads a heavy library."""
    durations_ms = []
    for _ in range(RUNS["short" if short else "full"]):
        command = [sys.executable, "-c", _PROGRAM]
        milliseconds, *loaded = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
        if loaded:
            raise RuntimeError(f"import spark_llm loads {', '.join(loaded)}.")
        durations_ms.append(float(milliseconds))
    return [
        Figure(
            "import spark_llm",
            durations_ms,
            goal=Goal(at_most=150),
            unit="ms",
            note=f"Import: the median of {len(durations_ms)} new interpreters; none of them loaded {', '.join(HEAVY)}.",
        )
    ]
