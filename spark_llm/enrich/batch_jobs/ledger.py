"""The ledger of a table's batches: which requests are in which file, which batches were created, what came back.

It is a table beside the target, to which a run appends, one transaction for each kind of event. So a run that was
killed at any moment leaves a ledger in which no event is cut in two:

    line     a request is in a file: `key` of the file, `file_id`, `custom_id`, and its `number` in the file from 1 on
    created  a batch was created for a file: its id in `text`, and in `number` how many there were before it
    reply    the reply to a request: a line of an output file in `text`
    end      a batch has ended, and all its replies are here: its status in `text`
    run      a run whose name is in `key` failed or died; files that it uploaded may be in no other event

`column` is the column that a request fills. A `custom_id` is the digest of a request and the stage that sent it.
"""

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import IntegerType, StringType, StructField, StructType

from spark_llm.enrich.column_types import same_of
from spark_llm.enrich.spark_errors import retry_on_conflict
from spark_llm.enrich.staging import remove_ledger
from spark_llm.enrich.table import Table
from spark_llm.errors import ConfigError
from spark_llm.protocol.identifiers import named
from spark_llm.usage.observed import observed_values

SCHEMA = StructType(
    [
        *(StructField(name, StringType()) for name in ("kind", "column", "key", "file_id", "custom_id")),
        StructField("number", IntegerType()),
        StructField("text", StringType()),
    ]
)
STAGE_DIGITS = 11  # of a stage: milliseconds since 1970 in hexadecimal, so that ids sort by time
_SUFFIX = STAGE_DIGITS + 1  # of a `custom_id`: a dash and the stage


@dataclass
class File:
    """A file of requests, and its batch.

    Attributes:
        key: Its own name, which the batch has in its metadata.
        column: The column that its requests fill.
        file_id: The provider's id of the file.
        batch_id: The id of its batch; None until one was created, as far as the ledger knows.
        creations: How many batches were created for it: a further one follows a quota that was used up.
        ended: Whether the batch has ended and its replies are in the ledger.
    """

    key: str
    column: str
    file_id: str
    batch_id: str | None = None
    creations: int = 0
    ended: bool = False

    @property
    def batch_key(self) -> str:
        """The key of the batch that is created for it next, or was created last."""
        return self.key if self.creations <= 1 else f"{self.key}-{self.creations}"


class Ledger:
    """The table of events beside a target. It is created at the first event, and removed when nothing is left."""

    def __init__(self, spark: SparkSession, table: Table, provider: str | None, columns: Iterable[str]) -> None:
        """Keep it in `table`, of the format `provider`.

        `columns` are those that the job fills. Events of an earlier job, which wrote one of them in another case, are
        read with the name of this job, where the session takes both for one name.
        """
        self._spark, self._table, self._provider = spark, table, provider
        names = () if same_of(spark)("A") == "A" else columns
        self._spellings = [F.when(F.lower("column") == F.lower(F.lit(name)), F.lit(name)) for name in names]
        self._exists = table.read() is not None

    @property
    def name(self) -> str:
        """The name of its table as SQL reads it."""
        return self._table.name

    def files(self) -> dict[str, File]:
        """Return the files of requests, by key, with what the ledger knows of their batches."""
        rows = self._rows()
        if rows is None:
            return {}
        about_files = "kind IN ('created', 'end') OR (kind = 'line' AND number = 1)"
        events = rows.where(about_files).select("kind", "column", "key", "file_id", "number", "text").collect()
        found = {row["key"]: File(row["key"], row["column"], row["file_id"]) for row in events if row["kind"] == "line"}
        for row in events:
            if row["kind"] == "line" or (file := found.get(row["key"])) is None:
                continue
            if row["kind"] == "end":
                file.ended = True
            elif row["number"] >= file.creations:
                file.batch_id, file.creations = row["text"], row["number"] + 1
        return found

    def append(self, events: DataFrame) -> bool:
        """Append events of `SCHEMA`, and return whether the first attempt succeeded."""
        if not self._exists:
            self._table.create(SCHEMA, [self._provider])
            self._exists = True

        def act(attempt: int) -> bool:
            events.writeTo(self._table.name).append()
            return attempt == 1

        return retry_on_conflict(act, str(self._table))

    def append_sent(self, events: DataFrame, stage: str) -> tuple[list[File], bool]:
        """Append the events of a stage; return its files, and whether some requests were settled instead of being sent.

        Spark tells both while it writes. Where it does not, or told of an attempt that failed, the ledger is read.
        """
        observed = Observation()
        is_first = "CASE WHEN kind = 'line' AND number = 1 THEN struct(key, column, file_id) END"
        found = {"files": f"to_json(collect_set({is_first}))", "unsent": "count_if(kind = 'reply')"}
        is_observed = self.append(events.observe(observed, *map(F.expr, named(found))))
        values = observed_values(observed) if is_observed else None
        if values:
            files = [File(each["key"], each["column"], each["file_id"]) for each in json.loads(values["files"])]
            return files, bool(values["unsent"])
        suffix = f"endswith(custom_id, '-{stage}')"
        rows = self._spark.table(self._table.name).where(suffix)
        first = rows.where("kind = 'line' AND number = 1").select("key", "column", "file_id").collect()
        return [File(*row) for row in first], not rows.where("kind = 'reply' AND key IS NULL").isEmpty()

    def append_created(self, files: Iterable[File]) -> None:
        """Append that these files have batches now."""
        if events := [(each, each.creations - 1, each.batch_id) for each in files]:
            self.append(self._of_files("created", events))

    def append_runs(self, runs: Iterable[str]) -> None:
        """Append the names of runs that failed or died."""
        if events := [("run", None, run, None, None, None, None) for run in runs]:
            self.append(self._spark.createDataFrame(events, SCHEMA))

    def runs(self) -> set[str]:
        """Return the names of runs that failed or died, and whose files were not looked for yet."""
        rows = self._rows()
        return set() if rows is None else {key for (key,) in rows.where("kind = 'run'").select("key").collect()}

    def ends(self, statuses: Mapping[str, str], files: Mapping[str, File]) -> DataFrame:
        """Return the events that the batches of these keys have ended, each with its status."""
        return self._of_files("end", [(files[key], None, status) for key, status in statuses.items()])

    def _of_files(self, kind: str, events: Sequence[tuple[File, int | None, str | None]]) -> DataFrame:
        rows = [(kind, each.column, each.key, each.file_id, None, number, text) for each, number, text in events]
        return self._spark.createDataFrame(rows, SCHEMA)

    def replies(self) -> DataFrame | None:
        """Return the replies by the digest of their request: `replies`, oldest first, and `sender`, the column.

        None where there are none.
        """
        rows = self._rows()
        if rows is None:
            return None
        ordered = "transform(array_sort(collect_set(struct(custom_id, text))), each -> each.text)"
        return (
            rows.where("kind = 'reply'")
            .groupBy(_digest().alias("digest"))
            .agg(F.expr(ordered).alias("replies"), F.min("column").alias("sender"))
        )

    def answered(self) -> DataFrame | None:
        """Return the digests of the requests with an answer, which was paid for; None where there are no replies."""
        rows = self._rows()
        if rows is None:
            return None
        status = "coalesce(get_json_object(text, '$.response.status_code'), '200')"
        is_answer = f"get_json_object(text, '$.response') IS NOT NULL AND NOT {status} RLIKE '^[45]'"
        return rows.where(f"kind = 'reply' AND {is_answer}").select(_digest()).distinct()

    def has_replies(self, beside: Iterable[str] = ()) -> bool:
        """Return whether there are replies; those that fill the columns `beside` do not count."""
        rows = self._rows()
        return rows is not None and not rows.where("kind = 'reply'").where(~F.col("column").isin(*beside)).isEmpty()

    def events(self, kind: str, keys: Sequence[str]) -> DataFrame:
        """Return the events of a kind that are about these files; there is a ledger."""
        return self._read().where(f"kind = '{kind}' AND key IN ({_sql_list(keys)})")

    def out(self, keys: Sequence[str]) -> DataFrame | None:
        """Return the digests of the requests in these files; None where there are none."""
        return self.events("line", keys).select(_digest().alias("digest")).distinct() if keys else None

    def sent(self, run: str) -> DataFrame:
        """Return the digests of the requests that this run has sent; there is a ledger."""
        return self._read().where(f"kind = 'line' AND startswith(key, '{run}-')").select(_digest()).distinct()

    def prune(self, open_keys: Sequence[str], digests: DataFrame, columns: Iterable[str]) -> None:
        """Keep only what a later run needs: files whose batches have not ended, and replies.

        Of the replies that fill these `columns`, those to these digests; the others all.
        """
        rows = self._rows()
        if rows is None:
            return
        replies, is_ours = rows.where("kind = 'reply'"), F.col("column").isin(*columns)
        wanted = replies.where(is_ours).withColumn("digest", _digest())
        kept = wanted.join(digests, "digest", "left_semi").select(*SCHEMA.names).unionByName(replies.where(~is_ours))
        if open_keys:
            kept = kept.unionByName(rows.where(f"kind IN ('line', 'created') AND key IN ({_sql_list(open_keys)})"))
        self._overwrite(kept)

    def forget(self, digests: DataFrame, columns: Iterable[str]) -> None:
        """Remove the replies to these digests that fill these `columns`; there is a ledger."""
        rows = self._read()
        is_reply = (F.col("kind") == "reply") & F.col("column").isin(*columns) & (_digest() == F.col("forgotten"))
        self._overwrite(rows.join(digests.select(F.col("digest").alias("forgotten")), is_reply, "left_anti"))

    def _overwrite(self, events: DataFrame) -> None:
        retry_on_conflict(lambda _: events.writeTo(self._table.name).overwrite(F.lit(True)), str(self._table))

    def clear(self) -> None:
        """Remove it."""
        if self._exists:
            remove_ledger(self._spark, self._table)
            self._exists = False

    def _rows(self) -> DataFrame | None:
        return self._read() if self._exists else None

    def _read(self) -> DataFrame:
        """Return all events, with the names of columns as this job writes them; there is a ledger."""
        rows = self._spark.table(self._table.name)
        return rows.withColumn("column", F.coalesce(*self._spellings, "column")) if self._spellings else rows


def check_none_out(ledger: Ledger, columns: Container[str]) -> None:
    """Raise `ConfigError` where batches of these columns are out: rows would be asked, and paid for, once more."""
    if out := [file for file in ledger.files().values() if not file.ended and file.column in columns]:
        raise ConfigError(
            f"{len(out)} batch{'es are' if len(out) != 1 else ' is'} with the provider, and batch= is not given.",
            "collect their answers with the same job and batch=Batch(), or cancel them: spark-llm batches JOB.toml"
            f" --cancel. Only where they are gone for good, empty the table {ledger.name}.",
        )


def _digest() -> Column:
    return F.expr(f"substring(custom_id, 1, length(custom_id) - {_SUFFIX})").alias("digest")


def _sql_list(texts: Iterable[str]) -> str:
    """Return keys or ids of files as a list of SQL; they have no quotes in them."""
    return ", ".join(f"'{text}'" for text in texts) or "NULL"
