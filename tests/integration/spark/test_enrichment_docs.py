"""The page on table jobs runs: its code, and its claims about requests and tables."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from spark_llm.serving import Echo, LocalEndpoints
from tests.integration.spark.test_readme import blocks_of

pytestmark = pytest.mark.slow

PAGE = "docs/enrichment.md"
REVIEWS = 3  # of which one has no text
TICKETS = 2
TABLES = (
    *("reviews", "reviews_enriched", "reviews_streamed", "enrichment_runs"),
    *("tickets", "tickets_changing", "tickets_streamed"),
)


@pytest.fixture
def tables(spark: SparkSession) -> Iterator[None]:
    """The tables that the page names; a view of another page would stand before one."""
    spark.catalog.dropTempView("reviews")
    reviews = [(1, "It is fast."), (2, "It broke."), (3, None)]
    spark.createDataFrame(reviews, "review_id int, review string").writeTo("reviews").using("delta").createOrReplace()
    tickets = spark.createDataFrame([(1, "Where is it?"), (2, "Thanks!")], "ticket_id int, text string")
    tickets.writeTo("tickets").using("delta").createOrReplace()
    changing = tickets.writeTo("tickets_changing").using("delta")
    changing.tableProperty("delta.enableChangeDataFeed", "true").createOrReplace()
    spark.sql("UPDATE tickets_changing SET text = 'Where is my parcel?' WHERE ticket_id = 1")
    yield
    for name in TABLES:
        spark.sql(f"DROP TABLE IF EXISTS {name}")


@pytest.mark.usefixtures("tables")
def test_the_page_on_enrichment_runs(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block runs from top to bottom, and the endpoint gets a request for each row that the page says is asked."""
    names: dict[str, Any] = {"spark": spark, "folder": str(tmp_path)}
    with LocalEndpoints({"my-endpoint": Echo(), "my-embedding-endpoint": Echo()}) as endpoints:
        monkeypatch.setenv("DATABRICKS_HOST", endpoints.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", endpoints.token)
        runs = []
        for language, block in blocks_of(PAGE):
            if language == "sql":
                runs += spark.sql(block).collect()
            else:
                exec(compile(block, PAGE, "exec"), names)  # noqa: S102 -- the very thing that is tested
        asked = {name: stats.rows_asked for name, stats in endpoints.stats.endpoints.items()}
        bodies = [each.body for each in endpoints.requests if each.body is not None and "messages" in each.body]

    # The reviews by the first run and by the stream, the tickets in place and from their changes.
    assert {"my-embedding-endpoint": 2, "my-endpoint": 2 + 2 + 2 + 2} == asked
    assert {"Where is my parcel?", "Thanks!"} == {body["messages"][-1]["content"] for body in bodies[-TICKETS:]}
    assert [(0, None)] == [(run["asked"], run["stopped"]) for run in runs]
    for name in ("reviews_enriched", "reviews_streamed"):
        answered = spark.table(name).where("summary.text IS NOT NULL AND summary.error IS NULL")
        assert (REVIEWS, REVIEWS - 1) == (spark.table(name).count(), answered.count())
    left = [row["tableName"] for row in spark.sql("SHOW TABLES").collect() if "__spark_llm" in row["tableName"]]
    assert [] == left
