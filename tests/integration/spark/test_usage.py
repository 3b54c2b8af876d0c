"""What a column used: the numbers of a table, of an action, and of the endpoint, and where they differ."""

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_llm import ConfigError, Policy, Price, chat_udf, complete_udf, embed_udf, observe_usage, usage_report
from spark_llm.functions import llm_classify, llm_similarity
from spark_llm.serving import ChatRequest, Choice, Faults, LocalEndpoints, Texts, Usage
from spark_llm.usage.report import UsageReport
from tests.conftest import SessionKind
from tests.integration.spark.asking import Ask, chat, endpoint, run_alone

ROWS = 40


class Metered:
    """A model whose answers name every sort of tokens; those to odd numbers are billed at the tier "flex"."""

    name = "metered"

    async def chat(self, request: ChatRequest) -> Texts:
        """Return the last message, for 100 tokens of a prompt and 10 of an answer."""
        text = request.messages[-1].text
        tier = "flex" if int(text.split()[-1]) % 2 else "default"
        return Texts([Choice(text)], Usage(100, 10, cached_tokens=60, cache_write_tokens=30), service_tier=tier)


def rows(spark: SparkSession, count: int = ROWS) -> DataFrame:
    """Return distinct texts in two tasks, of which every tenth is null."""
    text = F.when(F.col("id") % 10 != 9, F.concat(F.lit("row "), "id"))
    return spark.range(count, numPartitions=2).select("id", text.alias("text"))


def written(df: DataFrame, folder: Path) -> DataFrame:
    """Write rows, and return them as they were written."""
    df.write.parquet(str(folder / "written"))
    return df.sparkSession.read.schema(df.schema).parquet(str(folder / "written"))


@pytest.mark.parametrize("count", [500, pytest.param(5_000, marks=pytest.mark.slow)])
def test_a_table_an_action_and_the_endpoint_count_alike(
    spark: SparkSession, endpoints: LocalEndpoints, ask: Ask, tmp_path: Path, count: int
) -> None:
    """Rows, errors by kind, tokens and requests are equal, with refusals and failures; each row was asked once."""
    endpoints.faults = Faults(" ".join(["ok*20 429@0.01*3 503@0.01*2 ok*30 400 ok*40 context ok*20"] * (count // 250)))
    texts = spark.range(count, numPartitions=2).select("id", F.concat(F.lit("row "), "id").alias("text"))
    answers, usage = observe_usage(texts.withColumn("answer", ask(chat(endpoints))("text")), "answer", prices=(1, 2))
    table = written(answers, tmp_path)
    stats, observed, reported = endpoints.stats, usage.report(), usage_report(table, "answer", prices=(1, 2))

    assert observed == reported
    assert (count, count, stats.by_status[200]) == (reported.rows, reported.asked, reported.answered)
    assert stats.by_status[200] + stats.by_status[400] == count
    assert {"invalid_request", "context_length"} == set(reported.failed) == set(reported.examples)
    assert stats.by_status[400] == sum(reported.failed.values())
    assert (stats.requests, stats.by_status[429] + stats.by_status[503]) == (reported.attempts, reported.retries)
    assert (stats.prompt_tokens, stats.completion_tokens) == (reported.prompt_tokens, reported.completion_tokens)
    assert stats.total_tokens == reported.total_tokens
    assert pytest.approx((stats.prompt_tokens + 2 * stats.completion_tokens) / 1e6) == reported.usd
    assert count == sum(reported.latencies.values())
    assert reported.answered == sum(reported.row_tokens.values())
    percentiles = table.select(F.percentile("answer.latency_ms", F.array(F.lit(0.5), F.lit(0.95), F.lit(0.99)))).first()
    assert percentiles is not None
    assert percentiles[0] == pytest.approx(list(reported.latency_ms or ()), rel=0.01)
    texts_of_rows = table.where("answer.error IS NULL AND answer.text = text").count()
    assert reported.answered == texts_of_rows


@pytest.mark.slow
@pytest.mark.one_kind
def test_the_columns_of_every_udf_have_a_report(spark: SparkSession, endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """Rows and tokens are the endpoint's; requests are known where each has one row."""
    table = written(
        rows(spark)
        .withColumn("chat", chat(endpoints)("text"))
        .withColumn("complete", complete_udf(endpoint(endpoints, "complete"))("text"))
        .withColumn("embed", embed_udf(endpoint(endpoints, "embed"))("text"))
        .withColumn("similarity", llm_similarity("text", F.lit("row"), embed=endpoint(endpoints, "embed")))
        .withColumn("label", llm_classify("text", ["a", "b"], chat=chat(endpoints)))
        .withColumn("inside", F.struct(F.col("embed").alias("answer"), "id")),
        tmp_path,
    )
    reports = {name: usage_report(table, name) for name in table.columns[2:-1]}

    assert {ROWS} == {report.rows for report in reports.values()}
    assert {36} == {report.asked for report in reports.values()}
    stats = endpoints.stats.endpoints
    assert stats["complete"].total_tokens == reports["complete"].total_tokens > 0
    assert stats["embed"].total_tokens == reports["embed"].total_tokens + reports["similarity"].total_tokens
    assert stats["chat"].total_tokens == reports["chat"].total_tokens + reports["label"].total_tokens
    assert stats["chat"].requests == (reports["chat"].attempts or 0) + (reports["label"].requests or 0)
    assert [None] * 4 == [reports[name].requests for name in ("chat", "complete", "embed", "similarity")]
    assert reports["embed"] == UsageReport(**{**vars(usage_report(table, "inside.answer")), "column": "embed"})


@pytest.mark.one_kind
def test_the_report_says_what_each_sort_of_tokens_costs(spark: SparkSession, tmp_path: Path) -> None:
    """Tokens of the cache and a service tier have their own price, or the report says which one they got."""
    with LocalEndpoints({"metered": Metered()}) as endpoints:
        table = written(rows(spark).withColumn("answer", chat_udf(endpoint(endpoints, "metered"))("text")), tmp_path)
    price = Price(3, 15, cached=0.3, cache_write=3.75, tiers={"flex": 0.5})
    report = usage_report(table, "answer", prices=price)
    row_usd = (10 * 3 + 60 * 0.3 + 30 * 3.75 + 10 * 15) / 1e6
    pair = usage_report(table, "answer", prices=(3, 15))

    assert (36 * 60, 36 * 30, ("default", "flex")) == (
        report.cached_tokens,
        report.cache_write_tokens,
        report.service_tiers,
    )
    assert pytest.approx((20 + 16 / 2) * row_usd) == report.usd
    assert () == report.notes
    assert pytest.approx(36 * (100 * 3 + 10 * 15) / 1e6) == pair.usd
    beginnings = ("2,160 cached tokens", "1,080 cache_write tokens", "Tokens of the service tier 'flex'")
    assert [True] * 3 == [note.startswith(each) for note, each in zip(pair.notes, beginnings, strict=True)]
    batch = table.withColumn("answer", F.col("answer").withField("usage.service_tier", F.lit("batch")))
    half = usage_report(batch, "answer", prices=(3, 15))
    assert pytest.approx((pair.usd or 0) / 2) == half.usd
    assert half.notes[-1].startswith(f"{half.total_tokens:,} tokens of the service tier 'batch' have 0.5 of the list")


@pytest.mark.one_kind
def test_a_column_of_an_older_version_has_a_report(
    spark: SparkSession, endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    """It is made of the fields that are there."""
    asked = rows(spark).withColumn("answer", chat(endpoints)("text"))
    table = written(asked, tmp_path)
    older = F.col("answer").dropFields("usage.cache_write_tokens", "usage.service_tier")
    now, then = usage_report(table, "answer"), usage_report(table.withColumn("answer", older), "answer")
    least = F.col("answer").dropFields("attempts", "latency_ms", "model", "error.message", "usage.reasoning_tokens")
    little = usage_report(table.withColumn("answer", least), "answer", prices=1)

    assert now == then
    assert (36, now.total_tokens, None, None, None) == (
        little.asked,
        little.total_tokens,
        little.attempts,
        little.retries,
        little.latency_ms,
    )
    _, usage = observe_usage(table.withColumn("answer", older), "answer")
    assert "call report() after an action" in repr(usage)


@pytest.mark.one_kind
def test_another_column_is_refused(spark: SparkSession, endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """The error comes at the call, names the columns of answers, and costs no request."""
    asked = rows(spark).withColumn("answer", chat(endpoints)("text"))
    for name, words in {
        "text": r"The column 'text' is string, and not the result of one .* Hint: the columns of answers are 'answer'",
        "answer.usage": r"is struct<prompt_tokens.* It is the whole struct, with its error\.$",
        "anser": r"There is no column 'anser'.* Hint: did you mean 'answer'\?$",
        "*": r"There is no column '\*', or more than one\. Hint: ",
        7: r"column=7 is not a name\. Hint: ",
    }.items():
        with pytest.raises(ValueError, match=words):
            usage_report(asked, name)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=words):
            observe_usage(asked, name)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"There is no table `missing` that can be read\. Hint: check its name"):
        usage_report("missing", "answer")
    with pytest.raises(ConfigError, match=r"None is not a DataFrame\. Hint: "):
        usage_report(None, "answer")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"prices\['answer'\]='1' is not a price\. Hint: write US dollars"):
        usage_report(asked, "answer", prices="1")  # type: ignore[arg-type]
    stream = spark.readStream.schema("text string").parquet(str(tmp_path))
    with pytest.raises(ConfigError, match=r"A stream has no end to report on\. Hint: "):
        observe_usage(stream.withColumn("answer", chat(endpoints)("text")), "answer")
    assert 0 == endpoints.stats.requests


def test_without_rows_there_is_a_report(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Of a table, of an action, and of an action whose rows Spark planned away."""
    asked = rows(spark).withColumn("answer", chat(endpoints)("text"))
    empty = spark.createDataFrame([], asked.schema)
    filtered, of_filtered = observe_usage(rows(spark).where("id < 0").withColumn("a", chat(endpoints)("text")), "a")
    filtered.collect()

    report = usage_report(empty, "answer", prices=1)
    assert (0, 0, 0, 0, {}, None, 0.0) == (
        report.rows,
        report.asked,
        report.attempts,
        report.total_tokens,
        report.failed,
        report.latency_ms,
        report.usd,
    )
    assert (0, 0) == (of_filtered.report().rows, endpoints.stats.requests)


@pytest.mark.one_kind
def test_where_all_rows_failed_there_is_a_report(
    spark: SparkSession, endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    """It has an example of each error, and no tokens."""
    endpoints.faults = Faults("context", cycle=True)
    report = usage_report(written(rows(spark).withColumn("answer", chat(endpoints)("text")), tmp_path), "answer")

    assert (36, 0, {"context_length": 36}, 0) == (report.asked, report.answered, report.failed, report.total_tokens)
    assert "prompt token count exceeds the limit" in report.examples["context_length"]
    assert {} == report.row_tokens


def test_before_an_action_there_is_no_report(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """The error says so in time; after the action the report is there, and a second action does not change it."""
    answers, usage = observe_usage(rows(spark).withColumn("answer", chat(endpoints)("text")), "answer")
    with pytest.raises(ConfigError, match=r"in 0\.05 s\. Hint: run one that reads 'answer' first"):
        usage.report(timeout_s=0.05)
    answers.collect()
    first = usage.report()
    answers.collect()

    assert (ROWS, 36) == (first.rows, first.attempts)
    assert first == usage.report()
    assert 72 == endpoints.stats.requests


def test_after_a_failed_action_tasks_that_failed_are_not_counted(
    spark: SparkSession, session_kind: SessionKind, endpoints: LocalEndpoints
) -> None:
    """Classic Spark reports the other tasks, of which there are none here; Connect reports nothing."""
    endpoints.faults = Faults("400", cycle=True)
    raising = chat_udf(endpoint(endpoints), policy=Policy(on_error="raise"))
    answers, usage = observe_usage(rows(spark).withColumn("answer", raising("text")), "answer")
    with pytest.raises(Exception, match="RowFailedError"):
        answers.collect()

    if session_kind == "classic":
        assert 0 == usage.report().rows
    else:
        with pytest.raises(ConfigError, match=r"Hint: "):
            usage.report(timeout_s=0.2)


# --- Where the numbers differ: the table of docs/usage.md ---


def observed(asked: DataFrame, act: Any) -> UsageReport:  # noqa: ANN401 -- a function of a DataFrame, to anything
    """Return what an action used."""
    answers, usage = observe_usage(asked, "answer")
    act(answers)
    return usage.report()


@pytest.mark.slow
def test_a_sort_of_the_answers_asks_twice_and_counts_twice(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Attempts and tokens are what is billed; the rows are counted twice too."""
    report = observed(rows(spark).withColumn("answer", chat(endpoints)("text")), lambda df: df.orderBy("id").collect())

    assert (2 * ROWS, 72, endpoints.stats.total_tokens) == (report.rows, report.attempts, report.total_tokens)
    assert 72 == endpoints.stats.requests


@pytest.mark.slow
def test_after_a_limit_rows_that_spark_did_not_read_are_not_counted(
    spark: SparkSession, endpoints: LocalEndpoints
) -> None:
    """They were asked ahead, and are billed."""
    endpoints.latency_s = 0.1  # more than Spark takes to end a worker
    asked = rows(spark, 1_000).coalesce(1).withColumn("answer", chat(endpoints)("text"))
    report = observed(asked, lambda df: df.limit(5).collect())

    assert (5, 5) == (report.rows, report.attempts)
    assert 5 < endpoints.stats.requests < 128


def test_a_count_of_an_observed_column_asks_its_rows(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Without the observation nothing would read the answers, and nothing would be asked."""
    asked = rows(spark).withColumn("answer", chat(endpoints)("text"))
    asked.count()
    assert 0 == endpoints.stats.requests

    assert 36 == observed(asked, lambda df: df.count()).attempts == endpoints.stats.requests


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_cached_dataframe_is_observed_in_its_first_action(
    spark: SparkSession, endpoints: LocalEndpoints, when: str
) -> None:
    """Cached before or after it is observed; further actions ask nothing."""
    asked = rows(spark).withColumn("answer", chat(endpoints)("text"))
    answers, usage = observe_usage(asked.cache() if when == "before" else asked, "answer")
    cached = answers if when == "before" else answers.cache()
    cached.collect()
    cached.collect()
    report = usage.report()
    asked.unpersist()
    answers.unpersist()

    assert (ROWS, 36, 36) == (report.rows, report.attempts, endpoints.stats.requests)


@pytest.mark.slow
@pytest.mark.one_kind
def test_rows_that_share_a_request_have_an_attempt_each(
    spark: SparkSession, endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    """So the number of requests is not known; equal rows have none, and tokens add up in both cases."""
    texts = spark.range(60, numPartitions=1).select(F.concat(F.lit("row "), F.col("id") % 40).alias("text"))
    table = written(texts.withColumn("answer", embed_udf(endpoint(endpoints, "embed"))("text")), tmp_path)
    report = usage_report(table, "answer")

    assert (60, 40, None, endpoints.stats.total_tokens) == (
        report.asked,
        report.attempts,
        report.requests,
        report.total_tokens,
    )
    assert endpoints.stats.requests <= 3
    assert 20 == report.row_tokens[0.0]


@pytest.mark.slow
@pytest.mark.one_kind
def test_an_answer_that_was_cut_is_an_attempt_without_tokens(
    spark: SparkSession, endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    """The endpoint counts its tokens, and may bill them; the row has those of the next attempt."""
    endpoints.faults = Faults("ok cut ok*5 cut")
    report = usage_report(written(rows(spark).withColumn("answer", chat(endpoints)("text")), tmp_path), "answer")

    assert (36, 38, 2) == (report.answered, report.attempts, report.retries)
    assert (endpoints.stats.requests, True) == (report.attempts, report.total_tokens <= endpoints.stats.total_tokens)


FAILED_TASK = """
import sys

from pyspark import TaskContext
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_llm import Endpoint, chat_udf, observe_usage
from spark_llm.serving import LocalEndpoints

builder = SparkSession.builder.config("spark.ui.enabled", "false").config("spark.sql.shuffle.partitions", "1")
spark = builder.master("local[1,2]").getOrCreate()  # a task has two attempts


@F.udf("string")
def fails_once(text):
    if TaskContext.get().attemptNumber() == 0 and text == "row 9":
        raise ValueError("the first attempt of the task")
    return text


with LocalEndpoints() as endpoints:
    chat = chat_udf(Endpoint(endpoints.invocations("chat"), token=endpoints.token))
    texts = spark.range(10, numPartitions=1).select(F.concat(F.lit("row "), "id").alias("text"))
    answers, usage = observe_usage(texts.withColumn("answer", chat("text")), "answer")
    answers.select(fails_once("answer.text")).collect()
    report = usage.report()
    print("FOUND", report.rows, report.attempts, endpoints.stats.requests)
spark.stop()
"""


@pytest.mark.slow
@pytest.mark.one_kind
def test_attempts_of_a_task_that_failed_are_not_counted(spark: SparkSession, tmp_path: Path) -> None:
    """Spark counts the task that succeeded; the endpoint has the requests of both."""
    assert spark is not None  # the session finds its Java
    done = run_alone(FAILED_TASK, "classic", tmp_path)

    assert "FOUND 10 10 20\n" == done.stdout, done.stderr
