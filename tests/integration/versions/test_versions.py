"""The tests on Spark, on other Sparks: docs/versions.md says from which version on this library runs."""

from pathlib import Path

import pytest

from tests.conftest import ROOT, SessionKind
from tests.integration.versions.environments import OTHERS, SPARK_3_5, SparkEnvironment
from tests.integration.versions.suite import FOLDER, LEFT_OUT, LeftOut, run_on
from tests.support.passed import ARROW_UDFS, Passed, table, version_of

PLACES: list[tuple[SparkEnvironment, SessionKind]] = [
    *((environment, "classic") for environment in OTHERS),
    *((environment, "connect") for environment in OTHERS if environment.connect),
]


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place[0].name}-{place[1]}")
def test_all_of_it_works_on_other_sparks(
    place: tuple[SparkEnvironment, SessionKind], matrix: list[Passed], tmp_path: Path
) -> None:
    """Every test of tests/integration/spark passes there, but for what that Spark cannot do."""
    run = run_on(*place, tmp_path)
    matrix.append(run.passed)

    assert [] == run.others, run.said
    assert run.passed.by_udfs.total() > 200
    assert (version_of(run.passed.spark) >= ARROW_UDFS) == (run.passed.by_udfs["Arrow"] > 0)


@pytest.mark.parametrize("left_out", LEFT_OUT, ids=lambda left_out: left_out.test)
def test_what_is_left_out_is_there(left_out: LeftOut) -> None:
    """A test that is left out somewhere exists, so that none is left out by an old name; and there is a reason."""
    file, _, name = left_out.test.partition("::")

    text = Path(ROOT, FOLDER, file).read_text(encoding="utf-8")
    assert not name or f"def {name.partition('[')[0]}(" in text
    assert left_out.why


def test_a_test_is_left_out_where_it_says_and_nowhere_else() -> None:
    """By the version, by the kind of session, or by both."""
    newer = SparkEnvironment("4.1", "4.1.0")
    both = LeftOut("t", "why", before=(4, 1), kind="connect")

    assert (True, False) == tuple(LeftOut("t", "why", before=(4, 1)).applies(e, "classic") for e in (SPARK_3_5, newer))
    assert (True, False) == (both.applies(SPARK_3_5, "connect"), both.applies(SPARK_3_5, "classic"))
    assert not both.applies(newer, "connect")


def test_the_matrix_can_be_pasted() -> None:
    """A row says which Spark, which session, and how many tests passed with which kind of UDF."""
    old = Passed.of("3.5.9", "classic", ["test_a[arrow]", "test_b"])
    new = Passed.of("4.2.1", "connect", ["test_a[pandas-1]", "test_a[1-pandas]", "test_a[arrow]", "test_pandas"])

    assert ["| 3.5.9 | classic | 2 | – |", "| 4.2.1 | connect | 2 | 2 |"] == table([old, new])[2:]
