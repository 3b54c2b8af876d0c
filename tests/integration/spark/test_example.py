"""The example of a nightly pipeline: its one command in a copy of its folder, and what its checks find."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from examples.nightly.check import CHECKS, wrong_rows
from tests.conftest import ROOT

_USAGE = "named_struct('usage', named_struct('total_tokens', {tokens}L), 'error', {error}, '{field}', {value})"
_NO_ERROR = "named_struct('kind', CAST(NULL AS STRING))"


@pytest.mark.slow
def test_one_command_runs_two_nights(tmp_path: Path) -> None:
    """The first night asks 27 mails, the second only the 15 new and changed ones; a second run of a night asks none."""
    shutil.copytree(Path(ROOT, "examples"), tmp_path / "examples", ignore=shutil.ignore_patterns("build"))
    ready = [".venv/ready-for-dev", f"BIN={Path(sys.executable).parent}"]  # the packages of this process
    ran = subprocess.run(
        [str(shutil.which("make")), "-f", str(Path(ROOT, "Makefile")), "example", "-o", *ready],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )

    assert 0 == ran.returncode, ran.stdout + ran.stderr
    assert ["28 mails inserted, 0 updated", "12 mails inserted, 5 updated"] == re.findall(
        r"\d+ mails inserted, \d+ updated", ran.stdout
    )
    assert ["27", "0", "15", "0"] == re.findall(r"^asked +(\d+)$", ran.stdout, re.MULTILINE)
    assert 2 * sorted(check.stem for check in CHECKS) == re.findall(r"^passed  (\w+)$", ran.stdout, re.MULTILINE)
    assert "|2026-03-02|account |4    |4   |4.5    |" in ran.stdout
    assert "SQLQueryContextLogger" not in ran.stderr
    assert {*_names(ROOT), "build"} == _names(tmp_path)


def _names(checkout: str | Path) -> set[str]:
    """Return the names in the example's folder, without those of Python's own cache."""
    return {path.name for path in Path(checkout, "examples/nightly").iterdir()} - {"__pycache__"}


@pytest.mark.one_kind
@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({}, []),
        ({"label": "NULL"}, ["answers"]),
        ({"urgency": "NULL"}, ["answers"]),
        ({"vector": "NULL"}, ["answers"]),
        ({"label": "NULL", "error": "named_struct('kind', 'timeout')"}, []),
        ({"label": "'spam'"}, ["labels"]),
        ({"reported": "39"}, ["tokens"]),
        ({"asked_again": "1"}, ["again"]),
        ({"counted": "2"}, ["models"]),
    ],
    ids=str,
)
def test_a_check_finds_what_is_wrong(spark: SparkSession, wrong: dict[str, str], found: list[str]) -> None:
    """Each check finds its own mistake, and nothing in tables without one; an error stands for an answer."""
    for name, query in _tables(**wrong).items():
        spark.sql(query).createOrReplaceTempView(name)
    try:
        assert found == [check.stem for check in CHECKS if wrong_rows(spark, check)]
    finally:
        for name in _tables():
            spark.catalog.dropTempView(name)


def _tables(
    *,
    label: str = "'billing'",
    urgency: str = "9D",
    vector: str = "array(0.5)",
    error: str = _NO_ERROR,
    reported: str = "40",
    asked_again: str = "0",
    counted: str | None = None,
) -> dict[str, str]:
    """Return the query of each table that the checks read, after a night with one mail: 10 tokens in each column."""
    answers = {
        "label": ("parsed", f"CAST({label} AS STRING)"),
        "summary": ("text", "'An invoice.'"),
        "urgency": ("parsed", f"CAST({urgency} AS DOUBLE)"),
        "vector": ("embedding", f"CAST({vector} AS ARRAY<DOUBLE>)"),
    }
    columns = ", ".join(
        f"{_USAGE.format(tokens=10, error=error, field=field, value=value)} AS {name}"
        for name, (field, value) in answers.items()
    )
    mail = "SELECT 1L AS mail_id, 'My invoice is wrong.' AS body, TIMESTAMP '2026-03-02 01:00:00' AS body_changed_at"
    return {
        "mails": mail,
        "mails_enriched": f"SELECT *, {columns} FROM ({mail})",
        "mails_by_label": f"SELECT {counted or f'count({label})'} AS mails",
        "runs": f"SELECT * FROM VALUES ('a', TIMESTAMP '2026-03-02 01:10:00', 1, {reported}),"
        f" ('b', TIMESTAMP '2026-03-02 01:20:00', {asked_again}, 0) AS runs(run, started_at, asked, total_tokens)",
    }
