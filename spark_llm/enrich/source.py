"""The source of a run: a DataFrame, or a table that is read anew when its rows are needed; or that of a stream."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.readwriter import DataStreamWriter

from spark_llm.enrich.plan import InputTypes
from spark_llm.enrich.spark_errors import error_text
from spark_llm.enrich.table import Table
from spark_llm.errors import ConfigError
from spark_llm.protocol.identifiers import CaseFold, check_distinct
from spark_llm.text.names import column_list
from spark_llm.udf.lazy_udf import Call


@dataclass(frozen=True)
class Source:
    """The rows to enrich. A table may be the target as well, so it is read again after that was altered."""

    given: DataFrame | Table

    @classmethod
    def of(cls, spark: SparkSession, source: str | DataFrame) -> "Source":
        """Return the source that `enrich_table` was called with; raises `ConfigError` for anything but a batch."""
        if isinstance(source, str):
            return cls(Table.named(spark, "source=", source))
        if not isinstance(source, DataFrame):
            raise ConfigError(f"source={source!r} is not a table.", "pass a table's name, or a DataFrame.")
        if source.isStreaming:
            raise ConfigError("source= is a stream.", "use enrich_stream, which also takes a checkpoint.")
        return cls(source)

    @property
    def table(self) -> Table | None:
        """The table; None for a DataFrame."""
        return self.given if isinstance(self.given, Table) else None

    def read(self) -> DataFrame:
        """Return the rows; raises `ConfigError` where the table is missing."""
        return self.given.read_existing() if isinstance(self.given, Table) else self.given


def input_types(source: DataFrame, calls: Mapping[str, Call], same: CaseFold) -> InputTypes:
    """Return the types of each call's arguments over the source.

    Raises `ConfigError` where the source lacks a column, or has two of one name to the session.
    """
    check_distinct("The source has the columns", source.columns, same)
    types = {}
    for name, call in calls.items():
        arguments = [F.col(each) if isinstance(each, str) else each for each in call.arguments]
        try:
            types[name] = [field.dataType for field in source.select(*arguments).schema]
        except AnalysisException as error:
            raise ConfigError(
                f"The input of {name!r} cannot be read from the source: {error_text(error)}.",
                f"the source has {column_list(source.columns)}.",
            ) from error
    return types


def stream_writer(rows: DataFrame, checkpoint: str, trigger: Mapping[str, Any]) -> DataStreamWriter:
    """Return the writer of a stream; raises `ConfigError` for a trigger that Spark does not have."""
    try:
        return rows.writeStream.option("checkpointLocation", checkpoint).trigger(**trigger)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"trigger={trigger!r} is not one of Spark's: {error}.", 'write it as in {"processingTime": "1 minute"}.'
        ) from None
