"""One run over a table: what there is to do is written down, asked chunk by chunk, and merged.

The order of things is what makes it cheap when a run is killed, or fails. Answers are written down before they are
merged, so a MERGE that Spark evaluates twice asks nothing, and one that fails loses nothing: the next run merges them.
What was merged has its fingerprint beside it, so the next run does not ask it again. Whatever ends a run costs the
requests of one chunk at most.
"""

import logging
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from typing import Literal, NamedTuple

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType
from pyspark.sql.utils import is_remote

from spark_llm.enrich.ask_chunk import ChunkResult, ChunkRunner
from spark_llm.enrich.changes import Asking, Layout, pending_rows
from spark_llm.enrich.estimation.row_cost import cost_of_a_row
from spark_llm.enrich.lease import Lease
from spark_llm.enrich.merge import fitting, merge
from spark_llm.enrich.multi_udf import LiveReporting
from spark_llm.enrich.progress.bar import Progress
from spark_llm.enrich.report import EnrichReport
from spark_llm.enrich.staging import Staging
from spark_llm.enrich.table import Table, persistently, said, same_of
from spark_llm.enrich.validate import checked, make, of_source, widen
from spark_llm.enrich.work_table import WorkTable
from spark_llm.errors import JobFailedError
from spark_llm.livecounts.counts import LiveCounts, local_address_for
from spark_llm.metering.chunking import ChunkPlanner, Limits
from spark_llm.metering.prices import Price, total_cost
from spark_llm.protocol.identifiers import quoted
from spark_llm.udf.lazy_udf import Call

_ASKED = "NOT held"  # a row that is held was not asked, so it waits for the next run as it is

_logger = logging.getLogger("spark_llm.enrich")


class _Place(NamedTuple):
    """Where a run works."""

    spark: SparkSession
    target: Table
    beside: Staging
    lease: Lease

    def merge(self, statement: str, afresh: str, then: str) -> None:
        """Run a MERGE, as long as the lease is held, and after a conflict with another writer `afresh`.

        Raises `JobFailedError` where it fails; `then` says what to do before the next run.
        """

        def act(attempt: int) -> None:
            self.lease.check()
            self.spark.sql(statement if attempt == 1 else afresh)

        try:
            persistently(act, f"the MERGE into {self.target}")
        except JobFailedError:
            raise
        except Exception as error:  # noqa: BLE001 -- Delta's own errors are of no class of Spark's
            _logger.info("the MERGE into %s failed: %s", self.target, type(error).__name__)
            raise JobFailedError(f"The MERGE into {self.target} failed: {said(error)}.", then) from None  # Java's trace

    def merge_answers(self, answers: str, schema: StructType, *, only_new: bool = False) -> None:
        """Merge answers that were written down; what was new before a conflict need not be so after it."""
        self.merge(
            merge(self.target.name, answers, schema, only_new=only_new, where=_ASKED),
            merge(self.target.name, answers, schema, where=_ASKED),
            f"the answers are kept in {answers}. Mend what the message names and run it again: that merges them, and"
            " asks none of their rows. Only where they can never be merged, drop them.",
        )


@dataclass(frozen=True)
class Job:
    """What a run is to do, whatever the source's rows are; it can travel."""

    key: tuple[str, ...]
    calls: Mapping[str, Call]
    limits: Limits = field(default_factory=Limits)
    prices: Mapping[str, Price] = field(default_factory=dict)
    retry_errors: bool = True
    on_missing: Literal["keep", "delete"] = "keep"
    progress: bool = True
    format: str | None = None

    def run(self, source: DataFrame, target: Table, table: Table | None = None) -> EnrichReport:
        """Ask what there is to ask about the source's rows, and bring it into the target.

        `table` is the source where it is all of a table: it may be the target, and is read again once that is altered.
        """
        began_at, began_s, name = datetime.now(timezone.utc), time.monotonic(), uuid.uuid4().hex[:12]
        spark = source.sparkSession
        layout, asking = of_source(source, self.key, self.calls)
        made = make(target, source.schema, layout, asking, target.formats(self.format, table))
        checked(target, target.must_read().schema, source.schema, layout, asking)
        provider = target.provider()
        beside = Staging(spark, target, provider, name)
        with (
            Lease(spark, beside.lease, provider, name, self._tell) as lease,
            _tidied(beside, lease),
            _interruptible(spark, f"spark_llm {name}"),
        ):
            _logger.info("run %s on %s begins", name, target)
            place = _Place(spark, target, beside, lease)
            target.refresh()  # the last run may have altered and filled it meanwhile
            notes = widen(target, target.must_read().schema, source.schema, layout, asking)
            recovered = _recover(place, merges=not made)
            source = source if table is None else table.must_read()
            there = target.must_read()
            layout = checked(target, there.schema, source.schema, layout, asking)
            known = None if made and there.isEmpty() else there
            seen = Observation("spark_llm source")
            counted = source.observe(seen, F.count(F.lit(1)).alias("rows"))
            work = WorkTable(beside, self._to_do(counted, known, layout, asking))
            _logger.info("run %s: %d rows to ask, %d to write unasked", name, work.to_ask, work.quiet)
            if work.quiet:
                any_asked = " OR ".join(f"asks.{quoted((column,))}" for column in self.calls)
                unasked = merge(target.name, beside.named("work"), work.schema, where=f"NOT ({any_asked})")
                place.merge(unasked, unasked, "nothing was asked yet. Mend what the message names, and run it again.")
            guess = cost_of_a_row(asking, work.bytes / max(1, work.to_ask), self.prices)
            chunks = ChunkPlanner(work.to_ask, self.limits, guess, began_s)
            total = self._ask(place, work, chunks, asking)
        _logger.info("run %s ends: %d rows asked, %d answered, %d left", name, total.asked, total.answered, chunks.left)
        return EnrichReport(
            run=name,
            target=str(target),
            started_at=began_at,
            seconds=time.monotonic() - began_s,
            rows=_rows(seen, work),
            asked=total.asked,
            answered=total.answered,
            left=chunks.left,
            recovered=recovered,
            deleted=work.gone,
            columns=total.columns,
            usd=total_cost(self.prices, total.columns),
            stopped=chunks.stopped,
            notes=notes,
        )

    def waiting(self, source: DataFrame, target: Table) -> tuple[DataFrame, list[Asking]]:
        """Return the rows with something to do, as `changes.to_do` has them, and what is asked of them."""
        layout, asking = of_source(source, self.key, self.calls)
        there = target.read()
        if there is not None:
            layout = checked(target, there.schema, source.schema, layout, asking)
        return self._to_do(source, there, layout, asking), asking

    def _to_do(
        self, source: DataFrame, target: DataFrame | None, layout: Layout, asking: Sequence[Asking]
    ) -> DataFrame:
        delete = self.on_missing == "delete"
        return pending_rows(source, target, layout, asking, retry_errors=self.retry_errors, delete_missing=delete)

    def _ask(self, place: _Place, work: WorkTable, chunks: ChunkPlanner, asking: Sequence[Asking]) -> ChunkResult:
        """Ask chunk by chunk, and merge the answers of each; return what they all came to."""
        spark, _, beside, lease = place
        total = ChunkResult.of_nothing(self.calls)
        if not work.to_ask:
            return total
        asker = ChunkRunner.of(spark, asking, self.limits.max_failure_rate)
        with (
            LiveCounts(_driver_host(spark) if self.progress else "") as live,
            Progress(work.to_ask, live, partial(total_cost, self.prices), enabled=self.progress) as progress,
        ):
            number = 0
            while size := chunks.next(time.monotonic()):
                lease.check()
                number += 1
                _logger.info("chunk %d: %d rows are asked", number, size)
                live.begin(number)
                reported = None if live.address is None else LiveReporting(live.address, number)
                answers = beside.write("answers", asker.answers(work.take(size), reported))
                counted = asker.counted(answers)
                progress.finish_chunk(size, counted.columns)
                _logger.info("chunk %d: %d of %d rows answered", number, counted.answered, counted.asked)
                place.merge_answers(beside.named("answers"), answers.schema, only_new=counted.only_new)
                _logger.info("chunk %d: merged", number)
                usd = total_cost(self.prices, counted.columns)
                chunks.done(size, counted.columns, usd, time.monotonic(), counted.trouble)
                total = total.plus(counted)
        return total

    def _tell(self, text: str) -> None:
        if self.progress:
            with suppress(Exception):  # there may be no standard error
                sys.stderr.write(f"spark_llm: {text}\n")


def _driver_host(spark: SparkSession) -> str:
    """Return where workers find this process: the driver's address, or this client's on its way to the server."""
    return local_address_for(spark.client.host) if is_remote() else spark.conf.get("spark.driver.host") or ""


def _rows(seen: Observation, work: WorkTable) -> int | None:
    """Return how many rows the source had; None where Spark does not say.

    Where the work was written and nothing was observed, Spark had planned an empty source away.
    """
    try:
        metrics = seen.get
    except Exception as error:  # noqa: BLE001 -- a report without a number is better than none
        if "PythonSQLUtils.toPyRow" not in str(error):  # there classic Spark stumbles over no metrics
            return None
        metrics = {}
    nothing = 0 if work.to_ask == 0 and work.quiet == work.gone else None
    return metrics.get("rows", nothing)


@contextmanager
def _tidied(beside: Staging, lease: Lease) -> Iterator[None]:
    """Remove at the end of the block what was written beside the target, and after an error all but answers.

    What fails here hides no error of the block, and fails no run: the next run removes what is left. After Ctrl-C that
    is all of it, because each step may have to wait for cores.
    """
    try:
        yield
    except Exception:
        with suppress(Exception):  # the session may be dead
            if lease.is_held():
                beside.keep_answers()
        raise
    try:
        lease.check()
        beside.clear()
    except Exception as error:  # noqa: BLE001 -- as said above
        _logger.warning("What the run wrote beside its target is not removed (%s).", type(error).__name__)


@contextmanager
def _interruptible(spark: SparkSession, tag: str) -> Iterator[None]:
    """Cancel at Ctrl-C what Spark still does for the block; else it goes on asking, as PySpark only stops waiting.

    On Connect that is what has the tag. Classic Spark no longer knows the tag when the thread's way to Java was cut, so
    it is all of the session, as PySpark itself means it to be. It finds no job that makes a Delta table, because what
    such a job runs first takes the session's tag away; before Spark 4.0 it finds none. Those go on to their end, and
    the next run merges what they wrote.
    """
    if is_remote():
        spark.addTag(tag)
    try:
        yield
    except KeyboardInterrupt:
        _logger.info("Ctrl-C: what Spark does for the run is cancelled")
        with suppress(Exception):
            _ = spark.interruptTag(tag) if is_remote() else spark.interruptAll()
        raise
    finally:
        if is_remote():
            spark.removeTag(tag)


def _recover(place: _Place, *, merges: bool) -> int:
    """Merge what earlier runs had asked when they failed or died, and clear it; return how many rows that are.

    Without `merges` it is only cleared: a target that was made anew begins empty.
    """
    left, total = place.beside.left(), 0
    there, same = place.target.must_read().schema, same_of(place.spark)
    for each in left if merges else []:
        answers = each.read("answers")
        rows = 0 if answers is None else answers.where(_ASKED).count()
        schema = fitting(answers.schema, there, same) if answers is not None and rows else None
        if schema is not None:
            place.merge_answers(each.named("answers"), schema)
            _logger.info("%d rows of an earlier run are merged", rows)
            total += rows
        elif rows:
            _logger.warning(
                "%d rows of an earlier run have no columns in %s any more, and are dropped", rows, place.target
            )
    for each in left:
        each.clear()
    return total
