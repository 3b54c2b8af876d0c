"""What the command line does with the batches of a job: lists them, and cancels them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from pyspark.sql import Column, DataFrame, SparkSession

from spark_llm.batches.client import BatchClient
from spark_llm.batches.settings import Batch
from spark_llm.enrich.api import job_of
from spark_llm.enrich.batch_jobs.batches import Batches
from spark_llm.enrich.batch_jobs.ledger import Ledger
from spark_llm.enrich.batch_jobs.replayed import batch_spec
from spark_llm.enrich.report import EnrichReport
from spark_llm.enrich.source import Source
from spark_llm.enrich.staging import ledger_table
from spark_llm.enrich.table import Table
from spark_llm.metering.chunking import Limits
from spark_llm.metering.prices import Prices
from spark_llm.udf.lazy_udf import call_of


class BatchInfo(NamedTuple):
    """A batch of a job.

    Attributes:
        column: The column that its requests fill.
        key: The key that it has in its metadata.
        batch_id: The provider's id; None where it is not created yet.
        status: Its status; "waiting" where it is not created yet.
        total: Its requests, as far as the provider has counted them.
        completed: Requests that were answered.
        failed: Requests that failed.
        created_at: When it was created, in seconds since 1970; None where the provider does not say.
    """

    column: str
    key: str
    batch_id: str | None
    status: str
    total: int
    completed: int
    failed: int
    created_at: float | None


def job_batches(spark: SparkSession, target: str, columns: Mapping[str, Column]) -> list[BatchInfo]:
    """Return the batches of a job that are not collected yet, the first one first.

    It reads the ledger beside the target, and asks the provider. Raises `ConfigError` for a name that is no table's.
    """
    batches = open_batches(spark, target, columns)
    return list(_described(batches))


def cancel_batches(
    spark: SparkSession,
    source: str | DataFrame,
    target: str,
    key: str | Sequence[str],
    columns: Mapping[str, Column],
    *,
    batch: Batch | None = None,
    retry_errors: bool = True,
    prices: Prices | None = None,
    progress: bool = True,
    on_missing: Literal["keep", "delete"] = "keep",
    format: str | None = None,  # noqa: A002 -- as in `enrich_table`
) -> EnrichReport:
    """Cancel the batches of a job, wait until the provider has done so, and merge what was answered by then.

    Nothing is sent. The arguments are those of `enrich_table`.
    """
    open_batches(spark, target, columns).cancel()
    settings = replace(batch or Batch(), wait_s=None, then="batch")
    job = job_of(
        *(spark, target, key, columns, Limits(), prices),
        retry_errors=retry_errors,
        progress=progress,
        on_missing=on_missing,
        format=format,
        batch=settings,
    )
    return replace(job, sends=False).run(spark, Source.of(spark, source))


def open_batches(spark: SparkSession, target: str, columns: Mapping[str, Column]) -> Batches:
    """Return the batches of a job, as its ledger knows them."""
    table = Table.named(spark, "target=", target)
    calls = {name: call for name, column in columns.items() if (call := call_of(column)) is not None}
    routes = {name: batch_spec(name, call.udf).route for name, call in calls.items()}
    ledger = Ledger(spark, ledger_table(spark, table), None, calls)
    clients = {name: BatchClient(route, Batch()) for name, route in routes.items()}
    return Batches(ledger, clients, files=ledger.files())


def _described(batches: Batches) -> Iterator[BatchInfo]:
    for file in sorted(batches.open, key=lambda each: each.key):
        state = None if file.batch_id is None else batches.clients[file.column].get(file.batch_id)
        if state is None:
            status = "waiting" if file.batch_id is None else "gone"
            yield BatchInfo(file.column, file.batch_key, file.batch_id, status, 0, 0, 0, None)
        else:
            counts = state.total, state.completed, state.failed
            yield BatchInfo(file.column, file.batch_key, state.id, state.status, *counts, state.created_at)
