"""Chat rows a second at zero latency: the library's overhead, against baselines."""

import subprocess
import sys
from importlib.util import find_spec
from statistics import median

from benchmarks.support import baselines
from benchmarks.support.endpoint_process import CHAT, EndpointProcess
from benchmarks.support.figures import Figure, Goal, Rounds, speed_ratio
from benchmarks.support.peer import peer_rounds
from benchmarks.support.session import ROOT, ColumnFunction, bench
from spark_llm import Policy, chat_udf

IN_FLIGHT = 64
FULL = {"rounds": 5, "ours": 30_000, "bare": 60_000, "threads": 10_000, "openai": 4_000, "openaivec": 1_500}
SHORT = {"rounds": 1, "ours": 1_000, "bare": 2_000, "threads": 500, "openai": 40}


def measure(*, short: bool) -> list[Figure]:
    """Time one worker (`local[1]`) at zero latency, in turn with each baseline, one of which has no Spark."""
    size = SHORT if short else FULL
    rounds = {name: Rounds(size[name]) for name in ("ours", "bare", "threads", "openai")}
    busy = []
    with bench(1) as spark:
        url = spark.endpoint.url(CHAT)
        columns: dict[str, ColumnFunction] = {
            "ours": chat_udf(url, policy=Policy(max_in_flight=IN_FLIGHT)),
            "threads": baselines.chat_in_threads(url, IN_FLIGHT),
        }
        if find_spec("openai") is not None:
            columns["openai"] = baselines.chat_with_openai(spark.endpoint.base_url())
        for name, ask in columns.items():
            spark.warm(ask, size[name] // 4)
        for _ in range(size["rounds"]):
            rounds["bare"].seconds.append(_bare(spark.endpoint, size["bare"]))
            for name, ask in columns.items():
                seconds, counters = spark.time_job(ask, size[name])
                rounds[name].seconds.append(seconds)
                if name == "ours":
                    busy.append(counters.cpu_s / counters.wall_s)
        options = {"batch_size": 1, "max_concurrency": IN_FLIGHT}
        peer, peer_note = peer_rounds("chat", spark.endpoint, 1, size, options)
    note = (
        f"Chat: zero latency, {IN_FLIGHT} in flight, {size['ours']:,} rows on `local[1]` in Arrow batches of 10,000, "
        f"as Spark cuts them. The endpoint was busy {median(busy):.0%} of the time. The bare loop is one process: "
        f"{IN_FLIGHT} coroutines over one aiohttp session, from text to text, and nothing else."
    )
    ours, threads = rounds["ours"], f"… against requests in {IN_FLIGHT} threads in a pandas UDF"
    return [
        speed_ratio(
            "chat at zero latency, against a bare aiohttp loop without Spark",
            ours,
            rounds["bare"],
            Goal(at_least=0.5),
            note,
        ),
        speed_ratio(threads, ours, rounds["threads"], Goal(at_least=5)),
        speed_ratio("… against the openai client, row by row, in a pandas UDF", ours, rounds["openai"]),
        speed_ratio("… against openaivec", ours, peer, Goal(at_least=20), f"Chat: {peer_note}"),
    ]


def _bare(endpoint: EndpointProcess, rows: int) -> float:
    command = [sys.executable, "-m", "benchmarks.support.baselines", endpoint.url(CHAT), str(rows), str(IN_FLIGHT)]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
