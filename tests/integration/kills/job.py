"""A driver that a test may kill: it fills a table by its argument, in JSON, and prints a line of JSON at the end.

It prints a line when its session is up, and then waits for a line. So a test can start several at the same time.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyspark
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_llm import Batch, Endpoint, Policy, chat_udf
from spark_llm.cli.local.java import ensure_java
from spark_llm.enrich.api import enrich_table
from tests.support import formats
from tests.support.small_spark import SETTINGS, start

Options = Mapping[str, Any]
READY = "ready to begin"
LOGS = Path(__file__).with_name("log4j2.properties")


def settings(options: Options) -> dict[str, str]:
    """Return the settings of a session that has tables of its format, and logs its writes and merges."""
    return {
        **SETTINGS,
        **formats.settings(format_of(options), pyspark.__version__, Path(options["folder"], "iceberg")),
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={LOGS.as_uri()}",
    }


def session(options: Options) -> SparkSession:
    """Return a session, on two cores by default; its own files are in the working directory."""
    ensure_java()
    os.environ["PYSPARK_PYTHON"] = sys.executable  # else workers run the python3 of the PATH
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    builder = SparkSession.builder.master(options.get("master", "local[2]")).appName("spark_llm tests")
    for key, value in settings(options).items():
        builder = builder.config(key, value)
    return start(builder)


def format_of(options: Options) -> formats.Format:
    """Return the format of its tables."""
    return "iceberg" if options.get("format") == "iceberg" else "delta"


def table(options: Options, name: str) -> str:
    """Return a table's name as Spark SQL writes it."""
    return formats.table(format_of(options), Path(options["folder"]), name)


def make_source(spark: SparkSession, options: Options) -> None:
    """Write the rows to ask, unless an earlier driver has; their text, and their photo if any, are SQL expressions."""
    made = Path(options["folder"], "source is made")
    if not made.exists():
        columns = ["id", *(f"{options[name]} AS {name}" for name in ("text", "photo") if name in options)]
        rows = spark.range(0, options["rows"], 1, 2).selectExpr(*columns)
        rows.writeTo(table(options, "source")).using(format_of(options)).create()
        made.touch()


def enrich(spark: SparkSession, options: Options) -> dict[str, Any]:
    """Fill the target; return the report, how many rows, ids and right answers the target has, and their tokens."""
    source, target = (table(options, name) for name in ("source", "target"))
    rows = spark.table(source).where(F.col("id") < options["first"]) if "first" in options else source
    endpoint = Endpoint(options["url"], model=options.get("model"), token=options["token"])
    policy, batch = Policy(**options.get("policy", {})), Batch(**options["batch"]) if "batch" in options else None
    columns = {"answer": chat_udf(endpoint, policy=policy)("text")}
    if "photo" in options:
        columns = {"answer": chat_udf(endpoint, template="{text}{photo}", policy=policy)(text="text", photo="photo")}
    chunk_rows = options["chunk_rows"]
    report = enrich_table(spark, rows, target, "id", columns, chunk_rows=chunk_rows, progress=False, batch=batch)
    said = F.split("answer.text", r"\[image/png ")[0]  # before what Echo says of the photo
    right = (said == F.col("text")) & F.col("answer.error").isNull()
    counts = {"rows": F.count(F.lit(1)), "ids": F.countDistinct("id"), "right": F.count_if(right)}
    aggregates = [count.alias(name) for name, count in counts.items()]
    tokens = F.sum("answer.usage.total_tokens").alias("tokens")
    found = spark.table(target).agg(*aggregates, tokens).collect()[0].asDict()
    return {"report": asdict(report), "tokens": found.pop("tokens"), "found": found}


def main(options: Options) -> None:
    """Get ready, wait for a line on stdin, run the job and print the answer."""
    logging.basicConfig(format="%(name)s: %(message)s")
    logging.getLogger("spark_llm.enrich").setLevel(logging.INFO)
    spark = session(options)
    make_source(spark, options)
    sys.stdout.write(READY + os.linesep)
    sys.stdout.flush()
    sys.stdin.readline()
    answer = enrich(spark, options)
    spark.stop()
    sys.stdout.write(json.dumps(answer, default=str) + os.linesep)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
