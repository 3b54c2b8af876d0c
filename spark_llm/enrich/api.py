"""Jobs that fill columns of a table from an endpoint, and ask each row once: `enrich_table` and `enrich_stream`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql.types import StructType

from spark_llm.engine.request_spec import request_specs
from spark_llm.enrich.report import EnrichReport
from spark_llm.enrich.run_log import Runs
from spark_llm.enrich.runner import Job
from spark_llm.enrich.table import Table, same_of
from spark_llm.enrich.validate import check_names, of_source
from spark_llm.errors import HINT, ConfigError, JobFailedError
from spark_llm.metering import prices as _prices
from spark_llm.metering.budget import Budget
from spark_llm.metering.chunking import Limits
from spark_llm.protocol.identifiers import check_format, check_new_column, parse_column_name
from spark_llm.udf.lazy_udf import Call, call_of

if TYPE_CHECKING:
    from pyspark.sql.streaming.query import StreamingQuery

_NOW: Mapping[str, Any] = {"availableNow": True}


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
    prices: _prices.Prices | None = None,
    progress: bool = True,
    runs_table: str | None = None,
    on_missing: Literal["keep", "delete"] = "keep",
    format: str | None = None,  # noqa: A002 -- Spark's own word for it
) -> EnrichReport:
    """Fill columns of a table from an endpoint, asking only what was not asked before.

    >>> report = enrich_table(
    ...     spark,
    ...     source="reviews",
    ...     target="reviews_enriched",
    ...     key="review_id",
    ...     columns={"summary": chat("review"), "vector": embed("review")},
    ... )

    Asked are rows that are new, rows whose input has changed, rows whose recipe has (endpoint, model, instructions,
    parameters, type of answers), and rows whose error is retryable; each column by itself, all columns of a row at the
    same time. A row whose input is null costs nothing. What an answer is of is kept beside it, in
    `<column>_fingerprint`: set that to null to have a row asked again.

    The rows are asked in chunks. A chunk's answers are written down, then merged into the target in one transaction. A
    run that fails or is killed costs the requests of one chunk at most: what it had written down is merged by the next
    run, and the rest is asked. A second run on the same target waits for the first. What a run writes for itself stands
    beside the target and is removed at its end, or by the next run.

    Args:
        spark: The session.
        source: A table's or view's name as Spark SQL writes it, or a DataFrame. It is read once.
        target: A table's name as Spark SQL writes it, ``delta.`/a/path` `` among them; of a format with MERGE. One that
            is missing is made, with all columns of the source. It may be the source itself. The source's columns are
            kept as they are there; one that is new in the source is added.
        key: The column, or columns, that tell rows apart; in source and target.
        columns: What to ask, by the name of the column for the answers: each the direct result of calling a UDF of this
            library. Its type is the UDF's struct, with text or vector, tokens and error.
        chunk_rows: Rows that are asked between two merges, and lost at most when a run is killed.
        budget: What the run may use up; it stops before the chunk that would pass it.
        retry_errors: Whether rows whose error is retryable are asked again.
        max_failure_rate: The share of failed rows, above 0 up to 1, at which the run stops.
        prices: US dollars per million tokens: one number, `(prompt, completion)` or `(prompt, completion, cached)`, for
            all columns or, in a mapping, for each.
        progress: Whether to show a bar, or where nobody looks one line a minute.
        runs_table: A table to append the report to; made where it is missing.
        on_missing: What becomes of rows that the source has no more: "keep", or "delete".
        format: The format of a target that is missing, "iceberg" for example. The default is that of its catalog or,
            in Spark's own catalog, that of the source if it has MERGE, else Delta.

    Returns:
        What was done; `report.stopped` says why, where rows are left.

    Raises:
        ConfigError: The tables, the key and the columns do not fit together. Nothing was asked.
        JobFailedError: Answers could not be merged, or another run has taken over. They are kept for the next run.
    """
    limits = Limits(chunk_rows, budget, max_failure_rate)
    job = job_of(
        spark,
        key,
        columns,
        limits,
        prices,
        retry_errors=retry_errors,
        progress=progress,
        on_missing=on_missing,
        format=format,
    )
    place = Table.named(spark, "target=", target)
    rows = rows_of(spark, source)
    table = Table.named(spark, "source=", source) if isinstance(source, str) else None
    runs = None if runs_table is None else Runs(spark, runs_table, format)
    report = job.run(rows, place, table)
    if runs is not None:
        runs.append(report)
    return report


def enrich_stream(  # noqa: PLR0917 -- each of them is needed
    spark: SparkSession,
    source: str | DataFrame,
    target: str,
    key: str | Sequence[str],
    columns: Mapping[str, Column],
    checkpoint: str,
    *,
    trigger: Mapping[str, Any] = _NOW,
    chunk_rows: int = 5_000,
    retry_errors: bool = True,
    max_failure_rate: float | None = None,
    prices: _prices.Prices | None = None,
    progress: bool = False,
    runs_table: str | None = None,
    format: str | None = None,  # noqa: A002 -- Spark's own word for it
) -> "StreamingQuery":
    """Fill columns of a table from an endpoint as rows arrive, asking only what was not asked before.

    >>> query = enrich_stream(
    ...     spark,
    ...     source="reviews",
    ...     target="reviews_enriched",
    ...     key="review_id",
    ...     columns={"summary": chat("review")},
    ...     checkpoint="/data/checkpoints/reviews",
    ... )
    >>> query.awaitTermination()

    Each micro-batch is a run as `enrich_table` makes one, with its rules and its report. A batch that is replayed after
    a kill asks only what was not answered. Where a batch has a key more than once the query fails: a stream of changes
    has to be brought to one row a key first. A batch whose run stops early (`max_failure_rate`, an endpoint that is not
    there) fails the query too, so that the checkpoint does not pass over rows that were not asked.

    Args:
        spark: The session.
        source: A table's name as Spark SQL writes it, or a streaming DataFrame.
        target: As in `enrich_table`.
        key: As in `enrich_table`.
        columns: As in `enrich_table`. Name the inputs, as in `chat("review")`: a batch is another DataFrame than the
            stream, and `df["review"]` is not found in it.
        checkpoint: The folder where Spark keeps how far the stream has come.
        trigger: When a batch begins, as `DataStreamWriter.trigger` takes it. The default, `{"availableNow": True}`,
            ends when all that was there is done; `{"processingTime": "1 minute"}` goes on.
        chunk_rows: As in `enrich_table`.
        retry_errors: As in `enrich_table`, for rows that are in the batch again.
        max_failure_rate: As in `enrich_table`.
        prices: As in `enrich_table`, for the reports.
        progress: As in `enrich_table`.
        runs_table: As in `enrich_table`; each batch appends a report.
        format: The format of a target that is missing; the default is that of its catalog, in Spark's own Delta.

    Returns:
        The query, started.

    Raises:
        ConfigError: The arguments do not fit together.
    """
    limits = Limits(chunk_rows, None, max_failure_rate)
    job = job_of(
        spark,
        key,
        columns,
        limits,
        prices,
        retry_errors=retry_errors,
        progress=progress,
        format=format,
    )
    place = Table.named(spark, "target=", target)
    runs = None if runs_table is None else Runs(spark, runs_table, format).name
    rows = Table.named(spark, "source=", source).stream() if isinstance(source, str) else source
    if not isinstance(rows, DataFrame) or not rows.isStreaming:
        raise ConfigError(
            f"source={source!r} is no stream.", "pass spark.readStream…, or a table's name; or use enrich_table."
        )
    if not isinstance(checkpoint, str) or not checkpoint.strip():
        raise ConfigError(f"checkpoint={checkpoint!r} is no folder.", "name one that all runs of this stream share.")
    of_source(rows, job.key, job.calls)  # its checks
    writer = rows.writeStream.option("checkpointLocation", checkpoint).trigger(**trigger)
    query: StreamingQuery = writer.foreachBatch(_Batch(job, place.parts, runs)).start()
    return query


class _Batch:
    """What is done with a micro-batch; it travels to the server where that runs it."""

    def __init__(self, job: Job, target: tuple[str, ...], runs: str | None) -> None:
        self._job, self._target, self._runs = job, target, runs

    def __call__(self, batch: DataFrame, _: int) -> None:
        spark = batch.sparkSession
        report = self._job.run(batch, Table(spark, self._target))
        if self._runs is not None:
            Runs(spark, self._runs).append(report)
        if report.stopped is not None:
            why, hint = report.stopped.partition(HINT)[::2]
            raise JobFailedError(why, hint)


def job_of(
    spark: SparkSession,
    key: str | Sequence[str],
    columns: Mapping[str, Column],
    limits: Limits,
    prices: _prices.Prices | None,
    *,
    retry_errors: bool,
    progress: bool,
    on_missing: Literal["keep", "delete"] = "keep",
    format: str | None = None,  # noqa: A002 -- as in `enrich_table`
) -> Job:
    """Return the job that these arguments describe; raises `ConfigError` for what can be wrong without a table."""
    keys = [key] if isinstance(key, str) else list(key) if isinstance(key, Sequence) else []
    if not keys:
        raise ConfigError(f"key={key!r} names no column.", 'write key="id", or key=["region", "id"].')
    if on_missing not in ("keep", "delete"):
        raise ConfigError(f"on_missing={on_missing!r} is neither 'keep' nor 'delete'.", "leave it out for 'keep'.")
    if not isinstance(columns, Mapping) or not columns:
        raise ConfigError(f"columns={columns!r} asks nothing.", 'write columns={"summary": chat("review")}.')
    check_format(format)
    calls = {name: _call(name, column) for name, column in columns.items()}
    names = tuple(parse_column_name("key=", each) for each in keys)
    check_names(names, calls, same_of(spark))
    return Job(
        names,
        calls,
        limits,
        _prices.parse_prices(prices, list(calls), limits.budget),
        retry_errors=retry_errors,
        on_missing=on_missing,
        progress=progress,
        format=format,
    )


def _call(name: str, column: object) -> Call:
    check_new_column(name)
    call = call_of(column) if isinstance(column, Column) else None
    if call is None or not isinstance(call.udf.returnType, StructType):
        raise ConfigError(
            f"columns[{name!r}] is not the direct result of one of this library's UDFs.",
            'write it as chat("review"), llm_classify("review", […], chat=…): without .text, .alias or a function'
            " around it; what comes before goes inside, chat(F.trim('review')), and what comes after is read from the"
            " target.",
        )
    if any(recipe.policy.on_error == "raise" for recipe in request_specs(call.udf.plan())):
        raise ConfigError(
            f'columns[{name!r}] has Policy(on_error="raise"), which would lose the answers of a whole chunk.',
            "leave it out: errors are kept in their rows, and max_failure_rate= stops a run.",
        )
    return call


def rows_of(spark: SparkSession, source: str | DataFrame) -> DataFrame:
    """Return the source's rows; raises `ConfigError` for what is no table, and for a stream."""
    if isinstance(source, str):
        return Table.named(spark, "source=", source).must_read()
    if not isinstance(source, DataFrame):
        raise ConfigError(f"source={source!r} is no table.", "pass a table's name, or a DataFrame.")
    if source.isStreaming:
        raise ConfigError("source= is a stream.", "use enrich_stream, which takes a checkpoint too.")
    return source
