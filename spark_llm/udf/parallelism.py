"""How many tasks a session runs at once."""

import re

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

_SPLITS = re.compile(r"splits=(\d+)")


def default_parallelism(spark: SparkSession) -> int:
    """Return how many tasks run at once; Connect has no `sparkContext`, and a plan costs no job."""
    found = _SPLITS.search(spark.sql("EXPLAIN SELECT * FROM range(1)").collect()[0][0])
    if found:
        return int(found[1])
    return spark.range(10_000).select(F.spark_partition_id()).distinct().count()
