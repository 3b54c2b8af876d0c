"""Tables and reports of custom models, whose answers report no tokens."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_llm import (
    Budget,
    ConfigError,
    chat_udf,
    enrich_table,
    estimate,
    observe_usage,
    predict_udf,
    progress,
    usage_report,
)
from spark_llm.serving import LocalEndpoints
from tests.integration.spark.asking import endpoint, written
from tests.support.scoring_server import RefusedError, ScoringServer, scoring_server


def scores(rows: list[Any]) -> list[float]:
    """Predict a number from two columns; refuse a row."""
    if any(row["age"] == 13 for row in rows):
        raise RefusedError("13 is refused")
    return [(row["age"] or 0) + len(row["text"]) for row in rows]


@pytest.fixture
def served() -> Iterator[ScoringServer]:
    """A server of `scores`."""
    with scoring_server(scores) as running:
        yield running


def rows_of(server: ScoringServer) -> int:
    """Count the rows that the server got, and forget them."""
    rows = sum(map(len, server.requests))
    server.requests.clear()
    return rows


@pytest.mark.slow
@pytest.mark.one_kind
def test_a_table_job_asks_a_custom_model_once_a_row(
    spark: SparkSession, endpoints: LocalEndpoints, served: ScoringServer, place: Callable[[str], str]
) -> None:
    """Beside a chat: only new and changed rows are asked; the report says which column has no tokens."""
    people = spark.range(20).selectExpr("id", "IF(id % 10 = 9, NULL, double(id)) AS age", "string(id) AS text")
    source, target = written(people, place("source")), place("target")
    predict, chat = predict_udf(served.url, returns="DOUBLE"), chat_udf(endpoint(endpoints))
    columns = {"score": predict(age="age", text="text"), "said": chat("text")}

    def run(**options: Any) -> Any:  # noqa: ANN401 -- of a job; its report
        return enrich_table(spark, source, target, "id", columns, progress=False, **options)

    with pytest.raises(ConfigError, match=r"prices= has a price for 'score', whose answers report no tokens\. Hint: "):
        run(prices={"score": 1, "said": 1})
    assert "its answers report no tokens" in str(estimate(spark, source, target, "id", columns, prices=2.5))
    report = run(prices={"said": 1_000})
    tally = report.columns["score"]
    assert (20, 19, {"invalid_request": 1}, 0) == (tally.asked, tally.answered, dict(tally.failed), tally.total_tokens)
    assert report.usd == report.total_tokens / 1_000 > 0
    assert "score: its answers report no tokens, so it has neither tokens nor a cost here." in report.notes
    assert rows_of(served) >= 20

    spark.sql(f"UPDATE {source} SET age = age + 0.5 WHERE id IN (3, 4)")
    assert (2, 2) == (run().columns["score"].asked, rows_of(served))
    assert (0, 0) == (run().columns["score"].asked, rows_of(served))
    found = {row["id"]: row["score"]["prediction"] for row in spark.table(target).collect()}
    assert [4.5, 5.5, None, 15.0 + 2] == [found[3], found[4], found[13], found[15]]


@pytest.mark.one_kind
def test_a_budget_that_no_column_can_spend_is_refused(spark: SparkSession) -> None:
    """Tokens and dollars need answers with tokens; it is found before anything is read."""
    columns = {"score": predict_udf("http://127.0.0.1:9/invocations", returns="DOUBLE")(age="age", text="text")}

    with pytest.raises(ConfigError, match=r"^Budget\(tokens=9.*\) limits tokens .* Hint: limit rows= or seconds="):
        enrich_table(spark, "no_source", "no_target", "id", columns, budget=Budget(tokens=9))
    with pytest.raises(ConfigError, match=r"^prices= is given, but no column's answers report tokens\. Hint: "):
        enrich_table(spark, "no_source", "no_target", "id", columns, prices=0.5)


def test_reports_of_a_column_say_that_it_has_no_tokens(spark: SparkSession, served: ScoringServer) -> None:
    """`usage_report`, `observe_usage` and `progress` count rows, errors, attempts and requests."""
    predict = predict_udf(served.url, returns="DOUBLE")
    people = spark.range(15).coalesce(1).selectExpr("id", "double(id) AS age", "'x' AS text")
    answers, usage = observe_usage(people.withColumn("r", predict(age="age", text="text")), "r")
    with progress(spark) as watched:
        rows = answers.select("id", "r").collect()
    table = spark.createDataFrame([(row["id"], row["r"]) for row in rows], answers.select("id", "r").schema)

    for report in (usage.report(), usage_report(table, "r")):
        assert (15, 15, 14, 0) == (report.rows, report.asked, report.answered, report.total_tokens)
        assert {"invalid_request": 1} == dict(report.failed)
        assert "Its answers report no tokens." in str(report)
    assert (15, 15, 14, len(served.requests), 0) == (
        *(watched.rows, watched.asked, watched.answered, watched.requests),
        watched.total_tokens,
    )
    with pytest.raises(ConfigError, match=r"prices= has a price for 'r', whose answers report no tokens\."):
        usage_report(table, "r", prices=0.5)


def test_a_null_row_asks_nothing_in_a_report(spark: SparkSession, served: ScoringServer) -> None:
    """It counts as a row, and not as asked."""
    predict = predict_udf(served.url, returns="DOUBLE")
    people = spark.range(6).selectExpr("IF(id < 2, NULL, double(id)) AS age", "IF(id < 2, NULL, 'x') AS text")
    answered = people.withColumn("r", predict(age="age", text="text"))
    answers = answered.where(F.col("r.attempts").isNull() | (F.col("age") > 0))

    report = usage_report(answers.cache(), "r")
    assert (6, 4, 4) == (report.rows, report.asked, rows_of(served))
