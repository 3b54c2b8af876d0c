"""Collects the replies of batches that have ended: Spark tasks download them, each its own files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_llm.batches.client import BatchClient
from spark_llm.batches.download import downloaded_lines
from spark_llm.batches.settings import Batch
from spark_llm.endpoint.route import Route
from spark_llm.enrich.batch_jobs.ledger import SCHEMA, File, Ledger
from spark_llm.errors import HINT
from spark_llm.metering.chunking import RUN_AGAIN
from spark_llm.protocol.batches.lines import EXPIRED, LEFT_OUT, reply_lines, replyless_line, unanswered_line
from spark_llm.protocol.batches.objects import BatchProblem, BatchState
from spark_llm.udf.spark_types import arrow_type

_ROWS = 2_000  # of a record batch, which may hold vectors of 10 KB each
_TASKS_SCHEMA = "key string, column string, file_id string, content_id string, status string"
_CODES = {"expired": EXPIRED, "completed": LEFT_OUT}  # of requests that such a batch has no reply to

Batches = Iterator[pa.RecordBatch]
_Event = tuple[str, str, str, str, str, int | None, str]  # of a ledger, as a row


class Ended(NamedTuple):
    """A file of requests whose batch has ended."""

    file: File
    state: BatchState


@dataclass(frozen=True)
class Collector:
    """Brings the replies of batches into a ledger."""

    spark: SparkSession
    ledger: Ledger
    routes: Mapping[str, Route]  # by column
    settings: Batch

    def collect(self, ended: Sequence[Ended]) -> set[str]:
        """Append the replies of these batches, and that they have ended.

        A request without a reply gets one here where its batch expired or completed: it counts as a try, so it is not
        bought without end. That of a batch that was cancelled or refused is sent again as if it had never been.

        Return the keys of the files that have none of the lines for which their batch was refused.
        """
        refused = self._refused(ended)
        replies = self._replies(ended)
        if refused:
            replies = replies.unionByName(self.spark.createDataFrame(refused, SCHEMA))
        files = {each.file.key: each.file for each in ended}
        ends = self.ledger.ends({each.file.key: each.state.status for each in ended}, files)
        codes = {file.key: _CODES[state.status] for file, state in ended if state.status in _CODES}
        if codes:
            self.ledger.append(replies)
            self.ledger.append(self._replyless(codes).unionByName(ends))
        else:
            self.ledger.append(replies.unionByName(ends))
        return {file.key for file, state in ended if _by_line(state)}.difference(key for _, _, key, *_ in refused)

    def _replies(self, ended: Sequence[Ended]) -> DataFrame:
        tasks = [
            (each.file.key, each.file.column, each.file.file_id, content_id, each.state.status)
            for each in ended
            for content_id in (each.state.output_file_id, each.state.error_file_id)
            if content_id is not None
        ]
        rows = self.spark.createDataFrame(tasks, _TASKS_SCHEMA).repartition(max(1, len(tasks)))
        return rows.mapInArrow(_Download(dict(self.routes), self.settings), SCHEMA)

    def _refused(self, ended: Sequence[Ended]) -> list[_Event]:
        """Return replies to the lines for which a batch was refused as a whole; the other lines are sent again."""
        events = list[_Event]()
        for file, state in ended:
            numbers = _by_line(state)
            if not numbers:
                continue
            wanted = (
                self.ledger.events("line", [file.key])
                .where(F.col("number").isin(list(numbers)))
                .select("custom_id", "number")
                .collect()
            )
            for custom_id, number in wanted:
                text = unanswered_line(custom_id, *numbers[number][:2]).decode()
                events.append(("reply", file.column, file.key, file.file_id, custom_id, None, text))
        return events

    def _replyless(self, codes: Mapping[str, str]) -> DataFrame:
        """Return replies to the requests that have none, with the code for their file: a server may leave them out."""
        lines, replies = (self.ledger.events(kind, list(codes)) for kind in ("line", "reply"))
        expired = [key for key, code in codes.items() if code == EXPIRED]
        text = F.when(F.col("key").isin(expired), _replyless_text(EXPIRED)).otherwise(_replyless_text(LEFT_OUT))
        missing = lines.join(replies.select("custom_id"), "custom_id", "left_anti")
        own = {"kind": F.lit("reply"), "number": F.lit(None).cast("int"), "text": text}
        return missing.select(*(own.get(name, F.col(name)).alias(name) for name in SCHEMA.names))


def _replyless_text(code: str) -> Column:
    """Return the line of a request without a reply, by its `custom_id`, which has nothing that JSON escapes."""
    before, after = replyless_line("ID", code).decode().split("ID")
    return F.concat(F.lit(before), F.col("custom_id"), F.lit(after))


def stop_reason(ended: Ended, *, is_baseless: bool) -> str | None:
    """Return why the run stops after this batch, with a hint; None where it goes on.

    Args:
        ended: The batch.
        is_baseless: Whether it was refused for lines of which its file has none.
    """
    state = ended.state
    if state.status == "cancelled":
        return f"batch {state.id} was cancelled.{HINT}run it again for the rest: {RUN_AGAIN}"
    problems = [problem for problem in state.problems if problem.line is None or is_baseless]
    if state.status != "failed" or (state.problems and not problems):
        return None
    reason = "; ".join(map(str, problems[:3])) or "without a reason"
    reason += ", which its file does not have" if is_baseless else ""
    return f"the provider refused batch {state.id} ({reason}).{HINT}fix that, and run it again."


def _by_line(state: BatchState) -> dict[int, BatchProblem]:
    """Return why a batch was refused, by the number of the line that it names."""
    return {problem.line: problem for problem in state.problems if problem.line is not None}


@dataclass(frozen=True)
class _Download:
    """The function of the tasks; it is pickled."""

    routes: Mapping[str, Route]
    settings: Batch

    def __call__(self, batches: Batches) -> Batches:
        schema = pa.schema(list(arrow_type(SCHEMA)))
        for batch in batches:
            for task in batch.to_pylist():
                client = BatchClient(self.routes[task["column"]], self.settings)
                yield from _record_batches(task, downloaded_lines(client, [task["content_id"]]), schema)


def _record_batches(task: Mapping[str, str], lines: Iterator[bytes], schema: pa.Schema) -> Batches:
    """Yield the replies among the lines of a file, as events."""
    found: list[tuple[str, str]] = []

    def events() -> pa.RecordBatch:
        count = len(found)
        same = {"kind": "reply", "column": task["column"], "key": task["key"], "file_id": task["file_id"]}
        columns = {
            **{name: [value] * count for name, value in same.items()},
            "custom_id": [custom_id for custom_id, _ in found],
            "number": [None] * count,
            "text": [text for _, text in found],
        }
        return pa.RecordBatch.from_pydict(columns, schema)

    for line in reply_lines(lines, _CODES.get(task["status"])):
        found.append(line)
        if len(found) == _ROWS:
            yield events()
            found.clear()
    if found:
        yield events()
