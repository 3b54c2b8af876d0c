"""The part of a run that sends its rows in batches: send, create, wait, collect, merge, and again what is left.

Whatever ends it, the ledger and the provider's list of batches have all that the next run needs. A request is paid for
when its batch is created, and before that the ledger says that it is in the file.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_llm.batches.client import BatchClient
from spark_llm.batches.settings import Batch
from spark_llm.enrich.ask_chunk import EARLIER, AskResult, ChunkResult, ChunkRunner, is_one_of
from spark_llm.enrich.batch_jobs.batches import GONE, Batches
from spark_llm.enrich.batch_jobs.collecting import Collector, Ended, stop_reason
from spark_llm.enrich.batch_jobs.history import (
    all_digests,
    rows_out,
    rows_to_send,
    with_again,
    with_digests,
    with_replies,
)
from spark_llm.enrich.batch_jobs.ledger import STAGE_DIGITS, File, Ledger
from spark_llm.enrich.batch_jobs.replayed import batch_spec
from spark_llm.enrich.batch_jobs.sending import Sending, file_tasks, requests_to_send
from spark_llm.enrich.changes import any_of
from spark_llm.enrich.merge import Merger
from spark_llm.enrich.plan import RunPlan
from spark_llm.enrich.spark_errors import worker_errors
from spark_llm.enrich.staging import Staging
from spark_llm.enrich.work_table import WorkTable
from spark_llm.errors import JobFailedError
from spark_llm.metering.batch_budget import BatchBudget, why_left
from spark_llm.metering.budget import Budget
from spark_llm.metering.chunking import FATAL_KINDS, ChunkPlanner
from spark_llm.metering.prices import Price, total_cost
from spark_llm.metering.tally import Tally
from spark_llm.protocol.identifiers import named, quoted, struct
from spark_llm.protocol.urls import masked_url

_MERGE_SHARE = 0.1  # of the time that merges may take while batches are out
_NOTICE_S = 60.0  # between two sentences about the progress
_FIRST_QUOTA_WAIT_S = 60.0

_logger = logging.getLogger("spark_llm.enrich")


@dataclass
class BatchRun:
    """One run over pending rows, in batches.

    Attributes:
        spark: The session.
        plan: The run's plan.
        work: The pending rows.
        staging: The run's tables.
        merger: Merges into the target.
        ledger: The batches of the target.
        settings: The user's.
        runner: Settles rows by the replies to them.
        chunks: Stops the run where a column fails.
        budget: How many rows may still be sent.
        prices: The price of each column; empty without prices.
        notify: Gets a sentence about the progress.
        merging: Gets the answers of each merge, and their numbers, before they are merged.
        price_ratio: The cost of single requests, as a multiple of that of the same in batches.
        sends: Whether requests are sent; else it only collects.
    """

    spark: SparkSession
    plan: RunPlan
    work: WorkTable
    staging: Staging
    merger: Merger
    ledger: Ledger
    settings: Batch
    runner: ChunkRunner
    chunks: ChunkPlanner
    budget: BatchBudget
    prices: Mapping[str, Price]
    notify: Callable[[str], None]
    merging: Callable[[DataFrame, ChunkResult], None]
    price_ratio: float = 1.0
    sends: bool = True
    _stopped: str | None = field(default=None, init=False)
    _limit: str | None = field(default=None, init=False)  # of the budget, which forbade to send some rows
    _failed: int = field(default=0, init=False)  # rows with an error that is not their own
    _stage: int = field(default=0, init=False)
    _part: str = field(default="rest", init=False)  # of the staging tables, which has the rows that are left
    _notice: tuple[float, str] = field(default=(-math.inf, ""), init=False)

    def __post_init__(self) -> None:
        """Begin with all rows that ask something."""
        names = [each.name for each in self.plan.filled]
        self._rows = self.work.rows.where(self.work.asked).withColumn(EARLIER, F.lit(False))
        self._left = self.work.to_ask
        self._total = ChunkResult(0, 0, {name: Tally() for name in names})
        self._specs = {each.name: batch_spec(each.name, each.call.udf) for each in self.plan.filled}
        clients = {name: BatchClient(spec.route, self.settings) for name, spec in self._specs.items()}
        quota_wait_s = min(_FIRST_QUOTA_WAIT_S, self.settings.poll_s)
        self._batches = Batches(self.ledger, clients, self.settings.keep_files, quota_wait_s, self.ledger.files())

    def run(self) -> AskResult:
        """Send the rows, wait as long as the settings say, and merge what was answered."""
        try:
            return self._run()
        except Exception:
            with suppress(Exception):  # the session may be dead
                self.ledger.append_runs([self.staging.run] if self._stage else [])
            raise

    def _run(self) -> AskResult:
        self._batches.adopt()
        self._began_s, merge_at_s = time.monotonic(), -math.inf
        has_replies, may_send = self.ledger.has_replies(), self.sends
        while True:
            self.merger.check_lease()
            if has_replies and self._left and (not self._batches.open or time.monotonic() >= merge_at_s):
                began_s = time.monotonic()
                self._settle()
                ended_s = time.monotonic()
                merge_at_s = ended_s + (ended_s - began_s) * (1 / _MERGE_SHARE - 1)
                has_replies, may_send = False, self.sends
            if may_send and self._left and not self._is_stopped:
                may_send, has_replies = False, self._send() or has_replies
            if any(file.batch_id is None for file in self._batches.open):
                self.merger.check_lease()  # to upload may take long
                self._batches.create()
            ended = self._batches.poll()
            self._report_progress()
            if ended:
                self._collect(ended)
                has_replies = True
            elif self._batches.open:
                if not self._wait():
                    break
            elif not (has_replies and self._left):
                break
        if has_replies and self._left:
            self._settle()
        return self._end()

    # What goes out.

    def _send(self) -> bool:
        """Upload the requests of the rows that need one; return whether some were settled instead."""
        rows = with_digests(self._rows, self.plan)
        if self.budget.budget is not None:
            affordable = self._affordable(rows, self.budget.budget)
            if affordable is None:
                return False
            rows = affordable
        settled = [self._send_column(place, rows) for place, _ in enumerate(self.plan.filled)]
        return any(settled)

    def _send_column(self, place: int, rows: DataFrame) -> bool:
        each = self.plan.filled[place]
        self._batches.clients[each.name].check()
        self._stage = max(self._stage + 1, int(time.time() * 1000))
        stage = f"{self._stage:0{STAGE_DIGITS}x}"
        route, plan = self._specs[each.name].route, each.call.udf.plan()
        sending = Sending(each.name, plan, route, self.settings, f"{self.staging.run}-{stage}", stage)
        requests = requests_to_send(rows, place, each, self.ledger.replies(), self._out)
        events = sending.events(requests, file_tasks(self._left, self.settings, self.runner.tasks))
        _logger.info("column %s: what is not sent yet is uploaded", each.name)
        with worker_errors():
            files, is_unsent = self.ledger.append_sent(events, stage)
        self._batches.add(files)
        return is_unsent

    def _affordable(self, rows: DataFrame, budget: Budget) -> DataFrame | None:
        """Return the rows that may be sent, of which those that this run has sent before come first; None for none."""
        self.budget.out = self._rows_out(self._batches.open_keys)
        sent = self.ledger.sent(self.staging.run) if self._stage and budget.rows is not None else None
        unsent = with_again(rows_to_send(rows, self.plan, self._out), self.plan, sent)
        again = 0 if sent is None else unsent.where("again").count()
        allowed, self._limit = self.budget.affordable(self._left - self.budget.out, again)
        self.budget.sent += max(0, allowed - again)
        if self._limit is None:
            return rows
        return unsent.orderBy(F.desc("again"), "key").limit(allowed).drop("again") if allowed else None

    # What comes back.

    def _collect(self, ended: list[Ended]) -> None:
        self._check_gone([each.file for each in ended if each.state is GONE])
        routes = {name: spec.route for name, spec in self._specs.items()}
        _logger.info("%d batches have ended; their replies are downloaded", len(ended))
        with worker_errors():
            baseless = Collector(self.spark, self.ledger, routes, self.settings).collect(ended)
        self._batches.end(ended)
        for each in ended:
            self._stopped = stop_reason(each, is_baseless=each.file.key in baseless) or self._stopped

    def _check_gone(self, files: Sequence[File]) -> None:
        """Raise `JobFailedError` where rows wait for batches that are not found: to send them again may pay twice."""
        rows = self._rows_out([file.key for file in files]) if files else 0
        if rows:
            batch, place = files[0].batch_id, self._batches.clients[files[0].column].urls.batches
            raise JobFailedError(
                f"Batch {batch} is not found at {masked_url(place)}, and {rows:,} rows wait for it or for others.",
                "run the job with the key, the project and the endpoint that it began with. Only where the batch is"
                f" gone for good, empty the table {self.ledger.name}; the next run sends its requests again.",
            )

    def _settle(self) -> None:
        """Replay the replies, and merge the rows that are settled by them."""
        replies, out = self.ledger.replies(), self._out
        if replies is None:
            return
        _logger.info("the rows with replies are settled")
        if out is not None:
            replies = replies.join(out, "digest", "left_anti")
        rows = with_replies(with_digests(self._rows, self.plan), self.plan, replies)
        answers, result = self.runner.ask(rows, None, None, self.staging)
        columns = {name: replace(tally, cancelled=0) for name, tally in result.columns.items()}
        result = result._replace(columns=columns)
        self.merging(answers, result)
        usd = total_cost(self.prices, columns)
        self.budget.add(result.asked, sum(tally.total_tokens for tally in columns.values()), usd or 0.0)
        if result.asked:
            self.chunks.done(result.asked, columns, usd, time.monotonic(), result.stop_errors)
        self._total = self._total.plus(result)
        self._keep_open_rows(answers, result)
        self.merger.merge_answers(answers, self.staging)  # rows were new when the run began, hours ago
        if self._left:  # else the end of the run removes them
            merged = answers.withColumn("asks", F.col("writes"))
            self.ledger.forget(all_digests(merged, self.plan), self._specs)
        self.staging.remove_merged()
        _logger.info("settled rows are merged; %d rows are left", self._left)

    def _keep_open_rows(self, answers: DataFrame, result: ChunkResult) -> None:
        """Write down the rows that still ask something; an error that is not the row's own waits for the next run."""
        names = [each.name for each in self.plan.filled]
        fatal = {name: is_one_of(quoted("result", name, "error", "kind"), FATAL_KINDS) for name in names}
        if any(tally.failed.get(kind) for tally in result.columns.values() for kind in FATAL_KINDS):
            self._failed += answers.where(any_of(fatal.values())).count()
        elif result.asked == self._left:
            self._rows, self._left = self._rows.limit(0), 0
            return
        settled = {name: f"{quoted('writes', name)} OR {fatal[name]}" for name in names}
        failed = any_of(f"{quoted('writes', name)} AND {quoted('result', name, 'error')} IS NOT NULL" for name in names)
        about = {"settled": struct(settled), "failed": failed}
        done = answers.selectExpr("key", *named(about))
        asks = {name: f"{quoted('asks', name)} AND NOT coalesce({quoted('settled', name)}, false)" for name in names}
        rows = self._rows.join(done, "key", "left").withColumn("asks", F.expr(struct(asks)))
        failed_by_now = F.expr(f"{EARLIER} OR coalesce(failed, false)")
        rows = rows.withColumns({"writes": F.col("asks"), EARLIER: failed_by_now})
        rows = rows.drop(*about)
        rows = rows.where(any_of(quoted("asks", name) for name in names))
        self._part = "rest" if self._part == "left" else "left"
        self._rows, counts = self.staging.write(self._part, rows, {"rows": "count(1)"})
        self._left = int(counts["rows"])

    def _wait(self) -> bool:
        """Wait until the next look at the batches; return whether the run may wait any longer."""
        budget = self.budget.budget
        limits = [self.settings.wait_s, None if budget is None else budget.seconds]
        wait_s = min((limit for limit in limits if limit is not None), default=math.inf)
        left_s = wait_s - (time.monotonic() - self._began_s)
        if left_s <= 0:
            return False
        time.sleep(min(self.settings.poll_s, left_s))
        return True

    def _end(self) -> AskResult:
        """Remove what no later run needs, and return the result."""
        _logger.info("batches are left to later runs: %d; what none of them needs is removed", len(self._batches.open))
        self._batches.remove_collected()
        self._batches.sweep({self.staging.run, *self.ledger.runs()})
        unfinished, out = self._batches.unfinished, self._rows_out(self._batches.open_keys)
        if unfinished or self.ledger.has_replies(beside=() if self._left else self._specs):
            self.ledger.prune([file.key for file in unfinished], all_digests(self._rows, self.plan), self._specs)
        else:
            self.ledger.clear()
        stopped = self._stopped or self.chunks.stopped or why_left(self._left - out, self._limit, sends=self.sends)
        usd = self.budget.row.usd
        out_usd = None if usd is None else out * usd
        at_once = None if out_usd is None else out_usd * self.price_ratio
        left = self._left - out + self._failed
        return AskResult(
            *(self._total, left, stopped),
            out=out,
            out_batches=len(self._batches.open),
            out_usd=out_usd,
            out_usd_at_once=at_once,
            notes=self._batches.notes,
        )

    # Smaller things.

    @property
    def _is_stopped(self) -> bool:
        return self._stopped is not None or self.chunks.stopped is not None

    def _rows_out(self, keys: Sequence[str]) -> int:
        """Return how many rows have requests in these files, which are with the provider."""
        if not keys or not self._left:
            return 0
        rows = with_digests(self._rows, self.plan)
        return rows_out(rows, self.plan, self.ledger.out(keys)).count()

    @property
    def _out(self) -> DataFrame | None:
        return self.ledger.out(self._batches.open_keys)

    def _report_progress(self) -> None:
        text, now_s = self._batches.progress(), time.monotonic()
        if text and text != self._notice[1] and now_s - self._notice[0] >= min(_NOTICE_S, self.settings.poll_s):
            self._notice = now_s, text
            self.notify(text)
