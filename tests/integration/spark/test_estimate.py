"""Estimates, compared with an endpoint that counts and with the run itself."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_llm import ConfigError, Endpoint, Price, chat_udf, embed_udf, estimate
from spark_llm.enrich.api import enrich_table
from spark_llm.serving import LocalEndpoints
from tests.integration.spark.asking import endpoint
from tests.support.reply_model import COMPLETION_TOKENS, PROMPT_TOKENS, ReplyModel, last_message

pytestmark = pytest.mark.one_kind

TEN_BYTES = "ten bytes!"


def test_before_a_first_run_tokens_are_guessed(spark: SparkSession, endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """A prompt has a token for four bytes, an answer its maximum, or it is unknown; no request, no table."""
    rows = spark.createDataFrame([(n, TEN_BYTES * 4 if n else None) for n in range(9)], "id int, text string")
    chat = endpoint(endpoints)
    found = estimate(
        spark,
        rows,
        f"delta.`{tmp_path}/target`",
        "id",
        {
            "short": chat_udf(chat, max_tokens=48)("text"),
            "any": chat_udf(chat)("text"),
            "vector": embed_udf(endpoint(endpoints, "embed"))("text"),
        },
        prices={"short": (1, 2), "any": 1, "vector": 0.5},
    )
    short, of_any_length, vector = found.columns.values()

    assert (9, 8, 0) == (found.rows, found.to_ask, found.deleted)
    assert (8, 8 * 48) == (short.rows, short.completion_tokens)
    assert (short.prompt_tokens + 2 * 8 * 48) / 1e6 == short.usd
    around = (short.prompt_tokens - 8 * 10) // 8  # a text has ten tokens
    assert (
        f"guessed from the length of the texts and {around} tokens around each, answers of at most 48 tokens"
        == short.rests_on
    )
    assert (None, None) == (of_any_length.completion_tokens, of_any_length.usd)
    assert of_any_length.rests_on.endswith(" tokens around each; answers: unknown")
    assert (8 * 11, 0, "guessed from the length of the texts") == (
        vector.prompt_tokens,
        vector.completion_tokens,
        vector.rests_on,
    )
    assert short.prompt_tokens > vector.prompt_tokens  # the instructions go with every question
    assert (None, None) == (found.total_tokens, found.usd)
    assert (None, None, None) == (short.usd_batch, vector.usd_batch, found.usd_batch)  # its URL has no Batch API
    assert (0, []) == (endpoints.stats.requests, list(tmp_path.iterdir()))


def test_an_estimate_has_the_cost_of_batches_where_there_may_be_some(spark: SparkSession, tmp_path: Path) -> None:
    """Each column has the factor of its own price, half where it names none."""
    rows = spark.createDataFrame([(n, TEN_BYTES) for n in range(8)], "id int, text string")
    chat = chat_udf(Endpoint("http://127.0.0.1:9/v1", model="m"), max_tokens=48)
    embed = embed_udf(Endpoint("http://127.0.0.1:9/v1", model="e"))
    columns = {"half": chat("text"), "less": chat("text"), "vector": embed("text")}
    prices = {"half": (1, 2), "less": Price(1, 2, tiers={"batch": 0.8}), "vector": 0.5}
    found = estimate(spark, rows, f"delta.`{tmp_path}/target`", "id", columns, prices=prices)
    half, less, vector = found.columns.values()
    assert None not in (half.usd, less.usd, vector.usd, found.usd)

    assert half.usd == less.usd
    assert pytest.approx([(half.usd or 0) / 2, 0.8 * (less.usd or 0), (vector.usd or 0) / 2]) == [
        half.usd_batch,
        less.usd_batch,
        vector.usd_batch,
    ]
    assert pytest.approx((half.usd_batch or 0) + (less.usd_batch or 0) + (vector.usd_batch or 0)) == found.usd_batch
    assert " at once, or $" in str(found)
    assert set(found.row()["columns"]["half"]) >= {"usd", "usd_batch"}  # type: ignore[index]  # a mapping


@pytest.mark.slow
def test_after_a_run_tokens_are_measured(spark: SparkSession, tmp_path: Path) -> None:
    """Tokens of earlier answers are scaled to the pending rows: prompts by length, answers by number."""
    target = f"delta.`{tmp_path}/target`"
    text = F.concat(F.lit(TEN_BYTES), F.lpad(F.col("id").cast("string"), 2, "0"))
    rows = spark.range(30).select("id", text.alias("text"))
    with LocalEndpoints({"chat": ReplyModel(last_message)}) as endpoints:
        chat = chat_udf(endpoint(endpoints), max_tokens=9)
        columns = {"answer": chat("text")}
        enrich_table(spark, rows.where("id < 10"), target, "id", columns, progress=False)
        found = estimate(spark, rows, target, "id", columns, prices=(1, 2))
        fewer = estimate(spark, rows.where("id > 2 AND id < 10"), target, "id", columns, on_missing="delete")
        longer = estimate(spark, rows.withColumn("text", F.repeat("text", 99)), target, "id", columns, sample_rows=4)
        other = {"answer": chat_udf(endpoint(endpoints), system="Be brief.")("words")}
        edited = estimate(spark, rows.withColumnRenamed("text", "words"), target, "id", other)
        assert 10 == endpoints.stats.requests
    waiting, long, earlier = (each.columns["answer"] for each in (found, longer, edited))

    assert (30, 20, 20) == (found.rows, found.to_ask, waiting.rows)
    assert (20 * PROMPT_TOKENS, 20 * COMPLETION_TOKENS) == (waiting.prompt_tokens, waiting.completion_tokens)
    assert (20 * PROMPT_TOKENS + 2 * 20 * COMPLETION_TOKENS) / 1e6 == found.usd
    assert "measured on 10 answers" == waiting.rests_on
    assert (7, 0, 3, "nothing to ask") == (fewer.rows, fewer.to_ask, fewer.deleted, fewer.columns["answer"].rests_on)
    assert (30, 30 * COMPLETION_TOKENS, "measured on 4 answers") == (long.rows, long.completion_tokens, long.rests_on)
    assert long.prompt_tokens > 2 * 30 * PROMPT_TOKENS
    assert (30, 30 * PROMPT_TOKENS, "measured on 10 earlier answers") == (
        earlier.rows,
        earlier.prompt_tokens,
        earlier.rests_on,
    )


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([1, 2, 2], r"The key \(id\) is not unique: 2 occurs more than once in the source or in the target\. Hint: "),
        ([1, None], r"The key \(id\) is null in 1 row\. Hint: "),
    ],
)
def test_a_key_that_would_stop_the_run_stops_its_estimate(
    spark: SparkSession, endpoints: LocalEndpoints, tmp_path: Path, ids: list[int], words: str
) -> None:
    """An estimate finds the errors of a run."""
    rows = spark.createDataFrame([(n, TEN_BYTES) for n in ids], "id int, text string")

    with pytest.raises(ConfigError, match=words):
        estimate(spark, rows, f"delta.`{tmp_path}/target`", "id", {"a": chat_udf(endpoint(endpoints))("text")})


def test_a_source_without_rows_is_estimated(spark: SparkSession, endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """The estimate has nothing to ask."""
    rows = spark.createDataFrame([], "id int, text string")
    found = estimate(spark, rows, f"delta.`{tmp_path}/target`", "id", {"a": chat_udf(endpoint(endpoints))("text")})

    assert (0, 0, 0) == (found.rows, found.to_ask, found.total_tokens)


@pytest.mark.parametrize("sample_rows", [0, True, 1.5])
def test_a_sample_has_at_least_one_row(spark: SparkSession, endpoints: LocalEndpoints, sample_rows: int) -> None:
    """A wrong number is an error before any table is read."""
    with pytest.raises(ConfigError, match=r"sample_rows=.* is not a whole number of at least 1"):
        estimate(spark, "s", "t", "id", {"a": chat_udf(endpoint(endpoints))("x")}, sample_rows=sample_rows)
