"""The three UDFs as columns of one table, at some URLs of each server."""

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_llm import chat_udf, complete_udf, embed_udf
from spark_llm.serving import LocalEndpoints, echo_media, echo_vector
from tests.integration.clients.conftest import FindServer
from tests.integration.clients.servers import LLAMA, LOCAL, YAML
from tests.support.media import image

LOOK_UP = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param((LOCAL, "{name}")),
        pytest.param((LOCAL, "/openai/deployments/{name}/{route}?api-version=2024-10-21")),
        pytest.param((YAML, "/gateway/{name}/invocations"), marks=pytest.mark.slow),
        pytest.param((YAML, "/v1"), marks=pytest.mark.slow),
    ],
    ids=" at ".join,
)
def test_the_three_udfs_fill_a_table(
    row: tuple[str, str],
    spark: SparkSession,
    find_server: FindServer,
    endpoints: LocalEndpoints,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Chat, completion and embedding columns have the exact answers, null for a null row, and no error."""
    server, url_template = row
    running = find_server(server)
    for name, value in running.environ.items():
        monkeypatch.setenv(name, value)
    chat, complete = (
        ask(running.endpoint(url_template, task)) for ask, task in ((chat_udf, "chat"), (complete_udf, "completions"))
    )
    embed = embed_udf(running.endpoint(url_template, "embeddings"))
    table = spark.createDataFrame([("red",), (None,), ("green",)], "word string").coalesce(1)
    rows = table.select(chat("word").alias("c"), complete("word").alias("p"), embed("word").alias("e")).collect()

    assert [("red", "red", echo_vector("red")), ("green", "green", echo_vector("green"))] == [
        (each.c.text, each.p.text, each.e.embedding) for each in (rows[0], rows[2])
    ]
    assert [None] * 3 == list(rows[1])
    assert [None] * 6 == [answer.error for each in (rows[0], rows[2]) for answer in each]
    assert (6, {200}) == (endpoints.stats.rows_answered, set(endpoints.stats.by_status))


@pytest.mark.parametrize("udfs", ["arrow", "pandas"])
@pytest.mark.parametrize("url_template", ["/serving-endpoints", "/v1", "/ai-gateway/mlflow/v1"])
def test_images_tools_and_responses_fill_a_table(
    url_template: str, udfs: str, spark: SparkSession, find_server: FindServer, endpoints: LocalEndpoints
) -> None:
    """Columns of each kind have the exact answers, and their tokens are those that the endpoint counted."""
    running, png = find_server(LOCAL), image()
    look = chat_udf(running.endpoint(url_template, "images"), template="{word} {photo}")
    call = chat_udf(running.endpoint(url_template, "tools"), tools=[LOOK_UP])
    respond = chat_udf(running.endpoint(url_template, "responses"), template="{word} {photo}", tools=[LOOK_UP])
    table = spark.createDataFrame(
        [("call look_up {}", png), (None, None), ("green", png)], "word string, photo binary"
    ).coalesce(1)
    columns = {
        "i": (look, F.struct("word", "photo")),
        "t": (call, F.col("word")),
        "r": (respond, F.struct("word", "photo")),
    }
    asked = [
        (udf if udfs == "arrow" else udf.for_version("3.5.0"))(argument).alias(name)
        for name, (udf, argument) in columns.items()
    ]
    rows = table.select(*asked).collect()

    seen = echo_media(png).text
    assert [f"call look_up {{}} {seen}", f"green {seen}"] == [rows[0].i.text, rows[2].i.text]
    assert (None, "look_up", "green", None) == (
        rows[0].t.text,
        rows[0].t.tool_calls[0].name,
        rows[2].t.text,
        rows[2].t.tool_calls,
    )
    assert f"green {seen}" == rows[2].r.text
    answers = [answer for row in (rows[0], rows[2]) for answer in row]
    assert [None] * 6 == [answer.error for answer in answers]
    assert endpoints.stats.total_tokens == sum(answer.usage.total_tokens for answer in answers)
    assert {200} == set(endpoints.stats.by_status)


@pytest.mark.models
def test_llama_cpp_fills_a_table(spark: SparkSession, find_server: FindServer) -> None:
    """llama.cpp's server fills the three columns with texts, vectors of one length, and tokens."""
    running = find_server(LLAMA)
    chat = chat_udf(running.endpoint("/v1", "chat"), max_tokens=4, temperature=0)
    complete = complete_udf(running.endpoint("/v1", "completions"), max_tokens=4, temperature=0)
    embed = embed_udf(running.endpoint("/v1", "embeddings"))
    table = spark.createDataFrame([("1, 2, 3,",), (None,)], "word string").coalesce(1)
    full, empty = table.select(chat("word").alias("c"), complete("word").alias("p"), embed("word").alias("e")).collect()

    assert [None] * 3 == list(empty)
    assert [None] * 3 == [answer.error for answer in full]
    assert ("length", "length") == (full.c.finish_reason, full.p.finish_reason)
    assert full.p.text.startswith(" 4")
    assert 576 == len(full.e.embedding)
    assert all(answer.usage.total_tokens > 0 for answer in full)
