"""The demo against echo endpoints: its requests, its tables and its output, with Delta Lake and without."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from spark_llm import Endpoint
from spark_llm.cli import demo
from spark_llm.serving import Echo, LocalEndpoints
from tests.conftest import ROOT
from tests.support.reply_model import ReplyModel, schema_example

COMPARED = 4 + 2  # rows of the SQL query: four reviews, and the text they are compared with in each of two tasks
# A process of its own, since the demo takes the active session where there is one.
PROGRAM = """\
import sys
from pathlib import Path
from spark_llm import Endpoint
from spark_llm.cli import demo
chat, embed, token, out = sys.argv[1:]
demo.run(Endpoint(chat, token=token), Endpoint(embed, token=token), lambda: 0, Path(out))
"""


def models() -> LocalEndpoints:
    """Return endpoints whose answers fit the requests."""
    return LocalEndpoints({"chat": ReplyModel(schema_example), "embed": Echo()})


@pytest.mark.waits
@pytest.mark.spark
def test_the_demo_fills_a_table_and_prints_it(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It sends three requests for each of forty reviews, none in the second run, and then those of the SQL query."""
    with models() as endpoints:
        chat, embed = (Endpoint(endpoints.invocations(name), token=endpoints.token) for name in ("chat", "embed"))
        demo.run(chat, embed, lambda: endpoints.stats.rows_answered, tmp_path)
        assert 120 + 4 + COMPARED == endpoints.stats.rows_answered == endpoints.stats.rows_asked
    shown = capsys.readouterr()

    assert re.search(r"asked +40\nanswered +40\n", shown.out)
    assert "The same job once more: 0 rows asked, 40 needed nothing" in shown.out
    assert "The nearest pair of reviews" in shown.out
    assert "SELECT id," in shown.out
    assert "40 of 40 rows" in shown.err
    assert 40 == spark.read.format("delta").load(str(tmp_path / "reviews")).count()


@pytest.mark.slow
def test_without_maven_central_the_demo_writes_parquet(tmp_path: Path) -> None:
    """Where no repository has Delta Lake, the demo prints one sentence, and enriches and writes all rows."""
    settings = tmp_path / "ivysettings.xml"
    settings.write_text(
        '<ivysettings><settings defaultResolver="r"/><resolvers>'
        '<ibiblio name="r" m2compatible="true" root="http://127.0.0.1:1/"/></resolvers></ivysettings>',
        encoding="utf-8",
    )
    defaults = tmp_path / "spark-defaults.conf"
    defaults.write_text(f"spark.jars.ivy {tmp_path / 'ivy'}\nspark.jars.ivySettings {settings}\n", encoding="utf-8")
    with models() as endpoints:
        arguments = [*map(endpoints.invocations, ("chat", "embed")), endpoints.token, str(tmp_path / "out")]
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            env={**os.environ, "PYTHONPATH": ROOT, "SPARK_CONF_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        answered = endpoints.stats.rows_answered

    assert 0 == ran.returncode, ran.stderr
    assert 120 + 4 + COMPARED == answered
    assert "The package of Delta Lake is not available: http://127.0.0.1:1/" in ran.stdout
    assert "120 rows asked, 0 failed" in ran.stdout
    assert "UNRESOLVED" not in ran.stdout + ran.stderr
    assert list((tmp_path / "out" / "reviews.parquet").glob("*.parquet"))
