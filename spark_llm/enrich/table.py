"""Tables by their names: read, made and merged into by SQL and DataFrames alone, so in any format that has MERGE."""

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import TypeVar

from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import (
    ArrayType,
    ByteType,
    DataType,
    IntegerType,
    LongType,
    MapType,
    ShortType,
    StructField,
    StructType,
)

from spark_llm.enrich.conflict import conflict, pause_after_conflict
from spark_llm.errors import ConfigError
from spark_llm.protocol.identifiers import CaseFold, parse_table_name, quoted
from spark_llm.text.excerpt import excerpt

FORMAT = "delta"  # where neither a catalog nor a source says another
_SESSION_CATALOG = "spark_catalog"
_WHOLE: list[type[DataType]] = [ByteType, ShortType, IntegerType, LongType]  # the narrowest first
_NONE: Mapping[str, str] = {}
_MISSING = {
    *("TABLE_OR_VIEW_NOT_FOUND", "PATH_NOT_FOUND"),
    *("DELTA_TABLE_NOT_FOUND", "DELTA_MISSING_DELTA_TABLE", "DELTA_PATH_DOES_NOT_EXIST"),
}

_T = TypeVar("_T")
_logger = logging.getLogger("spark_llm.enrich")


class Table:
    """A table of a catalog, or of a path as in ``delta.`/data/reviews` ``."""

    def __init__(self, spark: SparkSession, parts: Sequence[str]) -> None:
        """Name it by its parts; it need not be there yet."""
        self._spark = spark
        self.parts = tuple(parts)
        self.name = quoted(self.parts)

    @classmethod
    def named(cls, spark: SparkSession, what: str, name: str) -> "Table":
        """Name it as Spark SQL writes it; raises `ConfigError` for what is no name, with `what` it was to be."""
        return cls(spark, parse_table_name(what, name))

    def __str__(self) -> str:
        """Return the name as one would write it."""
        return ".".join(part if part.isidentifier() else quoted((part,)) for part in self.parts)

    @property
    def path(self) -> str | None:
        """Where its files are, for a table of a path."""
        return self.parts[1] if len(self.parts) == 2 and "/" in self.parts[1] else None

    def read(self) -> DataFrame | None:
        """Return its rows; None where there is no such table. Raises `ConfigError` where it cannot be read."""
        try:
            rows = self._spark.table(self.name)
            _ = rows.schema  # on Connect nothing is looked up before
        except AnalysisException as error:
            if condition(error) in _MISSING:
                return None
            raise ConfigError(f"{self} cannot be read: {said(error)}.", "check its name and your access.") from error
        return rows

    def stream(self) -> DataFrame:
        """Return its rows as they arrive."""
        if self.path is not None:  # which Delta does not find by its name
            return self._spark.readStream.format(self.parts[0]).load(self.path)
        return self._spark.readStream.table(self.name)

    def must_read(self) -> DataFrame:
        """Return its rows; raises `ConfigError` where there is no such table."""
        rows = self.read()
        if rows is None:
            raise ConfigError(f"There is no table {self}.", "check its name; a table of a path needs all of the path.")
        return rows

    def refresh(self) -> None:
        """Forget what the session remembers of it: an Iceberg catalog returns a table as it was when first read."""
        if self.path is None:
            with suppress(Exception):  # reading it gives the better error
                self._spark.sql(f"REFRESH TABLE {self.name}")

    def formats(self, wanted: str | None = None, source: "Table | None" = None) -> Iterator[str | None]:
        """Yield the formats to make it in, the best first; None is the default of its catalog.

        The one that is wanted, or that of its path; in a catalog of its own kind that kind; else its source's, if rows
        can be merged into it; else Delta. Raises `ConfigError` for another one than its path's.
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
        """Return its catalog's name, which a name of two parts has too where such a catalog is configured."""
        first, *rest = self.parts
        if len(rest) > 1 or (rest and self._spark.conf.get(f"spark.sql.catalog.{first}", None)):
            return first.lower()
        return self._spark.catalog.currentCatalog().lower()

    def merge_format(self) -> list[str]:
        """Return its format; nothing for a view, for Delta, and for a format into which no rows can be merged."""
        with suppress(Exception):  # another format will do
            if (provider := self.provider()) != FORMAT:
                self.check_merge()
                return [provider]
        return []

    def make(self, schema: StructType, formats: Iterable[str | None]) -> bool:
        """Make it, empty, in the first of these formats that succeeds; return False where another run was first.

        Raises `ConfigError` where none succeeds.
        """
        failed: ConfigError | None = None
        for each in formats:
            try:
                self.create(schema, each)
            except ConfigError as error:
                if self.read() is not None:
                    return False
                failed = failed or error
            else:
                return True
        raise failed or ConfigError(f"There is no format for {self}.", "name one by format=.")

    def create(self, schema: StructType, provider: str | None, properties: Mapping[str, str] = _NONE) -> None:
        """Make it, empty, in a format, or in its catalog's default.

        Raises `ConfigError` where that cannot be, or another was first.
        """
        listed = ", ".join(f"{quoted((field.name,))} {ddl(field.dataType)}" for field in schema)
        told = ", ".join(f"'{name}' = '{value}'" for name, value in properties.items())
        told = f" TBLPROPERTIES ({told})" if told else ""
        using = "" if provider is None else f" USING {quoted((provider,))}"
        if self._is_a_folder():
            raise ConfigError(f"{self} is a folder with files in it, and no table.", "name one that is empty, or none.")
        try:
            try:
                self._spark.sql(f"CREATE TABLE {self.name} ({listed}){using}{told}")
            except AnalysisException as error:
                there = condition(error) == "TABLE_OR_VIEW_ALREADY_EXISTS"
                if not there or self.path is None or provider is None or self.read() is not None:
                    raise
                # A run that was killed right here left a log without an entry, which CREATE TABLE takes for a table.
                empty = self._spark.createDataFrame([], schema).write.format(provider).options(**properties)
                empty.mode("error").save(self.path)
        except Exception as error:
            raise ConfigError(
                f"The table {self} cannot be made{f' as {provider}' if provider else ''}: {said(error)}.",
                "name one that is there, or a place that is empty and yours; format= names a format that the session"
                " has, as Delta Lake or Iceberg.",
            ) from error

    def _is_a_folder(self) -> bool:
        """Return whether its path is a folder with files but no table, which Delta would make one all the same."""
        if self.path is None:
            return False
        try:
            _ = self._spark.table(self.name).schema
        except AnalysisException as error:
            if condition(error) != "DELTA_TABLE_NOT_FOUND":
                return False
        files = self._spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(self.path)
        return bool(files.select("path").limit(1).collect())

    def add(self, fields: Iterable[StructField]) -> None:
        """Add columns to it; raises `ConfigError` where that cannot be."""
        listed = ", ".join(f"{quoted((field.name,))} {ddl(field.dataType)}" for field in fields)
        if listed:
            try:
                persistently(lambda _: self._spark.sql(f"ALTER TABLE {self.name} ADD COLUMNS ({listed})"), str(self))
            except Exception as error:
                raise ConfigError(
                    f"{self} takes no further columns: {said(error)}.", "add them yourself, or name another target."
                ) from error

    def provider(self) -> str:
        """Return its format; raises `ConfigError` for a view, or what cannot tell."""
        told = {row[0]: row[1] for row in self._spark.sql(f"DESCRIBE TABLE EXTENDED {self.name}").collect()}
        if "Provider" not in told:
            raise ConfigError(f"{self} is a view, and answers are merged into a table.", "name a table.")
        return str(told["Provider"])

    def check_merge(self) -> None:
        """Raise `ConfigError` where nothing can be merged into it: Spark would say so after all was paid for."""
        statement = f"MERGE INTO {self.name} USING (SELECT 1 AS one) ON one = 2 WHEN MATCHED THEN DELETE"
        plan = self._spark.sql(f"EXPLAIN {statement}").collect()[0][0]
        heading, _, why = plan.partition("Error occurred during query planning:")
        if why and not heading.strip():
            raise ConfigError(
                f"Spark cannot merge into {self}: {excerpt(why.strip(), 300)}",
                "name a table of a format with MERGE, as Delta is.",
            )


def condition(error: BaseException | None) -> str:
    """Return the name that Spark has for an error of its own; empty for any other."""
    if not isinstance(error, PySparkException):
        return ""
    told = getattr(error, "getCondition", None) or error.getErrorClass  # its name before Spark 4
    return str(told() or "")


def persistently(act: Callable[[int], _T], what: str) -> _T:
    """Do something to `what`, a table, and again after each conflict with another writer; raise what the last raised.

    `act` is called with the number of the attempt.
    """
    began_s = time.monotonic()
    for attempt in count(1):
        try:
            return act(attempt)
        except Exception as error:
            met = conflict(str(error))
            pause_s = pause_after_conflict(attempt, time.monotonic() - began_s, random.random()) if met else None
            if pause_s is None:
                raise
            _logger.info("attempt %d on %s met %s; the next comes in %.1f s", attempt, what, met, pause_s)
            time.sleep(pause_s)
    raise AssertionError("the last attempt returns or raises")


def said(error: Exception) -> str:
    """Return what an error of Spark's says, in one line and without its trace."""
    words = str(error).split("JVM stacktrace")[0].split("\n\tat ")[0].partition(" SQLSTATE:")[0]
    words = words.partition("\n: ")[2] or words  # what went before is the call
    return excerpt(words, 300).rstrip(". ;")


def ddl(kind: DataType) -> str:
    """Write a type as SQL does, with every name in quotes."""
    if isinstance(kind, StructType):
        return f"STRUCT<{', '.join(f'{quoted((field.name,))}: {ddl(field.dataType)}' for field in kind)}>"
    if isinstance(kind, ArrayType):
        return f"ARRAY<{ddl(kind.elementType)}>"
    if isinstance(kind, MapType):
        return f"MAP<{ddl(kind.keyType)}, {ddl(kind.valueType)}>"
    return kind.simpleString()


def nullable(kind: DataType) -> DataType:
    """Return a type in which everything may be null: what a table's column says of it is its own affair."""
    if isinstance(kind, StructType):
        return StructType([StructField(field.name, nullable(field.dataType)) for field in kind])
    if isinstance(kind, ArrayType):
        return ArrayType(nullable(kind.elementType))
    if isinstance(kind, MapType):
        return MapType(kind.keyType, nullable(kind.valueType))
    return kind


def same_of(spark: SparkSession) -> CaseFold:
    """Return what makes two names equal that are one to the session: its settings say whether case counts."""
    return str if spark.conf.get("spark.sql.caseSensitive") == "true" else str.lower


def field_of(schema: StructType, name: str, same: CaseFold) -> StructField | None:
    """Return the column of a name, as Spark finds it; None where there is none."""
    return next((field for field in schema if same(field.name) == same(name)), None)


def holds(column: DataType, value: DataType, same: CaseFold) -> bool:
    """Return whether a column takes every value of a type: whole numbers may be wider there, as Iceberg makes them."""
    match column, value:
        case StructType(fields=parts), StructType(fields=others):
            return len(parts) == len(others) and all(
                same(part.name) == same(other.name) and holds(part.dataType, other.dataType, same)
                for part, other in zip(parts, others, strict=True)
            )
        case ArrayType(), ArrayType():
            return holds(column.elementType, value.elementType, same)
        case MapType(), MapType():
            return holds(column.keyType, value.keyType, same) and holds(column.valueType, value.valueType, same)
    if type(column) in _WHOLE and type(value) in _WHOLE:
        return _WHOLE.index(type(column)) >= _WHOLE.index(type(value))
    return column.simpleString() == value.simpleString()
