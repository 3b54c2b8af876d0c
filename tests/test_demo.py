"""The demonstration, against endpoints that echo: what it asks, writes and prints."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from spark_llm import Endpoint, demo
from spark_llm.serving import Echo, LocalEndpoints
from tests.saying import Says, fitting


@pytest.mark.spark
def test_the_demo_asks_writes_and_shows(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Forty reviews are asked three times each, written and shown; then what the SQL asks, and no more."""
    with LocalEndpoints({"chat": Says(fitting), "embed": Echo()}) as endpoints:
        chat, embed = (Endpoint(endpoints.invocations(name), token=endpoints.token) for name in ("chat", "embed"))
        demo.run(chat, embed, lambda: endpoints.stats.rows_answered, tmp_path)
        compared = 4 + 2  # four reviews, and what they are compared with, once in each of two tasks
        assert 120 + 4 + compared == endpoints.stats.rows_answered == endpoints.stats.rows_asked
    shown = capsys.readouterr()

    assert "120 rows asked, 0 failed" in shown.out
    assert "The nearest pair of reviews" in shown.out
    assert "SELECT id," in shown.out
    assert "120/120" in shown.err
    assert 40 == spark.read.parquet(str(tmp_path / "reviews.parquet")).count()
