"""Jobs that fill columns of a table from an endpoint, and ask each row once: `enrich_table` and `enrich_stream`."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql.types import StructType

from spark_llm.batches.settings import Batch
from spark_llm.engine.request_spec import request_specs
from spark_llm.enrich import mlflow_run
from spark_llm.enrich.batch_jobs.replayed import batch_spec
from spark_llm.enrich.column_types import same_of
from spark_llm.enrich.plan import check_names, plan_run
from spark_llm.enrich.report import EnrichReport
from spark_llm.enrich.run_log import RunLog
from spark_llm.enrich.runner import Job, run_id
from spark_llm.enrich.source import Source, input_types, stream_writer
from spark_llm.enrich.table import Table
from spark_llm.errors import HINT, ConfigError, JobFailedError
from spark_llm.metering import prices as price_list
from spark_llm.metering.budget import Budget
from spark_llm.metering.chunking import Limits
from spark_llm.protocol.batches.urls import batch_urls
from spark_llm.protocol.identifiers import check_format, check_new_column, parse_column_name, parse_table_name
from spark_llm.udf.lazy_udf import Call, call_of, check_session
from spark_llm.validation.arguments import checks_arguments
from spark_llm.validation.flags import check_flag

if TYPE_CHECKING:
    from pyspark.sql.streaming.query import StreamingQuery

_AVAILABLE_NOW: Mapping[str, Any] = {"availableNow": True}


@checks_arguments
def enrich_table(
    spark: SparkSession,
    source: str | DataFrame,
    target: str,
    key: str | Sequence[str],
    columns: Mapping[str, Column],
    *,
    chunk_rows: int = 5_000,
    budget: Budget | None = None,
    retry_errors: bool = True,
    max_failure_rate: float | None = None,
    prices: price_list.Prices | None = None,
    progress: bool = True,
    runs_table: str | None = None,
    mlflow: bool = False,
    on_missing: Literal["keep", "delete"] = "keep",
    format: str | None = None,  # noqa: A002 -- Spark's own word for it
    batch: Batch | None = None,
) -> EnrichReport:
    """Fill columns of a table from an endpoint, and ask only rows that were not asked before.

    >>> report = enrich_table(
    ...     spark,
    ...     source="reviews",
    ...     target="reviews_enriched",
    ...     key="review_id",
    ...     columns={"summary": chat("review"), "vector": embed("review")},
    ... )

    It asks only rows that are new, whose input or recipe changed (endpoint, model, instructions, parameters, type of
    answers), or whose last error is retryable. Each column decides by itself; all columns of a row are asked at the
    same time. A row whose input is null costs nothing. The fingerprint of an answer is kept beside it, in
    `<column>_fingerprint`: set it to null, and the row is asked again.

    The rows are asked in chunks. A chunk's answers are written down, then merged into the target in one transaction. A
    run that fails or is killed costs the requests of one chunk at most: the next run merges the answers that were
    written down, and asks the rest. A second run on the same target waits for the first. A run keeps its own tables
    beside the target; they are removed at its end, or by the next run.

    Args:
        spark: The session.
        source: A table's or view's name as Spark SQL writes it, or a DataFrame. It is read once.
        target: A table's name as Spark SQL writes it, ``delta.`/a/path` `` among them; of a format with MERGE. A table
            that is missing is created, with all columns of the source. It may be the source itself. The source's
            columns are kept in it as they are; a column that is new in the source is added.
        key: The column, or columns, that identify a row in source and target.
        columns: The columns to fill, by name: each the direct result of calling a UDF of this library. Its type is the
            UDF's struct, with text or vector, tokens and error.
        chunk_rows: Rows that are asked between two merges; a run that is killed loses as many at most.
        budget: The limits of the run's use; it stops before the chunk that would pass one.
        retry_errors: Whether rows whose error is retryable are asked again.
        max_failure_rate: The share of failed rows, above 0 up to 1, at which the run stops.
        prices: US dollars per million tokens: one number, `(prompt, completion)`, `(prompt, completion, cached)` or a
            `Price`, for all columns or, in a mapping, for each.
        progress: Whether to show a bar, or one line a minute where stderr is not a terminal.
        runs_table: A table to append the report to; created where it is missing.
        mlflow: Whether to record the job as a run in MLflow, at the tracking server and in the experiment that MLflow
            is set to; a child of the active run, if there is one. It has the recipe and the report, and no row. It is
            FAILED where the job raises or stops early. A server that is down is one warning.
        on_missing: Whether to "keep" or "delete" rows that the source no longer has.
        format: The format of a target that is missing, "iceberg" for example. The default is that of its catalog or,
            in Spark's own catalog, that of the source if it has MERGE, else Delta.
        batch: Answer the rows through the provider's Batch API, at about half the price and within a day, as this
            `Batch` says. The endpoint is an OpenAI-style base URL; the functions are chats, completions, embeddings and
            AI functions with one model. See docs/half-price.md.

    Returns:
        The report; where rows are left, `report.stopped` says why.

    Raises:
        ConfigError: The tables, the key and the columns do not fit together. Nothing was asked.
        JobFailedError: Answers could not be merged, or another run has taken over. They are kept for the next run.
    """
    check_session(spark)
    job = job_of(
        spark,
        target,
        key,
        columns,
        Limits(chunk_rows, budget, max_failure_rate),
        prices,
        retry_errors=retry_errors,
        progress=progress,
        on_missing=on_missing,
        format=format,
        batch=batch,
    )
    if check_flag("mlflow", mlflow):
        mlflow_run.check_installed()
    rows = Source.of(spark, source)
    log = None if runs_table is None else RunLog(spark, runs_table, format)
    if mlflow:
        run, recipe = run_id(), mlflow_run.recipe_of(job.key, job.calls)
        report = mlflow_run.recorded(str(Table(spark, job.target)), run, recipe, partial(job.run, spark, rows, run))
    else:
        report = job.run(spark, rows)
    if log is not None:
        log.append(report)
    return report


@checks_arguments
def enrich_stream(  # noqa: PLR0917 -- each of them is needed
    spark: SparkSession,
    source: str | DataFrame,
    target: str,
    key: str | Sequence[str],
    columns: Mapping[str, Column],
    checkpoint: str,
    *,
    trigger: Mapping[str, Any] = _AVAILABLE_NOW,
    chunk_rows: int = 5_000,
    retry_errors: bool = True,
    max_failure_rate: float | None = None,
    prices: price_list.Prices | None = None,
    progress: bool = False,
    runs_table: str | None = None,
    format: str | None = None,  # noqa: A002 -- Spark's own word for it
    batch: Batch | None = None,
) -> "StreamingQuery":
    """Fill columns of a table from an endpoint as rows arrive, and ask only rows that were not asked before.

    >>> query = enrich_stream(
    ...     spark,
    ...     source="reviews",
    ...     target="reviews_enriched",
    ...     key="review_id",
    ...     columns={"summary": chat("review")},
    ...     checkpoint="/data/checkpoints/reviews",
    ... )
    >>> query.awaitTermination()

    Each micro-batch is a run of `enrich_table`, with its rules and its report. A batch that is replayed after a kill
    asks only rows that were not answered. The query fails where a batch has a key more than once: reduce a stream of
    changes to one row a key first. It also fails where a run stops early (`max_failure_rate`, an endpoint that does not
    exist), so the checkpoint never passes rows that were not asked.

    Args:
        spark: The session.
        source: A table's name as Spark SQL writes it, or a streaming DataFrame.
        target: As in `enrich_table`.
        key: As in `enrich_table`.
        columns: As in `enrich_table`. Name the inputs, as in `chat("review")`: a batch is another DataFrame than the
            stream, and `df["review"]` is not found in it.
        checkpoint: The folder where Spark keeps the stream's position.
        trigger: When a batch begins, as `DataStreamWriter.trigger` takes it. The default, `{"availableNow": True}`,
            ends when all available rows are done; `{"processingTime": "1 minute"}` goes on.
        chunk_rows: As in `enrich_table`.
        retry_errors: As in `enrich_table`, for rows that are in the batch again.
        max_failure_rate: As in `enrich_table`.
        prices: As in `enrich_table`, for the reports.
        progress: As in `enrich_table`.
        runs_table: As in `enrich_table`; each batch appends a report.
        format: The format of a target that is missing; the default is that of its catalog, in Spark's own Delta.
        batch: As in `enrich_table`; a micro-batch waits for its answers, so `wait_s` must be None.

    Returns:
        The query, started.

    Raises:
        ConfigError: The arguments do not fit together.
    """
    check_session(spark)
    job = job_of(
        spark,
        target,
        key,
        columns,
        Limits(chunk_rows, None, max_failure_rate),
        prices,
        retry_errors=retry_errors,
        progress=progress,
        format=format,
        batch=batch,
    )
    log = None if runs_table is None else RunLog(spark, runs_table, format).name
    rows = Table.named(spark, "source=", source).read_stream() if isinstance(source, str) else source
    if not isinstance(rows, DataFrame) or not rows.isStreaming:
        raise ConfigError(
            f"source={source!r} is not a stream.", "pass spark.readStream…, or a table's name; or use enrich_table."
        )
    if not isinstance(checkpoint, str) or not checkpoint.strip():
        raise ConfigError(f"checkpoint={checkpoint!r} is not a folder.", "name one that all runs of this stream share.")
    if batch is not None and batch.wait_s is not None:
        raise ConfigError(
            f"Batch(wait_s={batch.wait_s:g}) leaves rows of a micro-batch without answers, and no later one has them.",
            "leave wait_s out: a micro-batch waits for its batches.",
        )
    same = same_of(spark)
    types = input_types(rows, job.calls, same)
    plan_run(rows.schema, None, target, job.key, job.calls, types, same)  # raises for what the stream lacks
    writer = stream_writer(rows, checkpoint, trigger)
    query: StreamingQuery = writer.foreachBatch(_MicroBatch(job, log)).start()
    return query


class _MicroBatch:
    """Runs the job over a micro-batch; it is pickled where the server runs it."""

    def __init__(self, job: Job, run_log: str | None) -> None:
        self._job, self._run_log = job, run_log

    def __call__(self, batch: DataFrame, _: int) -> None:
        spark = batch.sparkSession
        report = self._job.run(spark, Source(batch))
        if self._run_log is not None:
            RunLog(spark, self._run_log).append(report)
        if report.stopped is not None:
            reason, hint = report.stopped.partition(HINT)[::2]
            raise JobFailedError(reason, hint)


def job_of(  # noqa: PLR0917 -- as in `enrich_table`
    spark: SparkSession,
    target: str,
    key: str | Sequence[str],
    columns: Mapping[str, Column],
    limits: Limits,
    prices: price_list.Prices | None,
    *,
    retry_errors: bool,
    progress: bool,
    on_missing: Literal["keep", "delete"] = "keep",
    format: str | None = None,  # noqa: A002 -- as in `enrich_table`
    batch: Batch | None = None,
) -> Job:
    """Return the job that these arguments describe; raises `ConfigError` for errors that show without a table."""
    keys = [key] if isinstance(key, str) else list(key) if isinstance(key, Sequence) else []
    if not keys:
        raise ConfigError(f"key={key!r} names no column.", 'write key="id", or key=["region", "id"].')
    if on_missing not in ("keep", "delete"):
        raise ConfigError(f"on_missing={on_missing!r} is neither 'keep' nor 'delete'.", "leave it out for 'keep'.")
    if not isinstance(columns, Mapping) or not columns:
        raise ConfigError(f"columns={columns!r} names no columns.", 'write columns={"summary": chat("review")}.')
    check_format(format)
    calls = {name: _call(name, column) for name, column in columns.items()}
    tokenless = [name for name, call in calls.items() if "usage" not in call.udf.returnType.names]  # type: ignore[attr-defined]  # a struct
    if batch is not None:
        _check_batch(batch, calls)
    key_names = tuple(parse_column_name("key=", each) for each in keys)
    check_names(key_names, calls, same_of(spark))
    return Job(
        parse_table_name("target=", target),
        key_names,
        calls,
        limits,
        price_list.parse_prices(prices, list(calls), limits.budget, tokenless),
        retry_errors=check_flag("retry_errors", retry_errors),
        on_missing=on_missing,
        progress=check_flag("progress", progress),
        format=format,
        batch=batch,
    )


def _check_batch(batch: object, calls: Mapping[str, Call]) -> None:
    """Raise `ConfigError` where a column cannot be filled through a Batch API."""
    if not isinstance(batch, Batch):
        raise ConfigError(f"batch={batch!r} is not a Batch.", "write batch=Batch(), or leave it out.")
    for name, call in calls.items():
        batch_urls(batch_spec(name, call.udf).route.url)


def _call(name: str, column: object) -> Call:
    """Return the call that a column is the result of; raises `ConfigError` for a column that a run cannot fill."""
    check_new_column(name)
    call = call_of(column) if isinstance(column, Column) else None
    if call is None or not isinstance(call.udf.returnType, StructType):
        raise ConfigError(
            f"columns[{name!r}] is not the direct result of one of this library's UDFs.",
            'write it as chat("review"), llm_classify("review", […], chat=…), without .text, .alias or a function'
            " around it. Prepare the input inside, chat(F.trim('review')), and read fields of the answer from the"
            " target.",
        )
    if any(spec.policy.on_error == "raise" for spec in request_specs(call.udf.plan())):
        raise ConfigError(
            f'columns[{name!r}] has Policy(on_error="raise"), which would lose the answers of a whole chunk.',
            "leave it out: errors are kept in their rows, and max_failure_rate= stops a run.",
        )
    return call
