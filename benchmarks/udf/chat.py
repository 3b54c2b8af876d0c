"""Chat rows a second where answers cost nothing: what the library itself costs, next to what else there is."""

import subprocess
import sys
from importlib.util import find_spec
from statistics import median

from benchmarks.support import rivals
from benchmarks.support.figures import Figure, Goal, Rounds, against
from benchmarks.support.peer import peer_rounds
from benchmarks.support.running import CHAT, Running
from benchmarks.support.session import ROOT, Asked, bench
from spark_llm import Policy, chat_udf

IN_FLIGHT = 64
FULL = {"rounds": 5, "ours": 30_000, "bare": 60_000, "threads": 10_000, "openai": 4_000, "openaivec": 1_500}
SHORT = {"rounds": 1, "ours": 1_000, "bare": 2_000, "threads": 500, "openai": 40}


def measure(*, short: bool) -> list[Figure]:
    """Ask at zero latency from one worker (`local[1]`), in turn with each baseline, in one process too."""
    size = SHORT if short else FULL
    took = {name: Rounds(size[name]) for name in ("ours", "bare", "threads", "openai")}
    busy = []
    with bench(1) as spark:
        url = spark.endpoint.url(CHAT)
        asked: dict[str, Asked] = {
            "ours": chat_udf(url, policy=Policy(max_in_flight=IN_FLIGHT)),
            "threads": rivals.chat_in_threads(url, IN_FLIGHT),
        }
        if find_spec("openai") is not None:
            asked["openai"] = rivals.chat_with_openai(spark.endpoint.base_url())
        for name, ask in asked.items():
            spark.warm(ask, size[name] // 4)
        for _ in range(size["rounds"]):
            took["bare"].seconds.append(_bare(spark.endpoint, size["bare"]))
            for name, ask in asked.items():
                seconds, counted = spark.timed(ask, size[name])
                took[name].seconds.append(seconds)
                if name == "ours":
                    busy.append(counted.cpu_s / counted.wall_s)
        options = {"batch_size": 1, "max_concurrency": IN_FLIGHT}
        peer, peer_note = peer_rounds("chat", spark.endpoint, 1, size, options)
    note = (
        f"Chat: zero latency, {IN_FLIGHT} in flight, {size['ours']:,} rows on `local[1]` in Arrow batches of 10,000, "
        f"as Spark cuts them. The endpoint was busy {median(busy):.0%} of the time. The bare loop is one process: "
        f"{IN_FLIGHT} coroutines over one aiohttp session, from text to text, and nothing else."
    )
    ours, threads = took["ours"], f"… against requests in {IN_FLIGHT} threads in a pandas UDF"
    return [
        against(
            "chat at zero latency, against a bare aiohttp loop without Spark",
            ours,
            took["bare"],
            Goal(at_least=0.5),
            note,
        ),
        against(threads, ours, took["threads"], Goal(at_least=5)),
        against("… against the openai client, row by row, in a pandas UDF", ours, took["openai"]),
        against("… against openaivec", ours, peer, Goal(at_least=20), f"Chat: {peer_note}"),
    ]


def _bare(endpoint: Running, rows: int) -> float:
    command = [sys.executable, "-m", "benchmarks.support.rivals", endpoint.url(CHAT), str(rows), str(IN_FLIGHT)]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
