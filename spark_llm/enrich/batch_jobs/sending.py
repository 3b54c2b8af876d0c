"""Sends the requests of a column: Spark tasks write them to files and upload these, each its own."""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_llm.batches.client import BatchClient
from spark_llm.batches.replay import UNSENDABLE
from spark_llm.batches.settings import Batch
from spark_llm.batches.upload import uploaded_files
from spark_llm.endpoint.route import Route
from spark_llm.enrich.batch_jobs.history import digest_name
from spark_llm.enrich.batch_jobs.ledger import SCHEMA
from spark_llm.enrich.batch_jobs.replayed import requests_of
from spark_llm.enrich.changes import argument_name, col
from spark_llm.enrich.column_types import nullable
from spark_llm.enrich.plan import FilledColumn
from spark_llm.protocol.batches.lines import unanswered_line
from spark_llm.protocol.bodies import RequestBody
from spark_llm.udf.plan import Plan
from spark_llm.udf.spark_types import arrow_type

_FILE_ROWS = 2_000  # fewer are not worth a further file
_FULL = 0.9  # of a file, on average: rows are spread by their digest, and a few more make two files of one

Batches = Iterator[pa.RecordBatch]


@dataclass(frozen=True)
class Sending:
    """The requests of one column in one stage: what tasks need to write and upload them.

    Attributes:
        column: The column that they fill.
        plan: What makes requests of rows.
        route: The endpoint.
        settings: The user's.
        name: Of the run and the stage; the names of all files begin with it.
        stage: The last part of each request's id.
    """

    column: str
    plan: Plan
    route: Route
    settings: Batch
    name: str
    stage: str

    def events(self, rows: DataFrame, tasks: int) -> DataFrame:
        """Return a ledger's events: a line for each request sent, a reply for one that no server would take.

        `rows` are those of `requests_to_send`. To read this DataFrame uploads files: they are free, and only those
        that are written to the ledger count.
        """
        return rows.repartition(tasks, "digest").dropDuplicates(["digest"]).mapInArrow(_Upload(self), SCHEMA)


def requests_to_send(
    rows: DataFrame, place: int, each: FilledColumn, replies: DataFrame | None, out: DataFrame | None
) -> DataFrame:
    """Return the distinct requests of a column that are to be sent: `digest`, the arguments, and the history.

    `rows` have digests; requests that are `out` are left out.
    """
    arguments = [
        col(argument_name(place, n)).cast(nullable(kind)).alias(f"a{n}") for n, kind in enumerate(each.argument_types)
    ]
    wanted = rows.where(f"{digest_name(place)} IS NOT NULL").select(
        F.col(digest_name(place)).alias("digest"), *arguments
    )
    if out is not None:
        wanted = wanted.join(out, "digest", "left_anti")
    if replies is not None:
        wanted = wanted.join(replies.select("digest", "replies"), "digest", "left")
    else:
        wanted = wanted.withColumn("replies", F.lit(None).cast("array<string>"))
    return wanted.withColumn("billed", F.lit(True))


def file_tasks(rows: int, settings: Batch, tasks: int) -> int:
    """Return how many tasks write the files of so many rows: as many as run at once, or times that for full files."""
    rounds = math.ceil(rows / (_FULL * settings.max_requests * tasks))
    return max(1, min(rounds * tasks, math.ceil(rows / _FILE_ROWS)))


@dataclass(frozen=True)
class _Upload:
    """The function of the tasks; it is pickled."""

    sending: Sending

    def __call__(self, batches: Batches) -> Batches:
        sending, schema = self.sending, arrow_type(SCHEMA)
        task = TaskContext.get()
        partition = 0 if task is None else task.partitionId()
        client = BatchClient(sending.route, sending.settings)
        unsendable: list[tuple[str, str]] = []

        def requests() -> Iterator[tuple[str, RequestBody]]:
            digests = deque[str]()
            for some in requests_of(sending.plan, _columns(batches, digests)):
                for request in some:
                    custom_id = f"{digests.popleft()}-{sending.stage}"
                    if request is not None and request.body is not None:
                        yield custom_id, request.body
                    else:
                        error = None if request is None else request.error
                        unsendable.append((custom_id, "" if error is None else error.message))

        for file in uploaded_files(client, requests(), f"{sending.name}-{partition}"):
            unsendable.extend(file.too_large)
            same = {"kind": "line", "column": sending.column, "key": file.key, "file_id": file.file_id}
            numbered = enumerate(file.custom_ids, 1)
            yield from _record_batches(
                [{**same, "custom_id": custom_id, "number": number} for number, custom_id in numbered], schema
            )
        same = {"kind": "reply", "column": sending.column}
        events = [{**same, "custom_id": each, "text": _unsendable(each, message)} for each, message in unsendable]
        yield from _record_batches(events, schema)


def _columns(batches: Batches, digests: deque[str]) -> Iterator[tuple[pa.Array, ...]]:
    """Yield the arguments and the history of each batch; the digests are put in line."""
    for batch in batches:
        first, *others = batch.columns
        digests.extend(first.to_pylist())
        yield tuple(others)


def _unsendable(custom_id: str, message: str) -> str:
    return unanswered_line(custom_id, UNSENDABLE, message).decode()


def _record_batches(events: Sequence[Mapping[str, object]], schema: pa.StructType) -> Batches:
    if events:
        yield pa.RecordBatch.from_pylist(events, pa.schema(list(schema)))
