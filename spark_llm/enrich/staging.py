"""Staging: the tables that a run writes beside its target, namely pending rows, and answers before they are merged.

Each run writes under its own name. A run that has lost its lease, and does not know it yet, never touches the tables of
the next one. A table of a catalog has further tables beside it. A table of a path has a folder beside it; Spark cannot
remove a folder, so an almost empty one remains.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from spark_llm.enrich.spark_errors import error_condition
from spark_llm.enrich.table import ANY_NAMES, Table, literal_path
from spark_llm.errors import ConfigError
from spark_llm.protocol.identifiers import named, quoted
from spark_llm.usage.observed import observed_values

_EMPTY = "nothing"  # the one column of an emptied folder
_LEDGER = "batches/ledger"  # in the folder of a target at a path
_PARTS = ("work", "ordered", "answers", "left", "rest")
_OF_A_RUN = f"(?P<run>[0-9a-z]+){{}}(?:{'|'.join(_PARTS)})"


def lease_table(spark: SparkSession, target: Table) -> Table:
    """Return the table whose column names the run that works on the target."""
    if target.path is None:
        return _sibling(spark, target, "lease")
    return Table(spark, (target.parts[0], f"{_folder(target)}/lease"))


def ledger_table(spark: SparkSession, target: Table) -> Table:
    """Return the table of the batches of the target's rows."""
    if target.path is None:
        return _sibling(spark, target, "batches")
    return Table(spark, (target.parts[0], f"{_folder(target)}/{_LEDGER}"))


def remove_ledger(spark: SparkSession, ledger: Table) -> None:
    """Remove that table; at a path its folder remains, and none of its files."""
    if ledger.path is None:
        spark.sql(f"DROP TABLE IF EXISTS {ledger.name}")
    else:  # its parent, because Delta refuses to have a table overwritten by files
        _empty(spark, ledger.path.rpartition("/")[0])


class Staging:
    """The tables that one run writes beside a target."""

    def __init__(self, spark: SparkSession, target: Table, provider: str | None, run: str) -> None:
        """Keep them beside `target`, in its format; `run` is the run's name, of letters and digits."""
        self._spark, self._target, self.provider, self.run = spark, target, provider, run
        self._written = set[str]()
        self._is_merged = self._has_merged = False  # the answers as they are now, and any before them

    def location(self, part: str) -> str:
        """Return the name of a part as SQL reads it, for messages."""
        return self._table(part).name

    def write(self, part: str, rows: DataFrame, counts: Mapping[str, str]) -> tuple[DataFrame, Mapping[str, Any]]:
        """Replace a part by these rows; return them as they were written, and aggregates over them, written in SQL.

        Earlier rows go first: while the next answers are asked, the part holds none that were merged already. Spark
        counts while it writes; where it reports nothing, the written rows are read once more.
        """
        if not counts:
            return self._write(part, rows, rows.schema), {}
        observed = Observation(f"spark_llm {self.run} {part}")
        aggregates = [F.expr(count) for count in named(counts)]
        written = self._write(part, rows.observe(observed, *aggregates), rows.schema)
        found = observed_values(observed)
        return written, found or written.agg(*aggregates).collect()[0].asDict()

    def _write(self, part: str, rows: DataFrame, schema: StructType) -> DataFrame:
        table = self._table(part)
        is_first = part not in self._written
        self._written.add(part)
        self._is_merged = self._is_merged and part != "answers"
        if table.path is not None:
            rows.write.mode("overwrite").parquet(table.path)
            files = self._spark.read.schema(schema)  # a schema saves the job that infers it
            return files.parquet(literal_path(table.path))
        if is_first:
            table.create(schema, [self.provider], ANY_NAMES)
        else:
            self._spark.sql(f"DELETE FROM {table.name}")  # noqa: S608 -- the name is quoted
        rows.writeTo(table.name).append()
        return self._spark.table(table.name)

    def read(self, part: str) -> DataFrame | None:
        """Return the rows of a part; None where it was not written."""
        table = self._table(part)
        if table.path is not None:
            table = Table(self._spark, (table.parts[0], literal_path(table.path)))
        try:
            rows = table.read()
        except ConfigError as error:
            if error_condition(error.__cause__) == "UNABLE_TO_INFER_SCHEMA":  # a run was killed before it had any
                return None
            raise
        return None if rows is None or rows.columns == [_EMPTY] else rows

    def abandoned(self) -> "list[Staging]":
        """Return the staging of other runs on the target that was not removed."""
        pattern = ".*/rows/" + _OF_A_RUN.format("/") + "/[^/]+"
        if self._target.path is None:
            pattern = re.escape(f"{self._target.parts[-1]}__spark_llm_") + _OF_A_RUN.format("_")
        found = (re.fullmatch(pattern, name, re.IGNORECASE) for name in self._found)
        runs = sorted({each["run"] for each in found if each} - {self.run})
        return [Staging(self._spark, self._target, self.provider, run) for run in runs]

    def has_ledger(self) -> bool:
        """Return whether there is a ledger of batches; at a path, where Spark removes none, it may be empty."""
        if self._target.path is not None:
            return any(f"__spark_llm/{_LEDGER}/" in name for name in self._found)
        return f"{self._target.parts[-1]}__spark_llm_batches".lower() in map(str.lower, self._found)

    def mark_merged(self) -> None:
        """Note that the answers are in the target: no later run may merge them again."""
        self._is_merged = self._has_merged = True

    def remove_merged(self) -> None:
        """Remove the answers if they are merged; merged again, they would undo what users changed meanwhile."""
        if self._is_merged:
            self._remove("answers")
            self._is_merged = False

    def clear(self) -> None:
        """Remove all parts, answers first; at a path those of all runs, because a folder for each would remain."""
        if self._target.path is None:
            parts = self._written or _PARTS  # of another run nothing is known
            for part in sorted(parts, key="answers".__ne__):
                self._remove(part)
        else:
            _empty(self._spark, f"{_folder(self._target)}/rows")
        self._written.clear()

    def keep(self, parts: Sequence[str]) -> None:
        """Remove all parts but these; all where there were no answers. Of answers only those that are not merged stay.

        The next run merges them. The other parts tell it which rows have answers.
        """
        self.remove_merged()
        answers = self.read("answers") if "answers" in self._written else None
        kept = parts if self._has_merged or (answers is not None and not answers.isEmpty()) else ()
        for part in self._written.difference(kept):
            self._remove(part)

    def _table(self, part: str) -> Table:
        if self._target.path is None:
            return _sibling(self._spark, self._target, f"{self.run}_{part}")
        return Table(self._spark, ("parquet", f"{_folder(self._target)}/rows/{self.run}/{part}"))

    def _remove(self, part: str) -> None:
        table = self._table(part)
        if table.path is None:
            self._spark.sql(f"DROP TABLE IF EXISTS {table.name}")
        else:
            _empty(self._spark, table.path)
        self._written.discard(part)

    @cached_property
    def _found(self) -> Sequence[str]:
        """The tables beside the target when they were first looked for; for a path the files in its folder."""
        if self._target.path is None:
            *parents, _ = self._target.parts
            where = f" IN {quoted(*parents)}" if parents else ""
            tables = self._spark.sql(f"SHOW TABLES{where} LIKE '*__spark_llm_*'").collect()
            return [row["tableName"] for row in tables]
        files = self._spark.read.format("binaryFile").option("recursiveFileLookup", "true")
        folder = literal_path(_folder(self._target))  # has the lease at least: a look at a path that is missing is slow
        try:  # Spark logs a warning, with a trace, for one path that does not exist, but not for a list
            return files.load([folder, folder]).inputFiles()
        except AnalysisException as error:
            if error_condition(error) != "PATH_NOT_FOUND":
                raise
            return []


def _empty(spark: SparkSession, folder: str) -> None:
    spark.range(0).select(F.lit(True).alias(_EMPTY)).write.mode("overwrite").parquet(folder)


def _folder(target: Table) -> str:
    return f"{(target.path or '').rstrip('/')}__spark_llm"


def _sibling(spark: SparkSession, target: Table, suffix: str) -> Table:
    *parents, name = target.parts
    return Table(spark, (*parents, f"{name}__spark_llm_{suffix}"))
