"""The driver of a job on a cluster: does what its argument says, as JSON, and prints its answer as a line of JSON."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from spark_llm import Endpoint, Policy, chat_udf, progress
from spark_llm.udf.model_udf import ModelUDF
from tests.conftest import ROOT
from tests.integration.kills import job as enrichment

Told = Mapping[str, Any]


def session(told: Told) -> SparkSession:
    """Return a session on the cluster, which begins when all its executors are there."""
    builder = SparkSession.builder.master(told["master"]).appName("spark_llm tests")
    for key, value in {
        "spark.cores.max": told["cores"],
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.executor.memory": "512m",
        "spark.executorEnv.PYTHONPATH": ROOT,
        "spark.log.level": "WARN",
        "spark.scheduler.maxRegisteredResourcesWaitingTime": "120s",
        "spark.scheduler.minRegisteredResourcesRatio": "1.0",
        "spark.sql.shuffle.partitions": "2",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        **(enrichment.settings(told) if told["job"] == "enrich" else {}),
    }.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def chat_of(told: Told) -> ModelUDF:
    """Return the UDF, with as many requests in flight in each task as it is told."""
    policy = Policy(max_in_flight=told["in_flight"] * told["cores"], tasks=told["cores"])
    return chat_udf(Endpoint(told["url"], token=told["token"]), policy=policy)


def answer_table(spark: SparkSession, told: Told) -> list[Any]:
    """Ask about the prompts that an SQL expression over `id` makes; return each with its answer."""
    df = spark.range(0, told["rows"], 1, told["cores"]).selectExpr(f"{told['prompt']} AS prompt")
    answers = df.withColumn("r", chat_of(told)("prompt")).select("prompt", "r.text", "r.error.kind")
    return [list(row) for row in answers.collect()]


def answer_stream(spark: SparkSession, told: Told) -> list[Any]:
    """Ask about what is new in a folder, file by file, and return all that has been answered, now and before."""
    lines = spark.readStream.option("maxFilesPerTrigger", 1).text(told["source"])
    answers = lines.select("value", chat_of(told)("value").alias("r")).select("value", "r.text")
    writer = answers.writeStream.option("checkpointLocation", told["checkpoint"]).trigger(availableNow=True)
    if told["sink"] == "foreachBatch":

        def write(batch: DataFrame, _: int) -> None:
            batch.write.mode("append").parquet(told["target"])

        query = writer.foreachBatch(write).start()
    else:
        query = writer.format("parquet").start(told["target"])
    query.awaitTermination()
    return [list(row) for row in spark.read.parquet(told["target"]).collect()]


def fill_table(spark: SparkSession, told: Told) -> dict[str, Any]:
    """Fill a Delta table by `enrich_table`; return the report and what the table has then."""
    enrichment.make_source(spark, told)
    return enrichment.enrich(spark, told)


def watch_query(spark: SparkSession, told: Told) -> list[int]:
    """Ask in a block of `progress`; return the rows that have their answer, and those that the block counted."""
    chat = chat_udf(Endpoint(told["url"], token=told["token"]), policy=Policy(**told["policy"]))
    with progress(spark) as watched:
        texts = spark.range(0, told["rows"], 1, told["cores"]).selectExpr("concat('row ', id) AS text")
        answers = texts.withColumn("r", chat("text")).select("text", "r.text").collect()
    return [sum(text == answer for text, answer in answers), watched.answered]


JOBS: Mapping[str, Callable[[SparkSession, Told], object]] = {
    "table": answer_table,
    "stream": answer_stream,
    "enrich": fill_table,
    "watch": watch_query,
}


def main(told: Told) -> None:
    """Do the job that it is told to do."""
    spark = session(told)
    answer = JOBS[told["job"]](spark, told)
    spark.stop()
    sys.stdout.write(json.dumps(answer, default=str) + os.linesep)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
