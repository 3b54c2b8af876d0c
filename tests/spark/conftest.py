"""Every test in this folder needs a Spark session, and is marked so."""

import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from spark_llm.serving import LocalEndpoints
from tests.passed import Passed, table

if TYPE_CHECKING:
    from tests.conftest import SessionKind
    from tests.spark.asking import Ask

FOLDER = "tests/spark/"


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder `spark`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("spark")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many of this folder's tests passed on this Spark, as README.md has it."""
    tests = [report.nodeid for report in terminalreporter.stats.get("passed", ()) if report.nodeid.startswith(FOLDER)]
    if tests:
        kind: SessionKind = "connect" if os.environ.get("SPARK_LLM_TEST_SESSION") == "connect" else "classic"
        terminalreporter.section("passed on this Spark")
        for line in table([Passed.of(version("pyspark"), kind, tests)]):
            terminalreporter.write_line(line)


@pytest.fixture
def endpoints() -> Iterator[LocalEndpoints]:
    """Echo endpoints with nothing wrong yet; each test has its own, so its workers know nothing of them."""
    with LocalEndpoints() as started:
        yield started


@pytest.fixture(params=["arrow", "pandas"])
def ask(request: pytest.FixtureRequest) -> "Ask":
    """How a UDF is called: as it is, an Arrow UDF on the Spark of the tests, or as on a Spark before 4.1."""
    return (lambda udf: udf) if request.param == "arrow" else (lambda udf: udf.on("3.5.0"))
