"""The demonstration: customer reviews, enriched by a chat model and an embedding model, in Python and in SQL.

It is what a user's own job looks like, against any endpoints; the command line hands it local ones.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from tqdm import tqdm

from spark_llm.ai.sql import register_ai_functions
from spark_llm.cli.local.spark import local_spark
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.enrich.api import enrich_table
from spark_llm.functions import llm_classify
from spark_llm.policy import Policy
from spark_llm.protocol.identifiers import quoted
from spark_llm.udf.factories import chat_udf, embed_udf
from spark_llm.udf.model_udf import ModelUDF

REVIEWS = Path(__file__).with_name("reviews.csv")
_MOODS = ["positive", "negative"]
_SUMMARIES = [  # a model this small needs to be shown
    ("The mug keeps coffee hot for hours, but the lid leaks when I walk.", "Keeps coffee hot, but the lid leaks."),
    ("Ordered blue, got red, and returning it took three weeks.", "Wrong colour arrived and the return was slow."),
]
_LIKENESS = "aggregate(zip_with(a.vector, b.vector, (x, y) -> double(x * y)), 0D, (sum, part) -> sum + part)"


class _Models(NamedTuple):
    """What is asked about a review."""

    mood: ModelUDF
    summary: ModelUDF
    vector: ModelUDF

    def columns(self) -> dict[str, Column]:
        """Return the columns that it becomes."""
        return {
            "mood_answer": llm_classify("review", _MOODS, chat=self.mood),
            "summary": self.summary(_conversation(F.col("review"))),
            "vector": self.vector("review"),
        }


def run(chat: Endpoint, embed: Endpoint, answered: Callable[[], int], out: Path) -> None:
    """Enrich the reviews into a Delta table under `out`, twice, and print what came of it.

    The model is asked about each review once for its mood, once for a summary and once for a vector; the second time
    nothing is asked. Where Delta Lake cannot be had, they are written once, as Parquet, and `answered` tells the
    progress bar how many rows the endpoints have answered so far. What is under `out` from before is written anew.
    """
    policy = Policy(max_in_flight=8, tasks=2)  # a model on two cores has little to gain from more
    models = _Models(
        mood=chat_udf(chat, max_tokens=48, temperature=0, policy=policy),
        summary=chat_udf(
            chat, system="Summarize the review in one short sentence.", max_tokens=32, temperature=0, policy=policy
        ),
        vector=embed_udf(embed, policy=policy),
    )
    began = time.monotonic()
    spark, lacks_delta = local_spark("spark_llm demo")
    print(f"Spark {spark.version} on two cores, started in {time.monotonic() - began:.1f} s.", flush=True)
    reviews = spark.read.csv(str(REVIEWS), header=True, inferSchema=True, multiLine=True).repartition(2, "id")
    print(f"Asking about {reviews.count()} reviews: a mood, a summary and a vector each.", flush=True)
    if lacks_delta:
        print(f"{lacks_delta} Until then this writes Parquet, and cannot ask for what is missing alone.", flush=True)
        written = _as_parquet(reviews, models, answered, out / "reviews.parquet")
    else:
        written = _into_delta(reviews, models, out / "reviews")

    written = written.withColumn("mood", F.col("mood_answer.parsed"))  # from here on nothing is asked again
    print("\nTen of them, as a model of 135 million parameters sees them:")
    written.select("id", "product", "mood", F.col("summary.text").alias("summary")).orderBy("id").show(10, truncate=90)
    moods = written.groupBy("mood").count().orderBy("mood").collect()
    print("Moods: " + ", ".join(f"{row['count']} {row['mood']}" for row in moods))
    _show_nearest(written)
    _show_sql(spark, models.mood, embed, reviews)


def _into_delta(reviews: DataFrame, models: _Models, path: Path) -> DataFrame:
    """Fill the columns of a Delta table, and once more, which asks nothing; print both reports and return the table."""
    spark, place = reviews.sparkSession, path.absolute().as_posix()
    target = quoted(("delta", place))
    if (path / "_delta_log").is_dir():
        # What a demonstration before it wrote: this one is to ask.
        spark.sql(f"DELETE FROM {target}")  # noqa: S608 -- a name in quotes
    print(f"\n{enrich_table(spark, reviews, target, 'id', models.columns())}")
    again = enrich_table(spark, reviews, target, "id", models.columns(), progress=False)
    print(f"\nThe same job once more: {again.asked} rows asked, {again.skipped} needed nothing, {again.seconds:.1f} s.")
    return spark.table(target)


def _as_parquet(reviews: DataFrame, models: _Models, answered: Callable[[], int], path: Path) -> DataFrame:
    """Ask and write in one go; print what it came to and return what was written."""
    enriched = reviews.withColumns(models.columns())
    began = time.monotonic()
    with _progress(3 * reviews.count(), answered):
        enriched.write.mode("overwrite").parquet(str(path.absolute()))
    seconds = time.monotonic() - began
    print(f"\nWritten to {path.absolute()}.")
    written = reviews.sparkSession.read.parquet(str(path.absolute()))
    _show_usage(written, seconds)
    return written


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
