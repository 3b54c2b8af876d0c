"""What a run writes beside its target: the work there is to do, and answers before they are merged.

A table of a catalog has further tables beside it, which are dropped at the end. A table of a path has a folder beside
it; Spark cannot remove a folder, so it is left all but empty.
"""

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import BooleanType, StructField, StructType

from spark_llm._table import Table, condition
from spark_llm.errors import ConfigError

_NOTHING = StructType([StructField("nothing", BooleanType())])


class Beside:
    """The tables that belong to the runs on one target."""

    def __init__(self, spark: SparkSession, target: Table, provider: str) -> None:
        """Keep them beside `target`, in its format."""
        self._spark, self._target, self._provider = spark, target, provider
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
        """Write rows down in place of those before, and return them as they were written."""
        table = self._table(what)
        if table.path is not None:
            rows.write.mode("overwrite").parquet(table.path)
        elif what in self._made:
            rows.writeTo(table.name).overwrite(F.lit(True))
        else:  # first the table and then its rows: what is left of a run that is killed can be replaced
            empty = self._spark.createDataFrame([], rows.schema)
            empty.writeTo(table.name).using(self._provider).createOrReplace()
            rows.writeTo(table.name).append()
            self._made.add(what)
        return self._spark.table(table.name)

    def read(self, what: str) -> DataFrame | None:
        """Return the rows that were written as `what`, by this run or one before; None where there are none."""
        try:
            rows = self._table(what).read()
        except ConfigError as error:
            if condition(error.__cause__) == "UNABLE_TO_INFER_SCHEMA":  # a run was killed before it had any
                return None
            raise
        return None if rows is None or rows.schema.fieldNames() == _NOTHING.fieldNames() else rows

    def clear(self) -> None:
        """Remove all of it, but for the lease."""
        if self._target.path is None:
            for what in ("work", "ordered", "answers"):
                self._spark.sql(f"DROP TABLE IF EXISTS {self.named(what)}")
        else:
            self._spark.createDataFrame([], _NOTHING).write.mode("overwrite").parquet(f"{self._folder}/rows")
        self._made.clear()

    @property
    def _folder(self) -> str:
        return f"{(self._target.path or '').rstrip('/')}__spark_llm"

    def _table(self, what: str) -> Table:
        if self._target.path is None:
            return self._sibling(what)
        return Table(self._spark, ("parquet", f"{self._folder}/rows/{what}"))

    def _sibling(self, what: str) -> Table:
        *places, name = self._target.parts
        return Table(self._spark, (*places, f"{name}__spark_llm_{what}"))
