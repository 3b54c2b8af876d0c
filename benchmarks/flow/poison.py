"""Poisoned inputs: one among many that share requests, and all of them."""

import math

from benchmarks.support.behaviours import WordRefusal
from benchmarks.support.bodies import ECHO_DIMENSIONS
from benchmarks.support.endpoint_process import EMBEDDINGS
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.flow import WARM_ROWS
from benchmarks.support.session import Bench, Outcome, bench
from spark_llm import embed_udf

FULL = 10_000
SHORT = 500
BATCH_SIZE = 64  # the policy's default
MEDIAN_S = 0.05


def measure(*, short: bool) -> list[Figure]:
    """Return the extra requests of one poisoned input, and the requests until a job with only such inputs stops."""
    rows = SHORT if short else FULL
    with bench(1) as spark:
        spark.warm(embed_udf(spark.endpoint.url(EMBEDDINGS), dimensions=ECHO_DIMENSIONS), WARM_ROWS)
        clean = _embedded(spark, rows, WordRefusal(median_s=MEDIAN_S, word="absent"))
        one = _embedded(spark, rows, WordRefusal(median_s=MEDIAN_S))
        whole = _embedded(spark, rows, WordRefusal(median_s=MEDIAN_S, word=""))
    least = math.ceil(rows / BATCH_SIZE)
    unanswered = abs(one.lost - 1) + one.wrong + (one.errors != ["invalid_request"])
    return [
        Figure(
            f"one poisoned row in {rows:,} embeddings: extra requests",
            [one.counters.requests - clean.counters.requests],
            f"{one.counters.requests}",
            f"{clean.counters.requests}",
            Goal(at_most=14),
            unit="requests",
            digits=0,
            note=f"Poison: {rows:,} rows in one task, {BATCH_SIZE} texts a request. The baseline is the same job with "
            f"the poisoned input left out, with at least {least} requests. The poisoned row must get the error "
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
            [whole.counters.requests],
            f"{whole.lost:,} errors",
            goal=Goal(at_most=10),
            unit="requests",
            digits=0,
        ),
    ]


def _embedded(spark: Bench, rows: int, behaviour: WordRefusal) -> Outcome:
    """Embed texts with the middle one poisoned."""
    number = f"IF(id = {rows // 2}, 'poison', CAST(id AS STRING))"
    ask = embed_udf(spark.endpoint.url(EMBEDDINGS, behaviour), dimensions=ECHO_DIMENSIONS)
    return spark.check_answers(ask, spark.prompts(rows, number))
