"""A Spark session on this machine's cores, with Delta Lake where its jars can be had."""

import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pyspark
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession

from spark_llm.cli.local.delta import delta_settings
from spark_llm.cli.local.output import held_back
from spark_llm.errors import HINT
from spark_llm.text.excerpt import excerpt

_SETTINGS = {
    "spark.databricks.delta.snapshotPartitions": "2",  # else 50 tasks, for tables of a few rows
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.log.level": "ERROR",
    "spark.sql.shuffle.partitions": "2",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
_SETTINGS_ELSEWHERE = ("SPARK_CONF_DIR", "SPARK_HOME", "PYSPARK_SUBMIT_ARGS")  # may name a registry of the user's own
# The places where Spark looks by itself (Ivy knows where central is), and with an end: its patience has none.
_IVY = """\
<ivysettings>
  <settings defaultResolver="all"/>
  <timeout-constraints>
    <timeout-constraint name="patience" connectionTimeout="10000" readTimeout="30000"/>
  </timeout-constraints>
  <resolvers>
    <chain name="all">
      <ibiblio name="local-m2-cache" m2compatible="true" root="file:${user.home}/.m2/repository"/>
      <ibiblio name="central" m2compatible="true" timeoutConstraint="patience"/>
    </chain>
  </resolvers>
</ivysettings>
"""
_REFUSED = re.compile(r"Server access error at url (\S+) \((.*)\)")
_UNRESOLVED = re.compile(r"(unresolved dependency: .*)]")


class LocalSpark(NamedTuple):
    """A session; `lacks_delta` says why it is without Delta Lake and what would help, or is empty."""

    session: SparkSession
    lacks_delta: str


class _NotStartedError(Exception):
    """Java ended before there was a session; the exception's text is what it said."""


def local_spark(name: str) -> LocalSpark:
    """Make a session on two cores that listens on loopback only and says little, or take the one that is there.

    Spark looks up Delta Lake in a Maven registry: 87 MB at the first time, from a cache of its own afterwards. Where
    none answers, the session comes without it. What Spark prints as it starts is shown only where it does not start.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    delta = delta_settings(pyspark.__version__)
    lacks = "" if delta else f"No package of Delta Lake is known for Spark {pyspark.__version__}.{HINT}take Spark 4.2."
    if delta:
        try:
            session = _started(name, delta)
        except _NotStartedError as error:
            lacks = why_no_package(str(error))
    if lacks:
        try:
            session = _started(name, {})
        except _NotStartedError as error:
            sys.stderr.write(str(error))
            raise RuntimeError(f"Spark does not start.{HINT}what it said stands above.") from error
    if not lacks and "delta" not in (session.conf.get("spark.sql.extensions", None) or ""):
        lacks = f"The session that was there before has no Delta Lake.{HINT}stop it first."
    return LocalSpark(session, lacks)


def why_no_package(said: str) -> str:
    """Return, from what Spark said when it did not find a package, what is wrong and what would help."""
    found = _REFUSED.search(said) or _UNRESOLVED.search(said)
    why = "Spark did not start with it" if found is None else excerpt(": ".join(found.groups()))
    hint = "give Java a way to Maven's registry, or name your own: spark.jars.ivySettings in a spark-defaults.conf."
    if "PKIX" in said:
        hint = "this Java does not trust that certificate: JAVA_TOOL_OPTIONS=-Djavax.net.ssl.trustStore=FILE."
    return f"Delta Lake's package cannot be had: {why}.{HINT}{hint}"


def _started(name: str, delta: Mapping[str, str]) -> SparkSession:
    """Start Spark with these settings of Delta Lake; raises `_NotStartedError`."""
    builder = SparkSession.builder.appName(name).master("local[2]")
    for key, value in {**_SETTINGS, **delta}.items():
        builder = builder.config(key, value)
    with tempfile.TemporaryDirectory(prefix="spark_llm-") as folder:
        if delta and not any(map(os.environ.get, _SETTINGS_ELSEWHERE)):
            file = Path(folder, "ivysettings.xml")
            file.write_text(_IVY, encoding="utf-8")
            builder = builder.config("spark.jars.ivySettings", str(file))
        try:
            with held_back(_Fetching()) as held:
                session = builder.getOrCreate()
        except PySparkRuntimeError as error:
            raise _NotStartedError(held.all_said()) from error
        held.let_through()
    return session


class _Fetching:
    """Says once that packages are being fetched, which takes a while."""

    def __init__(self) -> None:
        self._told = False

    def __call__(self, line: str) -> str:
        if self._told or not line.startswith("downloading http"):
            return ""
        self._told = True
        return "Fetching Delta Lake for Spark, 87 MB; this happens once.\n"
