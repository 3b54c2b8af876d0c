"""Images of a megabyte: a worker's peak memory over a UDF that passes its batches through, and the rate of requests."""

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf

from benchmarks.support import baselines
from benchmarks.support.behaviours import Steady
from benchmarks.support.endpoint_process import CHAT, EndpointProcess
from benchmarks.support.figures import Figure, Goal, Rounds, speed_ratio
from benchmarks.support.session import ROOT, ColumnFunction, bench
from benchmarks.udf.memory import workers_mb
from spark_llm import Policy, chat_udf
from spark_llm.engine import engine

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
