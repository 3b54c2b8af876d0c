"""The benchmarks run: what they measure is for `python -m benchmarks` on a quiet machine, and never for a test."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = (
    "share of the ideal rate, 64 in flight",
    "of requests in 64 threads, batch by batch",
    "chat at zero latency, against a bare aiohttp loop",
    "against requests in 64 threads in a pandas UDF",
    "embeddings of 1,024 numbers, against requests in threads",
    "against openaivec",
    "hidden capacity 8, no hints, 1 task",
    "hidden capacity 8, no hints, 2 tasks",
    "50 requests a second, refusals count",
    "a server that queues past 8 and never refuses",
    "hidden capacity 8, then 2, then 8",
    "5% 503, 1% cut",
    "the endpoint is gone for 1 s",
    "40 % duplicate rows",
    "an answer from the cache",
    "`ai_gen` in SQL, of the time of the bare chat_udf",
    "reading a typed answer of 5 fields",
    "an enrichment job's time that is not waiting for its endpoint",
    "one poisoned row in 500 embeddings",
    "a request that is refused as a whole",
    "show(5) on 10,000-row partitions",
    "import spark_llm",
    *(["peak memory of a worker"] if Path("/proc/self/status").exists() else []),
)


PAGE = ROOT / "benchmarks" / "RESULTS.md"


def run(*names: str) -> "subprocess.CompletedProcess[str]":
    """Run the short form of these measurements, or of all."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *names, "--short"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_a_benchmark_runs_to_its_end() -> None:
    """The short form of a measurement prints a line for each figure, and leaves the page of results as it is."""
    before = PAGE.read_bytes() if PAGE.exists() else None
    done = run("imports")

    assert 0 == done.returncode, done.stderr
    assert ["import spark_llm"] == [row for row in ROWS if row in done.stdout]
    assert before == (PAGE.read_bytes() if PAGE.exists() else None)  # only a whole run is worth keeping


@pytest.mark.spark
@pytest.mark.slow
def test_every_benchmark_runs_to_its_end() -> None:
    """The short form measures everything once."""
    done = run()

    assert (0, []) == (done.returncode, [row for row in ROWS if row not in done.stdout]), done.stderr


def test_a_benchmark_that_is_not_there_is_named() -> None:
    """A name that stands for no measurement ends the command with a list of those that do."""
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "speed"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert 2 == run.returncode
    assert "there is no measurement 'speed'; there are window, chat" in run.stderr
