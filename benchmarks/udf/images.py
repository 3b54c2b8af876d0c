"""Images of a megabyte: a worker's peak memory over a UDF that passes its batches through, and the rate of requests."""

from pyspark.sql import Column
from pyspark.sql import functions as F

from benchmarks.support.behaviours import Steady

IN_FLIGHT = 16
BATCH_ROWS = 4
IMAGE_BYTES = 2**20
LATENCY = Steady(median_s=0.4)
FULL = {"rounds": 3, "images": 200}
SHORT = {"rounds": 1, "images": 24}
_MAX_RECORDS = "spark.sql.execution.arrow.maxRecordsPerBatch"


def jpeg(name: str) -> Column:
    """Return a column of bytes that begin as a JPEG, different for different texts of another column."""
    return F.expr(f"concat(X'FFD8FF', cast(repeat(md5({name}), {IMAGE_BYTES // 32}) AS BINARY))")
