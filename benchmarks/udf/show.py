"""The requests of `show(5)` on 10,000-row partitions: `python -m benchmarks.udf.show KIND ROUNDS`."""

import contextlib
import io
import json
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from typing import cast

from benchmarks.support.behaviours import Steady
from benchmarks.support.endpoint_process import CHAT
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.session import ROOT, Kind, bench
from spark_llm import chat_udf

CORES = 2
PARTITION_ROWS = 10_000
PARTITIONS = 4
LATENCIES_S = (0.0, 0.2)
SETTLED_S = 0.5  # for requests that arrive after the rows


def measure(*, short: bool) -> list[Figure]:
    """Return the maximum of requests of `show(5)`; on Spark Connect too, in a separate process, unless short."""
    rounds = 1 if short else 5
    what = f"show(5) on {PARTITION_ROWS:,}-row partitions"
    figures = [_figure(what, show_requests("classic", rounds), Goal(at_most=64))]
    if not short and find_spec("grpc") is not None:
        command = [sys.executable, "-m", "benchmarks.udf.show", "connect", str(rounds)]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        figures.append(_figure("… on Spark Connect", json.loads(run.stdout), Goal(at_most=128)))
    note = (
        f"Show: the maximum of {rounds} calls at each latency "
        f"(none; lognormal with a median of {LATENCIES_S[-1]:g} s), "
        f"on {PARTITIONS} partitions and {CORES} cores. "
        f"The requests are counted {SETTLED_S:g} s after the rows are shown."
    )
    return [replace(figures[0], note=note), *figures[1:]]


def _figure(what: str, requests: list[int], goal: Goal) -> Figure:
    spread = f"{min(requests)} to {max(requests)}"
    return Figure(what, [max(requests)], spread, "5", goal, unit="requests", digits=0)


def show_requests(kind: Kind, rounds: int) -> list[int]:
    """Return the requests of each call of `show`."""
    requests = []
    with bench(CORES, kind=kind) as spark:
        table = spark.spark.range(0, PARTITIONS * PARTITION_ROWS, 1, PARTITIONS).selectExpr("'Number ' || id AS prompt")
        for latency_s in LATENCIES_S:
            ask = chat_udf(spark.endpoint.url(CHAT, Steady(median_s=latency_s)))
            for _ in range(rounds):
                spark.endpoint.reset()
                with contextlib.redirect_stdout(io.StringIO()) as shown:
                    table.select(ask("prompt").alias("answer")).select("answer.text", "answer.error").show(5)
                if "only showing top 5 rows" not in shown.getvalue():
                    raise RuntimeError(f"show(5) showed {shown.getvalue()!r}.")
                time.sleep(SETTLED_S)
                requests.append(spark.endpoint.counters().requests)
    return requests


if __name__ == "__main__":
    print(json.dumps(show_requests(cast("Kind", sys.argv[1]), int(sys.argv[2]))))
