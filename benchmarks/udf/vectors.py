"""Embeddings of 1,024 numbers: the throughput from the wire to a Spark column."""

from importlib.util import find_spec

from benchmarks.support import baselines
from benchmarks.support.bodies import DIMENSIONS
from benchmarks.support.endpoint_process import EMBEDDINGS
from benchmarks.support.figures import Figure, Goal, Rounds, speed_ratio
from benchmarks.support.peer import peer_rounds
from benchmarks.support.session import ColumnFunction, bench
from spark_llm import Policy, embed_udf

CORES = 2
IN_FLIGHT = 8  # of each task: a request carries 64 texts
BATCH_SIZE = 64
FULL = {"rounds": 5, "ours": 40_000, "threads": 40_000, "openai": 20_000, "openaivec": 20_000}
SHORT = {"rounds": 1, "ours": 1_000, "threads": 1_000, "openai": 256}


def measure(*, short: bool) -> list[Figure]:
    """Time embeddings on two cores, in turn with threads that read JSON numbers, and with the openai client."""
    size = SHORT if short else FULL
    rounds = {name: Rounds(size[name]) for name in ("ours", "threads", "openai")}
    with bench(CORES) as spark:
        url = spark.endpoint.url(EMBEDDINGS)
        policy = Policy(max_in_flight=CORES * IN_FLIGHT, tasks=CORES, batch_size=BATCH_SIZE)
        columns: dict[str, ColumnFunction] = {
            "ours": embed_udf(url, policy=policy),
            "threads": baselines.embed_in_threads(url, IN_FLIGHT, BATCH_SIZE),
        }
        if find_spec("openai") is not None:
            columns["openai"] = baselines.embed_with_openai(spark.endpoint.base_url(), BATCH_SIZE)
        for name, ask in columns.items():
            spark.warm(ask, size[name] // 4)
        for _ in range(size["rounds"]):
            for name, ask in columns.items():
                rounds[name].seconds.append(spark.time_job(ask, size[name])[0])
        options = {"batch_size": BATCH_SIZE, "max_concurrency": IN_FLIGHT}
        peer, peer_note = peer_rounds("embeddings", spark.endpoint, CORES, size, options)
    note = (
        f"Embeddings: {size['ours']:,} rows on `local[{CORES}]`, {BATCH_SIZE} texts a request, {IN_FLIGHT} requests "
        "in flight in each task, zero latency. The threads read lists of JSON numbers, nine digits each; the openai "
        "client reads base64, one request at a time."
    )
    ours, what = (
        rounds["ours"],
        f"embeddings of {DIMENSIONS:,} numbers, against requests in threads in a pandas UDF",
    )
    return [
        speed_ratio(what, ours, rounds["threads"], Goal(at_least=4), note),
        speed_ratio("… against the openai client, batch by batch, in a pandas UDF", ours, rounds["openai"]),
        speed_ratio("… against openaivec", ours, peer, Goal(at_least=5), f"Embeddings: {peer_note}"),
    ]
