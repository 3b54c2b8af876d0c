"""What the tests on Spark share: endpoints, both kinds of UDF, and a UDF that was built before any session."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_llm import Endpoint, chat_udf
from spark_llm.enrich.report import EnrichReport
from spark_llm.serving import LocalEndpoints
from spark_llm.udf.model_udf import ModelUDF
from tests.conftest import ROOT
from tests.support.formats import FORMAT

Ask = Callable[[ModelUDF], Callable[[str | Column], Column]]
Fill = Callable[[ModelUDF], Callable[..., Column]]
Run = Callable[..., tuple[int, EnrichReport]]


def endpoint(endpoints: LocalEndpoints, name: str = "chat") -> Endpoint:
    """Return one of the local endpoints as a user would name it."""
    return Endpoint(endpoints.invocations(name), token=endpoints.token)


def chat(endpoints: LocalEndpoints) -> ModelUDF:
    """Return the plainest chat UDF."""
    return chat_udf(endpoint(endpoints))


def run_alone(job: str, session_kind: str, folder: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run a program that makes its own session, of the kind that its first argument says, in a process of its own."""
    (folder / "job.py").write_text(job, encoding="utf-8")
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("DATABRICKS_")}
    for name in ("SPARK_REMOTE", "SPARK_CONNECT_MODE_ENABLED", "SPARK_LOCAL_REMOTE", "PYSPARK_GATEWAY_PORT"):
        surroundings.pop(name, None)  # the running session's
    surroundings |= {"SPARK_TESTING": "1", "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    surroundings |= {"PYTHONPATH": os.pathsep.join((str(folder), ROOT))} | environ
    return subprocess.run(
        [sys.executable, str(folder / "job.py"), session_kind],
        env=surroundings,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def written(rows: DataFrame, table: str) -> str:
    """Write rows as a table, and return its name."""
    rows.writeTo(table).using(FORMAT).create()
    return table


def texts(spark: SparkSession, count: int) -> DataFrame:
    """Return rows that each ask something, but every tenth, whose text is null."""
    text = F.when(F.col("id") % 10 != 9, F.concat(F.lit("row "), "id"))
    return spark.range(count).select("id", text.alias("text"), F.lit("x").alias("team"))
