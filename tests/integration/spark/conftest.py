"""Every test in this folder needs a Spark session, and is marked so."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from spark_llm.serving import LocalEndpoints
from tests.conftest import SESSION_KINDS, WANTED_KIND, runs_on
from tests.support import formats

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    from spark_llm.enrich.report import EnrichReport
    from spark_llm.udf.model_udf import ModelUDF
    from tests.integration.spark.asking import Ask, Fill, Run


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on both kinds of session, where the run has both."""
    if WANTED_KIND == "both" and "session_kind" in metafunc.fixturenames:
        metafunc.fixturenames.append("_kind")
        metafunc.parametrize("_kind", SESSION_KINDS)


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark every test of this folder `spark`; leave out, where both kinds run, what needs one kind only."""
    mine = {item for item in items if Path(__file__).parent in item.path.parents}
    for item in mine:
        item.add_marker("spark")
    if WANTED_KIND == "both":
        config.hook.pytest_deselected(items=[item for item in mine if _is_repeated(item)])
        items[:] = [item for item in items if item not in mine or not _is_repeated(item)]


def _is_repeated(item: pytest.Item) -> bool:
    """Return whether a test repeats one on the other kind of session."""
    if item.get_closest_marker("on_connect"):
        return runs_on(item.nodeid) == "classic"
    on_classic = any(item.get_closest_marker(name) for name in ("one_kind", "models")) or "pandas" in item.name
    return on_classic and runs_on(item.nodeid) == "connect"


@pytest.fixture(params=["arrow", "pandas"])
def ask(request: pytest.FixtureRequest) -> "Ask":
    """Return the UDF as it is, an Arrow UDF on the Spark of the tests, or as on a Spark before 4.1."""
    return (lambda udf: udf) if request.param == "arrow" else (lambda udf: udf.for_version("3.5.0"))


@pytest.fixture
def fill(ask: "Ask") -> "Fill":
    """Call a UDF with a template as it is, or on its own struct as a pandas UDF."""

    def filled(udf: "ModelUDF") -> "Callable[..., Column]":
        made = ask(udf)
        return udf if made is udf else lambda *column, **columns: made(udf.argument(*column, **columns))

    return filled


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
