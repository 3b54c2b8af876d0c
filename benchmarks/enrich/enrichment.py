"""The cost of an enrichment job besides its endpoint: planning, writing down, merging, and Delta."""

import tempfile
import time
from pathlib import Path

import pyspark
from pyspark.sql import Column
from pyspark.sql import functions as F

from benchmarks.support.behaviours import Steady
from benchmarks.support.endpoint_process import CHAT
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.session import Bench, bench
from spark_llm import Policy, chat_udf, enrich_table
from spark_llm.cli.local.spark import delta_settings

ROWS = {"full": 10_000, "short": 200}
FEW_ROWS = {"full": 1_000, "short": 50}
LIMITED_ROWS = {"full": 5_000, "short": 100}
ROUNDS = {"full": 7, "short": 1}
WARM_UPS = {"full": 4, "short": 0}
CORES = 2
IN_FLIGHT, LATENCY_S = 20, 0.2  # an endpoint of 100 rows/s
FEW_IN_FLIGHT, FEW_LATENCY_S = 5, 0.1  # an odd number, which no number of tasks divides
SETTINGS = {"spark.sql.shuffle.partitions": "2", "spark.databricks.delta.snapshotPartitions": "2"}


def measure(*, short: bool) -> list[Figure]:
    """Fill a Delta table from a slow endpoint, then small ones from a fast endpoint, and run each job again."""
    size = "short" if short else "full"
    settings = SETTINGS | dict(delta_settings(pyspark.__version__))
    with tempfile.TemporaryDirectory() as folder, bench(CORES, settings) as spark:
        return [
            _waiting_share(spark, folder, ROWS[size]),
            *_limited(spark, folder, LIMITED_ROWS[size]),
            *_seconds_besides_asking(spark, folder, size),
        ]


def _waiting_share(spark: Bench, folder: str, rows: int) -> Figure:
    policy = Policy(max_in_flight=IN_FLIGHT)
    ask = chat_udf(spark.endpoint.url(CHAT, Steady(median_s=LATENCY_S, sigma=0.0)), policy=policy)("prompt")
    _enrich(spark, ask, f"{folder}/warm", 100)
    seconds = _enrich(spark, ask, f"{folder}/job", rows)
    ideal_s = rows * LATENCY_S / IN_FLIGHT
    return Figure(
        "an enrichment job's time that is not waiting for its endpoint",
        [100 * (1 - ideal_s / seconds)],
        f"{seconds:.1f} s",
        f"{ideal_s:.0f} s",
        Goal(at_most=15),
        unit="%",
        digits=1,
        note=f"The enrichment job: `enrich_table` with its default chunk, {rows:,} new rows, a Delta table that is "
        f"not there yet, an endpoint of {IN_FLIGHT / LATENCY_S:.0f} rows a second that never refuses. The "
        "baseline is the rows over that rate.",
    )


def _limited(spark: Bench, folder: str, rows: int) -> list[Figure]:
    """Measure a job whose tasks share a few requests in flight."""
    policy = Policy(max_in_flight=FEW_IN_FLIGHT)
    ask = chat_udf(spark.endpoint.url(CHAT, Steady(median_s=FEW_LATENCY_S, sigma=0.0)), policy=policy)("prompt")
    _enrich(spark, ask, f"{folder}/warm_limited", 100)
    seconds = _enrich(spark, ask, f"{folder}/limited", rows)
    ideal_s = rows * FEW_LATENCY_S / FEW_IN_FLIGHT
    most = [spark.endpoint.counters().max_in_flight]
    return [
        Figure(
            f"an enrichment job with max_in_flight={FEW_IN_FLIGHT} over {CORES} tasks, of the ideal time",
            [seconds / ideal_s],
            f"{seconds:.1f} s",
            f"{ideal_s:.0f} s",
            Goal(at_most=1.12),
            note=f"max_in_flight={FEW_IN_FLIGHT}: {rows:,} rows; the baseline is the rows, times the latency, over it.",
        ),
        Figure("… most in flight", most, goal=Goal(at_most=FEW_IN_FLIGHT), unit="requests", digits=0),
    ]


def _seconds_besides_asking(spark: Bench, folder: str, size: str) -> list[Figure]:
    """Compare the job with a plain write by the same UDF, in turn; then run it again with nothing to do."""
    rows = FEW_ROWS[size]
    ask = chat_udf(spark.endpoint.url(CHAT))("prompt")
    plain_s, enrich_s, idle_s = list[float](), list[float](), list[float]()
    for number in range(WARM_UPS[size] + ROUNDS[size]):
        plain_s.append(_write(spark, ask, f"{folder}/plain{number}", rows))
        enrich_s.append(_enrich(spark, ask, f"{folder}/few{number}", rows))
        idle_s.append(_enrich(spark, ask, f"{folder}/few{number}", rows, asked=0))
    plain_s, enrich_s, idle_s = (seconds[WARM_UPS[size] :] for seconds in (plain_s, enrich_s, idle_s))
    extra_s = [job_s - write_s for job_s, write_s in zip(enrich_s, plain_s, strict=True)]
    return [
        Figure(
            "an enrichment job's seconds over a plain Delta write",
            extra_s,
            f"{min(enrich_s):.1f} s",
            f"{min(plain_s):.1f} s",
            Goal(at_most=2),
            unit="s",
            digits=1,
            note=f"The seconds over a plain write: `enrich_table` fills a missing Delta table with {rows:,} rows "
            "from an endpoint without latency. The baseline writes the same rows with the same UDF as a Delta table.",
        ),
        Figure("… the whole time of one that has nothing to do", idle_s, goal=Goal(at_most=1.2), unit="s", digits=1),
    ]


def _enrich(spark: Bench, ask: Column, place: str, rows: int, asked: int | None = None) -> float:
    """Fill the table of a folder; return the seconds. Raises `RuntimeError` for another number of requests."""
    Path(place).mkdir(parents=True, exist_ok=True)
    source = spark.prompts(rows).select(F.col("expected").alias("id"), "prompt")
    spark.endpoint.reset()
    began_s = time.perf_counter()
    enrich_table(spark.spark, source, f"delta.`{place}/target`", "id", {"answer": ask}, progress=False)
    seconds = time.perf_counter() - began_s
    requests, expected = spark.endpoint.counters().requests, rows if asked is None else asked
    if requests != expected:
        raise RuntimeError(f"The endpoint got {requests} requests, not {expected}.")
    return seconds


def _write(spark: Bench, ask: Column, place: str, rows: int) -> float:
    """Write the rows with their answers as a Delta table; return the seconds."""
    answers = spark.prompts(rows).select(F.col("expected").alias("id"), "prompt", ask.alias("answer"))
    began_s = time.perf_counter()
    answers.write.format("delta").save(place)
    return time.perf_counter() - began_s
