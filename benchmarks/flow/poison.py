"""Inputs that the endpoint refuses: one among many that share requests, and all of them."""

import math

from benchmarks.support.behaviours import Picky
from benchmarks.support.bodies import ECHO_DIMENSIONS
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.flow import WARM_ROWS
from benchmarks.support.running import EMBEDDINGS
from benchmarks.support.session import Bench, Outcome, bench
from spark_llm import embed_udf

FULL = 10_000
SHORT = 500
BATCH_SIZE = 64  # the policy's default
MEDIAN_S = 0.05


def measure(*, short: bool) -> list[Figure]:
    """Return what one bad input costs, and what it costs to find out that the request itself is refused."""
    rows = SHORT if short else FULL
    with bench(1) as spark:
        spark.warm(embed_udf(spark.endpoint.url(EMBEDDINGS), dimensions=ECHO_DIMENSIONS), WARM_ROWS)
        clean = _embedded(spark, rows, Picky(median_s=MEDIAN_S, word="absent"))
        one = _embedded(spark, rows, Picky(median_s=MEDIAN_S))
        whole = _embedded(spark, rows, Picky(median_s=MEDIAN_S, word=""))
    least = math.ceil(rows / BATCH_SIZE)
    unanswered = abs(one.lost - 1) + one.wrong + (one.errors != ["invalid_request"])
    return [
        Figure(
            f"one poisoned row in {rows:,} embeddings: extra requests",
            [one.counted.requests - clean.counted.requests],
            f"{one.counted.requests}",
            f"{clean.counted.requests}",
            Goal(at_most=14),
            unit="requests",
            digits=0,
            note=f"Poison: {rows:,} rows in one task, {BATCH_SIZE} texts a request. The baseline is the same job with "
            f"no bad input, {least} requests at the least. The bad one is to get an error of the kind "
            "`invalid_request`, and every other row its own vector.",
        ),
        Figure(
            "… rows that did not get what is theirs",
            [unanswered],
            f"{one.rows - one.lost:,} answers, {one.lost} errors ({', '.join(one.errors)})",
            goal=Goal(at_most=0),
            unit="rows",
            digits=0,
        ),
        Figure(
            "a request that is refused as a whole: requests until that is known",
            [whole.counted.requests],
            f"{whole.lost:,} errors",
            goal=Goal(at_most=10),
            unit="requests",
            digits=0,
        ),
    ]


def _embedded(spark: Bench, rows: int, behaviour: Picky) -> Outcome:
    """Embed texts of which the middle one is poisoned."""
    number = f"IF(id = {rows // 2}, 'poison', CAST(id AS STRING))"
    ask = embed_udf(spark.endpoint.url(EMBEDDINGS, behaviour), dimensions=ECHO_DIMENSIONS)
    return spark.checked(ask, spark.questions(rows, number))
