"""Collects the replies of batches that have ended: Spark tasks download them, each its own files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_llm.batches.client import BatchClient
from spark_llm.batches.download import downloaded_lines
from spark_llm.batches.settings import Batch
from spark_llm.endpoint.route import Route
from spark_llm.enrich.batch_jobs.ledger import SCHEMA, File, Ledger
from spark_llm.protocol.batches.lines import expired_line, read_line, unanswered_line
from spark_llm.protocol.batches.objects import BatchState
from spark_llm.udf.spark_types import arrow_type

_ROWS = 2_000  # of a record batch, which may hold vectors of 10 KB each
_TASKS_SCHEMA = "key string, column string, file_id string, content_id string"

Batches = Iterator[pa.RecordBatch]


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

    def collect(self, ended: Sequence[Ended]) -> None:
        """Append the replies of these batches, and that they have ended.

        A request that its batch has no reply to is sent again: it gets no reply here, but for one that has expired.
        """
        replies = self._replies(ended)
        late = {each.file.key for each in ended if each.state.status == "expired"}
        ends = {each.file.key: each.state.status for each in ended}
        files = {each.file.key: each.file for each in ended}
        if late:
            self.ledger.append(replies)
            self.ledger.append(self._expired(sorted(late)))
            self.ledger.append(self.ledger.ends(ends, files))
        else:
            self.ledger.append(replies.unionByName(self.ledger.ends(ends, files)))

    def _replies(self, ended: Sequence[Ended]) -> DataFrame:
        tasks = [
            (each.file.key, each.file.column, each.file.file_id, content_id)
            for each in ended
            for content_id in (each.state.output_file_id, each.state.error_file_id)
            if content_id is not None
        ]
        rows = self.spark.createDataFrame(tasks, _TASKS_SCHEMA).repartition(max(1, len(tasks)))
        downloaded = rows.mapInArrow(_Download(dict(self.routes), self.settings), SCHEMA)
        invalid = self._invalid(ended)
        return downloaded if invalid is None else downloaded.unionByName(invalid)

    def _invalid(self, ended: Sequence[Ended]) -> DataFrame | None:
        """Return replies to the lines for which a batch was refused as a whole; the other lines are sent again."""
        events = []
        for file, state in ended:
            numbers = {error.line: error for error in state.problems if error.line is not None}
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
        return self.spark.createDataFrame(events, SCHEMA) if events else None

    def _expired(self, keys: Sequence[str]) -> DataFrame:
        """Return replies to the requests of expired batches that have none: the server may leave them out."""
        lines, replies = self.ledger.events("line", keys), self.ledger.events("reply", keys)
        text = expired_line("").decode()
        missing = lines.join(replies.select("custom_id"), "custom_id", "left_anti")
        return missing.select(
            *(
                {"kind": F.lit("reply"), "number": F.lit(None).cast("int"), "text": F.lit(text)}.get(
                    name, F.col(name)
                ).alias(name)
                for name in SCHEMA.names
            )
        )


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

    for line in lines:
        text = line.decode("utf-8", "replace")
        if (reply := read_line(text)) is not None:
            found.append((reply.custom_id, text))
        if len(found) == _ROWS:
            yield events()
            found.clear()
    if found:
        yield events()
