"""The requests of `ai_agg`, against the fewest that carry all texts of all groups and then combine the answers."""

import random
import time
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from benchmarks.support.figures import Figure, Goal
from benchmarks.support.session import bench
from spark_llm import Endpoint, functions
from spark_llm.ai.aggregate_plan import CONTEXT_TOKENS, window_of
from spark_llm.ai.aggregation import Instructions, instructions_of
from spark_llm.ai.packing import line_bytes
from spark_llm.flow.batcher import BYTES_PER_TOKEN
from spark_llm.protocol.chat.task import Chat
from spark_llm.serving import LocalEndpoints
from spark_llm.serving.protocol.requests import ChatRequest
from spark_llm.serving.protocol.values import Choice, Texts, Usage

INSTRUCTION = "List the three most common complaints."
FULL, SHORT = (20_000, 50), (600, 3)
CORES = 2


@dataclass(frozen=True)
class _Counting:
    """A model whose tokens are as many bytes as the estimate says."""

    name: str = "counting"

    async def chat(self, request: ChatRequest) -> Texts:
        """Answer with a word."""
        sent = sum(len(message.text.encode()) for message in request.messages)
        return Texts([Choice("complaints", "stop")], Usage(-(-sent // BYTES_PER_TOKEN), 1))


def measure(*, short: bool) -> list[Figure]:
    """Aggregate groups of reviews of different lengths, as one column and level by level."""
    rows, groups = SHORT if short else FULL
    dice = random.Random(1)
    data = [(number % groups, _review(number, dice)) for number in range(rows)]
    fewest = _fewest_requests(data, groups)
    with LocalEndpoints({"chat": _Counting()}) as endpoints, bench(CORES) as session:
        chat = Endpoint(endpoints.invocations("chat"), token=endpoints.token)
        df = session.spark.createDataFrame(data, "team INT, review STRING").repartition(CORES).persist()
        df.count()

        def as_column() -> DataFrame:
            groups_of = df.groupBy("team").agg(F.collect_list("review").alias("reviews"))
            return groups_of.select(functions.llm_agg("reviews", INSTRUCTION, chat=chat).alias("answer"))

        def by_levels() -> DataFrame:
            return functions.aggregate(df, by="team", content="review", instruction=INSTRUCTION, chat=chat)

        figures: list[Figure] = []
        for name, run in (("`ai_agg`", as_column), ("… `aggregate`", by_levels)):
            endpoints.reset()
            start_s = time.perf_counter()
            answered = run().where("answer.error IS NULL AND answer.text = 'complaints'").agg(F.sum("answer.rows"))
            if (counted := answered.collect()[0][0]) != rows:
                raise RuntimeError(f"{counted} of {rows} rows are in the answers.")
            seconds, requests = time.perf_counter() - start_s, endpoints.stats.requests
            figures.append(
                Figure(
                    f"{name}, requests for {rows:,} rows in {groups} groups, of the fewest",
                    [requests / fewest],
                    f"{requests:,} in {seconds:.1f} s",
                    f"{fewest:,}",
                    Goal(at_most=1.02),
                    digits=3,
                    note=""
                    if figures
                    else "Aggregates: reviews of 100 to 1,100 characters; the fewest requests are, over groups and"
                    f" levels, the estimated tokens divided by what a window of {CONTEXT_TOKENS:,} has room for.",
                )
            )
    return figures


def _review(number: int, dice: random.Random) -> str:
    words = ("screen", "battery", "slow", "delivery", "broke", "again", "refund", "works", "the", "and")
    return f"{dice.random():.9f} {number} " + " ".join(dice.choices(words, k=dice.randrange(15, 180)))


def _fewest_requests(data: list[tuple[int, str]], groups: int) -> int:
    """Return, over all groups and levels, the sum of the estimated tokens by the budget, rounded up."""
    instructions = instructions_of(INSTRUCTION, window_of(CONTEXT_TOKENS, Chat()))
    if not isinstance(instructions, Instructions):
        raise TypeError(instructions)
    total = 0
    for group in range(groups):
        tokens = sum(line_bytes(text) for team, text in data if team == group) / BYTES_PER_TOKEN
        leaves = -(-tokens // instructions.budget_tokens)
        total += int(leaves) + (leaves > 1)  # the answers fit into one node
    return total
