"""The run log: a table to which each run appends its report."""

from pyspark.sql import SparkSession

from spark_llm.enrich.column_types import has_column, same_of
from spark_llm.enrich.report import RUNS_DDL, EnrichReport
from spark_llm.enrich.spark_errors import error_text, retry_on_conflict
from spark_llm.enrich.table import Table
from spark_llm.errors import ConfigError
from spark_llm.udf.spark_types import struct_of


class RunLog:
    """The table of reports; created where it is missing."""

    def __init__(self, spark: SparkSession, name: str, format: str | None = None) -> None:  # noqa: A002 -- as in `enrich_table`
        """Find or create it; raises `ConfigError` for a table that cannot take a report."""
        self._spark = spark
        self._table = Table.named(spark, "runs_table=", name)
        self._schema = struct_of(RUNS_DDL, spark)
        known = self._table.read()
        if known is None:
            self._table.check_folder()
            try:
                self._table.create(self._schema, [*self._table.formats(), *filter(None, [format])])
            except ConfigError:
                if self._table.read() is None:  # else another run was first
                    raise
        elif missing := [field for field in self._schema if not has_column(known.schema, field, same_of(spark))]:
            columns = ", ".join(f"{field.name} {field.dataType.simpleString()}" for field in missing)
            raise ConfigError(
                f"{self._table} is not a table of runs: it lacks {columns}.",
                "name a table that does not exist yet, or add these columns to it.",
            )

    @property
    def name(self) -> str:
        """Its name, in quotes."""
        return self._table.name

    def append(self, report: EnrichReport) -> None:
        """Append a report; raises `ConfigError` where that fails."""
        row = self._spark.createDataFrame([report.row()], self._schema)
        try:
            retry_on_conflict(lambda _: row.writeTo(self._table.name).append(), str(self._table))
        except Exception as error:
            raise ConfigError(
                f"The run is done, but its report could not be written to {self._table}: {error_text(error)}.",
                f"keep the report:\n{report}",
            ) from error
