"""Spark and the endpoint as every benchmark uses them: on this machine, on loopback, with nothing left behind."""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from benchmarks.support.counters import Counters
from benchmarks.support.running import Running, running
from spark_llm.cli.local.java import ensure_java

Asked = Callable[[str], Column]  # a UDF, ours or another's, as far as a benchmark calls it

Kind = Literal["classic", "connect"]

ROOT = str(Path(__file__).parents[2])
PROMPT = "Is this review positive or negative? I have had it for three weeks and would buy it again. Number "
SETTINGS = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.log.level": "ERROR",
    "spark.sql.shuffle.partitions": "1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


@dataclass(frozen=True)
class Outcome:
    """What became of the rows of a job, as Spark saw them, and what the endpoint counted."""

    rows: int
    lost: int  # rows with an error
    wrong: int  # rows with the answer of another row
    tries: int  # by the rows' own account, so those that no endpoint heard too
    errors: list[str]  # the kinds of error that there were
    counted: Counters


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
        answers = self.questions(rows).select(ask("prompt").alias("answer"))
        kind = answers.schema["answer"].dataType
        failed = "answer.error is not null" if isinstance(kind, StructType) else "answer is null"
        if lost := answers.where(failed).count():
            raise RuntimeError(f"{lost} rows were not answered. Hint: select the column itself to see why.")

    def timed(self, ask: Asked, rows: int) -> tuple[float, Counters]:
        """Ask about so many rows and throw the answers away; return the action's seconds, and what was counted in it.

        Raises `RuntimeError` when the endpoint was not asked about each row once: what is not asked is soon done.
        """
        answers = self.questions(rows).select(ask("prompt").alias("answer"))
        self.endpoint.reset()
        began = time.perf_counter()
        answers.write.format("noop").mode("overwrite").save()
        seconds = time.perf_counter() - began
        counted = self.endpoint.counters()
        if counted.rows != rows:
            raise RuntimeError(f"The endpoint was asked about {counted.rows} rows, not {rows}.")
        return seconds, counted

    def checked(self, ask: Asked, questions: DataFrame) -> Outcome:
        """Ask one of our UDFs, and hold each answer to its question; return what became of the rows.

        Begin with `warm` on another behaviour of the endpoint: that leaves the worker knowing nothing of this one.
        """
        answers = questions.select("expected", ask("prompt").alias("answer"))
        kind = answers.schema["answer"].dataType
        is_chat = isinstance(kind, StructType) and "text" in kind.names
        said = F.col("answer.text") if is_chat else F.col("answer.embedding")[0].cast("int").cast("string")
        answered = F.col("answer.error").isNull()
        self.endpoint.reset()
        rows, lost, wrong, tries, errors = answers.agg(
            F.count("*"),
            F.count_if(~answered),
            F.count_if(answered & ~said.eqNullSafe(F.col("expected"))),
            F.sum("answer.attempts"),
            F.collect_set("answer.error.kind"),
        ).collect()[0]
        return Outcome(rows, lost, wrong, tries, sorted(errors), self.endpoint.counters())

    def questions(self, rows: int, number: str = "id") -> DataFrame:
        """Return so many texts of about a hundred characters and their answers, in one partition for each core.

        A text ends in its number, which is an SQL expression over `id`: they all differ, or some do not.
        """
        word = F.expr(number).cast("string")
        table = self.spark.range(0, rows, 1, self.cores)
        return table.select(F.concat(F.lit(PROMPT), word).alias("prompt"), word.alias("expected"))


@contextlib.contextmanager
def bench(cores: int, settings: Mapping[str, str] | None = None, kind: Kind = "classic") -> Iterator[Bench]:
    """Start an endpoint and a session of their own, with these settings of Spark's, and stop them in the end.

    A process has sessions of one kind.
    """
    ensure_java()
    os.environ["PYSPARK_PYTHON"] = sys.executable  # else workers run the python3 of the PATH
    os.environ["PYTHONPATH"] = os.pathsep.join([ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["SPARK_TESTING"] = "1"  # a Connect server takes a free port, not 15002
    with running() as endpoint, tempfile.TemporaryDirectory() as folder:
        builder = SparkSession.builder.appName("spark_llm benchmarks")
        master = f"local[{cores}]"
        builder = builder.remote(master) if kind == "connect" else builder.master(master)
        warehouse = {"spark.sql.warehouse.dir": Path(folder).as_uri()}
        for key, value in {**SETTINGS, **warehouse, **(settings or {})}.items():
            builder = builder.config(key, value)
        spark = builder.getOrCreate()
        try:
            yield Bench(spark, endpoint, cores)
        finally:
            spark.stop()
