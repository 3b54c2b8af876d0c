"""The demo: a chat model and an embedding model enrich customer reviews, in Python and in SQL.

A user's own job looks like this, against any endpoints; the command line passes local ones.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_llm.ai.sql import register_ai_functions
from spark_llm.cli.local.spark import STARTING, demo_session
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.enrich.api import enrich_table
from spark_llm.functions import llm_classify
from spark_llm.metering.tally import Tally
from spark_llm.monitoring.bar import Progress
from spark_llm.policy import Policy
from spark_llm.protocol.identifiers import quoted
from spark_llm.udf.factories import chat_udf, embed_udf
from spark_llm.udf.model_udf import ModelUDF

REVIEWS = Path(__file__).with_name("reviews.csv")
_MOODS = ["positive", "negative"]
_SUMMARIES = [  # examples, which a model this small needs
    ("The mug keeps coffee hot for hours, but the lid leaks when I walk.", "Keeps coffee hot, but the lid leaks."),
    ("Ordered blue, got red, and returning it took three weeks.", "Wrong colour arrived and the return was slow."),
]
_COSINE = "aggregate(zip_with(a.vector, b.vector, (x, y) -> double(x * y)), 0D, (sum, part) -> sum + part)"


class _AnsweredRows:
    """The rows that endpoints have answered since now, as the live counts of a job without chunks."""

    def __init__(self, answered: Callable[[], int]) -> None:
        self._answered = answered
        self._before = answered()

    def rows(self) -> int:
        """Return how many rows are answered."""
        return self._answered() - self._before

    def counts(self) -> Mapping[str, Tally]:
        """Return no tallies: the endpoints do not know the columns."""
        return {}

    def flow(self) -> None:
        """Return None: nobody tells it."""

    def end(self) -> None:
        """Do nothing."""


def run(chat: Endpoint, embed: Endpoint, answered: Callable[[], int], out: Path) -> None:
    """Enrich the reviews into a Delta table under `out`, twice, and print the results.

    The first run sends three requests for each review: sentiment, summary and vector. The second run sends none.
    Without Delta Lake, one run writes Parquet. An earlier demo's output under `out` is overwritten.

    Args:
        chat: A chat endpoint.
        embed: An embedding endpoint.
        answered: A function that returns how many rows the endpoints have answered so far, for the progress bar.
        out: A folder for the table and for Spark's log.
    """
    policy = Policy(max_in_flight=8)  # a model on two cores gains little from more
    mood = chat_udf(chat, max_tokens=48, temperature=0, policy=policy)
    instructions = "Summarize the review in one short sentence."
    summary = chat_udf(chat, system=instructions, max_tokens=32, temperature=0, policy=policy)
    vector = embed_udf(embed, policy=policy)
    began_s = time.monotonic()
    log = out / "spark.log"
    print(f"{STARTING} Spark's log: {log}", flush=True)
    spark, why_no_delta = demo_session(log)
    print(f"Spark {spark.version} on two cores, started in {time.monotonic() - began_s:.1f} s.", flush=True)
    reviews = spark.read.csv(str(REVIEWS), header=True, inferSchema=True, multiLine=True).repartition(2, "id")
    columns = {
        "mood_answer": llm_classify("review", _MOODS, chat=mood),
        "summary": summary(_conversation(F.col("review"))),
        "vector": vector("review"),
    }
    print(f"Enriching {reviews.count()} reviews with a mood, a summary and a vector each.", flush=True)
    if why_no_delta:
        print(f"{why_no_delta} Until then the demo writes Parquet, and does not show a second run.", flush=True)
        enriched = _into_parquet(reviews, columns, answered, out / "reviews.parquet")
    else:
        enriched = _into_delta(reviews, columns, out / "reviews")

    enriched = enriched.withColumn("mood", F.col("mood_answer.parsed"))  # read from the table: no further requests
    print("\nTen reviews, as a model of 135 million parameters sees them:")
    enriched.select("id", "product", "mood", F.col("summary.text").alias("summary")).orderBy("id").show(10, truncate=90)
    moods = enriched.groupBy("mood").count().orderBy("mood").collect()
    print("Moods: " + ", ".join(f"{row['count']} {row['mood']}" for row in moods))
    _show_nearest(enriched)
    _show_sql(spark, mood, embed, reviews)


def _into_delta(reviews: DataFrame, columns: Mapping[str, Column], path: Path) -> DataFrame:
    """Run the job on a Delta table twice, print both reports, and return the table."""
    spark, place = reviews.sparkSession, path.absolute().as_posix()
    target = quoted("delta", place)
    if (path / "_delta_log").is_dir():
        spark.sql(f"DELETE FROM {target}")  # noqa: S608 -- a name in quotes
    print(f"\n{enrich_table(spark, reviews, target, 'id', columns)}")
    again = enrich_table(spark, reviews, target, "id", columns, progress=False)
    print(f"\nThe same job once more: {again.asked} rows asked, {again.skipped} needed nothing, {again.seconds:.1f} s.")
    return spark.table(target)


def _into_parquet(
    reviews: DataFrame, columns: Mapping[str, Column], answered: Callable[[], int], path: Path
) -> DataFrame:
    """Write the enriched reviews as Parquet, print the usage, and return them."""
    enriched = reviews.withColumns(dict(columns))
    began_s = time.monotonic()
    with Progress(3 * reviews.count(), _AnsweredRows(answered), lambda _: None, enabled=True):
        enriched.write.mode("overwrite").parquet(str(path.absolute()))
    seconds = time.monotonic() - began_s
    print(f"\nWritten to {path.absolute()}.")
    written = reviews.sparkSession.read.parquet(str(path.absolute()))
    _show_usage(written, seconds)
    return written


def _conversation(review: Column) -> Column:
    """Return the messages that ask for a summary: two examples with their answers, then this review."""

    def message(role: str, content: Column) -> Column:
        return F.struct(F.lit(role).alias("role"), content.alias("content"))

    examples = [
        message(role, F.lit(text))
        for pair in _SUMMARIES
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    return F.array(*examples, message("user", review))


def _show_nearest(written: DataFrame) -> None:
    texts = written.select("id", "review", F.col("vector.embedding").alias("vector"))
    pairs = texts.alias("a").crossJoin(texts.alias("b")).where("a.id < b.id")
    nearest = pairs.withColumn("cosine", F.expr(_COSINE)).orderBy(F.desc("cosine"))
    shown = nearest.selectExpr("a.id AS a", "a.review AS one", "b.id AS b", "b.review AS other", "cosine")
    [pair] = shown.take(1)
    print(f"\nThe nearest pair of reviews, {pair['a']} and {pair['b']} (cosine {pair['cosine']:.2f}):")
    print(f"  {pair['one']}\n  {pair['other']}")


def _show_usage(written: DataFrame, seconds: float) -> None:
    columns = ("mood_answer", "summary", "vector")
    answers = written.select(F.explode(F.array(*[F.struct(f"{name}.usage.*", f"{name}.error") for name in columns])))
    totals = answers.select("col.*").agg(
        F.count("*").alias("asked"),
        F.count("error").alias("failed"),
        F.sum("prompt_tokens").alias("prompt"),
        F.sum("completion_tokens").alias("completion"),
    )
    [row] = totals.collect()
    rows_per_s = row["asked"] / seconds
    print(f"\n{row['asked']} rows asked, {row['failed']} failed, in {seconds:.1f} s: {rows_per_s:.1f} rows/s.")
    print(f"Tokens that the endpoint reported: {row['prompt']} prompt, {row['completion']} completion.")
    errors = answers.where("col.error IS NOT NULL").groupBy("col.error.kind").count().collect()
    for error in errors:
        print(f"  {error['kind']}: {error['count']}")


def _show_sql(spark: SparkSession, mood: ModelUDF, embed: Endpoint, reviews: DataFrame) -> None:
    register_ai_functions(spark, chat=mood, embed=embed)
    reviews.createOrReplaceTempView("reviews")
    query = """\
SELECT id,
       llm_classify(review, array('positive', 'negative')) AS answer,
       answer.parsed AS mood,
       answer.usage.total_tokens AS tokens,
       ai_similarity(review, 'It kept us dry.') AS similarity
FROM reviews
WHERE product = 'tent'"""
    print(f"\nThe same in SQL:\n\n{query}\n")
    spark.sql(query).drop("answer").show(truncate=False)
