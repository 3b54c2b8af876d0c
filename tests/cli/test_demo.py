"""The demonstration, against endpoints that echo: what it asks, writes and prints, with Delta Lake and without."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from spark_llm import Endpoint
from spark_llm.cli import demo
from spark_llm.cli.local.output import held_back
from spark_llm.cli.local.spark import why_no_package
from spark_llm.serving import Echo, LocalEndpoints
from tests.conftest import ROOT
from tests.support.reply_model import ReplyModel, schema_example

COMPARED = 4 + 2  # by the SQL: four reviews, and what they are compared with, once in each of two tasks
REFUSED = """\
:::: WARNINGS
\t\tmodule not found: io.delta#delta-spark_4.2_2.13;4.4.0
:::: ERRORS
\tServer access error at url https://example.com/io/delta/a.pom ({why})
Exception in thread "main" java.lang.RuntimeException: [unresolved dependency: io.delta#a;4.4.0: not found]
"""
# A program of its own, because a session that is there would be taken: echo endpoints, and no registry in reach.
PROGRAM = """\
import sys
from pathlib import Path
from spark_llm import Endpoint, demo
chat, embed, token, out = sys.argv[1:]
demo.run(Endpoint(chat, token=token), Endpoint(embed, token=token), lambda: 0, Path(out))
"""


def models() -> LocalEndpoints:
    """Endpoints whose answers fit what is asked."""
    return LocalEndpoints({"chat": ReplyModel(schema_example), "embed": Echo()})


@pytest.mark.spark
def test_the_demo_asks_writes_and_shows(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Forty reviews are asked three times each into a Delta table, then nothing, then what the SQL asks."""
    with models() as endpoints:
        chat, embed = (Endpoint(endpoints.invocations(name), token=endpoints.token) for name in ("chat", "embed"))
        demo.run(chat, embed, lambda: endpoints.stats.rows_answered, tmp_path)
        assert 120 + 4 + COMPARED == endpoints.stats.rows_answered == endpoints.stats.rows_asked
    shown = capsys.readouterr()

    assert "asked     40\nanswered  40\n" in shown.out
    assert "The same job once more: 0 rows asked, 40 needed nothing" in shown.out
    assert "The nearest pair of reviews" in shown.out
    assert "SELECT id," in shown.out
    assert "40 of 40 rows" in shown.err
    assert 40 == spark.read.format("delta").load(str(tmp_path / "reviews")).count()


@pytest.mark.slow
def test_without_a_registry_the_demo_writes_parquet(tmp_path: Path) -> None:
    """Where nothing has Delta Lake's package the demo says so in a sentence, comes up, and asks and writes all rows."""
    settings = tmp_path / "ivysettings.xml"
    settings.write_text(
        '<ivysettings><settings defaultResolver="r"/><resolvers>'
        '<ibiblio name="r" m2compatible="true" root="http://127.0.0.1:1/"/></resolvers></ivysettings>',
        encoding="utf-8",
    )
    defaults = tmp_path / "spark-defaults.conf"
    defaults.write_text(f"spark.jars.ivy {tmp_path / 'ivy'}\nspark.jars.ivySettings {settings}\n", encoding="utf-8")
    with models() as endpoints:
        words = [*map(endpoints.invocations, ("chat", "embed")), endpoints.token, str(tmp_path / "out")]
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, *words],
            env={**os.environ, "PYTHONPATH": ROOT, "SPARK_CONF_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        answered = endpoints.stats.rows_answered

    assert 0 == ran.returncode, ran.stderr
    assert 120 + 4 + COMPARED == answered
    assert "Delta Lake's package cannot be had: http://127.0.0.1:1/" in ran.stdout
    assert "120 rows asked, 0 failed" in ran.stdout
    assert "UNRESOLVED" not in ran.stdout + ran.stderr
    assert list((tmp_path / "out" / "reviews.parquet").glob("*.parquet"))


@pytest.mark.parametrize(
    ("said", "why", "hint"),
    [
        (REFUSED.format(why="java.net.ConnectException: Connection refused"), "a.pom: java.net.Conn", "a way to Maven"),
        (REFUSED.format(why="SSLHandshakeException: PKIX path building failed"), "PKIX path", "trustStore"),
        (REFUSED.replace("Server access error", "?"), "unresolved dependency: io.delta#a;4.4.0", "a way to Maven"),
        ("Killed", "Spark did not start with it", "a way to Maven"),
    ],
)
def test_why_there_is_no_package_is_said_in_a_sentence(said: str, why: str, hint: str) -> None:
    """Out of the page that Spark prints come the registry's answer and a next step, on one line."""
    told = why_no_package(said)

    assert why in told
    assert hint in told.partition(" Hint: ")[2]
    assert "\n" not in told


SPEAKS = "import os, sys; os.write({to}, b'{said}\\n'); sys.stdin.read(); os.write(2, b'later\\n')"


@pytest.mark.parametrize("to", [1, 2])
def test_what_a_program_says_as_it_starts_is_held_back(to: int, capfd: pytest.CaptureFixture[str]) -> None:
    """What it says first is not shown, what takes its place is; what it says later is shown, and so are errors."""
    heard = threading.Event()

    def instead(line: str) -> str:
        heard.set()
        return f"not {line}"

    with held_back(instead) as held:
        program = subprocess.Popen(
            [sys.executable, "-c", SPEAKS.format(to=to, said="12:00 ERROR first")], stdin=subprocess.PIPE
        )
        heard.wait(30)
    held.let_through()
    program.communicate()
    held.all_said()

    assert ("", "not 12:00 ERROR first\n12:00 ERROR first\nlater\n") == capfd.readouterr()


def test_what_was_held_back_can_be_read(capfd: pytest.CaptureFixture[str]) -> None:
    """Where the program did not start, all that it said is there to be told, and nothing was shown."""
    with held_back(lambda _: "") as held:
        subprocess.run([sys.executable, "-c", SPEAKS.format(to=2, said="no way")], stdin=subprocess.DEVNULL, check=True)

    assert "no way\nlater\n" == held.all_said()
    assert ("", "") == capfd.readouterr()
