"""What the tests of other Sparks and of clusters share: the matrix, which is shown in the end, and the clusters."""

from collections.abc import Iterator

import pytest

from tests.integration.versions.cluster import Cluster
from tests.integration.versions.environments import OWN, SPARK_3_5, SparkEnvironment
from tests.support.passed import Passed, table

_MATRIX = pytest.StashKey[list[Passed]]()


@pytest.fixture
def matrix(pytestconfig: pytest.Config) -> list[Passed]:
    """What came of the tests on each Spark; it is printed when all are done."""
    return pytestconfig.stash.setdefault(_MATRIX, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the matrix, as docs/versions.md has it."""
    if runs := config.stash.get(_MATRIX, []):
        terminalreporter.section("passed on other Sparks")
        for line in table(runs):
            terminalreporter.write_line(line)


@pytest.fixture(scope="module", params=[OWN, SPARK_3_5], ids=["own", "3.5"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of two workers with one core each, of the tests' own Spark and of the oldest."""
    environment: SparkEnvironment = request.param
    with Cluster(environment, tmp_path_factory.mktemp("cluster")) as started:
        yield started
