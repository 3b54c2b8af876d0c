"""A quota of a whole job on a cluster: its executors share a limiter, or the driver allots each its part."""

import tempfile
from pathlib import Path

import pyspark
from pyspark.sql import functions as F

from benchmarks.support.behaviours import Quota
from benchmarks.support.endpoint_process import CHAT
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.flow import share_figures
from benchmarks.support.session import Bench, Outcome, bench
from spark_llm import Policy, chat_udf, enrich_table
from spark_llm.cli.local.spark import delta_settings
from spark_llm.coordination.place import FOLDER_VARIABLE

EXECUTORS, TASKS, MEMORY_MB = 2, 4, 1024
PER_MINUTE, LATENCY_S = 1_200, 0.2
ROWS = {"full": 2_400, "short": 40}
WARM_ROWS = 80
DELTA = {**delta_settings(pyspark.__version__), "spark.databricks.delta.snapshotPartitions": "2"}


def measure(*, short: bool) -> list[Figure]:
    """Measure a quota of requests a minute that two executors keep as one host, and as two."""
    rows = ROWS["short" if short else "full"]
    figures = list[Figure]()
    with tempfile.TemporaryDirectory(prefix="l-", dir="/tmp") as folder:
        # An executor runs in a folder of its own, so "." is another place for each.
        for hosts, place in ((1, folder), (EXECUTORS, ".")):
            figures += _quota(rows, hosts, place)
    return figures


def _quota(rows: int, hosts: int, place: str) -> list[Figure]:
    behaviour = Quota(per_s=PER_MINUTE // 60, window_s=60.0, median_s=LATENCY_S, sigma=0.0)
    settings = {**DELTA, f"spark.executorEnv.{FOLDER_VARIABLE}": place}
    master = f"local-cluster[{EXECUTORS},{TASKS},{MEMORY_MB}]"
    with bench(EXECUTORS * TASKS, settings, master=master) as spark, tempfile.TemporaryDirectory() as target:
        _enrich(spark, f"{target}/warm", WARM_ROWS)
        outcome = _enrich(spark, f"{target}/job", rows, behaviour)
    what = f"requests_per_minute={PER_MINUTE:,}, {EXECUTORS} executors as {hosts} host{'s' * (hosts > 1)}"
    note = (
        f"{what}: `enrich_table` of {rows:,} rows on a cluster of {EXECUTORS} executors of {TASKS} cores, a latency of "
        f"{LATENCY_S:g} s. A request gets a 429 if as many others, refused ones too, came in the minute."
    )
    ideal_s = rows / behaviour.per_s
    return share_figures(what, outcome, ideal_s, share=Goal(at_least=0.90), per_row=Goal(at_most=1.02), note=note)


def _enrich(spark: Bench, place: str, rows: int, behaviour: Quota | None = None) -> Outcome:
    """Fill a table, and compare each answer with its prompt."""
    url = spark.endpoint.url(CHAT) if behaviour is None else spark.endpoint.url(CHAT, behaviour)
    ask = chat_udf(url, policy=Policy(requests_per_minute=PER_MINUTE))("prompt")
    source = spark.prompts(rows).withColumnRenamed("expected", "id")
    Path(place).mkdir()
    spark.endpoint.reset()
    report = enrich_table(spark.spark, source, f"delta.`{place}`", "id", {"answer": ask}, progress=False)
    counters = spark.endpoint.counters()
    answers = spark.spark.read.format("delta").load(place)
    wrong, attempts = answers.agg(
        F.count_if(~F.col("answer.text").eqNullSafe(F.col("id"))), F.sum("answer.attempts")
    ).collect()[0]
    return Outcome(rows, rows - report.answered, wrong, attempts, sorted(report.failed), counters)
