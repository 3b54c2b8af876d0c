"""Rerankings on Spark, classic or Connect, as Arrow and as pandas UDFs; the server counts the requests."""

from collections.abc import Callable
from typing import Any

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_llm import Endpoint, enrich_table, estimate, register, rerank_udf, usage_report
from spark_llm.serving import Faults, LocalEndpoints
from tests.integration.spark.asking import Ask, written

ROWS: list[tuple[int, str | None, list[str | None] | None]] = [
    (0, "red fox", ["a dog", "the red fox", None, "Red car"]),
    (1, None, ["a"]),
    (2, "red", None),
    (3, "red", []),
    (4, "red", [None, " "]),
    (5, " ", ["a"]),
    (6, "red fox", ["a dog", "the red fox", None, "Red car"]),
    (7, "dog", ["a dog"]),
]
RANKINGS: dict[int, Any] = {
    0: [(1, 1.0, "the red fox"), (3, 0.5, "Red car")],
    **dict.fromkeys((1, 2, 5)),
    3: [],
    4: [],
    6: [(1, 1.0, "the red fox"), (3, 0.5, "Red car")],
    7: [(0, 1.0, "a dog")],
}


def at(endpoints: LocalEndpoints, route: str = "v1/rerank") -> Endpoint:
    """Return a route of the local endpoint for embeddings."""
    return Endpoint(f"{endpoints.url}/{route}", model="embed", token=endpoints.token)


def questions(spark: SparkSession) -> DataFrame:
    """Return the rows."""
    return spark.createDataFrame(ROWS, "id INT, question STRING, passages ARRAY<STRING>").coalesce(1)


def rankings(rows: DataFrame) -> dict[int, Any]:
    """Return the ranking of each row."""
    return {
        row["id"]: None if row["ranking"] is None else [tuple(each) for each in row["ranking"]]
        for row in rows.select("id", "r.ranking").collect()
    }


@pytest.mark.parametrize("route", ["v1", "score"])
def test_each_row_gets_the_ranking_of_its_documents(
    spark: SparkSession, endpoints: LocalEndpoints, ask: Ask, route: str
) -> None:
    """Nulls stay null, empty arrays give empty rankings, equal rows are asked once, and tokens add up."""
    rerank: Any = ask(rerank_udf(at(endpoints, route), top_n=2))
    asked = questions(spark).withColumn("r", rerank("question", "passages")).select("id", "r").collect()
    rows = {row["id"]: row["r"] for row in asked}
    found = {
        number: None if row is None or row["ranking"] is None else [tuple(each) for each in row["ranking"]]
        for number, row in rows.items()
    }

    assert RANKINGS == found
    assert [None] * 8 == [row and row["error"] for row in rows.values()]
    assert 2 == endpoints.stats.requests
    assert endpoints.stats.total_tokens == sum(
        row["usage"]["total_tokens"] for row in rows.values() if row is not None and row["usage"] is not None
    )


@pytest.mark.one_kind
def test_faults_are_the_rows_error_and_the_job_goes_on(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """One is tried again, and one is refused."""
    endpoints.faults = Faults("garbage", poison="cyanide")
    rows = spark.createDataFrame([(0, ["a", "cyanide"]), (1, ["b", "a b"])], "id INT, passages ARRAY<STRING>")
    asked = rows.coalesce(1).withColumn("r", rerank_udf(at(endpoints))(F.lit("a"), "passages"))
    found = {row["id"]: row["r"] for row in asked.collect()}

    assert "invalid_request" == found[0]["error"]["kind"]
    assert [1, 0] == [each["index"] for each in found[1]["ranking"]]
    assert found[1]["error"] is None


def test_it_is_a_function_of_sql(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """`llm_rerank` takes the query and the array."""
    assert ["llm_rerank"] == register(spark, rerank=rerank_udf(at(endpoints), top_n=1))
    sql = "SELECT llm_rerank('red fox', array('a dog', 'the red fox')).ranking[0] AS best"

    assert (1, 1.0, "the red fox") == tuple(spark.sql(sql).collect()[0]["best"])


@pytest.mark.one_kind
def test_another_type_raises_before_any_request(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """A string is no list of documents."""
    rerank: Any = ask(rerank_udf(at(endpoints)))

    with pytest.raises(PySparkException, match="rerank_udf takes a list of strings as documents; it was called on str"):
        questions(spark).select(rerank("question", "question")).collect()
    assert 0 == endpoints.stats.requests


@pytest.mark.slow
@pytest.mark.one_kind
def test_a_table_job_asks_each_row_once(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str]
) -> None:
    """A second run asks nothing, and one with another array asks that row; the report counts the tokens."""
    source, target = written(questions(spark), place("source")), place("target")
    columns = {"best": rerank_udf(at(endpoints), top_n=2)("question", "passages")}

    def run() -> Any:  # noqa: ANN401 -- a report
        return enrich_table(spark, source, target, "id", columns, progress=False)

    assert "best" in str(estimate(spark, source, target, "id", columns))
    first = run()
    tokens = endpoints.stats.total_tokens
    found = rankings(spark.read.table(target).withColumnRenamed("best", "r"))
    again = run()
    spark.sql(f"UPDATE {source} SET passages = array('a dog', 'my dog') WHERE id = 7")
    changed = run()

    assert RANKINGS == found
    assert (5, 0, 1) == tuple(each.columns["best"].asked for each in (first, again, changed))
    assert tokens == first.total_tokens > 0
    assert 3 == endpoints.stats.requests
    assert 5 == usage_report(spark.read.table(target), "best").tally.asked
