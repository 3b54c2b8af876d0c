"""Sessions of the commands: the settings of a bare Spark, and why a package was not found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spark_llm.cli.local.spark import bare_settings, delta_settings, is_bare, why_no_package
from tests.conftest import ROOT

LOG = """\
:::: WARNINGS
\t\tmodule not found: io.delta#delta-spark_4.2_2.13;4.4.0
:::: ERRORS
\tServer access error at url https://example.com/io/delta/a.pom ({why})
Exception in thread "main" java.lang.RuntimeException: [unresolved dependency: io.delta#a;4.4.0: not found]
"""


@pytest.mark.parametrize(
    ("settings", "environ", "expected"),
    [
        ({}, {}, True),
        ({"spark.master": "local[4]"}, {}, True),
        ({}, {"SPARK_REMOTE": "local[2]"}, True),
        ({}, {"SPARK_HOME": ""}, True),
        ({"spark.master": "spark://host:7077"}, {}, False),
        ({"spark.master": "yarn"}, {}, False),
        ({"spark.remote": "sc://host"}, {}, False),
        ({}, {"SPARK_REMOTE": "sc://host"}, False),
        ({}, {"SPARK_HOME": "/opt/spark"}, False),
        ({}, {"SPARK_CONF_DIR": "/etc/spark"}, False),
        ({}, {"PYSPARK_SUBMIT_ARGS": "--packages a:b:1 pyspark-shell"}, False),
        ({}, {"PYSPARK_GATEWAY_PORT": "41234"}, False),
        ({}, {"DATABRICKS_RUNTIME_VERSION": "17.3"}, False),
    ],
)
def test_a_configured_spark_is_left_as_it_is(
    settings: dict[str, str], environ: dict[str, str], *, expected: bool
) -> None:
    """Only a Spark on this machine with no home and no configuration of its own is bare."""
    assert expected == is_bare(settings, environ)


def test_a_bare_spark_gets_delta_lake() -> None:
    """It gets Delta Lake, and does not draw its own progress bar."""
    assert {"spark.ui.showConsoleProgress": "false", **delta_settings("4.2.1")} == bare_settings({}, "4.2.1")


@pytest.mark.parametrize(
    "name", ["spark.jars", "spark.jars.packages", "spark.sql.extensions", "spark.sql.catalog.spark_catalog"]
)
def test_a_file_that_configures_a_catalog_gets_no_delta_lake(name: str) -> None:
    """Half of Delta Lake's settings would not fit the file's own."""
    assert {"spark.ui.showConsoleProgress": "false"} == bare_settings({name: "its own"}, "4.2.1")


@pytest.mark.parametrize(
    ("log", "why", "hint"),
    [
        (LOG.format(why="java.net.ConnectException: Connection refused"), "a.pom: java.net.Conn", "access to Maven"),
        (LOG.format(why="SSLHandshakeException: PKIX path building failed"), "PKIX path", "trustStore"),
        (LOG.replace("Server access error", "?"), "unresolved dependency: io.delta#a;4.4.0", "access to Maven"),
        ("Killed", "Spark did not start with it", "access to Maven"),
    ],
)
def test_a_missing_package_is_explained_in_one_line(log: str, why: str, hint: str) -> None:
    """The line has the repository's answer from Spark's log, and a hint."""
    message = why_no_package(log)

    assert why in message
    assert hint in message.partition(" Hint: ")[2]
    assert "\n" not in message


# A `java` that prints and fails: Spark's launcher starts it and gets no session.
FAILING_JAVA = "#!/bin/sh\necho 'no room for a Java' >&2\nexit 1\n"
PROGRAM = """\
import sys
from pathlib import Path
from spark_llm.cli.local.spark import demo_session
sys.stderr.write("before\\n")
try: demo_session(Path(sys.argv[1]))
except Exception as error: print(error)
sys.stderr.write("after\\n")
"""


@pytest.mark.waits
def test_the_output_of_a_failed_start_is_in_the_log(tmp_path: Path) -> None:
    """The log has it, the error names the log, and later output of this process is shown."""
    java, log = tmp_path / "bin" / "java", tmp_path / "out" / "spark.log"
    java.parent.mkdir()
    java.write_text(FAILING_JAVA, encoding="utf-8")
    java.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(log)],
        env={**os.environ, "PYTHONPATH": ROOT, "JAVA_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert f"Spark does not start. Hint: its log says why: {log}.\n" == done.stdout
    assert "before\nafter\n" == done.stderr
    assert 2 == log.read_text(encoding="utf-8").count("no room for a Java\n")  # with Delta Lake, and without
