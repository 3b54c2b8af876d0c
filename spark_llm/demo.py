"""The demonstration: customer reviews, enriched by a chat model and an embedding model, in Python and in SQL.

It is what a user's own job looks like, against any endpoints; the command line hands it local ones.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from tqdm import tqdm

from spark_llm._model_udf import ModelUDF
from spark_llm.endpoint import Endpoint
from spark_llm.functions import llm_classify
from spark_llm.policy import Policy
from spark_llm.sql import register_ai_functions
from spark_llm.udfs import chat_udf, embed_udf

REVIEWS = Path(__file__).with_name("reviews.csv")
_MOODS = ["positive", "negative"]
_SUMMARIES = [  # a model this small needs to be shown
    ("The mug keeps coffee hot for hours, but the lid leaks when I walk.", "Keeps coffee hot, but the lid leaks."),
    ("Ordered blue, got red, and returning it took three weeks.", "Wrong colour arrived and the return was slow."),
]
_LIKENESS = "aggregate(zip_with(a.vector, b.vector, (x, y) -> double(x * y)), 0D, (sum, part) -> sum + part)"


def run(chat: Endpoint, embed: Endpoint, answered: Callable[[], int], out: Path) -> None:
    """Enrich the reviews, write them as Parquet under `out` and print what came of it.

    `answered` returns how many rows the endpoints have answered so far; the progress bar shows it. `out` is written
    anew. The model is asked about each review once for its mood, once for a summary and once for a vector.
    """
    policy = Policy(max_in_flight=8, tasks=2)  # a model on two cores has little to gain from more
    mood = chat_udf(chat, max_tokens=48, temperature=0, policy=policy)
    summary = chat_udf(
        chat, system="Summarize the review in one short sentence.", max_tokens=32, temperature=0, policy=policy
    )
    vector = embed_udf(embed, policy=policy)

    spark = _session()
    path = str(out.absolute() / "reviews.parquet")
    reviews = spark.read.csv(str(REVIEWS), header=True, inferSchema=True, multiLine=True).repartition(2, "id")
    enriched = (
        reviews.withColumn("mood_answer", llm_classify("review", _MOODS, chat=mood))
        .withColumn("mood", F.col("mood_answer.parsed"))
        .withColumn("summary", summary(_conversation(F.col("review"))))
        .withColumn("vector", vector("review"))
    )
    rows = reviews.count()
    print(f"Asking about {rows} reviews: a mood, a summary and a vector each.", flush=True)
    began = time.monotonic()
    with _progress(3 * rows, answered):
        enriched.write.mode("overwrite").parquet(path)
    seconds = time.monotonic() - began

    written = spark.read.parquet(path)  # from here on nothing is asked again
    print(f"\nWritten to {path}. Ten of them, as a model of 135 million parameters sees them:")
    written.select("id", "product", "mood", F.col("summary.text").alias("summary")).orderBy("id").show(10, truncate=90)
    moods = written.groupBy("mood").count().orderBy("mood").collect()
    print("Moods: " + ", ".join(f"{row['count']} {row['mood']}" for row in moods))
    _show_nearest(written)
    _show_usage(written, seconds)
    _show_sql(spark, mood, embed, reviews)


def _conversation(review: Column) -> Column:
    """Return the conversation that asks for a summary: two that were given before, then this review."""

    def message(role: str, content: Column) -> Column:
        return F.struct(F.lit(role).alias("role"), content.alias("content"))

    shown = [
        message(role, F.lit(text))
        for pair in _SUMMARIES
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    return F.array(*shown, message("user", review))


def _session() -> SparkSession:
    """Make a session on two cores that listens on loopback only and says little."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    began = time.monotonic()
    session = (
        SparkSession.builder.appName("spark_llm demo")
        .master("local[2]")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )
    print(f"Spark {session.version} on two cores, started in {time.monotonic() - began:.1f} s.", flush=True)
    return session


@contextmanager
def _progress(total: int, answered: Callable[[], int]) -> Iterator[None]:
    """Show a bar of rows answered while the block runs."""
    over = threading.Event()
    before = answered()
    with tqdm(total=total, unit="row", desc="Answered") as bar:

        def draw() -> None:
            while not over.wait(0.2):
                bar.update(answered() - before - bar.n)

        drawing = threading.Thread(target=draw, daemon=True)
        drawing.start()
        try:
            yield
        finally:
            over.set()
            drawing.join()
            bar.update(answered() - before - bar.n)


def _show_nearest(written: DataFrame) -> None:
    texts = written.select("id", "review", F.col("vector.embedding").alias("vector"))
    pairs = texts.alias("a").crossJoin(texts.alias("b")).where("a.id < b.id")
    nearest = pairs.withColumn("likeness", F.expr(_LIKENESS)).orderBy(F.desc("likeness"))
    pair = nearest.selectExpr("a.id AS a", "a.review AS one", "b.id AS b", "b.review AS other", "likeness").first()
    if pair is not None:
        print(f"\nThe nearest pair of reviews, {pair['a']} and {pair['b']} (cosine {pair['likeness']:.2f}):")
        print(f"  {pair['one']}\n  {pair['other']}")


def _show_usage(written: DataFrame, seconds: float) -> None:
    asked = ("mood_answer", "summary", "vector")
    answers = written.select(F.explode(F.array(*[F.struct(f"{name}.usage.*", f"{name}.error") for name in asked])))
    totals = answers.select("col.*").agg(
        F.count("*").alias("asked"),
        F.count("error").alias("failed"),
        F.sum("prompt_tokens").alias("prompt"),
        F.sum("completion_tokens").alias("completion"),
    )
    row = totals.first()
    if row is not None:
        speed = row["asked"] / seconds
        print(f"\n{row['asked']} rows asked, {row['failed']} failed, in {seconds:.1f} s: {speed:.1f} rows/s.")
        print(f"Tokens as the endpoint reported them: {row['prompt']} in, {row['completion']} out.")
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
       ai_similarity(review, 'It kept us dry.') AS nearness
FROM reviews
WHERE product = 'tent'"""
    print(f"\nThe same in SQL:\n\n{query}\n")
    spark.sql(query).drop("answer").show(truncate=False)
