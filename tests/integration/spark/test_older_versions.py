"""Tables and staged answers of an older version, whose `usage` lacks the newest fields."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from spark_llm import JobFailedError, Price, chat_udf, estimate, usage_report
from spark_llm.enrich.column_types import accepts, missing_fields
from spark_llm.enrich.merge import answer_values, merge_statement
from spark_llm.enrich.table import Table
from spark_llm.schemas import CHAT
from spark_llm.serving import LocalEndpoints
from tests.integration.spark.asking import Run, chat, endpoint, texts, written
from tests.integration.spark.test_usage import Metered

pytestmark = pytest.mark.one_kind

NEWEST = ["cache_write_tokens", "service_tier", "image_tokens", "audio_tokens"]
LAST = NEWEST[2:]  # which the version before lacks
PRICE = Price(3, 15, cached=0.3, cache_write=3.75, tiers={"flex": 0.5})
ROW_USD = (10 * 3 + 60 * 0.3 + 30 * 3.75 + 10 * 15) / 1e6


def older(column: str, path: str = "") -> Column:
    """Return a struct as an older version had it; the answers are in the field at `path`."""
    return F.col(column).dropFields(*(f"{path}usage.{name}" for name in NEWEST))


@pytest.mark.slow
def test_a_target_of_an_older_version_gets_the_fields_that_it_lacks(
    spark: SparkSession, place: Callable[[str], str], run: Run
) -> None:
    """Old answers stay and are not asked again; new ones have all fields, and the job's cost is the table's."""
    target = place("target")
    with LocalEndpoints({"metered": Metered()}) as endpoints:
        columns = {"answer": chat_udf(endpoint(endpoints, "metered"))("text")}
        run(texts(spark, 20), place("now"), columns)
        written(spark.table(place("now")).withColumn("answer", older("answer")), target)
        estimated = estimate(spark, texts(spark, 30), target, "id", columns, prices=PRICE)
        before = endpoints.stats.requests
        _, report = run(texts(spark, 30), target, columns, prices=PRICE)
        assert 9 == endpoints.stats.requests - before
    rows = spark.table(target)
    new = usage_report(rows.where("id >= 20"), "answer", prices=PRICE)

    assert CHAT.simpleString() == rows.schema["answer"].dataType.simpleString()
    assert (30, 27) == (rows.count(), rows.where("answer.text = text").count())
    assert 18 == rows.where("id < 20 AND answer.usage.cached_tokens = 60 AND answer.usage.service_tier IS NULL").count()
    assert (9, 270, 270) == (report.asked, report.cache_write_tokens, new.cache_write_tokens)
    assert pytest.approx((5 + 4 / 2) * ROW_USD) == report.usd == new.usd
    named = ", ".join(map(repr, NEWEST))
    assert report.notes == (f"answer.usage is of an older version: {named} were added.",)
    without_writes = 9 * (ROW_USD + 30 * (3 - 3.75) / 1e6)  # old answers tell no tier and no write
    assert estimated.usd == pytest.approx(without_writes, rel=0.05)


@pytest.mark.slow
def test_an_estimate_rests_on_the_tiers_and_the_cache_of_earlier_answers(
    spark: SparkSession, place: Callable[[str], str], run: Run
) -> None:
    """It has the price of the answers in the target."""
    with LocalEndpoints({"metered": Metered()}) as endpoints:
        columns = {"answer": chat_udf(endpoint(endpoints, "metered"))("text")}
        _, report = run(texts(spark, 20), place("target"), columns, prices=PRICE)
        twice = estimate(spark, texts(spark, 40).where("id >= 20"), place("target"), "id", columns, prices=PRICE)

    assert pytest.approx((10 + 8 / 2) * ROW_USD) == report.usd
    assert twice.usd == pytest.approx(report.usd, rel=0.05)  # the numbers are as long, but for the first


@pytest.mark.slow
def test_staged_answers_of_an_older_version_are_merged(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """A run that was killed before an upgrade loses none of its answers by it."""
    target, columns = place("target"), {"answer": chat(endpoints)("text")}
    questions = texts(spark, 20).where("text IS NOT NULL")
    written(texts(spark, 0).select("id"), target)
    spark.sql(f"ALTER TABLE {target} ADD CONSTRAINT none CHECK (id < 0)")
    with pytest.raises(JobFailedError):
        run(questions, target, columns)
    spark.sql(f"ALTER TABLE {target} DROP CONSTRAINT none")
    path = Table.named(spark, "target=", target).path
    [staged] = Path(f"{path}__spark_llm/rows").glob("*/answers")
    now = spark.read.parquet(str(staged)).withColumn("result", older("result", "answer."))
    now.write.parquet(str(staged.parent / "older"))
    spark.read.parquet(str(staged.parent / "older")).write.mode("overwrite").parquet(str(staged))

    requests, report = run(questions, target, columns)
    assert (0, 18, 18) == (requests, report.recovered, spark.table(target).where("answer.text = text").count())
    assert CHAT.simpleString() == spark.table(target).schema["answer"].dataType.simpleString()


@pytest.mark.slow
def test_a_target_that_takes_no_new_fields_keeps_those_that_it_has(
    spark: SparkSession, place: Callable[[str], str]
) -> None:
    """The MERGE writes an answer with the fields of the target."""
    target = written(
        spark.range(1)
        .select(F.col("id"), F.lit(None).cast(CHAT).alias("answer"), F.lit("").alias("answer_fingerprint"))
        .withColumn("answer", older("answer")),
        place("target"),
    )
    answer = F.from_json(F.lit('{"text": "yes", "usage": {"prompt_tokens": 3, "cache_write_tokens": 2}}'), CHAT)
    staged = spark.range(2).select(
        F.struct("id").alias("key"),
        F.struct(answer.alias("answer")).alias("result"),
        F.struct(F.lit(True).alias("answer")).alias("writes"),
        F.struct(F.lit("f").alias("answer")).alias("fingerprints"),
        F.lit(False).alias("deleted"),
        F.lit(True).alias("changed"),
    )
    staged.createOrReplaceTempView("staged_answers")
    known = spark.table(target).schema
    values = answer_values(staged.schema, known, str.lower)

    assert accepts(known["answer"].dataType, CHAT, str.lower)
    assert NEWEST == [field.name for field in missing_fields(known["answer"].dataType, CHAT)[("usage",)]]
    spark.sql(merge_statement(target, "staged_answers", staged.schema, values))
    found = spark.table(target).select("id", "answer.text", "answer.usage.prompt_tokens").orderBy("id").collect()
    assert [(0, "yes", 3), (1, "yes", 3)] == [tuple(row) for row in found]
