"""The requests of `ai_agg`, against the fewest that carry all texts of all groups and then combine the answers."""

import random
import time
import zlib
from collections.abc import Callable
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
LENGTHS = {90: "texts of 50 to 600 characters", 180: "of 100 to 1,100"}
NOTE = (
    "Aggregates: the fewest requests are, over groups and levels, the estimated tokens divided by what a window of"
    f" {CONTEXT_TOKENS:,} has room for. No leaf can be quite full: about half a text is left free."
)


@dataclass(frozen=True)
class _Counting:
    """A model whose tokens are as many bytes as the estimate says."""

    name: str = "counting"

    async def chat(self, request: ChatRequest) -> Texts:
        """Answer with a word of its own, so that no two nodes are equal."""
        sent = sum(len(message.text.encode()) for message in request.messages)
        word = zlib.crc32(request.messages[-1].text.encode())
        return Texts([Choice(f"complaints {word}", "stop")], Usage(-(-sent // BYTES_PER_TOKEN), 1))


def measure(*, short: bool) -> list[Figure]:
    """Aggregate groups of reviews of different lengths, as one column and level by level."""
    rows, groups = SHORT if short else FULL
    figures: list[Figure] = []
    with LocalEndpoints({"chat": _Counting()}) as endpoints, bench(CORES) as session:
        chat = Endpoint(endpoints.invocations("chat"), token=endpoints.token)

        def as_column(df: DataFrame) -> DataFrame:
            arrays = df.groupBy("team").agg(F.collect_list("review").alias("reviews"))
            return arrays.select(functions.llm_agg("reviews", INSTRUCTION, chat=chat).alias("answer"))

        def by_levels(df: DataFrame) -> DataFrame:
            return functions.aggregate(df, by="team", content="review", instruction=INSTRUCTION, chat=chat)

        for max_words, lengths in LENGTHS.items():
            dice = random.Random(1)
            data = [(number % groups, _review(number, max_words, dice)) for number in range(rows)]
            fewest = _fewest_requests(data, groups)
            df = session.spark.createDataFrame(data, "team INT, review STRING").repartition(CORES).persist()
            df.count()
            for name, run in (("`ai_agg`", as_column), ("`aggregate`", by_levels)):
                endpoints.reset()
                seconds = _seconds(run, df, rows)
                requests = endpoints.stats.requests
                figures.append(
                    Figure(
                        f"{'… ' * bool(figures)}{name}, {lengths}: requests for {rows:,} rows in {groups} groups,"
                        " of the fewest",
                        [requests / fewest],
                        f"{requests:,} in {seconds:.1f} s",
                        f"{fewest:,}",
                        Goal(at_most=1.02),
                        digits=3,
                        note="" if figures else NOTE,
                    )
                )
    return figures


def _seconds(run: Callable[[DataFrame], DataFrame], df: DataFrame, rows: int) -> float:
    """Return the time of an aggregate; raises `RuntimeError` where a row is in no answer."""
    start_s = time.perf_counter()
    answered = run(df).where("answer.error IS NULL AND answer.text LIKE 'complaints %'")
    counted = answered.agg(F.sum("answer.rows")).collect()[0][0]
    if counted != rows:
        raise RuntimeError(f"{counted} of {rows} rows are in the answers.")
    return time.perf_counter() - start_s


def _review(number: int, max_words: int, dice: random.Random) -> str:
    words = ("screen", "battery", "slow", "delivery", "broke", "again", "refund", "works", "the", "and")
    return f"{dice.random():.9f} {number} " + " ".join(
        dice.choices(words, k=dice.randrange(max_words // 12, max_words))
    )


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
