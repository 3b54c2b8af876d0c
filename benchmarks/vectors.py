"""Embeddings of 1,024 numbers: the way of a vector from the wire to a Spark column."""

from benchmarks import rivals
from benchmarks.endpoint import DIMENSIONS
from benchmarks.figures import Figure, Goal, rate
from benchmarks.session import Asked, bench
from spark_llm import Policy, embed_udf

CORES = 2
IN_FLIGHT = 8  # of each task: a request carries 64 texts
BATCH_SIZE = 64
FULL = {"rounds": 5, "rows": 40_000}
SHORT = {"rounds": 1, "rows": 1_000}


def measure(*, short: bool) -> list[Figure]:
    """Embed the same rows on two cores, in turn with requests in threads that read JSON numbers."""
    size = SHORT if short else FULL
    rows = size["rows"]
    took: dict[str, list[float]] = {"ours": [], "threads": []}
    with bench(CORES) as spark:
        url = spark.endpoint.url("zero/embeddings")
        policy = Policy(max_in_flight=CORES * IN_FLIGHT, tasks=CORES, batch_size=BATCH_SIZE)
        asked: dict[str, Asked] = {
            "ours": embed_udf(url, policy=policy),
            "threads": rivals.embed_in_threads(url, IN_FLIGHT, BATCH_SIZE),
        }
        for ask in asked.values():
            spark.warm(ask, rows // 4)
        for _ in range(size["rounds"]):
            for name, ask in asked.items():
                took[name].append(spark.timed(ask, rows)[0])
    return [
        Figure(
            f"embeddings of {DIMENSIONS:,} numbers, against requests in threads in a pandas UDF",
            [theirs / ours for ours, theirs in zip(took["ours"], took["threads"], strict=True)],
            rate(rows, took["ours"]),
            rate(rows, took["threads"]),
            Goal(at_least=4),
            note=f"Embeddings: {rows:,} rows on `local[{CORES}]`, {BATCH_SIZE} texts a request, {IN_FLIGHT} requests "
            "in flight in each task, zero latency. The baseline reads lists of JSON numbers, nine digits each.",
        )
    ]
