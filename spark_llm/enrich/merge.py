"""The MERGE that brings staged rows into a target, written from the columns of the rows alone.

So the rows that a run left behind are merged by the next one, whatever that one asks.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StringType, StructField, StructType

from spark_llm.enrich.column_types import fields_of, find_field, has_column, reshaped, same_of
from spark_llm.enrich.lease import Lease
from spark_llm.enrich.plan import fingerprint_name
from spark_llm.enrich.spark_errors import error_text, retry_on_conflict
from spark_llm.enrich.staging import Staging
from spark_llm.enrich.table import Table
from spark_llm.errors import JobFailedError
from spark_llm.protocol.identifiers import CaseFold, quoted

_logger = logging.getLogger("spark_llm.enrich")
_AS_STAGED: Mapping[str, str] = {}


class Merger:
    """Merges staged rows into a target, as long as the run has its lease."""

    def __init__(self, spark: SparkSession, target: Table, lease: Lease, run: str, known: StructType | None) -> None:
        """Merge into `target`; `run` is the run's name, of letters and digits.

        `known` is the target's schema; None where this run created it, so that every answer has its type.
        """
        self._spark, self._target, self._lease, self._known = spark, target, lease, known
        self._view = f"spark_llm_{run}"
        self._counts_inserts = True  # as far as is known: Delta returns the number of rows that a MERGE inserted

    def check_lease(self) -> None:
        """Raise `JobFailedError` where another run has the lease by now."""
        self._lease.check()

    def merge_answers(
        self, answers: DataFrame, staging: Staging, *, columns: StructType | None = None, new_rows: int | None = None
    ) -> None:
        """Merge the answers of `staging`, and mark them as merged; a deferred row stays in the target as it is.

        `columns` are those that the target takes, by default all. `new_rows` says how many rows there are, if the
        target had none of them when they were staged. Raises `JobFailedError` where the MERGE fails.
        """
        location = staging.location("answers")
        self._merge(
            answers,
            location,
            "NOT deferred",
            columns or answers.schema,
            f"the answers are kept in {location}. Remove the cause and run it again: that merges them, and asks none of"
            " their rows. Only where they can never be merged, drop them.",
            new_rows=new_rows,
        )
        staging.mark_merged()

    def merge_unasked(self, pending: DataFrame, location: str, asked: str) -> None:
        """Merge those pending rows, kept in `location`, that are not `asked`, a condition of SQL.

        Raises `JobFailedError` where the MERGE fails.
        """
        hint = "nothing was asked yet. Remove the cause, and run it again."
        self._merge(pending, location, f"NOT ({asked})", pending.schema, hint)

    def _merge(
        self, rows: DataFrame, location: str, where: str, columns: StructType, hint: str, *, new_rows: int | None = None
    ) -> None:
        """Run a MERGE of the rows that fulfil a condition.

        Rows that were new are only inserted, which is less work. After a conflict they need not be new, nor where
        fewer were inserted: another writer has inserted some since. All are merged then, which changes no other.

        A view of staged files saves Spark a look at them. From a view of a catalog's table Spark 4.1 plans no MERGE.
        """
        is_view = self._target.path is not None
        staged = quoted(self._view) if is_view else f"(SELECT * FROM {location} WHERE {where})"  # noqa: S608 -- names are quoted

        def act(attempt: int) -> None:
            self._lease.check()
            written = {} if self._known is None else answer_values(columns, self._known, same_of(self._spark))
            merge = partial(merge_statement, self._target.name, staged, columns, written)
            if new_rows is not None and attempt == 1 and self._counts_inserts:
                inserted = _inserted(self._spark.sql(merge(only_new=True)))
                if inserted is not None and inserted >= new_rows:
                    return
                self._counts_inserts = inserted is not None
                _logger.info("%s of %d rows are new to %s; all are merged", inserted, new_rows, self._target)
                self._lease.check()
            self._spark.sql(merge())

        if is_view:
            rows.where(where).createOrReplaceTempView(self._view)
        try:
            retry_on_conflict(act, f"the MERGE into {self._target}")
        except JobFailedError:
            raise
        except Exception as error:  # noqa: BLE001 -- Delta's own errors are of no class of Spark's
            _logger.info("the MERGE into %s failed: %s", self._target, type(error).__name__)
            message = f"The MERGE into {self._target} failed: {error_text(error)}."
            raise JobFailedError(message, hint) from None  # without Java's trace
        finally:
            with suppress(Exception):  # the session may be dead
                self._spark.catalog.dropTempView(self._view)


def _inserted(merged: DataFrame) -> int | None:
    """Return how many rows a MERGE inserted, by its own result; None in a format that does not say."""
    numbers = next((row.asDict() for row in merged.collect()), {})
    inserted = numbers.get("num_inserted_rows")
    return None if inserted is None else int(inserted)


def answer_values(staged: StructType, target: StructType, same: CaseFold) -> dict[str, str]:
    """Return the SQL of staged answers as the target has them, by column; another version may have filled either."""
    return {
        each.name: reshaped(_staged("result", each.name), each.dataType, found.dataType)
        for each in fields_of(staged, "result")
        if (found := find_field(target, each.name, same)) is not None
    }


def merge_statement(
    target: str,
    staged: str,
    schema: StructType,
    answers: Mapping[str, str] = _AS_STAGED,
    *,
    only_new: bool = False,
) -> str:
    """Return the statement that merges `staged`, which has this schema, into `target`; both are names in quotes.

    `answers` has the values of `answer_values`, where they are not the staged ones. `only_new` says that the target has
    none of the rows, which is less work. The rows' columns are those of
    `changes.pending_rows` and `result`, a struct with a field for each column that was asked; it may be missing.
    """
    key, carried, writes = ([each.name for each in fields_of(schema, part)] for part in ("key", "carried", "writes"))
    has_results = "result" in schema.names
    new = {name: _staged("key", name) for name in key} | {name: _staged("carried", name) for name in carried}
    changed = {
        name: f"CASE WHEN s.changed THEN {_staged('carried', name)} ELSE {_target(name)} END" for name in carried
    }
    for name in writes:
        written = _staged("writes", name)
        for column, value in (
            (name, answers.get(name, _staged("result", name)) if has_results else "NULL"),
            (fingerprint_name(name), _staged("fingerprints", name)),
        ):
            new[column] = f"CASE WHEN {written} THEN {value} END"
            changed[column] = f"CASE WHEN {written} THEN {value} ELSE {_target(column)} END"
    same_key = " AND ".join(f"{_target(name)} = {_staged('key', name)}" for name in key)
    lines = [f"MERGE INTO {target} AS t", f"USING {staged} AS s", f"ON {same_key}"]
    if not only_new:
        lines.append("WHEN MATCHED AND s.deleted THEN DELETE")
        lines.append(f"WHEN MATCHED THEN UPDATE SET {', '.join(f'{_target(c)} = {v}' for c, v in changed.items())}")
    columns = ", ".join(map(quoted, new))
    lines.append(f"WHEN NOT MATCHED AND NOT s.deleted THEN INSERT ({columns}) VALUES ({', '.join(new.values())})")  # noqa: S608 -- all names are quoted
    return "\n".join(lines)


def mergeable_schema(staged: StructType, target: StructType, same: CaseFold) -> StructType | None:
    """Return the columns of staged answers that the target still has, since it may have been altered.

    None where the target lacks the key, or all columns for the answers.
    """

    def kept(part: str) -> list[StructField]:
        return [field for field in fields_of(staged, part) if has_column(target, field, same)]

    fingerprints = {each.name: StructField(fingerprint_name(each.name), StringType()) for each in kept("result")}
    answered = {name for name, fingerprint in fingerprints.items() if has_column(target, fingerprint, same)}
    writes = [each for each in fields_of(staged, "writes") if each.name in answered]
    if not writes or any(find_field(target, each.name, same) is None for each in fields_of(staged, "key")):
        return None
    parts = {"writes": StructType(writes), "carried": StructType(kept("carried"))}
    return StructType([StructField(each.name, parts.get(each.name, each.dataType)) for each in staged])


def _staged(part: str, name: str) -> str:
    return f"s.{quoted(part, name)}"


def _target(name: str) -> str:
    return f"t.{quoted(name)}"
