"""Settings of a Spark session for tables of a few rows: what starts quickly beats what runs quickly later."""

from collections.abc import Mapping

JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # the second compiler takes a core from the tests
SETTINGS: Mapping[str, str] = {
    "spark.databricks.delta.snapshotPartitions": "2",  # else 50 tasks
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.extraJavaOptions": JAVA_OPTIONS,
    "spark.driver.host": "127.0.0.1",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
