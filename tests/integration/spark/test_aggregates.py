"""Aggregates in SQL and as columns: groups of texts on real Spark, against endpoints that count their requests."""

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_llm import ConfigError, Policy, chat_udf, register_ai_functions, schemas
from spark_llm import functions as ai
from spark_llm.serving import LocalEndpoints
from spark_llm.serving.protocol.errors import Refused
from spark_llm.serving.protocol.requests import ChatRequest
from spark_llm.udf.lazy_udf import is_at_least
from spark_llm.udf.model_udf import ModelUDF
from tests.integration.spark.asking import endpoint
from tests.support.reply_model import PROMPT_TOKENS, ReplyModel, last_message

pytestmark = pytest.mark.on_connect

LIMIT_CHARACTERS = 4_000  # of the smaller of the two windows
TOKENS = PROMPT_TOKENS + 3
INSTRUCTION = "Count the rows."


def counted(request: ChatRequest) -> str:
    """Return how many texts there are: a number counts as so many. A text with "bad" in it is refused."""
    found = [json.loads(line) for line in last_message(request).split("\n")]
    if any("bad" in text for text in found):
        raise Refused.bad_request("No such words here.")
    return str(sum(int(text) if text.isdigit() else 1 for text in found))


def counted_in_a_small_window(request: ChatRequest) -> str:
    """Do the same, but refuse a long message as too long."""
    if len(last_message(request)) > LIMIT_CHARACTERS:
        raise Refused.bad_request("maximum context length exceeded", code="context_length_exceeded")
    return counted(request)


@pytest.fixture
def endpoints() -> Iterator[LocalEndpoints]:
    """Endpoints of these models."""
    with LocalEndpoints({"chat": ReplyModel(counted), "small": ReplyModel(counted_in_a_small_window)}) as started:
        yield started


@pytest.fixture
def sql(spark: SparkSession, endpoints: LocalEndpoints) -> SparkSession:
    """The session with all functions, and rows in groups of different sizes."""
    register_ai_functions(spark, chat=endpoint(endpoints), context_tokens=2_048)
    rows = spark.range(1_000).selectExpr(
        "CASE WHEN id = 0 THEN 'one' WHEN id < 10 THEN 'nulls' WHEN id < 40 THEN 'few' ELSE 'many' END AS team",
        "CASE WHEN id NOT BETWEEN 1 AND 9 THEN concat('text ', id, repeat(' word', id % 7)) END AS review",
    )
    rows.repartition(3).createOrReplaceTempView("posts")
    return spark


def test_groups_of_any_size_have_one_answer(sql: SparkSession, endpoints: LocalEndpoints) -> None:
    """One row, some, many over several levels, and nulls alone, which ask nothing; every row is counted once."""
    found = sql.sql(
        f"SELECT team, llm_agg(collect_list(review), '{INSTRUCTION}') AS a FROM posts GROUP BY team"
    ).collect()
    answers = {row["team"]: row["a"] for row in found}

    assert {"one": "1", "few": "30", "many": "960", "nulls": None} == {team: a["text"] for team, a in answers.items()}
    assert {"one": 1, "few": 30, "many": 960, "nulls": 0} == {team: a["rows"] for team, a in answers.items()}
    assert {"one": 1, "few": 1, "many": 2, "nulls": 0} == {team: a["levels"] for team, a in answers.items()}
    assert [None] * 4 == [a["error"] for a in answers.values()]
    requests = sum(a["leaves"] + (a["levels"] > 1) for a in answers.values())
    assert requests == endpoints.stats.requests
    assert TOKENS * requests == sum(a["usage"]["total_tokens"] for a in answers.values() if a["usage"])
    assert answers["nulls"]["usage"] is None


def test_the_value_is_the_text(sql: SparkSession, endpoints: LocalEndpoints) -> None:
    """In SQL, by name too, and in Python; a null array or instruction gives a null."""
    values = "array('a', 'b', NULL), CAST(NULL AS STRING), CAST(NULL AS ARRAY<STRING>), CAST(array() AS ARRAY<STRING>)"
    sql.sql(f"SELECT {values}").toDF("texts", "nothing", "none", "empty").createOrReplaceTempView("arrays")
    df = sql.table("arrays")
    calls = ("ai_agg(texts, 'x')", "ai_agg(texts, nothing)", "ai_agg(none, 'x')", "ai_agg(empty, 'x')")
    [row] = df.selectExpr(*calls, "ai_summarize_agg(texts)", "llm_agg(none, 'x')").collect()
    made = partial(ai.ai_agg, chat=endpoint(endpoints))
    [column] = df.select(
        made("texts", "x"), made(F.col("texts"), F.lit("x")), ai.ai_summarize_agg("texts", chat=endpoint(endpoints))
    ).collect()

    assert ("2", None, None, None, "2") == tuple(row)[:5]
    assert row[5] is None or set(row[5]) == {None}
    assert ("2", "2", "2") == tuple(column)
    assert schemas.AGGREGATE == df.selectExpr("llm_agg(texts, 'x') AS a").schema["a"].dataType
    if is_at_least(sql.version, 4, 0):
        assert [("2",)] == df.selectExpr("ai_agg(instruction => 'x', content => texts)").collect()


def test_a_blank_instruction_is_an_error(sql: SparkSession, endpoints: LocalEndpoints) -> None:
    """Where it is a constant it raises, and in SQL it is the row's; no request is sent."""
    [row] = sql.sql("SELECT llm_agg(array('a'), ' ') AS a").collect()

    assert ("invalid_request", None) == (row["a"]["error"]["kind"], row["a"]["text"])
    for instruction in (" ", 7, None):
        with pytest.raises(ConfigError, match=r"ai_agg: .*Hint: "):
            ai.ai_agg("review", instruction, chat=endpoint(endpoints))  # type: ignore[arg-type]
    assert 0 == endpoints.stats.requests


@pytest.mark.parametrize("context_tokens", [0, 255, "many", 300])
def test_a_window_without_room_raises(context_tokens: object, endpoints: LocalEndpoints) -> None:
    """It is too small in itself, or beside the answer that the UDF asks for."""
    chat = chat_udf(endpoint(endpoints), max_tokens=250)
    with pytest.raises(ConfigError, match=r"context_tokens=.*Hint: "):
        ai.ai_agg("review", "x", chat=chat, context_tokens=context_tokens)  # type: ignore[arg-type]


def small(endpoints: LocalEndpoints, **policy: object) -> ModelUDF:
    """Return a UDF of the model with the smaller window."""
    return chat_udf(endpoint(endpoints, "small"), temperature=0, policy=Policy(**policy))  # type: ignore[arg-type]


def test_refused_leaves_are_halved_and_what_was_paid_is_cached(
    sql: SparkSession, endpoints: LocalEndpoints, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A window smaller than was told costs refused requests; a second run, in another order, asks only these again."""
    chat = small(endpoints, cache=str(tmp_path_factory.mktemp("answers")))
    answer = ai.llm_agg(F.collect_list("review"), INSTRUCTION, chat=chat, context_tokens=4_096)
    groups = sql.table("posts").where("team = 'many'").groupBy("team")
    [first] = (
        groups.agg(F.collect_list("review").alias("r"))
        .select(ai.llm_agg("r", INSTRUCTION, chat=chat, context_tokens=4_096).alias("a"))
        .collect()
    )
    refused = endpoints.stats.requests - first["a"]["leaves"] - 1
    endpoints.reset()
    [second] = (
        sql.table("posts")
        .orderBy(F.desc("review"))
        .where("team = 'many'")
        .groupBy("team")
        .agg(answer.alias("a"))
        .collect()
    )

    assert ("960", 960, 2) == (first["a"]["text"], first["a"]["rows"], first["a"]["levels"])
    assert ("960", first["a"]["leaves"]) == (second["a"]["text"], second["a"]["leaves"])
    assert refused > 0
    assert refused == endpoints.stats.requests
    assert first["a"]["leaves"] * TOKENS + TOKENS == first["a"]["usage"]["total_tokens"]


def test_a_leaf_that_fails_is_the_groups_error(sql: SparkSession, endpoints: LocalEndpoints) -> None:
    """The other groups have their answers; this one says how many of its rows were left out, and costs what it cost."""
    sql.sql(
        "SELECT * FROM posts UNION ALL SELECT 'many', 'zz bad' UNION ALL SELECT 'few', 'good'"
    ).createOrReplaceTempView("worse")
    rows = sql.sql(f"SELECT team, llm_agg(collect_list(review), '{INSTRUCTION}') AS a FROM worse GROUP BY team")
    answers = {row["team"]: row["a"] for row in rows.collect()}
    error = answers["many"]["error"]

    assert (None, "31") == (answers["many"]["text"], answers["few"]["text"])
    assert ("invalid_request", 400, False) == (error["kind"], error["status"], error["retryable"])
    left_out = int(error["message"].split()[0])
    assert 0 < left_out < 961
    assert f"{left_out} of 961 rows were left out: " in error["message"]
    assert endpoints.stats.requests == 2 + answers["many"]["leaves"] + 1  # no node of the failed group
    assert TOKENS * (2 + answers["many"]["leaves"]) == sum(
        a["usage"]["total_tokens"] for a in answers.values() if a["usage"]
    )


def test_a_text_longer_than_the_window_is_cut_and_said(sql: SparkSession, endpoints: LocalEndpoints) -> None:
    """All of it is asked about; `split_rows` is how many texts were cut."""
    [row] = sql.sql(
        "SELECT llm_agg(array(repeat('many words ', 3000), 'short', repeat('x', 20000)), 'x') AS a"
    ).collect()

    assert (3, 2, None) == (row["a"]["rows"], row["a"]["split_rows"], row["a"]["error"])
    assert row["a"]["leaves"] > 6


def test_equal_groups_are_asked_once(sql: SparkSession, endpoints: LocalEndpoints) -> None:
    """In one task; the tokens are in one of them."""
    rows = sql.range(0, 20, 1, 1).selectExpr("llm_agg(array('a', 'b'), 'x') AS a").collect()

    assert Counter({"2": 20}) == Counter(row["a"]["text"] for row in rows)
    assert TOKENS == sum(row["a"]["usage"]["total_tokens"] for row in rows)
    assert 1 == endpoints.stats.requests


def test_a_limit_asks_a_few_groups(sql: SparkSession, endpoints: LocalEndpoints) -> None:
    """As for rows: results leave as soon as the first groups are answered."""
    groups = sql.range(0, 5_000, 1, 1).selectExpr("llm_agg(array(string(id), 'x'), 'x').text AS n")

    assert 5 == len(groups.limit(5).collect())
    assert endpoints.stats.requests <= 128
