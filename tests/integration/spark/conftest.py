"""Every test in this folder needs a Spark session, and is marked so."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from spark_llm.serving import LocalEndpoints
from tests.support import formats

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    from spark_llm.enrich.report import EnrichReport
    from tests.integration.spark.asking import Ask, Run


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder `spark`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("spark")


@pytest.fixture(params=["arrow", "pandas"])
def ask(request: pytest.FixtureRequest) -> "Ask":
    """Return the UDF as it is, an Arrow UDF on the Spark of the tests, or as on a Spark before 4.1."""
    return (lambda udf: udf) if request.param == "arrow" else (lambda udf: udf.for_version("3.5.0"))


@pytest.fixture
def place(tmp_path: Path) -> Callable[[str], str]:
    """Name a table: of Delta one of a path, with a blank in it and a back-quote."""
    return lambda name: formats.table(formats.FORMAT, tmp_path / "it``s here", name)


@pytest.fixture
def run(spark: "SparkSession", endpoints: LocalEndpoints) -> "Run":
    """Run a job, and return the requests that it cost and its report."""
    from spark_llm.enrich.api import enrich_table

    def of(
        source: "str | DataFrame",
        target: str,
        columns: Mapping[str, "Column"],
        **options: Any,  # noqa: ANN401 -- what enrich_table takes
    ) -> "tuple[int, EnrichReport]":
        before = endpoints.stats.requests
        report = enrich_table(spark, source, target, options.pop("key", "id"), columns, progress=False, **options)
        return endpoints.stats.requests - before, report

    return of
