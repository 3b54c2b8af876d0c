"""A Spark session and an endpoint for a benchmark: on this machine, on loopback, without traces afterwards."""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyspark
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from benchmarks.support.counters import Counters
from benchmarks.support.endpoint_process import EndpointProcess, endpoint_process
from spark_llm.cli.local.java import ensure_java
from spark_llm.cli.local.spark import delta_settings

ColumnFunction = Callable[[str], Column]  # a UDF, ours or a baseline's, called with a column's name

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
    # Delta Lake for the sessions that configure it: the JVM of all sessions reads its packages once, when it starts.
    **{name: value for name, value in delta_settings(pyspark.__version__).items() if name == "spark.jars.packages"},
}


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job: its rows as seen by Spark, and the endpoint's counters."""

    rows: int
    lost: int  # rows with an error
    wrong: int  # rows with the answer of another row
    attempts: int  # from the rows, so attempts that no endpoint received count too
    errors: list[str]  # the kinds of errors
    counters: Counters


@dataclass(frozen=True)
class Bench:
    """A Spark session on some cores, next to an endpoint."""

    spark: SparkSession
    endpoint: EndpointProcess
    cores: int

    def warm(self, ask: ColumnFunction, rows: int) -> None:
        """Run some rows, so that workers, connections and the JVM are warm.

        Raises `RuntimeError` if a row got no answer, so that a fast failure does not count as fast.
        """
        answers = self.prompts(rows).select(ask("prompt").alias("answer"))
        kind = answers.schema["answer"].dataType
        failed = "answer.error is not null" if isinstance(kind, StructType) else "answer is null"
        if lost := answers.where(failed).count():
            raise RuntimeError(f"{lost} rows were not answered. Hint: select the column itself to see why.")

    def time_job(self, ask: ColumnFunction, rows: int) -> tuple[float, Counters]:
        """Run rows and discard the answers; return the action's seconds, and the counters.

        Raises `RuntimeError` if the endpoint did not get each row once, so that skipped rows do not count as fast.
        """
        answers = self.prompts(rows).select(ask("prompt").alias("answer"))
        self.endpoint.reset()
        start_s = time.perf_counter()
        answers.write.format("noop").mode("overwrite").save()
        seconds = time.perf_counter() - start_s
        counters = self.endpoint.counters()
        if counters.rows != rows:
            raise RuntimeError(f"The endpoint got {counters.rows} rows, not {rows}.")
        return seconds, counters

    def check_answers(self, ask: ColumnFunction, prompts: DataFrame) -> Outcome:
        """Run one of our UDFs, and compare each answer with its prompt; return the outcome.

        Call `warm` on another behaviour of the endpoint first, so that the worker knows nothing of this one.
        """
        answers = prompts.select("expected", ask("prompt").alias("answer"))
        kind = answers.schema["answer"].dataType
        is_chat = isinstance(kind, StructType) and "text" in kind.names
        answer = F.col("answer.text") if is_chat else F.col("answer.embedding")[0].cast("int").cast("string")
        answered = F.col("answer.error").isNull()
        self.endpoint.reset()
        rows, lost, wrong, attempts, errors = answers.agg(
            F.count("*"),
            F.count_if(~answered),
            F.count_if(answered & ~answer.eqNullSafe(F.col("expected"))),
            F.sum("answer.attempts"),
            F.collect_set("answer.error.kind"),
        ).collect()[0]
        return Outcome(rows, lost, wrong, attempts, sorted(errors), self.endpoint.counters())

    def prompts(self, rows: int, number: str = "id") -> DataFrame:
        """Return prompts of about a hundred characters and their answers, in one partition for each core.

        A prompt ends in its number, an SQL expression over `id`, which decides whether all prompts differ.
        """
        word = F.expr(number).cast("string")
        table = self.spark.range(0, rows, 1, self.cores)
        return table.select(F.concat(F.lit(PROMPT), word).alias("prompt"), word.alias("expected"))


@contextlib.contextmanager
def bench(
    cores: int,
    settings: Mapping[str, str] | None = None,
    kind: Kind = "classic",
    failures: int = 1,
    master: str | None = None,
) -> Iterator[Bench]:
    """Start an endpoint and a session with these Spark settings, and stop them at the end.

    All sessions of a process are of one kind. A job ends when a task has failed so often. Without a `master` all
    cores are those of this process.
    """
    ensure_java()
    os.environ["PYSPARK_PYTHON"] = sys.executable  # otherwise workers run the python3 of the PATH
    os.environ["PYTHONPATH"] = os.pathsep.join([ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ["SPARK_TESTING"] = "1"  # a Connect server takes a free port, not 15002
    with endpoint_process() as endpoint, tempfile.TemporaryDirectory() as folder:
        builder = SparkSession.builder.appName("spark_llm benchmarks")
        master = master or (f"local[{cores}]" if failures == 1 else f"local[{cores},{failures}]")
        builder = builder.remote(master) if kind == "connect" else builder.master(master)
        warehouse = {"spark.sql.warehouse.dir": Path(folder).as_uri()}
        for key, value in {**SETTINGS, **warehouse, **(settings or {})}.items():
            builder = builder.config(key, value)
        spark = builder.getOrCreate()
        try:
            yield Bench(spark, endpoint, cores)
        finally:
            spark.stop()
