"""One run over a table: plan, stage, ask, merge, report.

Answers are written down before they are merged. So a MERGE that Spark evaluates twice asks nothing, and one that fails
loses nothing: the next run merges them. A merged answer has its fingerprint beside it, so the next run does not ask it
again. Whatever ends a run, it costs the requests of one chunk at most.
"""

import logging
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from typing import Literal, NamedTuple

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql.types import StructType
from pyspark.sql.utils import is_remote

from spark_llm.batches.settings import Batch
from spark_llm.coordination.allotment_datagrams import answer_to_need
from spark_llm.coordination.allotter import Allotter
from spark_llm.endpoint.attribution import Attribution
from spark_llm.engine.request_spec import RequestSpec, request_specs
from spark_llm.enrich.ask_chunk import ChunkResult, ChunkRunner
from spark_llm.enrich.changes import pending_rows
from spark_llm.enrich.column_types import same_of
from spark_llm.enrich.estimation.row_cost import row_cost
from spark_llm.enrich.lease import Lease
from spark_llm.enrich.merge import Merger, mergeable_schema
from spark_llm.enrich.multi_udf import LiveReporting
from spark_llm.enrich.plan import RunPlan, plan_run
from spark_llm.enrich.report import EnrichReport, limits_text
from spark_llm.enrich.source import Source, input_types
from spark_llm.enrich.staging import Staging, lease_table
from spark_llm.enrich.table import Table, apply_plan
from spark_llm.enrich.work_table import WorkTable
from spark_llm.livecounts.counts import LiveCounts
from spark_llm.livecounts.flows import JobFlow
from spark_llm.metering.chunking import ChunkPlanner, Limits
from spark_llm.metering.prices import Price, price_notes, total_cost
from spark_llm.metering.tally import Tally
from spark_llm.monitoring.bar import Progress
from spark_llm.monitoring.driver_address import driver_host
from spark_llm.monitoring.telemetry.conventions import RUN, TABLE
from spark_llm.monitoring.telemetry.exporter import Telemetry
from spark_llm.monitoring.telemetry.written_answers import failed_rows, operations
from spark_llm.udf.lazy_udf import Call
from spark_llm.usage.observed import observed_values

_logger = logging.getLogger("spark_llm.enrich")


class Tables(NamedTuple):
    """The rows of source and target, and the plan that fits them; `target` is None where the table is missing."""

    source: DataFrame
    target: DataFrame | None
    plan: RunPlan


@dataclass(frozen=True)
class Job:
    """Everything that a run depends on, but for the session and the source. It is pickled for streams."""

    target: tuple[str, ...]
    key: tuple[str, ...]
    calls: Mapping[str, Call]
    limits: Limits = field(default_factory=Limits)
    prices: Mapping[str, Price] = field(default_factory=dict)
    retry_errors: bool = True
    on_missing: Literal["keep", "delete"] = "keep"
    progress: bool = True
    format: str | None = None
    batch: Batch | None = None

    def run(self, spark: SparkSession, source: Source, name: str | None = None) -> EnrichReport:
        """Ask about the rows of the source that are new or changed, and merge the answers into the target.

        `name` is the run's ID, from `run_id`; without one it gets its own.
        """
        started_at, started_s, name = datetime.now(timezone.utc), time.monotonic(), name or run_id()
        target = Table(spark, self.target)
        early = self.plan(source, target)  # every error of the columns comes before the lease is taken
        formats = self._formats(source, target, early)
        with (
            Telemetry("enrich_table", {RUN: name, TABLE: str(target)}) as telemetry,
            Lease(spark, lease_table(spark, target), formats, name, self._notify) as lease,
            _interruptible(spark, f"spark_llm {name}"),
        ):
            _logger.info("run %s on %s begins", name, target)
            target.refresh()  # the last run may have altered and filled it meanwhile
            tables = self.plan(source, target, early)
            plan, notes = apply_plan(tables.plan, target, formats)
            if plan.added_answers or plan.added_carried or plan.added_usage:
                tables = Tables(source.read(), target.read_existing(), plan)
            staging = Staging(spark, target, target.provider(), name)
            merger = Merger(spark, target, lease, name, tables.target.schema if tables.target else None)
            with _cleaned_up(staging, lease):
                recovered = _recover(staging, merger, tables.target, target)
                if recovered:
                    tables = Tables(source.read(), target.read_existing(), plan)
                seen = Observation("spark_llm source")
                work = WorkTable(staging, self.pending(tables._replace(plan=plan), seen), plan)
                _logger.info("run %s: %d rows to ask, %d to write unasked", name, work.to_ask, work.unasked)
                if work.unasked:
                    merger.merge_unasked(work.rows, staging.location("work"), work.asked)
                guess = row_cost(plan, work.input_bytes / max(1, work.to_ask), self.prices)
                chunks = ChunkPlanner(work.to_ask, self.limits, guess, started_s)
                who = Attribution(run=name, table=str(target))
                total, limits, flow = self._ask(spark, plan, work, chunks, staging, merger, who, telemetry)
        _logger.info("run %s ends: %d rows asked, %d answered, %d left", name, total.asked, total.answered, chunks.left)
        counts = observed_values(seen)
        return EnrichReport(
            run=name,
            target=str(target),
            started_at=started_at,
            seconds=time.monotonic() - started_s,
            rows=_source_rows(counts, work),
            still_failed=(counts or {}).get("still_failed"),
            asked=total.asked,
            answered=total.answered,
            left=chunks.left,
            recovered=recovered,
            deleted=work.deleted,
            columns=total.columns,
            usd=total_cost(self.prices, total.columns),
            stopped=chunks.stopped,
            limits=limits,
            notes=(*notes, *price_notes(self.prices, total.columns), *_token_notes(plan)),
            flow=flow,
        )

    def plan(self, source: Source, target: Table, early: Tables | None = None) -> Tables:
        """Read both tables, and plan; raises `ConfigError` where source, target, key and columns do not fit together.

        `early` is an earlier result; its plan still holds where the schemas are the same.
        """
        rows, known = source.read(), target.read()
        if early is not None and _schemas(rows, known) == _schemas(early.source, early.target):
            return Tables(rows, known, early.plan)
        schema, known_schema = _schemas(rows, known)
        same = same_of(rows.sparkSession)
        types = input_types(rows, self.calls, same)
        return Tables(rows, known, plan_run(schema, known_schema, str(target), self.key, self.calls, types, same))

    def pending(self, tables: Tables, seen: Observation | None = None) -> DataFrame:
        """Return the rows with something to do, and observe the source, as `changes.pending_rows` does."""
        delete = self.on_missing == "delete"
        return pending_rows(*tables, retry_errors=self.retry_errors, delete_missing=delete, seen=seen)

    def _formats(self, source: Source, target: Table, early: Tables) -> list[str | None]:
        """Return the format of the target, or those to create it in, the best first."""
        if early.target is not None:
            return [target.provider()]
        target.check_folder()
        return list(target.formats(self.format, source.table))

    def _ask(  # noqa: PLR0917 -- the parts of a run
        self,
        spark: SparkSession,
        plan: RunPlan,
        work: WorkTable,
        chunks: ChunkPlanner,
        staging: Staging,
        merger: Merger,
        who: Attribution,
        telemetry: Telemetry,
    ) -> tuple[ChunkResult, str | None, JobFlow | None]:
        """Ask chunk by chunk, and merge the answers of each.

        Return the sum of the chunks, who kept the limits, and how the requests went.
        """
        total = ChunkResult(0, 0, {name: Tally() for name in self.calls}, only_new=True)
        if not work.to_ask:
            return total, None, None
        runner = ChunkRunner.of(spark, plan, self.limits.max_failure_rate, self.prices, who)
        reports = self.progress or telemetry.has_metrics
        allotter = Allotter() if runner.has_limits else None
        answer = None if allotter is None else partial(answer_to_need, allotter)
        with (
            LiveCounts(driver_host(spark) if reports or allotter else "", answer) as live,
            Progress(work.to_ask, live, partial(total_cost, self.prices), enabled=self.progress) as progress,
        ):
            telemetry.watch(live, self._request_specs)
            number = 0
            while size := chunks.next(time.monotonic()):
                merger.check_lease()
                number += 1
                _logger.info("chunk %d: %d rows are asked", number, size)
                live.begin(number, self.calls)
                reporting = LiveReporting(live.address, number) if live.address and reports else None
                answers, result = runner.ask(work.take(size), reporting, live.address, staging)
                telemetry.finish_chunk(result.columns, partial(operations, answers))
                progress.finish_chunk(size, result.columns)
                telemetry.add_failures(result.columns, partial(failed_rows, answers))
                _logger.info("chunk %d: %d of %d rows answered", number, result.answered, result.asked)
                merger.merge_answers(answers, staging.location("answers"), only_new=result.only_new)
                _logger.info("chunk %d: merged", number)
                usd = total_cost(self.prices, result.columns)
                chunks.done(size, result.columns, usd, time.monotonic(), result.stop_errors)
                total = total.plus(result)
        limits = None if allotter is None else limits_text(len(allotter.hosts))
        _logger.info("the limits of the policies: %s", limits or "none")
        return total, limits, live.job_flow()

    def _request_specs(self) -> dict[str, Iterator[RequestSpec]]:
        return {name: request_specs(call.udf.plan()) for name, call in self.calls.items()}

    def _notify(self, text: str) -> None:
        if self.progress:
            with suppress(Exception):  # there may be no standard error
                sys.stderr.write(f"spark_llm: {text}\n")


def run_id() -> str:
    """Return the ID of a new run."""
    return uuid.uuid4().hex[:12]


def _schemas(source: DataFrame, target: DataFrame | None) -> tuple[StructType, StructType | None]:
    return source.schema, None if target is None else target.schema


def _token_notes(plan: RunPlan) -> Iterator[str]:
    """Yield a sentence for each column without tokens."""
    for each in plan.filled:
        if "usage" not in each.type.names:
            yield f"{each.name}: its answers report no tokens, so it has neither tokens nor a cost here."


def _source_rows(counts: Mapping[str, int] | None, work: WorkTable) -> int | None:
    """Return how many rows the source had; None where Spark does not report it.

    Where the work was written and nothing was observed, Spark had planned an empty source away.
    """
    if counts is None:
        return None
    empty = 0 if work.to_ask == 0 and work.unasked == work.deleted else None
    return counts.get("rows", empty)


@contextmanager
def _cleaned_up(staging: Staging, lease: Lease) -> Iterator[None]:
    """Remove the staging at the end of the block; after an error keep the answers.

    An error here hides no error of the block, and fails no run: the next run removes the rest. After Ctrl-C that is
    all of it, because each step may have to wait for cores.
    """
    try:
        yield
    except Exception:
        with suppress(Exception):  # the session may be dead
            if lease.is_held():
                staging.keep_answers()
        raise
    try:
        lease.check()
        staging.clear()
    except Exception as error:  # noqa: BLE001 -- see above
        _logger.warning("The staging tables of the run are not removed (%s).", type(error).__name__)


@contextmanager
def _interruptible(spark: SparkSession, tag: str) -> Iterator[None]:
    """Cancel at Ctrl-C the Spark jobs of the block; else they go on asking, because PySpark only stops waiting.

    On Connect those are the jobs with the tag. Classic Spark no longer knows the tag when the thread's way to Java was
    cut, so it cancels all of the session, as PySpark itself means it to be. It finds no job that creates a Delta table,
    because the smaller jobs of such a job take the session's tag away; before Spark 4.0 it finds none. Those go on to
    their end, and the next run merges their answers.
    """
    if is_remote():
        spark.addTag(tag)
    try:
        yield
    except KeyboardInterrupt:
        _logger.info("Ctrl-C: the Spark jobs of the run are cancelled")
        with suppress(Exception):
            _ = spark.interruptTag(tag) if is_remote() else spark.interruptAll()
        raise
    finally:
        if is_remote():
            spark.removeTag(tag)


def _recover(staging: Staging, merger: Merger, known: DataFrame | None, target: Table) -> int:
    """Merge what earlier runs had asked when they failed or died, and remove it; return how many rows that are.

    It is only removed where the target was created just now (`known` is None): a new target begins empty.
    """
    abandoned, total = staging.abandoned(), 0
    for each in abandoned if known is not None else []:
        answers = each.read("answers")
        rows = 0 if answers is None else answers.where("NOT deferred").count()
        if answers is None or known is None or not rows:
            continue
        columns = mergeable_schema(answers.schema, known.schema, same_of(answers.sparkSession))
        if columns is None:
            _logger.warning("%d rows of an earlier run have no columns in %s any more, and are dropped", rows, target)
        else:
            merger.merge_answers(answers, each.location("answers"), columns=columns)
            _logger.info("%d rows of an earlier run are merged", rows)
            total += rows
    for each in abandoned:
        each.clear()
    return total
