"""A reused Python worker over many jobs: its threads, files and sockets are those of the engines that it keeps."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from spark_llm import Endpoint, chat_udf, register_ai_functions
from spark_llm.engine.registry import MAX_IDLE
from spark_llm.serving import LocalEndpoints

pytestmark = [pytest.mark.slow, pytest.mark.one_kind]

RUNS = 200
ENGINE_THREADS = 3  # at most: its loop's, and those that look up a name and get a token
ENGINE_FILES = 8  # its loop's own, and a connection


def most_held(spark: SparkSession) -> tuple[int, int, int]:
    """Return the most engines, threads and open files that one of the workers has."""

    def count(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        from spark_llm.engine.registry import ENGINES  # the worker's own

        for _ in batches:
            files = len(list(Path("/proc/self/fd").iterdir()))
            yield pd.DataFrame({"engines": [len(ENGINES)], "threads": [threading.active_count()], "files": [files]})

    counted = spark.range(4, numPartitions=4).mapInPandas(count, "engines INT, threads INT, files INT").toPandas()
    return counted["engines"].max(), counted["threads"].max(), counted["files"].max()


def are_few(held: tuple[int, int, int]) -> bool:
    """Return whether a worker has no more than belongs to the engines that it keeps, and a few dozen of its own."""
    engines, threads, files = held
    return engines <= MAX_IDLE and threads <= 20 + ENGINE_THREADS * MAX_IDLE and files <= 60 + ENGINE_FILES * MAX_IDLE


def test_a_cell_that_is_run_again_leaves_few_engines(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Each run makes a new token function, and so a new engine."""
    token = endpoints.token
    for _ in range(RUNS):
        chat = chat_udf(Endpoint(endpoints.invocations("chat"), token=lambda: token))
        [row] = spark.sql("SELECT 'a' AS p").select(chat("p").alias("r")).collect()
        assert row.r.text == "a"
    held = most_held(spark)

    assert held[0] > 1
    assert are_few(held), held


def test_a_thousand_names_in_a_column_leave_few_engines(
    spark: SparkSession, endpoints: LocalEndpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workspace has none of them: each is asked once, and its engine closed."""
    monkeypatch.setenv("DATABRICKS_HOST", endpoints.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", endpoints.token)
    register_ai_functions(spark, prefix="many_")
    names = spark.range(1_000, numPartitions=1).selectExpr("concat('n', id) AS name")
    kinds = names.selectExpr("many_llm_query(name, 'x') AS r").selectExpr("r.error.kind").collect()
    held = most_held(spark)

    assert ["not_found"] * 1_000 == [row.kind for row in kinds]
    assert are_few(held), held
