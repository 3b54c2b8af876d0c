"""What each way of writing a query costs: the README's box, counted by the endpoint."""

from collections.abc import Callable

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_llm import register
from spark_llm._model_udf import ModelUDF
from spark_llm.serving import LocalEndpoints
from tests.spark.asking import chat

ROWS = 200
Query = Callable[[SparkSession, DataFrame, ModelUDF], DataFrame]
ANSWERED = "SELECT id, price_chat(p) AS r FROM price_prompts"
JOINED = "SELECT a.r.text FROM answered a JOIN answered b ON a.id = b.id WHERE b.r.error IS NULL"
QUERIES: dict[str, tuple[int, Query]] = {
    "a filter on the result": (200, lambda _, df, udf: df.withColumn("r", udf("p")).where("r.error IS NULL")),
    "withColumn, then a filter": (200, lambda _, df, udf: df.withColumn("r", udf("p")).where("id < 10")),
    "a filter, then withColumn": (10, lambda _, df, udf: df.where("id < 10").withColumn("r", udf("p"))),
    "the same call twice": (
        400,
        lambda s, *_: s.sql("SELECT price_chat(p).text, price_chat(p).model FROM price_prompts"),
    ),
    "a CTE read twice": (200, lambda s, *_: s.sql(f"WITH answered AS ({ANSWERED}) {JOINED}")),
    "a view read twice": (400, lambda s, *_: _join_of_a_view(s)),
    "a lateral alias": (200, lambda s, *_: s.sql("SELECT price_chat(p) AS r, r.text, r.model FROM price_prompts")),
    "when around the call": (200, lambda _, df, udf: df.select(F.when(F.col("id") < 10, udf("p")))),
    "when inside the call": (10, lambda _, df, udf: df.select(udf(F.when(F.col("id") < 10, F.col("p"))))),
    "orderBy on the result": (400, lambda _, df, udf: df.withColumn("r", udf("p")).orderBy("r.text")),
}


def _join_of_a_view(spark: SparkSession) -> DataFrame:
    spark.sql(f"CREATE OR REPLACE TEMPORARY VIEW answered AS {ANSWERED}")
    return spark.sql(JOINED)


@pytest.mark.parametrize("written", QUERIES)
def test_a_query_costs_what_the_readme_says(spark: SparkSession, endpoints: LocalEndpoints, written: str) -> None:
    """The requests for 200 rows are those of the README's table, however Spark plans the query."""
    requests, query = QUERIES[written]
    df = spark.range(ROWS, numPartitions=2).selectExpr("id", "concat('row ', id) AS p")
    df.createOrReplaceTempView("price_prompts")
    register(spark, chat=chat(endpoints), prefix="price_")
    query(spark, df, chat(endpoints)).collect()

    assert requests == endpoints.stats.requests


def test_spark_refuses_the_udf_in_a_join_condition(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """In JOIN ON Spark refuses a nondeterministic expression by the name in the README, and nothing is asked."""
    df = spark.range(3).selectExpr("id", "'x' AS p")
    with pytest.raises(Exception, match="INVALID_NON_DETERMINISTIC_EXPRESSIONS"):
        df.alias("a").join(df.alias("b"), chat(endpoints)("a.p")["text"] == F.col("b.p")).collect()

    assert 0 == endpoints.stats.requests
