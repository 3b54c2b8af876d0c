"""A driver that can be killed: fills a table as its argument says, in JSON, and prints a line of JSON at the end.

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
from spark_llm.cli.local.java import ensure_java
from spark_llm.enrich.api import enrich_table
from tests.support import formats
from tests.support.small_spark import JAVA_OPTIONS, SETTINGS

Told = Mapping[str, Any]
READY = "ready to begin"
LOGS = Path(__file__).with_name("log4j2.properties")


def settings(told: Told) -> dict[str, str]:
    """Return the settings of a session that has tables of its format, and logs what it writes and merges."""
    return {
        **SETTINGS,
        **formats.settings(format_of(told), pyspark.__version__, Path(told["folder"], "iceberg")),
        "spark.driver.extraJavaOptions": f"{JAVA_OPTIONS} -Dlog4j2.configurationFile={LOGS.as_uri()}",
    }


def session(told: Told) -> SparkSession:
    """Return a session on two cores; what it makes for itself is made in the folder that this process runs in."""
    ensure_java()
    os.environ["PYSPARK_PYTHON"] = sys.executable  # else workers run the python3 of the PATH
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    builder = SparkSession.builder.master("local[2]").appName("spark_llm tests")
    for key, value in settings(told).items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def format_of(told: Told) -> formats.Format:
    """Return the format of its tables."""
    return "iceberg" if told.get("format") == "iceberg" else "delta"


def table(told: Told, name: str) -> str:
    """Return a table's name as Spark SQL writes it."""
    return formats.table(format_of(told), Path(told["folder"]), name)


def make_source(spark: SparkSession, told: Told) -> None:
    """Write the rows that are to be asked, where no driver has done so before; their text is an SQL expression."""
    made = Path(told["folder"], "source is made")
    if not made.exists():
        rows = spark.range(0, told["rows"], 1, 2).selectExpr("id", f"{told['text']} AS text")
        rows.writeTo(table(told, "source")).using(format_of(told)).create()
        made.touch()


def enrich(spark: SparkSession, told: Told) -> dict[str, Any]:
    """Fill the target; return the report, and how many rows, ids and right answers the target has then."""
    source, target = (table(told, name) for name in ("source", "target"))
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
    spark = session(told)
    make_source(spark, told)
    sys.stdout.write(READY + os.linesep)
    sys.stdout.flush()
    sys.stdin.readline()
    answer = enrich(spark, told)
    spark.stop()
    sys.stdout.write(json.dumps(answer, default=str) + os.linesep)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
