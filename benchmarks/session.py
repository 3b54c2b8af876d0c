"""Spark and the endpoint as every benchmark uses them: on this machine, on loopback, with nothing left behind."""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from benchmarks.endpoint import Counters, Running, running
from spark_llm._java import ensure_java

Asked = Callable[[str], Column]  # a UDF, ours or another's, as far as a benchmark calls it

ROOT = str(Path(__file__).parents[1])
PROMPT = "Is this review positive or negative? I have had it for three weeks and would buy it again. Number "


@dataclass(frozen=True)
class Bench:
    """A Spark session on some cores, next to an endpoint."""

    spark: SparkSession
    endpoint: Running
    cores: int

    def warm(self, ask: Asked, rows: int) -> None:
        """Ask about some rows, so that workers, connections and the JVM are warm, and hold `ask` to its answers.

        Raises `RuntimeError` when a row was not answered: what fails fast must not count as fast.
        """
        answers = self._answers(ask, rows)
        kind = answers.schema["answer"].dataType
        failed = "answer.error is not null" if isinstance(kind, StructType) else "answer is null"
        if lost := answers.where(failed).count():
            raise RuntimeError(f"{lost} rows were not answered. Hint: select the column itself to see why.")

    def timed(self, ask: Asked, rows: int) -> tuple[float, Counters]:
        """Ask about so many rows and throw the answers away; return the action's seconds, and what was counted in it.

        Raises `RuntimeError` when the endpoint was not asked about each row once: what is not asked is soon done.
        """
        answers = self._answers(ask, rows)
        self.endpoint.reset()
        began = time.perf_counter()
        answers.write.format("noop").mode("overwrite").save()
        seconds = time.perf_counter() - began
        counted = self.endpoint.counters()
        if counted.rows != rows:
            raise RuntimeError(f"The endpoint was asked about {counted.rows} rows, not {rows}.")
        return seconds, counted

    def _answers(self, ask: Asked, rows: int) -> DataFrame:
        """Ask about different texts of about a hundred characters, in one partition for each core."""
        table = self.spark.range(0, rows, 1, self.cores)
        return table.select(F.concat(F.lit(PROMPT), "id").alias("prompt")).select(ask("prompt").alias("answer"))


@contextlib.contextmanager
def bench(cores: int, settings: Mapping[str, str] | None = None) -> Iterator[Bench]:
    """Start an endpoint and a session of their own, with these settings of Spark's, and stop them in the end."""
    ensure_java()
    os.environ["PYSPARK_PYTHON"] = sys.executable  # else workers run the python3 of the PATH
    os.environ["PYTHONPATH"] = os.pathsep.join([ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    with running() as endpoint, tempfile.TemporaryDirectory() as folder:
        builder = SparkSession.builder.appName("spark_llm benchmarks").master(f"local[{cores}]")
        for key, value in {
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
            "spark.log.level": "ERROR",
            "spark.sql.warehouse.dir": Path(folder).as_uri(),
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            **(settings or {}),
        }.items():
            builder = builder.config(key, value)
        spark = builder.getOrCreate()
        try:
            yield Bench(spark, endpoint, cores)
        finally:
            spark.stop()
