"""Who asks, in the requests of Spark queries, SQL functions, table jobs and streams."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from spark_llm import Endpoint, chat_udf, embed_udf, enrich_stream, register
from spark_llm._version import __version__
from spark_llm.serving import LocalEndpoints
from tests.integration.spark.asking import Run, chat, endpoint, texts, written

LIBRARY = f"spark_llm/{__version__}"


def who(endpoints: LocalEndpoints) -> list[Any]:
    """Return the different `usage_context` of the requests, in order, and whether each has an ID that it names."""
    bodies = [request.body or {} for request in endpoints.requests]
    assert all(
        body["client_request_id"] == body["usage_context"].get("run", body["usage_context"]["application"])
        for body in bodies
    )
    contexts = [body["usage_context"] for body in bodies]
    return [context for at, context in enumerate(contexts) if context not in contexts[:at]]


def application(spark: SparkSession) -> dict[str, str | None]:
    """Return what a query knows of its application."""
    names = {"application": "spark.app.id", "application_name": "spark.app.name"}
    return {"library": LIBRARY, **{name: spark.conf.get(setting) for name, setting in names.items()}}


def test_a_query_names_its_application(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """As a column and as an SQL function."""
    register(spark, chat=endpoint(endpoints), prefix="who_")
    texts(spark, 3).select(chat(endpoints)("text")).collect()
    spark.sql("SELECT who_chat('a').text").collect()

    assert [application(spark)] == who(endpoints)


@pytest.mark.slow
@pytest.mark.one_kind
def test_a_table_job_names_its_run_and_column(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """The report has the same run; without attribution the fingerprints are the same, so nothing is asked again."""
    source, target = written(texts(spark, 5), place("source")), place("target")
    columns = {"mood": chat(endpoints)("text"), "vector": embed_udf(endpoint(endpoints, "embed"))("text")}
    _, report = run(source, target, columns)
    job = {**application(spark), "run": report.run, "table": report.target}
    contexts = sorted(who(endpoints), key=lambda context: str(context["column"]))
    assert [{**job, "column": "mood"}, {**job, "column": "vector"}] == contexts

    silent = Endpoint(endpoints.invocations("chat"), token=endpoints.token, attribution=False)
    assert 0 == run(source, target, {"mood": chat_udf(silent)("text")})[0]


@pytest.mark.one_kind
@pytest.mark.slow
def test_a_stream_names_the_run_of_each_batch(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], tmp_path: Path
) -> None:
    """A batch is a run of its own."""
    source, target, log = written(texts(spark, 5), place("source")), place("target"), place("runs")
    enrich_stream(
        spark, source, target, "id", {"mood": chat(endpoints)("text")}, str(tmp_path / "at"), runs_table=log
    ).awaitTermination()
    [row] = spark.table(log).collect()

    assert [{**application(spark), "run": row["run"], "table": row["target"], "column": "mood"}] == who(endpoints)
