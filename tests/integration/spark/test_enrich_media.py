"""Table jobs about images: which rows are asked, what they would cost, and tables of the version before."""

from collections.abc import Callable

import pytest
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_llm import by_url, chat_udf, estimate
from spark_llm.schemas import CHAT
from spark_llm.serving import LocalEndpoints, echo_media
from tests.integration.spark.asking import Run, chat, endpoint, texts, written
from tests.integration.spark.test_older_versions import LAST
from tests.support.media import image
from tests.support.parts import UNKNOWN

pytestmark = [pytest.mark.one_kind, pytest.mark.slow]


def photos(spark: SparkSession, count: int) -> DataFrame:
    """Return rows with an image each, but the last two: one has none, one's bytes are unknown."""
    rows = [(n, image("PNG", n + 1, 2)) for n in range(count - 2)]
    return spark.createDataFrame([*rows, (count - 2, None), (count - 1, UNKNOWN)], "id int, photo binary")


def see(endpoints: LocalEndpoints) -> Column:
    """Return a column of answers about a photo."""
    return chat_udf(endpoint(endpoints), template="See {photo}", max_tokens=10)(photo="photo")


def test_an_image_is_asked_when_it_changes(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """The fingerprint has its digest: the same bytes ask nothing again, and neither does a row that cannot be sent."""
    target = place("target")
    requests, report = run(photos(spark, 12), target, {"seen": see(endpoints)})
    assert (10, 11, 10, {"invalid_request": 1}) == (requests, report.asked, report.answered, dict(report.failed))
    rows = {row["id"]: row for row in spark.table(target).select("id", "photo", "seen.text").collect()}
    assert f"See {echo_media(image('PNG', 4, 2)).text}" == rows[3]["text"]
    assert image("PNG", 4, 2) == rows[3]["photo"]
    assert report.image_tokens == endpoints.stats.image_tokens > 0

    assert 0 == run(photos(spark, 12), target, {"seen": see(endpoints)})[0]
    other = F.lit(bytearray(image("PNG", 50, 2)))
    changed = photos(spark, 12).withColumn("photo", F.when(F.col("id") == 3, other).otherwise(F.col("photo")))
    assert 1 == run(changed, target, {"seen": see(endpoints)})[0]


def test_an_estimate_counts_images(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """As a text of 1,000 tokens before a first run; then by the answers, one like the other, however large they are."""
    target, columns = place("target"), {"seen": see(endpoints)}
    guessed = estimate(spark, photos(spark, 12), target, "id", columns).columns["seen"]
    _, report = run(photos(spark, 12), target, columns)
    more = photos(spark, 24).where("id >= 12")
    measured = estimate(spark, more, target, "id", columns).columns["seen"]

    assert (11, 11 * 1_000 < guessed.prompt_tokens < 11 * 1_100) == (guessed.rows, True)
    assert ", 1,000 for each image, PDF or audio, answers of at most 10 tokens" in guessed.rests_on
    assert "measured on 10 answers" == measured.rests_on
    assert measured.prompt_tokens == pytest.approx(11 * report.prompt_tokens / 10, rel=0.01)


def test_a_conversation_that_gets_parts_asks_nothing_again(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """Rows without parts keep their fingerprints; a row with an image, by its bytes or its URL, is another row."""
    message = "struct<role:string,content:string{}>"
    parts = ",parts:array<struct<data:binary,url:string>>"
    old = [(n, [("user", f"row {n}")]) for n in range(6)]
    new: list[tuple[object, ...]] = [(n, [("user", f"row {n}", None if n % 2 else [])]) for n in range(4)]
    new += [(4, [("user", "row 4", [(image(), None)])]), (5, [("user", "row 5", [(None, "https://a.example/b.png")])])]
    columns = {"answer": chat(endpoints)("talk")}
    before = spark.createDataFrame(old, f"id int, talk array<{message.format('')}>")
    after = spark.createDataFrame(new, f"id int, talk array<{message.format(parts)}>")

    assert 6 == run(before.select("id", "talk"), place("target"), columns)[0]
    kept = spark.table(place("target")).drop("talk")
    written(kept, place("kept"))
    assert 2 == run(after, place("kept"), columns)[0]
    assert 0 == run(after, place("kept"), columns)[0]


def test_an_image_by_its_url_is_asked_once(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """The URL is the input; as a text it would be another one."""
    rows = spark.createDataFrame([(n, f"https://a.example/{n}.png") for n in range(4)], "id int, url string")
    udf = chat_udf(endpoint(endpoints), template="See {photo}")

    assert [4, 0] == [run(rows, place("target"), {"seen": udf(photo=by_url("url"))})[0] for _ in range(2)]
    assert 4 == run(rows, place("target"), {"seen": udf(photo="url")})[0]


def test_a_target_of_the_version_before_gets_the_newest_fields(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """Its rows are not asked again, and keep their answers."""
    columns, target = {"answer": chat(endpoints)("text")}, place("target")
    run(texts(spark, 20), place("now"), columns)
    older = F.col("answer").dropFields(*(f"usage.{name}" for name in LAST))
    written(spark.table(place("now")).withColumn("answer", older), target)
    requests, report = run(texts(spark, 20), target, columns)
    rows = spark.table(target)

    assert (0, 0, ("answer.usage is of an older version: 'image_tokens', 'audio_tokens' were added.",)) == (
        requests,
        report.asked,
        report.notes,
    )
    assert CHAT.simpleString() == rows.schema["answer"].dataType.simpleString()
    assert 18 == rows.where("answer.text = text AND answer.usage.prompt_tokens = 2").count()
    assert 1 == run(texts(spark, 21), target, columns)[0]
