"""What `import spark_llm` costs, in a fresh interpreter."""

import subprocess
import sys

from benchmarks.support.figures import Figure, Goal
from benchmarks.support.session import ROOT

RUNS = {"full": 10, "short": 3}
HEAVY = ("aiohttp", "pandas", "pyarrow", "pyspark")

_PROGRAM = f"""
import sys, time
began = time.perf_counter()
import spark_llm
print((time.perf_counter() - began) * 1000, *(name for name in {HEAVY} if name in sys.modules))
"""


def measure(*, short: bool) -> list[Figure]:
    """Import it again and again, and see that none of the heavy libraries came with it. Raises where one did."""
    took = []
    for _ in range(RUNS["short" if short else "full"]):
        command = [sys.executable, "-c", _PROGRAM]
        milliseconds, *loaded = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
        if loaded:
            raise RuntimeError(f"import spark_llm loads {', '.join(loaded)}.")
        took.append(float(milliseconds))
    return [
        Figure(
            "import spark_llm",
            took,
            goal=Goal(at_most=150),
            unit="ms",
            note=f"Import: the median of {len(took)} fresh interpreters; none of them loaded {', '.join(HEAVY)}.",
        )
    ]
