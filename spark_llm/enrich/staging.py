"""Staging: what a run writes beside its target, namely the work there is to do, and answers before they are merged.

Each run writes under its own name, so a run that has lost its lease, and does not know it yet, never touches what the
next one writes. A table of a catalog has further tables beside it. A table of a path has a folder beside it; Spark
cannot remove a folder, so an almost empty one remains.
"""

import re

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import BooleanType, StructField, StructType

from spark_llm.enrich.table import Table, condition
from spark_llm.errors import ConfigError
from spark_llm.protocol.identifiers import quoted

_NOTHING = StructType([StructField("nothing", BooleanType())])
_PARTS = ("work", "ordered", "answers")
_OF_A_RUN = f"(?P<run>[0-9a-z]+){{}}(?:{'|'.join(_PARTS)})"


class Staging:
    """The tables that one run writes beside a target."""

    def __init__(self, spark: SparkSession, target: Table, provider: str, run: str) -> None:
        """Keep them beside `target`, in its format; `run` is the run's name, of letters and digits."""
        self._spark, self._target, self._provider, self._run = spark, target, provider, run
        self._made = set[str]()

    @property
    def lease(self) -> Table:
        """The table that says which run is at work."""
        if self._target.path is None:
            return self._sibling("lease")
        return Table(self._spark, (self._provider, f"{self._folder}/lease"))

    def named(self, what: str) -> str:
        """Return the name, as SQL reads it, of the rows written as `what`."""
        return self._table(what).name

    def write(self, what: str, rows: DataFrame) -> DataFrame:
        """Write rows down in place of those before, and return them as they were written.

        Those before go first: while the next answers are asked, none lie there that were merged already.
        """
        table = self._table(what)
        self._made.add(what)
        if table.path is not None:
            rows.write.mode("overwrite").parquet(table.path)
        else:
            empty = self._spark.createDataFrame([], rows.schema)
            empty.writeTo(table.name).using(self._provider).createOrReplace()
            rows.writeTo(table.name).append()
        return self._spark.table(table.name)

    def read(self, what: str) -> DataFrame | None:
        """Return the rows that were written as `what`; None where there are none."""
        try:
            rows = self._table(what).read()
        except ConfigError as error:
            if condition(error.__cause__) == "UNABLE_TO_INFER_SCHEMA":  # a run was killed before it had any
                return None
            raise
        return None if rows is None or rows.schema.fieldNames() == _NOTHING.fieldNames() else rows

    def left(self) -> "list[Staging]":
        """Return what other runs on the target have written and not removed."""
        runs = sorted(self._runs() - {self._run})
        return [Staging(self._spark, self._target, self._provider, run) for run in runs]

    def clear(self) -> None:
        """Remove all of it; at a path what other runs left too, because a folder for each would remain."""
        if self._target.path is None:
            for what in _PARTS:
                self._remove(what)
        else:
            self._overwrite(f"{self._folder}/rows")
        self._made.clear()

    def keep_answers(self) -> None:
        """Remove all of it but answers, which the next run merges."""
        answers = self.read("answers") if "answers" in self._made else None
        waiting = {"answers"} if answers is not None and not answers.isEmpty() else set[str]()
        for what in self._made - waiting:
            self._remove(what)

    @property
    def _folder(self) -> str:
        return f"{(self._target.path or '').rstrip('/')}__spark_llm"

    def _table(self, what: str) -> Table:
        if self._target.path is None:
            return self._sibling(f"{self._run}_{what}")
        return Table(self._spark, ("parquet", f"{self._folder}/rows/{self._run}/{what}"))

    def _sibling(self, what: str) -> Table:
        *places, name = self._target.parts
        return Table(self._spark, (*places, f"{name}__spark_llm_{what}"))

    def _remove(self, what: str) -> None:
        table = self._table(what)
        if table.path is None:
            self._spark.sql(f"DROP TABLE IF EXISTS {table.name}")
        else:
            self._overwrite(table.path)

    def _overwrite(self, folder: str) -> None:
        self._spark.createDataFrame([], _NOTHING).write.mode("overwrite").parquet(folder)

    def _runs(self) -> set[str]:
        """Return the names of the runs that have written here."""
        *places, name = self._target.parts
        if self._target.path is None:
            pattern = re.escape(f"{name}__spark_llm_") + _OF_A_RUN.format("_")
            where = f" IN {quoted(places)}" if places else ""
            names = [row["tableName"] for row in self._spark.sql(f"SHOW TABLES{where} LIKE '*__spark_llm_*'").collect()]
        else:
            pattern = ".*/rows/" + _OF_A_RUN.format("/") + "/[^/]+"
            files = self._spark.read.format("binaryFile").option("recursiveFileLookup", "true")
            try:
                names = files.load(f"{self._folder}/rows").inputFiles()
            except AnalysisException as error:
                if condition(error) != "PATH_NOT_FOUND":
                    raise
                names = []
        found = (re.fullmatch(pattern, name, re.IGNORECASE) for name in names)
        return {each["run"] for each in found if each}
