"""Requests that each way of writing a query costs, if Spark's plan makes it more or less than one per row.

`test_facts.py` has the queries that cost one request per row.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_llm import Policy, chat_udf, register
from spark_llm.serving import LocalEndpoints
from spark_llm.udf.model_udf import ModelUDF
from tests.integration.spark.asking import chat, endpoint

pytestmark = pytest.mark.on_connect

ROWS = 200
Query = Callable[[SparkSession, DataFrame, ModelUDF], DataFrame]
ANSWERED = "SELECT id, price_chat(p) AS r FROM price_prompts"
JOINED = "SELECT a.r.text FROM answered a JOIN answered b ON a.id = b.id WHERE b.r.error IS NULL"
QUERIES: dict[str, tuple[int, Query]] = {
    "withColumn, then a filter": (200, lambda _, df, udf: df.withColumn("r", udf("p")).where("id < 10")),
    "a filter, then withColumn": (10, lambda _, df, udf: df.where("id < 10").withColumn("r", udf("p"))),
    "the same call twice": (
        400,
        lambda s, *_: s.sql("SELECT price_chat(p).text, price_chat(p).model FROM price_prompts"),
    ),
    "when around the call": (200, lambda _, df, udf: df.select(F.when(F.col("id") < 10, udf("p")))),
    "when inside the call": (10, lambda _, df, udf: df.select(udf(F.when(F.col("id") < 10, F.col("p"))))),
    "a limit, then a chain": (
        6,
        lambda _, df, udf: df.limit(3).withColumn("r", udf("p")).withColumn("s", udf("r.text")),
    ),
    "orderBy before the call": (200, lambda _, df, udf: df.orderBy("id").withColumn("r", udf("p"))),
    "orderBy and limit": (200, lambda _, df, udf: df.withColumn("r", udf("p")).orderBy("r.text").limit(10)),
    "an answer that is not read": (0, lambda _, df, udf: df.withColumn("r", udf("p")).select("id")),
}
TWICE: dict[str, Query] = {
    "orderBy on the result": lambda _, df, udf: df.withColumn("r", udf("p")).orderBy("r.text"),
    "orderBy after the call": lambda _, df, udf: df.withColumn("r", udf("p")).orderBy("id"),
    "a view read twice": lambda s, *_: _join_of_a_view(s),
    "a second action": lambda _, df, udf: _read_once(df.withColumn("r", udf("p"))),
}


def _join_of_a_view(spark: SparkSession) -> DataFrame:
    spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW answered AS {ANSWERED}")
    return spark.sql(JOINED)


def _read_once(df: DataFrame) -> DataFrame:
    df.collect()
    return df


def read(spark: SparkSession, query: Query, udf: ModelUDF) -> None:
    """Read a query of 200 distinct rows in two tasks."""
    df = spark.range(ROWS, numPartitions=2).selectExpr("id", "concat('row ', id) AS p")
    df.createOrReplaceTempView("price_prompts")
    register(spark, chat=udf, prefix="price_")
    query(spark, df, udf).collect()


@pytest.mark.parametrize("written", QUERIES)
def test_a_query_costs_the_readmes_number_of_requests(
    spark: SparkSession, endpoints: LocalEndpoints, written: str
) -> None:
    """docs/evaluation.md has the requests for 200 rows."""
    requests, query = QUERIES[written]
    read(spark, query, chat(endpoints))

    assert requests == endpoints.stats.requests


@pytest.mark.parametrize("written", TWICE)
def test_a_cache_pays_once_for_a_second_evaluation(
    spark: SparkSession, endpoints: LocalEndpoints, written: str, tmp_path: Path
) -> None:
    """If Spark evaluates the UDF twice, 200 rows cost 400 requests, and 200 with a cache."""
    read(spark, TWICE[written], chat(endpoints))
    twice = endpoints.stats.requests
    read(spark, TWICE[written], chat_udf(endpoint(endpoints), policy=Policy(cache=tmp_path)))

    assert (2 * ROWS, ROWS) == (twice, endpoints.stats.requests - twice)


@pytest.mark.parametrize("written", ["a chain", "side by side"])
def test_a_few_rows_of_two_answers_send_a_partition_of_the_first(
    spark: SparkSession, endpoints: LocalEndpoints, written: str
) -> None:
    """Spark reads the first answers of a whole partition (100) before it starts the second."""
    endpoints.latency_s = 0.3  # more than a busy Spark takes to end a worker
    udf = chat(endpoints)
    df = spark.range(ROWS, numPartitions=2).selectExpr("concat('row ', id) AS p").withColumn("r", udf("p"))
    df.withColumn("s", udf("r.text" if written == "a chain" else "p")).select("r.text", "s.text").show(3)
    over = endpoints.wait_for(lambda stats: stats.in_flight == 0)

    assert ROWS // 2 < over.requests <= ROWS // 2 + 28


def test_spark_refuses_the_udf_in_a_join_condition(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Spark names the page's error in JOIN ON before any request."""
    df = spark.range(3).selectExpr("id", "'x' AS p")
    with pytest.raises(Exception, match="INVALID_NON_DETERMINISTIC_EXPRESSIONS"):
        df.alias("a").join(df.alias("b"), chat(endpoints)("a.p")["text"] == F.col("b.p")).collect()

    assert 0 == endpoints.stats.requests
