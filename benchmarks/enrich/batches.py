"""A table job through a Batch API that answers at once, against the same job answered from a column."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyspark
from pyspark.sql import Column
from pyspark.sql import functions as F

from benchmarks.support.figures import Figure, Goal
from benchmarks.support.local_batches import LocalBatches, local_batches
from benchmarks.support.session import Bench, bench
from spark_llm import Batch, Endpoint, chat_udf, enrich_table, schemas
from spark_llm.cli.local.spark import delta_settings
from spark_llm.engine.request_spec import RequestSpec, with_request_specs
from spark_llm.policy import Policy
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.values import Result, Row, Usage
from spark_llm.udf.model_udf import ModelPlan, ModelUDF

ROWS = {"full": 100_000, "short": 400}
MEMORY_ROWS = {"full": (10_000, 200_000), "short": (100, 200)}
ROUNDS = {"full": 3, "short": 1}
CORES = 2
SETTINGS = {"spark.sql.shuffle.partitions": "2", "spark.databricks.delta.snapshotPartitions": "2"}


class _FromColumn(ModelUDF):
    """A chat that is answered from its own column, without a request."""

    def plan(self) -> ModelPlan:
        """Return the plan that workers run."""
        return with_request_specs(super().plan(), lambda spec: replace(spec, answered_by=_echo))


def _echo(_: RequestSpec, rows: Iterator[Sequence[Row]]) -> Iterator[list[Result | None]]:
    for some in rows:
        yield [
            None if row is None else Result(text=str(row), finish_reason="stop", usage=Usage(20, 20, 40), attempts=1)
            for row in some
        ]


def measure(*, short: bool) -> list[Figure]:
    """Fill Delta tables both ways, in turn; then tables of few and of many rows."""
    size = "short" if short else "full"
    settings = SETTINGS | dict(delta_settings(pyspark.__version__)) | {"spark.driver.memory": "4g"}
    with tempfile.TemporaryDirectory() as folder, local_batches() as server, bench(CORES, settings) as spark:
        endpoint = Endpoint(server.url, model="chat", token=server.token)
        ask, floor = chat_udf(endpoint), _FromColumn("floor", Chat(), endpoint, Policy(), schemas.CHAT)
        _fill(spark, ask("prompt"), f"{folder}/warm", ROWS["short"], server)
        _fill(spark, floor("prompt"), f"{folder}/warm_floor", ROWS["short"])
        rows, batch_s, floor_s, cpu_s = ROWS[size], list[float](), list[float](), list[float]()
        for number in range(ROUNDS[size]):
            before_s = server.cpu_s
            batch_s.append(_fill(spark, ask("prompt"), f"{folder}/batch{number}", rows, server))
            cpu_s.append(server.cpu_s - before_s)
            floor_s.append(_fill(spark, floor("prompt"), f"{folder}/floor{number}", rows))
        few, many = MEMORY_ROWS[size]
        peaks = [_peak_mb(spark, ask("prompt"), f"{folder}/memory{count}", count, server) for count in (few, many)]
    return [
        Figure(
            "a job in batches, of the time of one that is answered from a column",
            [ours / theirs for ours, theirs in zip(batch_s, floor_s, strict=True)],
            f"{min(batch_s):.1f} s",
            f"{min(floor_s):.1f} s",
            Goal(at_most=1.5),
            note=f"A job in batches: `enrich_table` with `Batch(poll_s=0.2)` and {rows:,} rows, until all are merged."
            " The local endpoint answers a batch at once, in a process of its own on the same two cores"
            f" ({min(cpu_s):.1f} s of CPU, which are part of our time). The baseline is the same job, in one chunk,"
            " with a UDF that gives its own column back.",
        ),
        Figure(
            f"… peak memory of the driver's Python, {many:,} rows against {few:,}",
            [peaks[1] / peaks[0]],
            f"{peaks[1]:.0f} MB",
            f"{peaks[0]:.0f} MB",
            Goal(at_most=1.1),
        ),
    ]


def _fill(spark: Bench, ask: Column, place: str, rows: int, server: LocalBatches | None = None) -> float:
    """Fill the table of a folder, with a server in batches; return the seconds.

    Raises `RuntimeError` where a row has no answer, or the server answered another number of requests.
    """
    Path(place).mkdir(parents=True, exist_ok=True)
    source = spark.prompts(rows).select(F.col("expected").alias("id"), "prompt")
    batch = None if server is None else Batch(poll_s=0.2)
    began_s = time.perf_counter()
    report = enrich_table(
        *(spark.spark, source, f"delta.`{place}/target`", "id", {"answer": ask}),
        progress=False,
        chunk_rows=rows,
        batch=batch,
    )
    seconds = time.perf_counter() - began_s
    if report.answered != rows or (server is not None and server.answered()[0] != rows):
        raise RuntimeError(f"{report.answered} of {rows} rows were answered.")
    return seconds


def _peak_mb(spark: Bench, ask: Column, place: str, rows: int, server: LocalBatches) -> float:
    """Return the most memory of this process while a table is filled in batches."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    _fill(spark, ask, place, rows, server)
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
