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
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from typing import Literal, NamedTuple

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql.types import StructType

from spark_llm.batches.settings import Batch
from spark_llm.coordination.allotment_datagrams import answer_to_need
from spark_llm.coordination.allotter import Allotter
from spark_llm.endpoint.attribution import Attribution
from spark_llm.engine.request_spec import RequestSpec, request_specs
from spark_llm.enrich.ask_chunk import AskResult, ChunkResult, ChunkRunner
from spark_llm.enrich.batch_jobs.history import check_none_collected, forget_merged
from spark_llm.enrich.batch_jobs.ledger import Ledger, check_none_out
from spark_llm.enrich.batch_jobs.run import BatchRun
from spark_llm.enrich.changes import pending_rows
from spark_llm.enrich.column_types import same_of
from spark_llm.enrich.estimation.row_cost import row_cost
from spark_llm.enrich.lease import Lease
from spark_llm.enrich.merge import Merger
from spark_llm.enrich.multi_udf import LiveReporting
from spark_llm.enrich.plan import RunPlan, plan_run
from spark_llm.enrich.recovery import cleaned_up, interruptible, recover
from spark_llm.enrich.report import EnrichReport, limits_text
from spark_llm.enrich.source import Source, input_types
from spark_llm.enrich.staging import Staging, lease_table, ledger_table
from spark_llm.enrich.table import Table, apply_plan
from spark_llm.enrich.work_table import WorkTable
from spark_llm.livecounts.counts import LiveCounts
from spark_llm.metering.batch_budget import BatchBudget
from spark_llm.metering.chunking import ChunkPlanner, Limits, PerRow
from spark_llm.metering.prices import Price, price_notes, total_cost, total_cost_at_once
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
    sends: bool = True  # in batches; else a run only collects

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
            interruptible(spark, f"spark_llm {name}"),
        ):
            _logger.info("run %s on %s begins", name, target)
            target.refresh()  # the last run may have altered and filled it meanwhile
            tables = self.plan(source, target, early)
            plan, notes = apply_plan(tables.plan, target, formats)
            if plan.added_answers or plan.added_carried or plan.added_inside:
                tables = Tables(source.read(), target.read_existing(), plan)
            staging = Staging(spark, target, target.provider(), name)
            merger = Merger(spark, target, lease, name, tables.target.schema if tables.target else None)
            with cleaned_up(staging, lease, ["answers"] if self.batch is None else ["answers", "work"]):
                abandoned = staging.abandoned()
                ledger = None
                if self.batch is not None or staging.has_ledger():
                    ledger = Ledger(spark, ledger_table(spark, target), staging.provider, self.calls)
                if ledger is not None and self.batch is not None:
                    ledger.append_runs(each.run for each in abandoned)
                elif ledger is not None:
                    check_none_out(ledger, {each.name for each in plan.filled})
                recovered = recover(abandoned, merger, tables.target, target)
                if recovered:
                    tables = Tables(source.read(), target.read_existing(), plan)
                if ledger is not None:
                    forget_merged(ledger, abandoned, tables.target, plan)
                for each in abandoned:
                    each.clear()
                seen = Observation("spark_llm source")
                work = WorkTable(staging, self.pending(tables._replace(plan=plan), seen), plan)
                _logger.info("run %s: %d rows to ask, %d to write unasked", name, work.to_ask, work.unasked)
                if work.unasked:
                    merger.merge_unasked(work.rows, staging.location("work"), work.asked)
                parts = _Parts(spark, plan, work, staging, merger, Attribution(run=name, table=str(target)), telemetry)
                if ledger is None or self.batch is None:
                    check_none_collected(ledger, work.rows, plan)
                    asked = self._ask(parts, started_s)
                else:
                    asked = self._ask_in_batches(parts, self.batch, ledger, started_s)
        total = asked.total
        _logger.info("run %s ends: %d rows asked, %d answered, %d left", name, total.asked, total.answered, asked.left)
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
            left=asked.left,
            asked_and_left=max(0, total.asked + asked.left + asked.out - work.to_ask),
            recovered=recovered,
            deleted=work.deleted,
            columns=total.columns,
            usd=total_cost(self.prices, total.columns),
            stopped=asked.stopped,
            limits=asked.limits,
            notes=(*notes, *price_notes(self.prices, total.columns), *_token_notes(plan), *asked.notes),
            flow=asked.flow,
            out=asked.out,
            out_batches=asked.out_batches,
            out_usd=asked.out_usd,
            usd_at_once=self._cost_at_once(asked),
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

    def _ask(self, parts: "_Parts", started_s: float) -> AskResult:
        """Ask chunk by chunk, and merge the answers of each."""
        spark, plan, work, staging, merger, who, telemetry = parts
        chunks = ChunkPlanner(work.to_ask, self.limits, parts.row_cost(self.prices), started_s)
        total = ChunkResult(0, 0, {name: Tally() for name in self.calls})
        if not work.to_ask:
            return AskResult(total, chunks.left, chunks.stopped)
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
                merger.merge_answers(answers, staging, new_rows=result.new_rows)
                _logger.info("chunk %d: merged", number)
                usd = total_cost(self.prices, result.columns)
                chunks.done(size, result.columns, usd, time.monotonic(), result.stop_errors)
                total = total.plus(result)
        limits = None if allotter is None else limits_text(len(allotter.hosts))
        _logger.info("the limits of the policies: %s", limits or "none")
        return AskResult(total, chunks.left, chunks.stopped, limits, live.job_flow())

    def _ask_in_batches(self, parts: "_Parts", settings: Batch, ledger: Ledger, started_s: float) -> AskResult:
        """Send the rows in batches, and merge the answers as they come."""
        spark, plan, work, staging, merger, who, telemetry = parts
        limits = replace(self.limits, budget=None)  # which is kept before a batch is created
        estimate, at_once = parts.row_cost(self.prices, by_batch=True), parts.row_cost(self.prices)

        def merging(answers: DataFrame, result: ChunkResult) -> None:
            telemetry.finish_chunk(result.columns, partial(operations, answers))
            telemetry.add_failures(result.columns, partial(failed_rows, answers))

        return BatchRun(
            spark,
            plan,
            work,
            staging,
            merger,
            ledger,
            settings,
            ChunkRunner.of(spark, plan, self.limits.max_failure_rate, self.prices, who, settings.then),
            ChunkPlanner(work.to_ask, limits, estimate, started_s),
            BatchBudget(self.limits.budget, estimate),
            self.prices,
            self._notify,
            merging,
            price_ratio=at_once.usd / estimate.usd if at_once.usd and estimate.usd else 1.0,
            sends=self.sends,
        ).run()

    def _cost_at_once(self, asked: AskResult) -> float | None:
        """Return what the answers of a run in batches, and what is out, would have cost as single requests."""
        answered = total_cost_at_once(self.prices, asked.total.columns)
        if self.batch is None or answered is None or (asked.out and asked.out_usd_at_once is None):
            return None
        return answered + (asked.out_usd_at_once or 0.0)

    def _request_specs(self) -> dict[str, Iterator[RequestSpec]]:
        return {name: request_specs(call.udf.plan()) for name, call in self.calls.items()}

    def _notify(self, text: str) -> None:
        if self.progress:
            with suppress(Exception):  # there may be no standard error
                sys.stderr.write(f"spark_llm: {text}\n")


class _Parts(NamedTuple):
    """What a run works with while it asks."""

    spark: SparkSession
    plan: RunPlan
    work: WorkTable
    staging: Staging
    merger: Merger
    who: Attribution
    telemetry: Telemetry

    def row_cost(self, prices: Mapping[str, Price], *, by_batch: bool = False) -> PerRow:
        """Return the highest cost of a row, before any was answered."""
        return row_cost(self.plan, self.work.input_bytes / max(1, self.work.to_ask), prices, by_batch=by_batch)


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
