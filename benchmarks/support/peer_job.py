"""The job of `benchmarks.support.peer`, as in openaivec's documentation. This library is not installed there.

openaivec keeps connections of an event loop that closes with a task, so the next task in the same worker fails
("Event loop is closed"). Here each job has new workers, whose start must not count. So the time of a job is from its
first request to its last response, by the endpoint's clock.
"""

import json
import sys
import tempfile
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

# A model name with a known tokeniser. The endpoint accepts any.
MODEL = "gpt-4"
INSTRUCTIONS = "Answer in one word: is the review positive or negative?"


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Run the job; return the version of openaivec, and the seconds of each round."""
    peer: Any = import_module("openaivec.spark_ext")
    with tempfile.TemporaryDirectory() as folder:
        builder = SparkSession.builder.config("spark.sql.warehouse.dir", Path(folder).as_uri())
        for key, value in job["settings"].items():
            builder = builder.config(key, value)
        spark = builder.getOrCreate()
        peer.setup(spark, api_key="none", responses_model_name=MODEL, embeddings_model_name=MODEL)
        if job["kind"] == "chat":
            ask = peer.responses_udf(INSTRUCTIONS, **job["options"])
        else:
            ask = peer.embeddings_udf(**job["options"])

        def answers(rows: int) -> DataFrame:
            table = spark.range(0, rows, 1, spark.sparkContext.defaultParallelism)
            return table.select(F.concat(F.lit(job["prompt"]), "id").alias("prompt")).select(
                ask("prompt").alias("answer")
            )

        if lost := answers(job["warm"]).where("answer is null").count():
            raise RuntimeError(f"{lost} rows were not answered.")
        seconds = []
        for _ in range(job["rounds"]):
            _control(job, "reset")
            answers(job["rows"]).write.format("noop").mode("overwrite").save()
            counters = _control(job, "counters")
            if counters["rows"] != job["rows"]:
                raise RuntimeError(f"The endpoint got {counters['rows']} rows, not {job['rows']}.")
            seconds.append(counters["ended_s"] - counters["first_s"])
        spark.stop()
    return {"version": version("openaivec"), "seconds": seconds}


def _control(job: dict[str, Any], command: str) -> Any:  # noqa: ANN401 -- what JSON holds
    with urlopen(f"{job['control']}/{command}") as response:  # noqa: S310 -- the endpoint's own address
        return json.load(response)


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
