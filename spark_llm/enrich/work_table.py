"""The work of one run, written down: how much there is, and chunk by chunk, in the order of the key."""

from bisect import bisect_right
from itertools import accumulate

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from spark_llm.enrich.changes import any_of, col
from spark_llm.enrich.staging import Staging
from spark_llm.errors import ConfigError

_ROW_BITS = 33  # of Spark's monotonically increasing numbers; the partition's stand above them
_LAST = 2**63 - 1


class WorkTable:
    """Rows for which there is something to do. Rows next to each other in a chunk are so in the target's files too.

    Attributes:
        to_ask: How many rows wait to be asked.
        quiet: How many are written without being asked.
        gone: How many of those are to be deleted.
        bytes: About how long all that is asked is, as text.
    """

    def __init__(self, beside: Staging, to_do: DataFrame) -> None:
        """Write down what `changes.to_do` finds; raises `ConfigError` where the key does not tell rows apart."""
        self._beside = beside
        self._rows = beside.write("work", to_do)
        self._asks = any_of(col("asks", name) for name in _names(self._rows, "asks"))
        self._in_order: DataFrame | None = None
        self._starts: list[int] = []
        self._taken = 0
        counts = self._rows.agg(
            F.count_if(self._asks).alias("to_ask"),
            F.count_if(~self._asks).alias("quiet"),
            F.count_if("gone").alias("gone"),
            F.coalesce(F.sum("size"), F.lit(0)).alias("bytes"),
            F.count_if(self._no_key).alias("null"),
            F.count_if(col("copies") > 1).alias("repeated"),
        ).collect()[0]
        self.to_ask, self.quiet, self.gone, self.bytes = (counts[name] for name in ("to_ask", "quiet", "gone", "bytes"))
        if counts["null"] or counts["repeated"]:
            raise self._no_key_error(counts["null"], counts["repeated"])

    @property
    def schema(self) -> StructType:
        """What a row of it has."""
        return self._rows.schema

    def take(self, count: int) -> DataFrame:
        """Return the next rows that wait to be asked."""
        if count == self.to_ask:
            return self._rows.where(self._asks)
        if self._in_order is None:
            self._in_order = self._sorted()
        first, last = self._place(self._taken), self._place(self._taken + count)
        self._taken += count
        return self._in_order.where((col("place") >= first) & (col("place") < last))

    def _sorted(self) -> DataFrame:
        """Write down what waits once more, in the order of the key, and numbered."""
        rows = self._rows.where(self._asks).repartitionByRange("key").sortWithinPartitions("key")
        placed = self._beside.write("ordered", rows.withColumn("place", F.monotonically_increasing_id()))
        counts = placed.groupBy(F.shiftright("place", _ROW_BITS).alias("part")).count().collect()
        sizes = {row["part"]: row["count"] for row in counts}
        self._starts = list(accumulate((sizes.get(part, 0) for part in range(max(sizes) + 1)), initial=0))
        return placed

    def _place(self, index: int) -> int:
        """Return the number that Spark gave to the row of this index."""
        if index >= self.to_ask:
            return _LAST
        part = bisect_right(self._starts, index) - 1
        return (part << _ROW_BITS) + index - self._starts[part]

    @property
    def _no_key(self) -> Column:
        return any_of(col("key", name).isNull() for name in _names(self._rows, "key"))

    def _no_key_error(self, null: int, repeated: int) -> ConfigError:
        key = ", ".join(_names(self._rows, "key"))
        if null:
            return ConfigError(
                f"The key ({key}) is null in {null:,} row{'s' * (null > 1)}.",
                "leave such rows out of the source, or name a key that every row has.",
            )
        some = self._rows.where(col("copies") > 1).select("key.*").distinct().limit(3).collect()
        return ConfigError(
            f"The key ({key}) does not tell rows apart: {'; '.join(', '.join(map(repr, row)) for row in some)}"
            f"{' and others are' if repeated > 6 else ' is' if len(some) == 1 else ' are'} there more than once.",
            "name all columns that tell a row apart, or make the source's rows distinct first.",
        )


def _names(rows: DataFrame, part: str) -> list[str]:
    kind = rows.schema[part].dataType
    return kind.fieldNames() if isinstance(kind, StructType) else []
