"""Spark sessions of the commands: the active one, one as the user has configured it, or a bare one on this machine.

A PySpark from PyPI that nobody has configured is bare. It gets Java, Delta Lake, and this Python for its workers. Any
other Spark is left as it is: Databricks', one under `spark-submit`, a Spark Connect server, and one that SPARK_HOME,
SPARK_CONF_DIR or PYSPARK_SUBMIT_ARGS describe.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyspark
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession

from spark_llm.cli.local.java import ensure_java
from spark_llm.enrich.spark_errors import error_text
from spark_llm.errors import HINT, JobFailedError, SparkLLMError
from spark_llm.text.excerpt import excerpt
from spark_llm.udf.lazy_udf import session_or_none

STARTING = "Starting Spark with Delta Lake; the first start downloads about 87 MB."
_DELTA_PACKAGES = {  # the tested ones
    "3.5": "io.delta:delta-spark_2.12:3.3.3",
    "4.0": "io.delta:delta-spark_4.0_2.13:4.4.0",
    "4.1": "io.delta:delta-spark_4.1_2.13:4.4.0",
    "4.2": "io.delta:delta-spark_4.2_2.13:4.4.0",
}
_CONFIGURED_BY = (  # environment variables
    *("SPARK_HOME", "SPARK_CONF_DIR", "PYSPARK_SUBMIT_ARGS"),
    "PYSPARK_GATEWAY_PORT",  # under spark-submit
    "DATABRICKS_RUNTIME_VERSION",
)
_CATALOG_SETTINGS = ("spark.jars", "spark.jars.packages", "spark.sql.extensions", "spark.sql.catalog.spark_catalog")
_DEMO_SETTINGS = {
    "spark.app.name": "spark_llm demo",
    "spark.databricks.delta.snapshotPartitions": "2",  # the default is 50 tasks, for tables of a few rows
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.log.level": "ERROR",
    "spark.master": "local[2]",
    "spark.sql.shuffle.partitions": "2",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
_IVY_SETTINGS = Path(__file__).with_name("ivysettings.xml")
_SERVER_ERROR = re.compile(r"Server access error at url (\S+) \((.*)\)")
_UNRESOLVED = re.compile(r"(unresolved dependency: .*)]")


def delta_settings(spark_version: str) -> Mapping[str, str]:
    """Return the settings of a session with Delta Lake; none where no package is known for this Spark."""
    found = re.match(r"\d+\.\d+", spark_version)
    package = _DELTA_PACKAGES.get(found[0]) if found else None
    if package is None:
        return {}
    return {
        "spark.jars.packages": package,
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    }


def is_bare(settings: Mapping[str, str], environ: Mapping[str, str]) -> bool:
    """Return whether a session with these settings would be a Spark on this machine that nobody has configured."""
    if any(environ.get(name) for name in _CONFIGURED_BY):
        return False
    remote = settings.get("spark.remote") or environ.get("SPARK_REMOTE")
    return (remote or settings.get("spark.master") or "local").startswith("local")


def bare_settings(settings: Mapping[str, str], spark_version: str) -> dict[str, str]:
    """Return what a bare Spark gets besides `settings`: Delta Lake, unless they configure a catalog."""
    delta = {} if any(name in settings for name in _CATALOG_SETTINGS) else delta_settings(spark_version)
    return {"spark.ui.showConsoleProgress": "false", **delta}  # Spark's own bar would draw over the job's


@contextmanager
def job_session(settings: Mapping[str, str]) -> Iterator[SparkSession]:
    """Yield the active session; or start one with these settings, and stop it at the end of the block.

    Raises `SparkLLMError` where there is no Java, and `JobFailedError` where Spark does not start. An error of Spark's
    in the block becomes a `JobFailedError` of one line.
    """
    active = session_or_none()
    extra = bare_settings(settings, pyspark.__version__) if active is None and is_bare(settings, os.environ) else {}
    if extra:
        ensure_java()
    if "spark.jars.packages" in extra:
        sys.stderr.write(f"{STARTING}\n")
    with _errors_of_spark(_hint_for_start({**extra, **settings} if extra else {})):
        spark = _start({**extra, **settings}, own_python=bool(extra))
    try:
        with _errors_of_spark("see Spark's log. Then run it again: rows that have an answer are not asked again."):
            yield spark
    finally:
        if active is None:
            spark.stop()


def demo_session(log: Path) -> tuple[SparkSession, str]:
    """Return the active session, or start one on two cores of this machine that listens on loopback only.

    The text says why the session has no Delta Lake, with a hint; it is empty if it has. Spark downloads Delta Lake from
    Maven Central once. Without access to it, the session comes without Delta Lake.
    Everything that Spark prints goes into the file `log`. Raises `JobFailedError` where Spark does not start.
    """
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    delta = dict(delta_settings(pyspark.__version__))
    why = "" if delta else f"No package of Delta Lake is known for Spark {pyspark.__version__}.{HINT}use Spark 4.2."
    if is_bare({}, os.environ):  # any other may name a Maven repository of its own
        delta["spark.jars.ivySettings"] = str(_IVY_SETTINGS)
    with _output_into(log):
        if not why:
            try:
                session = _start({**_DEMO_SETTINGS, **delta})
            except PySparkRuntimeError:
                why = why_no_package(log.read_text(encoding="utf-8", errors="replace"))
        if why:
            try:
                session = _start(_DEMO_SETTINGS)
            except PySparkRuntimeError as error:
                raise JobFailedError("Spark does not start.", f"its log says why: {log}.") from error
    if not why and "delta" not in (session.conf.get("spark.sql.extensions", None) or ""):
        why = f"The active session has no Delta Lake.{HINT}stop it first."
    return session, why


def why_no_package(log: str) -> str:
    """Return in one line, from Spark's log of a failed start, why a package was not found, and a hint."""
    found = _SERVER_ERROR.search(log) or _UNRESOLVED.search(log)
    why = "Spark did not start with it" if found is None else excerpt(": ".join(found.groups()))
    hint = "give Java access to Maven Central, or name your own: spark.jars.ivySettings in a spark-defaults.conf."
    if "PKIX" in log:
        hint = "this Java does not trust that certificate: JAVA_TOOL_OPTIONS=-Djavax.net.ssl.trustStore=FILE."
    return f"The package of Delta Lake is not available: {why}.{HINT}{hint}"


def _start(settings: Mapping[str, str], *, own_python: bool = True) -> SparkSession:
    if own_python:
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else workers run the python3 of the PATH
    return SparkSession.builder.config(map=dict(settings)).getOrCreate()


@contextmanager
def _output_into(log: Path) -> Iterator[None]:
    """Append to a file everything that processes print that start in the block, as long as they run.

    Spark prints a hundred lines about packages at each start, and has no setting for that.
    """
    sys.stdout.flush()
    kept = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    with log.open("ab") as file:
        for descriptor in kept:
            os.dup2(file.fileno(), descriptor)
    try:
        yield
    finally:
        for descriptor, copy in kept.items():
            os.dup2(copy, descriptor)
            os.close(copy)


def _hint_for_start(settings: Mapping[str, str]) -> str:
    packages = settings.get("spark.jars.packages")
    if not packages:
        return "Spark's output above says why."
    return (
        f"Spark's output above says why. It needs {packages} from Maven Central. Without access, name the jars or your"
        ' own repository under [spark] in the file ("spark.jars", "spark.jars.ivySettings").'
    )


@contextmanager
def _errors_of_spark(hint: str) -> Iterator[None]:
    """Raise an error of Spark's, or of a library below it, as a `JobFailedError` of one line."""
    try:
        yield
    except SparkLLMError:
        raise
    except Exception as error:
        if type(error).__module__ == "builtins":  # a mistake of this library
            raise
        raise JobFailedError(f"Spark failed: {error_text(error)}.", hint) from error
