"""The benchmarks run to their end; tests do not check the numbers, which need a quiet machine."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MEMORY = ("peak memory of a worker", "a worker's memory beyond its Arrow batches")
ROWS = (
    "share of the ideal rate, 64 in flight",
    "of requests in 64 threads, batch by batch",
    "chat at zero latency, against a bare aiohttp loop",
    "against requests in 64 threads in a pandas UDF",
    "embeddings of 1,024 numbers, against requests in threads",
    "against openaivec",
    "CPU time that progress(spark) adds to a chat",
    "… to an embedding",
    "hidden capacity 8, no hints, 1 task",
    "hidden capacity 8, no hints, 2 tasks",
    "max_in_flight=15, 2 tasks",
    "requests_per_minute=1,200, 2 tasks",
    "CPU time that the shared limiter adds to a row",
    "the limiter's holder is killed 1 times in a job",
    "requests_per_minute=1,200, 2 executors as 1 host",
    "requests_per_minute=1,200, 2 executors as 2 hosts",
    "50 requests a second, refusals count",
    "a server that queues past 8 and never refuses",
    "hidden capacity 8, then 2, then 8",
    "5% 503, 1% cut",
    "the endpoint is gone for 1 s",
    "40 % duplicate rows",
    "an answer from the cache",
    "`ai_gen` in SQL, of the time of the bare chat_udf",
    "reading a typed answer of 5 fields",
    "`classify_by_sample`: chat requests, of the rows",
    "an enrichment job's time that is not waiting for its endpoint",
    "an enrichment job's seconds over a plain Delta write",
    "the whole time of one that has nothing to do",
    "a job in batches, of the time of one that is answered from a column",
    "one poisoned row in 500 embeddings",
    "a request that is refused as a whole",
    "show(5) on 10,000-row partitions",
    "images of 1 MB, 16 in flight",
    "predictions of rows of 10 numbers, against the best bare loop",
    "against a UDF that sends a row a request",
    "import spark_llm",
    *(MEMORY if Path("/proc/self/status").exists() else ()),
)


PAGE = ROOT / "benchmarks" / "RESULTS.md"


def run(*names: str) -> "subprocess.CompletedProcess[str]":
    """Run these measurements in short form, or all."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *names, "--short"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.waits
def test_a_benchmark_runs_to_its_end() -> None:
    """A short run prints a line for each figure, and does not write the page of results."""
    before = PAGE.read_bytes() if PAGE.exists() else None
    completed = run("imports")

    assert 0 == completed.returncode, completed.stderr
    assert ["import spark_llm"] == [row for row in ROWS if row in completed.stdout]
    assert before == (PAGE.read_bytes() if PAGE.exists() else None)  # only a full run writes it


@pytest.mark.spark
@pytest.mark.slow
def test_every_benchmark_runs_to_its_end() -> None:
    """A short run of all measurements prints every row."""
    completed = run()

    assert (0, []) == (completed.returncode, [row for row in ROWS if row not in completed.stdout]), completed.stderr


@pytest.mark.waits
def test_an_unknown_benchmark_is_an_error() -> None:
    """An unknown name ends the command with the list of measurements."""
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "speed"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert 2 == run.returncode
    assert "unknown measurement 'speed'. Hint: choose one of window, chat" in run.stderr
