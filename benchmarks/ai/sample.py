"""The requests that `functions.classify_by_sample` saves, on generated texts with known labels."""

import time

from pyspark.sql import functions as F

from benchmarks.support.figures import Figure, Goal
from benchmarks.support.session import bench
from benchmarks.support.topics import TOPICS, Labeller, WordVectors, text_of
from spark_llm import Endpoint
from spark_llm.functions import classify_by_sample
from spark_llm.serving import LocalEndpoints

CORES = 2
UNCLEAR, WRONG = 0.03, 0.01  # shares of the texts
FULL, SHORT = (20_000, 0.95), (600, 0.8)  # rows, and the agreement asked for


def measure(*, short: bool) -> list[Figure]:
    """Classify texts once, and compare each label with the one that the chat model gives to that text."""
    count, agreement = SHORT if short else FULL
    labeller = Labeller(WRONG)
    texts = [text_of(number, UNCLEAR) for number in range(count)]
    with bench(CORES) as spark, LocalEndpoints({"chat": labeller, "embed": WordVectors()}) as endpoints:
        df = spark.spark.createDataFrame([(each,) for each in texts], "text STRING").repartition(CORES)
        chat, embed = (Endpoint(endpoints.invocations(name), token=endpoints.token) for name in ("chat", "embed"))
        start_s = time.perf_counter()
        rows, report = classify_by_sample(df, "text", list(TOPICS), chat=chat, embed=embed, agreement=agreement)
        seconds = time.perf_counter() - start_s
        requests = endpoints.stats.endpoints["chat"].requests
        decided = rows.where(F.col("decided_by") == "model").select("text", "label").collect()
    if requests != report.asked or len(decided) + requests != count:
        raise RuntimeError(f"{requests} requests and {len(decided)} decided rows are not {count} rows.")
    equal = sum(labeller.label(row["text"]) == row["label"] for row in decided)
    return [
        Figure(
            "`classify_by_sample`: chat requests, of the rows",
            [requests / count],
            f"{requests:,} requests",
            f"{count:,} rows",
            Goal(at_most=0.2),
            note=f"Sample: {count:,} texts of four topics, {UNCLEAR:.0%} of them with words of two, and a chat model"
            f" that gives {WRONG:.0%} another one; the vectors count words. The seconds are those of the whole call on"
            f" `local[{CORES}]`, with the endpoints in the same process.",
        ),
        Figure(
            f"… labels equal to the chat model's, where the small model decides; {agreement:g} asked for",
            [equal / len(decided)],
            f"{equal:,} rows",
            f"{len(decided):,} rows",
            Goal(at_least=agreement),
            digits=3,
        ),
        Figure("… the whole call", [seconds], unit="s", digits=1),
    ]
