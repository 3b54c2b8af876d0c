"""Images, PDFs and audio on Spark, classic or Connect, as Arrow and as pandas UDFs."""

from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_llm import by_url, chat_udf, complete_udf, register
from spark_llm.serving import LocalEndpoints, echo_media
from tests.integration.spark.asking import Ask, Fill, endpoint
from tests.support.media import MP3, PDF, image, wav
from tests.support.parts import UNKNOWN

pytestmark = pytest.mark.one_kind

FILES = {1: image("PNG"), 2: image("JPEG", 640, 480), 3: PDF, 4: wav(), 5: MP3, 6: None, 7: UNKNOWN, 8: b""}
DATA_URL = "data:image/gif;base64,R0lGODlhAQABAAAAACw="


def files(spark: SparkSession) -> DataFrame:
    """Return a table of files, in one partition."""
    return spark.createDataFrame(list(FILES.items()), "id int, content binary").repartition(1)


def said(data: bytes) -> str:
    """Return what Echo says of a file."""
    return echo_media(data).text


def test_a_binary_field_is_a_part_of_the_message(spark: SparkSession, endpoints: LocalEndpoints, fill: Fill) -> None:
    """Between texts, several of them, beside numbers; null is null, and bad bytes are an error without a request."""
    udf = chat_udf(endpoint(endpoints), template="{id}: {photo} and {again}.", system="Be {mood}.")
    by_name = fill(udf)(id="id", photo=F.col("content"), again="content", mood=F.lit("kind"))
    rows = {row["id"]: row for row in files(spark).select("id", by_name.alias("r")).select("id", "r.*").collect()}

    for number in range(1, 6):
        data: Any = FILES[number]
        assert f"Be kind.\n{number}: {said(data)} and {said(data)}." == rows[number]["text"]
    assert (None, None) == (rows[6]["text"], rows[6]["error"])
    assert {"invalid_request"} == {rows[number]["error"]["kind"] for number in (7, 8)}
    assert "photo is none of PNG" in rows[7]["error"]["message"]
    assert "photo has no bytes" in rows[8]["error"]["message"]
    assert 5 == endpoints.stats.requests


def test_a_struct_has_binary_fields_too(spark: SparkSession, endpoints: LocalEndpoints, fill: Fill) -> None:
    """In Python, and in SQL after registration."""
    udf = chat_udf(endpoint(endpoints), template="{photo}")
    table = files(spark).where("id <= 2 OR id = 6")
    struct = fill(udf)(F.struct(F.col("content").alias("photo"), "id"))
    expected = {1: said(image("PNG")), 2: said(image("JPEG", 640, 480)), 6: None}

    assert expected == {
        row["id"]: row["text"] for row in table.select("id", struct.alias("r")).select("id", "r.text").collect()
    }


def test_sql_passes_a_struct(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """The registered function takes the template's fields."""
    register(spark, chat=chat_udf(endpoint(endpoints), template="What is {photo}?"))
    files(spark).createOrReplaceTempView("files")
    asked = "SELECT llm_chat(named_struct('photo', content)).text AS t FROM files WHERE id = 1"

    assert f"What is {said(image('PNG'))}?" == spark.sql(asked).collect()[0]["t"]


def test_a_column_by_url_travels_as_its_url(spark: SparkSession, endpoints: LocalEndpoints, fill: Fill) -> None:
    """The server gets the image; a null is null, and a URL with a space is its row's error."""
    urls = {1: DATA_URL, 2: "https://images.example/1.png", 3: None, 4: "https://images.example/a b.png"}
    table = spark.createDataFrame(list(urls.items()), "id int, url string").repartition(1)
    asked = fill(chat_udf(endpoint(endpoints), template="See {photo}"))(photo=by_url("url"))
    rows = {row["id"]: row for row in table.select("id", asked.alias("r")).select("id", "r.*").collect()}
    sent = [body["messages"][0]["content"] for body in bodies(endpoints)]

    assert 2 == endpoints.stats.requests
    assert {DATA_URL, urls[2]} == {content[1]["image_url"]["url"] for content in sent}
    assert rows[3]["text"] is None
    assert "photo is no URL" in rows[4]["error"]["message"]


def bodies(endpoints: LocalEndpoints) -> list[Any]:
    """Return the bodies that the endpoints got."""
    return [recorded.body for recorded in endpoints.requests]


PART = "struct<url:string,data:binary,text:string,type:string>"
TALK = f"id int, talk array<struct<content:string,parts:array<{PART}>,role:string>>"


def test_conversations_may_have_parts(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """The content goes first; a message without parts, and a bad part, on both paths."""
    picture = image("PNG")
    talks = [
        (1, [("Look:", [(None, picture, None, None), (None, None, "So?", "text")], "user")]),
        (2, [("Hi", None, "user"), ("Hello", [], "assistant"), ("Bye", None, "user")]),
        (3, [(None, [(DATA_URL, picture, None, None)], "user")]),
        (4, None),
    ]
    table = spark.createDataFrame(talks, TALK).repartition(1)
    rows = table.select("id", ask(chat_udf(endpoint(endpoints)))("talk").alias("r")).select("id", "r.*").collect()
    texts = {row["id"]: row["text"] for row in rows}

    assert {1: f"Look:{said(picture)}So?", 2: "Bye", 3: None, 4: None} == texts
    assert ["part 1 of message 1 has data and url"] == [row["error"]["message"][:36] for row in rows if row["error"]]
    assert 2 == endpoints.stats.requests


def test_tokens_of_images_and_audio_are_counted(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """The sums of the rows are the endpoint's counters."""
    asked = chat_udf(endpoint(endpoints), template="{photo}")(photo="content")
    usage = files(spark).select(asked.alias("r")).select("r.usage.*")
    [sums] = usage.agg(F.sum("image_tokens"), F.sum("audio_tokens"), F.sum("prompt_tokens")).collect()
    stats = endpoints.stats

    assert (stats.image_tokens, stats.audio_tokens, stats.prompt_tokens) == tuple(sums)
    assert 0 < stats.image_tokens < stats.prompt_tokens
    assert 0 < stats.audio_tokens


def test_a_completion_refuses_bytes(spark: SparkSession, endpoints: LocalEndpoints, fill: Fill) -> None:
    """One exception at the first batch, with a hint; no request is sent."""
    udf = complete_udf(endpoint(endpoints, "complete"), template="What is {photo}?")
    with pytest.raises(Exception, match=r"InputTypeError: .*photo is binary\. Hint: chat_udf takes images"):
        files(spark).select(fill(udf)(photo="content")).collect()

    assert 0 == endpoints.stats.requests


def test_what_tells_images_from_texts_is_folded(
    spark: SparkSession, endpoints: LocalEndpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each row has its columns and constants: the plan decides, and not the row."""
    udf = chat_udf(endpoint(endpoints), template="{a} {b}")
    table = spark.sql("SELECT 'x' || id AS a, id AS b, encode('x' || id, 'utf-8') AS c FROM range(1)")
    table.select(udf(a="a", b="b").alias("r"), udf(a="a", b="c").alias("s")).explain()
    plan = capsys.readouterr().out

    assert ("ArrowEvalPython" in plan, "typeof" in plan, "CASE" in plan) == (True, False, False)
