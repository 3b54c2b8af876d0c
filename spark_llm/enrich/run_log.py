"""A table of runs, to which each appends its report."""

from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

from spark_llm.enrich.report import RUNS_DDL, EnrichReport
from spark_llm.enrich.table import Table, field_of, persistently, said, same_of
from spark_llm.errors import ConfigError
from spark_llm.udf.spark_types import struct_of


class Runs:
    """The table that keeps what each run did; made where it is missing."""

    def __init__(self, spark: SparkSession, name: str, format: str | None = None) -> None:  # noqa: A002 -- as in `enrich_table`
        """Find or make it; raises `ConfigError` for a table that cannot take a report."""
        self._spark = spark
        self._table = Table.named(spark, "runs_table=", name)
        self._schema = struct_of(RUNS_DDL, spark)
        there = self._table.read()
        if there is None:
            self._table.make(self._schema, [*self._table.formats(), *filter(None, [format])])
        elif lacking := [f"{field.name} {field.dataType.simpleString()}" for field in self._lacking(there.schema)]:
            raise ConfigError(
                f"{self._table} is no table of runs: it lacks {', '.join(lacking)}.",
                "name one that is not there yet, or add these columns to it.",
            )

    @property
    def name(self) -> str:
        """Its name, in quotes."""
        return self._table.name

    def append(self, report: EnrichReport) -> None:
        """Write a report down."""
        row = self._spark.createDataFrame([report.row()], self._schema)
        try:
            persistently(lambda _: row.writeTo(self._table.name).append(), str(self._table))
        except Exception as error:
            raise ConfigError(
                f"The run is done, and its report could not be written to {self._table}: {said(error)}.",
                f"what it said:\n{report}",
            ) from error

    def _lacking(self, there: StructType) -> StructType:
        same = same_of(self._spark)
        found = {field.name: field_of(there, field.name, same) for field in self._schema}
        return StructType(
            [
                field
                for field in self._schema
                if (other := found[field.name]) is None
                or other.dataType.simpleString() != field.dataType.simpleString()
            ]
        )
