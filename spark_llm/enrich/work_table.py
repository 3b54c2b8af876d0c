"""The pending rows of one run, written down: how many there are, and the rows of each chunk in the order of the key."""

from bisect import bisect_right
from itertools import accumulate

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_llm.enrich.changes import asked_condition, check_key, col, key_counts
from spark_llm.enrich.plan import RunPlan
from spark_llm.enrich.staging import Staging

_ROW_BITS = 33  # of `monotonically_increasing_id`; the partition's number stands above them
_MAX_ROW_NUMBER = 2**63 - 1


class WorkTable:
    """The pending rows. Neighbours in a chunk are neighbours in the target's files too.

    Attributes:
        rows: The pending rows as they were written.
        asked: The SQL condition that a row asks something.
        to_ask: How many rows are to be asked.
        unasked: How many rows are to be written without being asked.
        deleted: How many of those are to be deleted.
        input_bytes: About how many bytes of text are to be asked.
    """

    def __init__(self, staging: Staging, pending: DataFrame, plan: RunPlan) -> None:
        """Write down what `changes.pending_rows` finds; raises `ConfigError` where the key is null or not unique."""
        self._staging = staging
        self.asked = asked_condition(plan)
        self._in_order: DataFrame | None = None
        self._partition_starts: list[int] = []
        self._taken = 0
        aggregates = {
            "to_ask": f"count_if({self.asked})",
            "unasked": f"count_if(NOT ({self.asked}))",
            "deleted": "count_if(deleted)",
            "input_bytes": "coalesce(sum(size), 0)",
            **key_counts(plan.key),
        }
        self.rows, counts = staging.write("work", pending, aggregates)
        self.to_ask, self.unasked, self.deleted, self.input_bytes = (
            int(counts[name]) for name in ("to_ask", "unasked", "deleted", "input_bytes")
        )
        check_key(self.rows, plan.key, counts)

    def take(self, count: int) -> DataFrame:
        """Return the next rows to ask."""
        if count == self.to_ask:
            return self.rows.where(self.asked)
        if self._in_order is None:
            self._in_order = self._sorted()
        first, end = self._row_number(self._taken), self._row_number(self._taken + count)
        self._taken += count
        return self._in_order.where((col("row_number") >= first) & (col("row_number") < end))

    def _sorted(self) -> DataFrame:
        """Write the rows to ask once more, in the order of the key, and numbered."""
        rows = self.rows.where(self.asked).repartitionByRange("key").sortWithinPartitions("key")
        numbered, _ = self._staging.write("ordered", rows.withColumn("row_number", F.monotonically_increasing_id()), {})
        counts = numbered.groupBy(F.shiftright("row_number", _ROW_BITS).alias("partition")).count().collect()
        sizes = {row["partition"]: row["count"] for row in counts}
        self._partition_starts = list(accumulate((sizes.get(n, 0) for n in range(max(sizes) + 1)), initial=0))
        return numbered

    def _row_number(self, index: int) -> int:
        """Return the number that Spark gave to the row of this index."""
        if index >= self.to_ask:
            return _MAX_ROW_NUMBER
        partition = bisect_right(self._partition_starts, index) - 1
        return (partition << _ROW_BITS) + index - self._partition_starts[partition]
