"""Spark's own daemon of Python workers, with the libraries of a worker loaded: a worker starts a second sooner.

Tests start a hundred workers. The daemon of a user's Spark loads nothing; the benchmarks, the tests that kill drivers
and those on a cluster have that one.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy starts no thread, which a fork would lose

from pyspark import (
    daemon,
    worker,  # noqa: F401 -- loaded for the forks, as below
)

import spark_llm.ai.udf
import spark_llm.enrich.multi_udf
import spark_llm.udf.model_udf  # noqa: F401

if __name__ == "__main__":
    daemon.manager()
