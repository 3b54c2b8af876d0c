"""Embeddings of 1,024 numbers: the way of a vector from the wire to a Spark column."""

from importlib.util import find_spec

from benchmarks.support import rivals
from benchmarks.support.bodies import DIMENSIONS
from benchmarks.support.figures import Figure, Goal, Rounds, against
from benchmarks.support.peer import peer_rounds
from benchmarks.support.running import EMBEDDINGS
from benchmarks.support.session import Asked, bench
from spark_llm import Policy, embed_udf

CORES = 2
IN_FLIGHT = 8  # of each task: a request carries 64 texts
BATCH_SIZE = 64
FULL = {"rounds": 5, "ours": 40_000, "threads": 40_000, "openai": 20_000, "openaivec": 20_000}
SHORT = {"rounds": 1, "ours": 1_000, "threads": 1_000, "openai": 256}


def measure(*, short: bool) -> list[Figure]:
    """Embed on two cores, in turn with what reads JSON numbers in threads, and with the openai client."""
    size = SHORT if short else FULL
    took = {name: Rounds(size[name]) for name in ("ours", "threads", "openai")}
    with bench(CORES) as spark:
        url = spark.endpoint.url(EMBEDDINGS)
        policy = Policy(max_in_flight=CORES * IN_FLIGHT, tasks=CORES, batch_size=BATCH_SIZE)
        asked: dict[str, Asked] = {
            "ours": embed_udf(url, policy=policy),
            "threads": rivals.embed_in_threads(url, IN_FLIGHT, BATCH_SIZE),
        }
        if find_spec("openai") is not None:
            asked["openai"] = rivals.embed_with_openai(spark.endpoint.base_url(), BATCH_SIZE)
        for name, ask in asked.items():
            spark.warm(ask, size[name] // 4)
        for _ in range(size["rounds"]):
            for name, ask in asked.items():
                took[name].seconds.append(spark.timed(ask, size[name])[0])
        options = {"batch_size": BATCH_SIZE, "max_concurrency": IN_FLIGHT}
        peer, peer_note = peer_rounds("embeddings", spark.endpoint, CORES, size, options)
    note = (
        f"Embeddings: {size['ours']:,} rows on `local[{CORES}]`, {BATCH_SIZE} texts a request, {IN_FLIGHT} requests "
        "in flight in each task, zero latency. The threads read lists of JSON numbers, nine digits each; the openai "
        "client reads base64, one request at a time."
    )
    ours, what = took["ours"], f"embeddings of {DIMENSIONS:,} numbers, against requests in threads in a pandas UDF"
    return [
        against(what, ours, took["threads"], Goal(at_least=4), note),
        against("… against the openai client, batch by batch, in a pandas UDF", ours, took["openai"]),
        against("… against openaivec", ours, peer, Goal(at_least=5), f"Embeddings: {peer_note}"),
    ]
