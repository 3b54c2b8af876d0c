"""How much of 64 places in flight is used where latencies vary as they do in life, and Arrow batches are small.

`local[1]` with all 64 places in one worker: so it is the window that is measured, and not how evenly two partitions
happened to be dealt.
"""

from benchmarks import rivals
from benchmarks.endpoint import MEDIAN_S, SIGMA
from benchmarks.figures import Figure, Goal
from benchmarks.session import Asked, Bench, bench
from spark_llm import Policy, chat_udf

IN_FLIGHT = 64
BATCH_ROWS = 128
FULL = {"rows": 24_000, "warm": 1_280}
SHORT = {"rows": 128, "warm": 32}


def measure(*, short: bool) -> list[Figure]:
    """Return the share of the ideal rate, which is 64 over the mean latency: ours, and that of a pool of threads."""
    size = SHORT if short else FULL
    with bench(1, {"spark.sql.execution.arrow.maxRecordsPerBatch": str(BATCH_ROWS)}) as spark:
        url = spark.endpoint.url("lognormal/chat/completions")
        udf = chat_udf(url, policy=Policy(max_in_flight=IN_FLIGHT))
        ours, most = _share(spark, f"share of the ideal rate, {IN_FLIGHT} in flight", udf, size)
        threads = rivals.chat_in_threads(url, IN_FLIGHT)
        theirs, _ = _share(spark, f"… of requests in {IN_FLIGHT} threads, batch by batch", threads, size)
    note = (
        f"Share of the ideal rate: lognormal latencies (median {MEDIAN_S} s, sigma {SIGMA}), the same draws for both; "
        f"{size['rows']:,} rows on `local[1]` in Arrow batches of {BATCH_ROWS}. The ideal is the sum of the latencies, "
        f"counted by the endpoint, over {IN_FLIGHT}. At most {most} of our requests were in flight."
    )
    return [Figure(*ours, Goal(at_least=0.9), note=note), Figure(*theirs)]


def _share(spark: Bench, what: str, ask: Asked, size: dict[str, int]) -> tuple[tuple[str, list[float], str, str], int]:
    """Return the first cells of the figure, and the most requests that were in flight."""
    spark.warm(ask, size["warm"])
    seconds, counted = spark.timed(ask, size["rows"])
    ideal_s = counted.latency_s / IN_FLIGHT
    return (what, [ideal_s / seconds], f"{seconds:.1f} s", f"{ideal_s:.1f} s"), counted.max_in_flight
