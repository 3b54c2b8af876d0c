"""Settings of a Spark session for tables of a few rows: what starts quickly beats what runs quickly later."""

import fcntl
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# The second compiler takes a core from the tests, and checking Spark's classes takes a third of a start. Without the
# second compiler Java keeps 48 MB for compiled code: Spark fills them, and then compiles the same methods again.
JAVA_OPTIONS = (
    "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m -XX:+UseSerialGC"
    " -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote"
)
SETTINGS: Mapping[str, str] = {
    "spark.databricks.delta.snapshotPartitions": "2",  # else 50 tasks
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.python.daemon.module": "tests.support.warm_daemon",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


def start(builder: "SparkSession.Builder") -> "SparkSession":
    """Return the builder's session; processes start theirs one after another.

    The first start downloads Delta Lake, and two downloads at once damage each other's files.
    """
    lock = Path(tempfile.gettempdir(), f"spark_llm_tests_{os.getuid()}.lock")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # the file's end releases it
        return builder.getOrCreate()
