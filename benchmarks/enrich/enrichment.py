"""How much of an enrichment job is not waiting for its endpoint: planning, writing down, merging, and Delta."""

import tempfile
import time
from pathlib import Path

import pyspark
from pyspark.sql import functions as F

from benchmarks.support.behaviours import Steady
from benchmarks.support.endpoint_process import CHAT
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.session import Bench, bench
from spark_llm import Policy, chat_udf, enrich_table
from spark_llm.cli.local.delta import delta_settings

ROWS = {"full": 10_000, "short": 200}
CORES = 2
IN_FLIGHT, LATENCY_S = 20, 0.2  # an endpoint of 100 rows/s
SETTINGS = {"spark.sql.shuffle.partitions": "2", "spark.databricks.delta.snapshotPartitions": "2"}


def measure(*, short: bool) -> list[Figure]:
    """Fill a Delta table, then run the job again with nothing to do."""
    rows = ROWS["short" if short else "full"]
    settings = SETTINGS | dict(delta_settings(pyspark.__version__))
    with tempfile.TemporaryDirectory() as folder, bench(CORES, settings) as spark:
        _job(spark, f"{folder}/warm", 100)
        first_s, asked = _job(spark, f"{folder}/job", rows)
        again_s, none = _job(spark, f"{folder}/job", rows)
    if (asked, none) != (rows, 0):
        raise RuntimeError(f"The endpoint was asked {asked} and {none} times, not {rows} and 0.")
    ideal_s = rows * LATENCY_S / IN_FLIGHT
    return [
        Figure(
            "an enrichment job's time that is not waiting for its endpoint",
            [100 * (1 - ideal_s / first_s)],
            f"{first_s:.1f} s",
            f"{ideal_s:.0f} s",
            Goal(at_most=15),
            unit="%",
            digits=1,
            note=f"The enrichment job: `enrich_table` with its default chunk, {rows:,} new rows, a Delta table that is "
            f"not there yet, an endpoint of {IN_FLIGHT / LATENCY_S:.0f} rows a second that never refuses. The "
            "baseline is the rows over that rate.",
        ),
        Figure("… the whole time of one that has nothing to do", [again_s], unit="s", digits=1),
    ]


def _job(spark: Bench, place: str, rows: int) -> tuple[float, int]:
    """Run the job; return its seconds and its requests."""
    Path(place).mkdir(parents=True, exist_ok=True)
    policy = Policy(max_in_flight=IN_FLIGHT)
    ask = chat_udf(spark.endpoint.url(CHAT, Steady(median_s=LATENCY_S, sigma=0.0)), policy=policy)
    source = spark.prompts(rows).select(F.col("expected").alias("id"), "prompt")
    spark.endpoint.reset()
    began = time.perf_counter()
    columns = {"answer": ask("prompt")}
    enrich_table(spark.spark, source, f"delta.`{place}/target`", "id", columns, progress=False)
    return time.perf_counter() - began, spark.endpoint.counters().requests
