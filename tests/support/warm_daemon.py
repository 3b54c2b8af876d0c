"""Spark's daemon of Python workers, made quick: it has imported what each worker needs, and PySpark from its folder.

A worker of Spark's own daemon imports pyarrow, pandas and the library anew. Spark also puts PySpark on the path as an
archive, which Python compiles in each worker. After each task a worker collects garbage: what was imported here is
left out of it.
"""

import gc
import sys

sys.path[:] = [path for path in sys.path if not path.endswith(".zip")]

import pandas as pd  # noqa: E402, F401 -- after the change of the path, and for the workers, as all that follows
import pyarrow as pa  # noqa: E402, F401
from pyspark import daemon  # noqa: E402

import spark_llm.udf.model_udf  # noqa: E402, F401

if __name__ == "__main__":
    gc.freeze()
    daemon.manager()
