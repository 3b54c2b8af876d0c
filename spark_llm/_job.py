"""One run over a table: what there is to do is written down, asked chunk by chunk, and merged.

The order of things is what makes a run cheap to kill. Answers are written down before they are merged, so a MERGE that
Spark evaluates twice asks nothing, and the next run merges what this one had written down. What was merged has its
fingerprint beside it, so the next run does not ask it again. A kill costs the requests of one chunk at most.
"""

import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from typing import Literal, NamedTuple

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.utils import is_remote

from spark_llm._answers import Asker, Counted
from spark_llm._bar import Progress
from spark_llm._beside import Beside
from spark_llm._chunks import Chunks, Limits
from spark_llm._fit import checked, make, of_source, widen
from spark_llm._guess import cost_of_a_row
from spark_llm._lease import Lease
from spark_llm._live import LiveCounts, own_address_towards
from spark_llm._merge import merge
from spark_llm._names import quoted
from spark_llm._prices import Price, cost
from spark_llm._side_by_side import Live
from spark_llm._table import Table
from spark_llm._vectorised import Call
from spark_llm._work import Asking, Layout, to_do
from spark_llm._written import Work
from spark_llm.enrich_report import EnrichReport

_ASKED = "NOT held"  # a row that is held was not asked, so it waits for the next run as it is


class _Place(NamedTuple):
    """Where a run works."""

    spark: SparkSession
    target: Table
    beside: Beside
    lease: Lease


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
        beside = Beside(spark, target, provider)
        with Lease(spark, beside.lease, provider, name, self._tell) as lease, ExitStack() as stack:
            target.refresh()  # the last run may have altered and filled it meanwhile
            notes = widen(target, target.must_read().schema, source.schema, layout, asking)
            source = source if table is None else table.must_read()
            recovered = 0 if lease.is_first else _recover(spark, target, beside)
            stack.callback(beside.clear)
            there = target.must_read()
            layout = checked(target, there.schema, source.schema, layout, asking)
            known = None if made and not recovered else there
            seen = Observation("spark_llm source")
            counted = source.observe(seen, F.count(F.lit(1)).alias("rows"))
            work = Work(beside, self._to_do(counted, known, layout, asking))
            if work.quiet:
                any_asked = " OR ".join(f"asks.{quoted((column,))}" for column in self.calls)
                spark.sql(merge(target.name, beside.named("work"), work.schema, where=f"NOT ({any_asked})"))
            guess = cost_of_a_row(asking, work.bytes / max(1, work.to_ask), self.prices)
            chunks = Chunks(work.to_ask, self.limits, guess, began_s)
            total = self._ask(_Place(spark, target, beside, lease), work, chunks, asking)
        return EnrichReport(
            run=name,
            target=str(target),
            started_at=began_at,
            seconds=time.monotonic() - began_s,
            rows=_rows(seen),
            asked=total.asked,
            answered=total.answered,
            left=chunks.left,
            recovered=recovered,
            deleted=work.gone,
            columns=total.columns,
            usd=cost(self.prices, total.columns),
            stopped=chunks.stopped,
            notes=notes,
        )

    def waiting(self, source: DataFrame, target: Table) -> tuple[DataFrame, list[Asking]]:
        """Return the rows for which there is something to do, as `_work.to_do` has them, and what is asked of them."""
        layout, asking = of_source(source, self.key, self.calls)
        there = target.read()
        if there is not None:
            layout = checked(target, there.schema, source.schema, layout, asking)
        return self._to_do(source, there, layout, asking), asking

    def _to_do(
        self, source: DataFrame, target: DataFrame | None, layout: Layout, asking: Sequence[Asking]
    ) -> DataFrame:
        delete = self.on_missing == "delete"
        return to_do(source, target, layout, asking, retry_errors=self.retry_errors, delete_missing=delete)

    def _ask(self, place: _Place, work: Work, chunks: Chunks, asking: Sequence[Asking]) -> Counted:
        """Ask chunk by chunk, and merge the answers of each; return what they all came to."""
        spark, target, beside, lease = place
        total = Counted.of_nothing(self.calls)
        if not work.to_ask:
            return total
        asker = Asker.of(spark, asking, self.limits.max_failure_rate)
        with (
            LiveCounts(_driver_host(spark)) as live,
            Progress(work.to_ask, live, partial(cost, self.prices), enabled=self.progress) as progress,
        ):
            number = 0
            while size := chunks.next(time.monotonic()):
                lease.check()
                number += 1
                live.begin(number)
                reported = None if live.address is None else Live(live.address, number)
                answers = beside.write("answers", asker.answers(work.take(size), reported))
                counted = asker.counted(answers)
                progress.settled(size, counted.columns)
                new = counted.only_new
                spark.sql(merge(target.name, beside.named("answers"), answers.schema, only_new=new, where=_ASKED))
                usd = cost(self.prices, counted.columns)
                chunks.done(size, counted.columns, usd, time.monotonic(), counted.trouble)
                total = total.plus(counted)
        return total

    def _tell(self, text: str) -> None:
        if self.progress:
            with suppress(Exception):  # there may be no standard error
                sys.stderr.write(f"spark_llm: {text}\n")


def _driver_host(spark: SparkSession) -> str:
    """Return where workers find this process: the driver's address, or this client's on its way to the server."""
    return own_address_towards(spark.client.host) if is_remote() else spark.conf.get("spark.driver.host") or ""


def _rows(seen: Observation) -> int:
    """Return how many rows the source had."""
    try:
        return int(seen.get["rows"])
    except Exception:  # noqa: BLE001 -- a source that is empty by its nature is planned away, and nothing is observed
        return 0


def _recover(spark: SparkSession, target: Table, beside: Beside) -> int:
    """Merge what a run wrote down before it died; return how many rows that are."""
    answers = beside.read("answers")
    if answers is None:
        return 0
    rows = answers.where(_ASKED).count()
    if rows:
        spark.sql(merge(target.name, beside.named("answers"), answers.schema, where=_ASKED))
    return rows
