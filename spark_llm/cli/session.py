"""The session of a command: the one that is there, or one that is made, with what a Spark on a laptop needs.

A Spark that somebody has set up is left as it is: Databricks', the one under `spark-submit`, a server's, and what
SPARK_HOME, SPARK_CONF_DIR or PYSPARK_SUBMIT_ARGS describe. A PySpark from the package index that runs on this machine
is nobody's, so it gets a Java, this Python for its workers, and Delta Lake.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pyspark
from pyspark.sql import SparkSession

from spark_llm.cli.local.delta import delta_settings
from spark_llm.cli.local.java import ensure_java
from spark_llm.enrich.spark_errors import error_text
from spark_llm.errors import JobFailedError

_SET_UP = (
    *("SPARK_HOME", "SPARK_CONF_DIR", "PYSPARK_SUBMIT_ARGS"),
    "PYSPARK_GATEWAY_PORT",  # under spark-submit
    "DATABRICKS_RUNTIME_VERSION",
)
_TABLES = ("spark.jars", "spark.jars.packages", "spark.sql.extensions", "spark.sql.catalog.spark_catalog")
_OF_SPARK = ("pyspark.", "py4j.")  # a failed job is an error of its bridge to Java


@contextmanager
def session(settings: Mapping[str, str]) -> Iterator[SparkSession]:
    """Give the session that is active, or make one and stop it at the end of the block.

    What Spark raises in the block becomes a `JobFailedError` of one line. Raises `SparkLLMError` where there is no
    Java, and `JobFailedError` where Spark does not start.
    """
    there = SparkSession.getActiveSession()
    ours = there is None and is_single_field(settings, os.environ)
    wanted = {**(bare_settings(settings, pyspark.__version__) if ours else {}), **settings}
    if ours:
        ensure_java()
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else workers run the python3 of the PATH
    with _said(_without_start(wanted if ours else {})):
        builder = SparkSession.builder
        for name, value in wanted.items():
            builder = builder.config(name, value)
        spark = builder.getOrCreate()
    try:
        with _said("Spark's log says more. Then run it again: what was answered is not asked again."):
            yield spark
    finally:
        if there is None:
            spark.stop()


def is_single_field(settings: Mapping[str, str], environ: Mapping[str, str]) -> bool:
    """Return whether Spark would be one that nobody has set up, on this machine."""
    if any(environ.get(name) for name in _SET_UP):
        return False
    remote = settings.get("spark.remote") or environ.get("SPARK_REMOTE")
    return (remote or settings.get("spark.master") or "local").startswith("local")


def bare_settings(settings: Mapping[str, str], spark_version: str) -> dict[str, str]:
    """Return what a bare Spark gets besides `settings`: Delta Lake, unless they say where tables come from."""
    delta = {} if any(name in settings for name in _TABLES) else delta_settings(spark_version)
    return {"spark.ui.showConsoleProgress": "false", **delta}  # there is a bar already


def _without_start(settings: Mapping[str, str]) -> str:
    packages = settings.get("spark.jars.packages")
    if not packages:
        return "what it wrote above says why."
    return (
        f"what it wrote above says why. It looked for {packages} in Maven's registry: where none can be reached, name"
        ' the jars, or a registry of your own, in [spark] of the file ("spark.jars", "spark.jars.ivySettings").'
    )


@contextmanager
def _said(hint: str) -> Iterator[None]:
    """Say in one line what Spark raises in the block."""
    try:
        yield
    except Exception as error:
        if not f"{type(error).__module__}.".startswith(_OF_SPARK):
            raise
        raise JobFailedError(f"Spark failed: {error_text(error)}.", hint) from error
