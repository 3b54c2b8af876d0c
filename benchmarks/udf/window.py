"""The use of 64 slots in flight with lognormal latencies and small Arrow batches.

It runs on `local[1]` with all 64 slots in one worker, so an uneven split of partitions has no effect.
"""

from benchmarks.support import baselines
from benchmarks.support.behaviours import Steady
from benchmarks.support.endpoint_process import CHAT
from benchmarks.support.figures import Figure, Goal
from benchmarks.support.session import Bench, ColumnFunction, bench
from spark_llm import Policy, chat_udf

IN_FLIGHT = 64
BATCH_ROWS = 128
LATENCY = Steady(median_s=0.2, sigma=0.6)
FULL = {"ours": 24_000, "threads": 8_000, "warm": 1_280}
SHORT = {"ours": 128, "threads": 128, "warm": 32}


def measure(*, short: bool) -> list[Figure]:
    """Return the share of the ideal rate, which is 64 over the mean latency: ours, and that of a thread pool."""
    size = SHORT if short else FULL
    with bench(1, {"spark.sql.execution.arrow.maxRecordsPerBatch": str(BATCH_ROWS)}) as spark:
        url = spark.endpoint.url(CHAT, LATENCY)
        udf = chat_udf(url, policy=Policy(max_in_flight=IN_FLIGHT))
        threads = baselines.chat_in_threads(url, IN_FLIGHT)
        for ask in (udf, threads):
            spark.warm(ask, size["warm"])
        took_s, ideal_s, most = _job(spark, udf, size["ours"])
        their_s, their_ideal_s, _ = _job(spark, threads, size["threads"])
    note = (
        f"Share of the ideal rate: lognormal latencies (median {LATENCY.median_s} s, sigma {LATENCY.sigma}); "
        f"{size['ours']:,} rows, {size['threads']:,} for the threads, on `local[1]` in Arrow batches of {BATCH_ROWS}. "
        f"The ideal is the sum of the latencies, counted by the endpoint, over {IN_FLIGHT}. At most {most} of our "
        "requests were in flight."
    )
    return [
        Figure(
            f"share of the ideal rate, {IN_FLIGHT} in flight",
            [ideal_s / took_s],
            f"{took_s:.1f} s",
            f"{ideal_s:.1f} s",
            Goal(at_least=0.95),
            digits=3,
            note=note,
        ),
        Figure(
            f"… of requests in {IN_FLIGHT} threads, batch by batch",
            [their_ideal_s / their_s],
            f"{their_s:.1f} s",
            f"{their_ideal_s:.1f} s",
            digits=3,
        ),
    ]


def _job(spark: Bench, ask: ColumnFunction, rows: int) -> tuple[float, float, int]:
    """Return the seconds, the ideal seconds, and the maximum of requests in flight."""
    seconds, counters = spark.time_job(ask, rows)
    return seconds, counters.service_s / IN_FLIGHT, counters.max_in_flight
