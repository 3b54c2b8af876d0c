"""The code of the README and of the pages runs in order, against local endpoints of the same names."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from spark_llm.serving import Echo, LocalEndpoints, ServingEndpoint
from tests.conftest import ROOT
from tests.support.reply_model import ReplyModel, schema_example

pytestmark = pytest.mark.one_kind

NAMES = ("databricks-meta-llama-3-3-70b-instruct", "databricks-gte-large-en")


def blocks_of(page: str) -> list[tuple[str, str]]:
    """Return the code of a page, each block with its language."""
    text = Path(ROOT, page).read_text(encoding="utf-8")
    return re.findall(r"^```(python|sql)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_readme_runs(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of Python and SQL in the README runs from top to bottom, and the endpoints answer it."""
    blocks = blocks_of("README.md")
    rows = [(1, "good"), (2, "bad"), (3, None)]
    df = spark.createDataFrame(rows, "review_id int, review string").repartition(1)
    df.createOrReplaceTempView("reviews")
    names = {"spark": spark, "df": df}
    with LocalEndpoints({NAMES[0]: ReplyModel(schema_example), NAMES[1]: Echo(), "chat": Echo()}) as endpoints:
        monkeypatch.setenv("DATABRICKS_HOST", endpoints.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", endpoints.token)
        for language, block in blocks:
            if language == "sql":
                assert 3 == len(spark.sql(block).collect())
            else:
                exec(compile(block, "README.md", "exec"), names)  # noqa: S102 -- the very thing that is tested
        assert set(NAMES) <= set(endpoints.stats.endpoints)
        judged = names["judged"].collect()  # type: ignore[attr-defined]
        bill = spark.sql("SELECT sum(vector.usage.total_tokens) FROM reviews_enriched").first()
    spark.sql("DROP TABLE reviews_enriched")

    assert ["python", "sql"] == sorted({language for language, _ in blocks})
    assert (2,) == bill
    assert {("text", 3, None), (None, None, None)} == {(row["mood"], row["stars"], row["error"]) for row in judged}


def test_the_page_on_typed_answers_runs(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of Python in docs/typed-answers.md runs, and the answers have the type that it shows."""
    df = spark.createDataFrame([("good",), (None,)], "review string")
    names: dict[str, Any] = {"spark": spark, "df": df}
    with LocalEndpoints({"my-endpoint": ReplyModel(schema_example)}) as endpoints:
        monkeypatch.setenv("DATABRICKS_HOST", endpoints.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", endpoints.token)
        for _, block in blocks_of("docs/typed-answers.md"):
            exec(compile(block, "docs/typed-answers.md", "exec"), names)  # noqa: S102 -- the very thing that is tested
        rows = df.select(names["judge"]("review").parsed.alias("r")).where("r IS NOT NULL").collect()

        assert [("good", 3, [], Decimal("1.50"))] == [tuple(row["r"]) for row in rows]
        assert 0 == names["failed"].count()
        assert {(1.5, None), (None, None)} == {tuple(row) for row in names["marked"].collect()}
        assert 1 == names["unsupported"].count()


def run_page(page: str, spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], int]:
    """Run every block of Python of a page about three reviews; return its names, and the requests that it cost."""
    df = spark.createDataFrame([("good",), ("bad",), (None,)], "review string")
    names: dict[str, Any] = {"spark": spark, "df": df}
    with LocalEndpoints({"my-endpoint": Echo()}) as endpoints:
        monkeypatch.setenv("DATABRICKS_HOST", endpoints.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", endpoints.token)
        for _, block in blocks_of(page):
            exec(compile(block, page, "exec"), names)  # noqa: S102 -- the very thing that is tested
        return names, endpoints.stats.requests


@pytest.mark.one_kind
def test_the_page_on_usage_runs(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of Python in docs/usage.md runs, and both ways of counting give the same report."""
    names, requests = run_page("docs/usage.md", spark, monkeypatch)
    spark.sql("DROP TABLE review_moods")

    assert (3, 2, 4) == (names["report"].rows, names["report"].answered, requests)


@pytest.mark.one_kind
def test_the_page_on_progress_runs(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of Python in docs/progress.md runs, and the numbers are those of the endpoint."""
    names, requests = run_page("docs/progress.md", spark, monkeypatch)
    spark.sql("DROP TABLE watched_moods")

    assert (3, 2, requests) == (names["watched"].rows, names["watched"].answered, 2)


@pytest.mark.parametrize(
    ("page", "requests"),
    [
        ("docs/columns.md", 6),  # two reviews that are shown and two in SQL, and preflight twice
        ("docs/start/databricks.md", 2),  # preflight, from the driver and from an executor
        ("docs/start/laptop.md", 0),  # it starts its own endpoint
        ("docs/start/providers.md", 0),
        ("docs/testing.md", 0),  # as above
    ],
)
def test_a_guide_runs(
    page: str, requests: int, spark: SparkSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every block of Python and SQL runs from top to bottom, and costs as many requests."""
    monkeypatch.chdir(tmp_path)
    df = spark.createDataFrame([(1, "good"), (2, "bad"), (3, None)], "review_id int, review string").repartition(1)
    df.createOrReplaceTempView("reviews")
    names: dict[str, Any] = {"spark": spark, "df": df}
    with LocalEndpoints({NAMES[0]: ReplyModel(schema_example), NAMES[1]: Echo()}) as endpoints:
        monkeypatch.setenv("DATABRICKS_HOST", endpoints.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", endpoints.token)
        for language, block in blocks_of(page):
            if language == "sql":
                assert 3 == len(spark.sql(block).collect())
            else:
                exec(compile(block, page, "exec"), names)  # noqa: S102 -- the very thing that is tested

        assert requests == endpoints.stats.requests


def test_the_page_on_endpoints_runs(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of Python in docs/endpoints.md runs, and its endpoint passes the check."""
    with LocalEndpoints({"my-endpoint": ServingEndpoint(Echo(), tasks=["chat"])}) as endpoints:
        monkeypatch.setenv("DATABRICKS_HOST", endpoints.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", endpoints.token)
        for block in (block for language, block in blocks_of("docs/endpoints.md") if language == "python"):
            exec(compile(block, "docs/endpoints.md", "exec"), {"spark": spark})  # noqa: S102 -- the very thing that is tested

        assert 2 == endpoints.stats.requests  # from the driver and from an executor
