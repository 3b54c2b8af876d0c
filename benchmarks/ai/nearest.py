"""The nearest vectors by `functions.nearest`, against a cross join in Spark SQL and Spark's own join."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from benchmarks.support.figures import Figure, Goal
from benchmarks.support.session import Bench, bench
from spark_llm.functions import nearest

CORES, NUMBERS, K = 2, 384, 10
FULL = {"cross": (1_000, 20_000), "own": (100, 10_000), "alone": (10_000, 100_000)}
SHORT = {"cross": (10, 200), "own": (10, 100), "alone": (20, 300)}
SIMILARITY = "vector_cosine_similarity(q, c)"


def measure(*, short: bool) -> list[Figure]:
    """Search random vectors of 384 floats for the 10 nearest, in turn with the baselines; then many, alone."""
    size, rounds = (SHORT, 1) if short else (FULL, 3)
    with tempfile.TemporaryDirectory() as folder, bench(CORES, {"spark.driver.memory": "4g"}) as spark:

        def times(search: Callable[[DataFrame, DataFrame], DataFrame], pair: tuple[int, int]) -> list[float]:
            return [_seconds(search, *(_vectors(spark, folder, count) for count in pair)) for _ in range(rounds)]

        _seconds(_ours, *(_vectors(spark, folder, count) for count in SHORT["cross"]))  # workers import
        ours, cross = times(_ours, size["cross"]), times(_cross, size["cross"])
        small, own = times(_ours, size["own"]), times(_nearest_by_join, size["own"])
        alone_s = _seconds(_ours, *(_vectors(spark, folder, count) for count in size["alone"]))
    queries, rows = size["cross"]
    few, thousands = size["own"]
    return [
        Figure(
            f"`nearest`, {queries:,} × {rows:,} vectors, of the time of a cross join",
            [min(ours) / min(cross)],
            f"{min(ours):.1f} s",
            f"{min(cross):.1f} s",
            Goal(at_most=0.5),
            note=f"Nearest vectors: the {K} nearest of random vectors of {NUMBERS} floats in Parquet, on"
            f" `local[{CORES}]`; the fastest of {rounds} rounds of each. The cross join ranks by"
            " `vector_cosine_similarity` and collects the best of each query in an array.",
        ),
        Figure(
            f"… {few:,} × {thousands:,} vectors, of the time of Spark's nearestByJoin",
            [min(small) / min(own)],
            f"{min(small):.1f} s",
            f"{min(own):.1f} s",
        ),
        Figure(
            f"… {size['alone'][0]:,} × {size['alone'][1]:,} vectors",
            [alone_s],
            goal=Goal(at_most=120),
            unit="s",
            digits=1,
        ),
    ]


def _vectors(spark: Bench, folder: str, count: int) -> DataFrame:
    """Return so many random vectors with their numbers, the same each time, from a file."""
    path = Path(folder, f"{count}.parquet")
    if not path.exists():
        values = np.random.default_rng(count).standard_normal((count, NUMBERS), dtype=np.float32)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), NUMBERS).cast(pa.list_(pa.float32()))
        pq.write_table(pa.table({"id": pa.array(range(count)), "embedding": vectors}), path, row_group_size=4_096)
    return spark.spark.read.parquet(str(path))


def _ours(queries: DataFrame, corpus: DataFrame) -> DataFrame:
    return nearest(queries, corpus, K).select("id", F.transform("nearest", lambda each: each["id"]).alias("found"))


def _cross(queries: DataFrame, corpus: DataFrame) -> DataFrame:
    pairs = queries.selectExpr("id", "embedding AS q").crossJoin(corpus.selectExpr("id AS other", "embedding AS c"))
    scored = pairs.selectExpr("id", f"struct({SIMILARITY} AS similarity, other) AS pair")
    best = scored.groupBy("id").agg(F.sort_array(F.collect_list("pair"), asc=False).alias("pairs"))
    return best.selectExpr("id", f"transform(slice(pairs, 1, {K}), pair -> pair.other) AS found")


def _nearest_by_join(queries: DataFrame, corpus: DataFrame) -> DataFrame:
    renamed = corpus.selectExpr("id AS other", "embedding AS c")
    joined = queries.selectExpr("id", "embedding AS q").nearestByJoin(
        renamed, F.expr(SIMILARITY), K, "exact", "similarity"
    )
    return joined.groupBy("id").agg(F.collect_list("other").alias("found"))


def _seconds(search: Callable[[DataFrame, DataFrame], DataFrame], queries: DataFrame, corpus: DataFrame) -> float:
    """Return the time of a search; raises `RuntimeError` where a query has another number of rows."""
    start_s = time.perf_counter()
    wrong = search(queries, corpus).where(f"size(found) <> {K}").count()
    seconds = time.perf_counter() - start_s
    if wrong:
        raise RuntimeError(f"{wrong} queries do not have {K} rows.")
    return seconds
