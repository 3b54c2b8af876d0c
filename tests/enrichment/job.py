"""A driver that can be killed: fills a Delta table as its argument says, in JSON, and prints a line of JSON at the end.

When its session is up it prints a line, and waits for one: so a test knows when it begins, and can have several begin
at the same time.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyspark
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_llm import Endpoint, Policy, chat_udf
from spark_llm._delta import delta_settings
from spark_llm._java import ensure_java
from spark_llm.enrich import enrich_table

Told = Mapping[str, Any]
READY = "ready to begin"
LOGS = Path(__file__).with_name("log4j2.properties")


def settings() -> dict[str, str]:
    """Return the settings of a session that has Delta, and logs what it writes and merges."""
    return {
        **delta_settings(pyspark.__version__),
        "spark.databricks.delta.snapshotPartitions": "2",  # else 50 tasks, for tables of a few rows
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={LOGS.as_uri()}",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.shuffle.partitions": "2",
    }


def session() -> SparkSession:
    """Return a session on two cores; what it makes for itself is made in the folder that this process runs in."""
    ensure_java()
    os.environ["PYSPARK_PYTHON"] = sys.executable  # else workers run the python3 of the PATH
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    builder = SparkSession.builder.master("local[2]").appName("spark_llm tests")
    for key, value in {
        **settings(),
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def of_path(path: Path) -> str:
    """Return a table's name as Spark SQL writes it, by where its files are."""
    return f"delta.`{path}`"


def make_source(spark: SparkSession, told: Told) -> None:
    """Write the rows that are to be asked, where no driver has done so before; their text is an SQL expression."""
    source = Path(told["folder"], "source")
    if not source.exists():
        rows = spark.range(0, told["rows"], 1, 2).selectExpr("id", f"{told['text']} AS text")
        rows.write.format("delta").save(str(source))


def enrich(spark: SparkSession, told: Told) -> dict[str, Any]:
    """Fill the target; return the report, and how many rows, ids and right answers the target has then."""
    source, target = (of_path(Path(told["folder"], name)) for name in ("source", "target"))
    chat = chat_udf(Endpoint(told["url"], token=told["token"]), policy=Policy(**told.get("policy", {})))
    columns = {"answer": chat("text")}
    report = enrich_table(spark, source, target, "id", columns, chunk_rows=told["chunk_rows"], progress=False)
    right = (F.col("answer.text") == F.col("text")) & F.col("answer.error").isNull()
    found = spark.table(target).agg(
        F.count(F.lit(1)).alias("rows"), F.countDistinct("id").alias("ids"), F.count_if(right).alias("right")
    )
    return {"report": asdict(report), "found": found.collect()[0].asDict()}


def main(told: Told) -> None:
    """Get ready, begin when told to, and answer."""
    spark = session()
    make_source(spark, told)
    sys.stdout.write(READY + os.linesep)
    sys.stdout.flush()
    sys.stdin.readline()
    answer = enrich(spark, told)
    spark.stop()
    sys.stdout.write(json.dumps(answer, default=str) + os.linesep)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
