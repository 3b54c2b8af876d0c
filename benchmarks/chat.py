"""Chat rows a second where answers cost nothing: what the library itself costs, next to what else there is."""

import subprocess
import sys
from importlib.util import find_spec
from statistics import median

from benchmarks import rivals
from benchmarks.endpoint import Running
from benchmarks.figures import Figure, Goal, rate
from benchmarks.session import ROOT, Asked, bench
from spark_llm import Policy, chat_udf

IN_FLIGHT = 64
FULL = {"rounds": 5, "ours": 30_000, "bare": 60_000, "threads": 10_000, "openai": 4_000}
SHORT = {"rounds": 1, "ours": 1_000, "bare": 2_000, "threads": 500, "openai": 40}


def measure(*, short: bool) -> list[Figure]:
    """Ask at zero latency from one worker (`local[1]`), in turn with each baseline, in one process too."""
    size = SHORT if short else FULL
    took: dict[str, list[float]] = {"ours": [], "bare": [], "threads": [], "openai": []}
    busy = []
    with bench(1) as spark:
        url = spark.endpoint.url("zero/chat/completions")
        asked: dict[str, Asked] = {
            "ours": chat_udf(url, policy=Policy(max_in_flight=IN_FLIGHT)),
            "threads": rivals.chat_in_threads(url, IN_FLIGHT),
        }
        if find_spec("openai") is not None:
            asked["openai"] = rivals.chat_with_openai(spark.endpoint.url("zero"))
        for name, ask in asked.items():
            spark.warm(ask, size[name] // 4)
        for _ in range(size["rounds"]):
            took["bare"].append(_bare(spark.endpoint, size["bare"]))
            for name, ask in asked.items():
                seconds, counted = spark.timed(ask, size[name])
                took[name].append(seconds)
                if name == "ours":
                    busy.append(counted.cpu_s / counted.wall_s)

    def figure(what: str, name: str, goal: Goal | None = None, note: str = "") -> Figure:
        pairs = zip(took["ours"], took[name], strict=True)
        ratios = [(size["ours"] / ours) / (size[name] / other) for ours, other in pairs]
        return Figure(what, ratios, rate(size["ours"], took["ours"]), rate(size[name], took[name]), goal, note=note)

    figures = [
        figure(
            "chat at zero latency, against a bare aiohttp loop without Spark",
            "bare",
            Goal(at_least=0.5),
            f"Chat: zero latency, {IN_FLIGHT} in flight, {size['ours']:,} rows on `local[1]` in Arrow batches of "
            f"10,000, as Spark cuts them. The endpoint was busy {median(busy):.0%} of the time. The bare loop is one "
            f"process: {IN_FLIGHT} coroutines over one aiohttp session, from text to text, and nothing else.",
        ),
        figure(f"… against requests in {IN_FLIGHT} threads in a pandas UDF", "threads", Goal(at_least=5)),
    ]
    if took["openai"]:
        figures.append(figure("… against the openai client, row by row, in a pandas UDF", "openai"))
    return figures


def _bare(endpoint: Running, rows: int) -> float:
    address = endpoint.url("zero/chat/completions")
    command = [sys.executable, "-m", "benchmarks.rivals", address, str(rows), str(IN_FLIGHT)]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
