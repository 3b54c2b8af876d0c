"""Tables by name: read, created and altered by SQL and DataFrames alone, so in every format that has MERGE."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructField, StructType

from spark_llm.enrich.column_types import column_ddl, ddl
from spark_llm.enrich.plan import RunPlan
from spark_llm.enrich.spark_errors import error_condition, error_text, retry_on_conflict
from spark_llm.errors import ConfigError
from spark_llm.protocol.identifiers import parse_table_name, quoted
from spark_llm.text.excerpt import excerpt
from spark_llm.text.names import column_list

FORMAT = "delta"  # where neither a catalog nor a source names one
_SESSION_CATALOG = "spark_catalog"
_NO_PROPERTIES: Mapping[str, str] = {}
ANY_NAMES: Mapping[str, str] = {"delta.columnMapping.mode": "name"}
"""Properties of a table whose columns have any names, and may be renamed; a format ignores those of another one."""
_PATTERN_CHARACTERS = re.compile(r"[][{}*?\\]")
_MISSING = {
    *("TABLE_OR_VIEW_NOT_FOUND", "PATH_NOT_FOUND"),
    *("DELTA_TABLE_NOT_FOUND", "DELTA_MISSING_DELTA_TABLE", "DELTA_PATH_DOES_NOT_EXIST"),
}


class Table:
    """A table of a catalog, or of a path as in ``delta.`/data/reviews` ``."""

    def __init__(self, spark: SparkSession, parts: Sequence[str]) -> None:
        """Name a table by its parts; it may be missing."""
        self._spark = spark
        self.parts = tuple(parts)
        self.name = quoted(*self.parts)
        self._missing_by = ""  # the condition of the error that `read` got last

    @classmethod
    def named(cls, spark: SparkSession, parameter: str, name: str) -> "Table":
        """Name a table as Spark SQL writes it; `ConfigError` for another text begins with `parameter`, as `target=`."""
        return cls(spark, parse_table_name(parameter, name))

    def __str__(self) -> str:
        """Return the name with as few quotes as possible."""
        return ".".join(part if part.isidentifier() else quoted(part) for part in self.parts)

    @property
    def path(self) -> str | None:
        """The folder, for a table of a path."""
        return self.parts[1] if len(self.parts) == 2 and "/" in self.parts[1] else None

    def read(self) -> DataFrame | None:
        """Return its rows; None where the table is missing. Raises `ConfigError` where it cannot be read."""
        try:
            rows = self._spark.table(self.name)
            _ = rows.schema  # Connect resolves the name only now
        except AnalysisException as error:
            self._missing_by = error_condition(error)
            if self._missing_by in _MISSING:
                return None
            raise ConfigError(
                f"{self} cannot be read: {error_text(error)}.", "check its name and your access."
            ) from error
        return rows

    def read_existing(self) -> DataFrame:
        """Return its rows; raises `ConfigError` where the table is missing."""
        rows = self.read()
        if rows is None:
            raise ConfigError(f"There is no table {self}.", "check its name; a table of a path needs all of the path.")
        return rows

    def read_stream(self) -> DataFrame:
        """Return its rows as they arrive."""
        if self.path is not None:  # Delta finds no table of a path by its name
            return self._spark.readStream.format(self.parts[0]).load(self.path)
        return self._spark.readStream.table(self.name)

    def refresh(self) -> None:
        """Drop what the session has cached of it: an Iceberg catalog returns a table as it was when first read."""
        if self.path is None:
            with suppress(Exception):  # reading it gives the better error
                if self._spark.catalog.tableExists(self.name):  # else a Connect client prints the error's whole log
                    self._spark.sql(f"REFRESH TABLE {self.name}")

    def formats(self, wanted: str | None = None, source: "Table | None" = None) -> Iterator[str | None]:
        """Yield the formats to create it in, the best first; None is the default of its catalog.

        The order: `wanted`, or the format of its path; in a catalog of its own kind that kind; else the source's
        format if it has MERGE; else Delta. Raises `ConfigError` where `wanted` is not the format of its path.
        """
        if self.path is not None:
            if wanted is not None and wanted.lower() != self.parts[0].lower():
                raise ConfigError(f"{self} is not a table of format={wanted!r}.", "leave format= out.")
            yield self.parts[0]
        elif wanted is not None:
            yield wanted
        else:
            if self.catalog() != _SESSION_CATALOG:
                yield None
            elif source is not None and source.path is None and source.catalog() == _SESSION_CATALOG:
                yield from source.merge_format()
            yield FORMAT

    def catalog(self) -> str:
        """Return its catalog's name. A name of two parts has one where such a catalog is configured."""
        first, *rest = self.parts
        if len(rest) > 1 or (rest and self._spark.conf.get(f"spark.sql.catalog.{first}", None)):
            return first.lower()
        return self._spark.catalog.currentCatalog().lower()

    def merge_format(self) -> list[str]:
        """Return its format; nothing for a view, for Delta, and for a format without MERGE."""
        with suppress(Exception):  # another format will do
            if (provider := self.provider()) != FORMAT:
                self.check_merge()
                return [provider]
        return []

    def provider(self) -> str:
        """Return its format; raises `ConfigError` for a view."""
        if self.path is not None:
            return self.parts[0]
        details = {row[0]: row[1] for row in self._spark.sql(f"DESCRIBE TABLE EXTENDED {self.name}").collect()}
        if "Provider" not in details:
            raise ConfigError(f"{self} is a view, and answers are merged into a table.", "name a table.")
        return str(details["Provider"])

    def check_merge(self) -> None:
        """Raise `ConfigError` where Spark cannot merge into it; it would say so only after all was paid for."""
        rows = "(SELECT 1 AS one) AS spark_llm ON spark_llm.one = 2"  # the target may have a column `one`
        plan = self._spark.sql(f"EXPLAIN MERGE INTO {self.name} USING {rows} WHEN MATCHED THEN DELETE").collect()[0][0]
        heading, _, reason = plan.partition("Error occurred during query planning:")
        if reason and not heading.strip():
            raise ConfigError(
                f"Spark cannot merge into {self}: {excerpt(reason, 300) or 'its format has no MERGE.'}",
                "name a table of a format with MERGE, such as Delta.",
            )

    def check_folder(self) -> None:
        """Raise `ConfigError` where its path is a folder with files but no table; Delta would create one in there.

        Call it when `read` has found no table: a second look costs as much as the first.
        """
        if self.path is None or self._missing_by != "DELTA_TABLE_NOT_FOUND":
            return
        files = self._spark.read.format("binaryFile").option("recursiveFileLookup", "true")
        if files.load(literal_path(self.path)).select("path").limit(1).collect():
            raise ConfigError(f"{self} is a folder with files in it, and not a table.", "name an empty or new folder.")

    def create(
        self, schema: StructType, formats: Iterable[str | None], properties: Mapping[str, str] = _NO_PROPERTIES
    ) -> None:
        """Create it, empty, in the first of these formats that succeeds; raises `ConfigError` where none does."""
        failure: ConfigError | None = None
        for each in formats:
            try:
                self._create(schema, each, properties)
            except ConfigError as error:
                failure = failure or error
            else:
                return
        raise failure or ConfigError(f"There is no format for {self}.", "name one by format=.")

    def _create(self, schema: StructType, provider: str | None, properties: Mapping[str, str]) -> None:
        options = f" TBLPROPERTIES ({_listed(properties)})" if properties else ""
        using = "" if provider is None else f" USING {quoted(provider)}"
        try:
            try:
                self._spark.sql(f"CREATE TABLE {self.name} ({column_ddl(schema)}){using}{options}")
            except AnalysisException as error:
                exists = error_condition(error) == "TABLE_OR_VIEW_ALREADY_EXISTS"
                if not exists or self.path is None or provider is None or self.read() is not None:
                    raise
                # A run that was killed right here left a log without an entry, which CREATE TABLE takes for a table.
                empty = self._spark.createDataFrame([], schema).write.format(provider).options(**properties)
                empty.mode("error").save(self.path)
        except Exception as error:
            hint = "name an existing table, or a place where you may create one."
            if "DATA_SOURCE_NOT_FOUND" in str(error):  # an error of Java's, of no class of PySpark's
                hint = (
                    "Delta Lake needs spark.jars.packages, spark.sql.extensions and spark.sql.catalog.spark_catalog in"
                    " the session's settings; format= names another format of the session."
                )
            elif "NON_EMPTY_LOCATION" in str(error) or "LOCATION_ALREADY_EXISTS" in str(error):
                hint = (
                    "its files are there, and the session's catalog does not know them: without a metastore it forgets"
                    ' its tables when it ends. Name the target by a path, as in target="delta.`/data/reviews`".'
                )
            elif "DELTA_INVALID_CHARACTERS_IN_COLUMN_NAME" in str(error):
                hint = (
                    "give these columns other names in the source; or create the table yourself, with"
                    f" TBLPROPERTIES ({_listed(ANY_NAMES)})."
                )
            raise ConfigError(
                f"The table {self} cannot be created{f' as {provider}' if provider else ''}: {error_text(error)}.", hint
            ) from error

    def add_columns(self, fields: Sequence[StructField], inside: Sequence[str] = ()) -> None:
        """Add columns, or fields inside a struct of this path; raises `ConfigError` where that fails."""
        if fields:
            added = ", ".join(f"{quoted(*inside, field.name)} {ddl(field.dataType)}" for field in fields)
            statement = f"ALTER TABLE {self.name} ADD COLUMNS ({added})"
            try:
                retry_on_conflict(lambda _: self._spark.sql(statement), str(self))
            except Exception as error:
                raise ConfigError(
                    f"Columns cannot be added to {self}: {error_text(error)}.",
                    "add them yourself, or name another target.",
                ) from error


def literal_path(path: str) -> str:
    """Return a path as Spark's readers of files take it, who read a path with brackets, say, as a pattern."""
    return _PATTERN_CHARACTERS.sub(r"\\\g<0>", path)


def _listed(properties: Mapping[str, str]) -> str:
    return ", ".join(f"'{name}' = '{value}'" for name, value in properties.items())


def apply_plan(plan: RunPlan, target: Table, formats: Iterable[str | None]) -> tuple[RunPlan, tuple[str, ...]]:
    """Create the target, or add the columns that it lacks; return the plan that it can take, and a note on each.

    A column of the source that the target refuses is left out. Raises `ConfigError` where the target cannot be
    created or merged into, or refuses the columns for answers.
    """
    if plan.created is not None:
        target.create(plan.created, formats)
    target.check_merge()
    notes = []
    for path, fields in plan.added_inside.items():
        with suppress(ConfigError):  # answers are written without these fields then
            target.add_columns(fields, path)
            added = column_list(each.name for each in fields)
            notes.append(f"{'.'.join(path)} is of an older version: {added} were added.")
    try:
        target.add_columns([*plan.added_answers, *plan.added_carried])
    except ConfigError:
        target.add_columns(plan.added_answers)
    else:
        return plan, (*notes, *(_added_note(field, target) for field in plan.added_carried))
    refused = []
    for field in plan.added_carried:
        try:
            target.add_columns([field])
            notes.append(_added_note(field, target))
        except ConfigError as error:
            refused.append(field.name)
            notes.append(f"{field.name!r} of the source was left out: {error.what}")
    return plan.without(refused), tuple(notes)


def _added_note(field: StructField, target: Table) -> str:
    return f"{field.name!r} is new in the source, and was added to {target}."
