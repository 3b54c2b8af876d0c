"""Spark's daemon of Python workers, made quick: it has imported what each worker needs, and PySpark from its folder.

A worker of Spark's own daemon imports pyarrow, pandas and the library anew. Spark also puts PySpark on the path as an
archive, which Python compiles in each worker.
"""

import sys
from contextlib import suppress

sys.path[:] = [path for path in sys.path if not path.endswith(".zip")]

with suppress(ImportError):  # a Python that lacks some of them has the workers that Spark's own daemon gives it
    import pandas as pd  # noqa: F401 -- for the workers, as all that follows
    import pyarrow as pa  # noqa: F401

    import spark_llm.udf.model_udf  # noqa: F401

from pyspark import daemon  # noqa: E402 -- after the change of the path

if __name__ == "__main__":
    daemon.manager()
