"""Common queries cost one request per distinct row, as the endpoint counts.

`test_price.py` has the queries that cost more or less.
"""

from collections.abc import Callable

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_llm.serving import LocalEndpoints
from tests.integration.spark.asking import Ask, chat

pytestmark = pytest.mark.one_kind

DISTINCT = 20  # texts
ROWS = 2 * DISTINCT  # each text is in two rows of one task, which sends equal rows once
HALF = ROWS // 2  # the rows of one of the two tasks
TEXTS = {f"row {number}" for number in range(DISTINCT)}


@pytest.fixture
def answers(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> DataFrame:
    """Rows with `id`, the prompt `p` and the answer `r`, before any request.

    In SQL there are the views `prompts` and `answers`, and the function `facts_chat`.
    """
    udf = ask(chat(endpoints))
    prompts = spark.sql(f"SELECT id, concat('row ', id div 2) AS p FROM range(0, {ROWS}, 1, 2)")
    prompts.createOrReplaceTempView("prompts")
    spark.udf.register("facts_chat", udf)
    spark.sql("CREATE OR REPLACE TEMPORARY VIEW answers AS SELECT id, facts_chat(p) AS r FROM prompts")
    return prompts.withColumn("r", udf("p"))


def in_sql(query: str) -> Callable[[DataFrame], DataFrame]:
    """Return a query of the views and the function."""
    return lambda answers: answers.sparkSession.sql(query)


QUERIES: dict[str, Callable[[DataFrame], DataFrame]] = {
    "a filter on it, and its fields": lambda df: df.where("r.error IS NULL").select("r.text", "r.model", "r.usage.*"),
    "a join of other rows": lambda df: df.join(df.sparkSession.table("prompts").hint("merge"), "id").select("r.text"),
    "a group by it": lambda df: df.groupBy("r.text").count().where("count = 2"),
    "a lateral alias": in_sql("SELECT facts_chat(p) AS r, r.text, r.error FROM prompts"),
    "a view": in_sql("SELECT r.text FROM answers WHERE r.error IS NULL"),
    "a common table read twice": in_sql(
        "WITH c AS (SELECT id, facts_chat(p) AS r FROM prompts)"
        " SELECT a.r.text FROM c a JOIN c b ON a.id = b.id WHERE b.r.error IS NULL"
    ),
    "a union": in_sql(
        f"SELECT facts_chat(p).text AS text FROM prompts WHERE id < {HALF}"
        f" UNION SELECT facts_chat(p).text AS text FROM prompts WHERE id >= {HALF}"
    ),
}


def texts(df: DataFrame) -> set[str]:
    """Read all rows, and return their texts."""
    return {row["text"] for row in df.collect()}


@pytest.mark.parametrize("use", QUERIES)
def test_an_answer_costs_one_request(answers: DataFrame, endpoints: LocalEndpoints, use: str) -> None:
    """Each distinct row is sent once in every query."""
    assert TEXTS == texts(QUERIES[use](answers))
    assert DISTINCT == endpoints.stats.requests


def test_a_cached_answer_costs_one_request(answers: DataFrame, endpoints: LocalEndpoints) -> None:
    """After `df.cache()` a second action and an order by the answer cost nothing."""
    kept = answers.cache()
    try:
        assert ROWS == kept.count()
        assert TEXTS == texts(kept.orderBy("r.text").select("r.text"))
    finally:
        kept.unpersist()

    assert DISTINCT == endpoints.stats.requests


@pytest.mark.parametrize(("look", "most"), [("whole rows", 3), ("a field", DISTINCT // 2)])
def test_a_few_rows_cost_few_requests(answers: DataFrame, endpoints: LocalEndpoints, look: str, most: int) -> None:
    """6 whole rows of 3 texts cost 3 requests; a field of them costs at most one task's requests."""
    looked_at = answers if look == "whole rows" else answers.select("id", F.struct("r.text").alias("r"))
    rows = looked_at.take(6)

    assert [f"row {row['id'] // 2}" for row in rows] == [row["r"]["text"] for row in rows]
    assert 3 <= endpoints.stats.requests <= most
