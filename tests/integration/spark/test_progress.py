"""`progress`: the counts of a block are those of the endpoint, whatever action runs in it, and whoever ends it."""

import base64
import pickle
import re
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession

from spark_llm import (
    ConfigError,
    Policy,
    chat_udf,
    complete_udf,
    embed_udf,
    enrich_table,
    progress,
    register,
    register_ai_functions,
)
from spark_llm.livecounts.blocks import SETTING
from spark_llm.livecounts.counts import process_secret
from spark_llm.monitoring.progress import WatchedBlock
from spark_llm.serving import Faults, LocalEndpoints
from tests.conftest import SessionKind
from tests.integration.spark.asking import Ask, chat, endpoint, run_alone, texts
from tests.monitoring.test_bar import read_until, terminal

pytestmark = pytest.mark.on_connect

ROWS = 30


def numbers(watched: WatchedBlock) -> tuple[int, int, int, int]:
    """Return rows, and those that were asked and answered, and requests."""
    return watched.rows, watched.asked, watched.answered, watched.requests


def rows(spark: SparkSession, count: int = ROWS) -> DataFrame:
    """Return rows in three tasks, of which every tenth asks nothing."""
    return texts(spark, count).repartition(3)


def test_a_block_counts_what_the_endpoint_counts(
    spark: SparkSession, endpoints: LocalEndpoints, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows, errors by kind, tokens and requests of a plain query; a line in a log has them too."""
    endpoints.faults = Faults("ok*5 429@0.01*2 503@0.01 ok*9 400 ok*40")
    with progress(spark) as watched:
        answers = rows(spark).select(ask(chat(endpoints))("text").alias("a")).select("a.*").collect()
    tokens = sum(row.usage.total_tokens for row in answers if row.usage)

    assert (ROWS, 27, 26, endpoints.stats.requests) == numbers(watched)
    assert ({"invalid_request": 1}, tokens) == (watched.failed, watched.total_tokens)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"spark_llm: {ROWS} rows, {tokens:,} tokens, 1 failed (1 invalid_request)")


def test_udfs_are_counted_by_name(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Two of them in a row, one over the other's answers in another stage, and each again in a second query."""
    embed = embed_udf(endpoint(endpoints, "embed"))
    with progress(spark) as watched:
        both = rows(spark).select(chat(endpoints)("text").alias("a"), embed("text").alias("v"))
        again = both.repartition(2, "a.text").select(embed("a.text").alias("w"), "v").cache()
        again.collect()
        once = watched.rows
        both.collect()
    again.unpersist()

    assert (3 * ROWS, 5 * ROWS) == (once, watched.rows)
    assert {"chat_udf": 54, "embed_udf": 81} == {name: tally.asked for name, tally in watched.udfs.items()}


def test_sql_functions_count_each_row_once(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """A similarity embeds two texts, and `ai_query` asks two endpoints at the same time: it is one row each."""
    models = {"chat": chat(endpoints), "complete": complete_udf(endpoint(endpoints, "complete"))}
    register(spark, chat=models["chat"], prefix="watched_")
    register_ai_functions(
        spark, chat=models["chat"], embed=endpoint(endpoints, "embed"), endpoints=models, prefix="watched_"
    )
    rows(spark, 20).createOrReplaceTempView("watched_rows")
    with progress(spark) as watched:
        spark.sql("SELECT watched_chat(text).text, watched_ai_gen(text) FROM watched_rows").collect()
        spark.sql("SELECT watched_ai_similarity(text, team) FROM watched_rows").collect()
        spark.sql("SELECT watched_ai_query(if(id % 2 = 0, 'chat', 'complete'), text) FROM watched_rows").collect()

    asked = {name: tally.asked for name, tally in watched.udfs.items()}
    assert {"chat_udf": 18, "llm_gen": 18, "llm_similarity": 18, "llm_query_or_fail": 18} == asked
    assert (80, endpoints.stats.requests) == (watched.rows, watched.requests)


def test_a_dataframe_may_be_older_than_the_block(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Each action in the block counts, and none after it; the numbers stay."""
    answers = rows(spark).select(chat(endpoints)("text").alias("a"))
    with progress(spark) as watched:
        answers.collect()
        answers.write.format("noop").mode("overwrite").save()
        during = spark.conf.get(SETTING, None)
    answers.collect()

    assert 2 * ROWS == watched.rows
    assert during
    assert spark.conf.get(SETTING, None) is None


class StoppedError(Exception):
    """What a user's code raises."""


@pytest.mark.parametrize("error", [StoppedError, KeyboardInterrupt])
def test_blocks_nest(spark: SparkSession, endpoints: LocalEndpoints, error: type[BaseException]) -> None:
    """The inner one counts while it runs, and is left by an exception too; then the outer one counts again."""
    answers = rows(spark, 10).select(chat(endpoints)("text").alias("a"))

    def fail(watched: list[WatchedBlock]) -> None:
        with progress(spark) as inner:
            watched.append(inner)
            answers.collect()
            raise error

    blocks: list[WatchedBlock] = []
    with progress(spark) as outer:
        with pytest.raises(error):
            fail(blocks)
        first = outer.rows
        answers.collect()
        answers.collect()

    assert (10, 0, 20) == (blocks[0].rows, first, outer.rows)
    assert spark.conf.get(SETTING, None) is None


def test_it_says_what_limits_the_requests(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """A hard limit is allotted by the block's driver, and hosts tell it how their requests flow."""
    endpoints.latency_s = 0.1
    limited = chat_udf(endpoint(endpoints), policy=Policy(max_in_flight=2))
    with progress(spark) as watched:
        rows(spark, 40).select(limited("text").alias("a")).collect()
    assert watched.flow is not None
    assert 2 == watched.flow.peak_in_flight == endpoints.stats.max_in_flight
    assert watched.flow.limited_by["max_in_flight"] > 0.4
    assert "in flight  2 at most" in str(watched)


def test_a_terminal_shows_the_job_while_it_runs(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """The bar moves; it has the rows a second, and what limits the requests."""
    endpoints.latency_s = 0.1
    limited = chat_udf(endpoint(endpoints), policy=Policy(max_in_flight=2))
    with terminal() as (stream, reads), redirect_stderr(stream):
        with progress(spark):
            rows(spark, 40).select(limited("text").alias("a")).collect()
        shown = read_until(reads, "]\r\n")
    counts = [int(count) for count in re.findall(r"(\d+) rows \[[\d:]+, +[\d.]+ rows/s", shown)]

    assert counts == sorted(counts)
    assert 40 == counts[-1] > counts[0]
    assert "2 in flight of 2 · limited by max_in_flight]" in shown


@pytest.mark.slow
def test_a_table_job_has_its_own_counts(
    spark: SparkSession,
    endpoints: LocalEndpoints,
    place: Callable[[str], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its rows are in its report and its bar, and not in the block, which shows nothing meanwhile."""
    with progress(spark) as watched:
        report = enrich_table(spark, texts(spark, 10), place("target"), "id", {"mood": chat(endpoints)("text")})
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("spark_llm: ")]

    assert (9, 0, {}) == (report.asked, watched.rows, watched.udfs)
    assert ["spark_llm: 9 of 9 rows, "] == [line[:24] for line in said]


def test_a_block_without_counts_says_so(
    spark: SparkSession, endpoints: LocalEndpoints, session_kind: SessionKind, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here the setting is lost, as it is where the workers cannot reach the driver; Connect tells of its tasks."""
    with progress(spark) as watched:
        spark.conf.unset(SETTING)
        rows(spark).select(chat(endpoints)("text").alias("a")).collect()

    said = capsys.readouterr().err
    assert (0, 27) == (watched.rows, endpoints.stats.requests)
    assert 1 == said.count("spark_llm: no counts have come.")
    assert (session_kind == "connect") == ("Spark's tasks are shown instead." in said)
    assert (session_kind == "connect") == (" Spark tasks [" in said)


def test_the_signing_secret_is_in_no_event_log(
    spark: SparkSession, endpoints: LocalEndpoints, event_log_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor in the setting, in `explain`, or in what prints; the event log has the setting, so the search finds it."""
    udf = chat(endpoints)
    with progress(spark) as watched:
        answers = rows(spark).select(udf("text").alias("a"))
        answers.explain("extended")
        answers.collect()
        setting = str(spark.conf.get(SETTING))
    plan = udf._watched(udf.plan())  # noqa: SLF001 -- what travels
    printed = "".join([capsys.readouterr().out, setting, repr(plan), repr(udf), str(watched), repr(answers)])
    logs = b"".join(file.read_bytes() for file in event_log_dir.rglob("*") if file.is_file())
    secret = process_secret()
    forms = [secret, secret.hex().encode(), base64.b64encode(secret), repr(secret)[2:-1].encode()]

    assert setting.encode() in logs
    assert secret in pickle.dumps(plan)
    assert [] == [form for form in forms if form in logs or form in printed.encode()]


@pytest.mark.parametrize("wrong", ["x", None, 1])
def test_a_wrong_argument_raises_at_once(wrong: SparkSession) -> None:
    """The message says what it takes."""
    with pytest.raises(ConfigError, match=r"is not a Spark session\. Hint: .*with progress\(spark\)"):
        progress(wrong)


WATCHED_ALONE = """
import os, sys
from pyspark import TaskContext
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from spark_llm import ConfigError, Endpoint, chat_udf, progress

builder = SparkSession.builder.config("spark.ui.enabled", "false").config("spark.log.level", "OFF")
for setting in os.environ["SETTINGS"].split():
    builder = builder.config(*setting.split("=", 1))
builder = builder.remote("local[2,3]") if sys.argv[1] == "connect" else builder.master("local[2,3]")
spark = builder.getOrCreate()
chat = chat_udf(Endpoint(os.environ["URL"], token=os.environ["TOKEN"]))

@F.udf("string")
def fail_once(text):
    if TaskContext.get().attemptNumber() == 0 and text == "row 17":
        raise ValueError("the first attempt ends here")
    return text

with progress(spark) as watched:
    texts = spark.range(0, 40, 1, 2).select(F.concat(F.lit("row "), "id").alias("text"))
    asked = texts.select(chat("text").alias("a")).select(fail_once("a.text").alias("text"))
    print("ANSWERED", asked.where("text IS NOT NULL").count())
print("COUNTED", watched.rows, watched.asked)
spark.stop()
try:
    progress(spark)
except ConfigError as error:
    print("STOPPED", error)
"""


@pytest.mark.slow
def test_of_a_task_that_failed_the_last_attempt_counts(
    endpoints: LocalEndpoints, session_kind: SessionKind, tmp_path: Path
) -> None:
    """Its rows were asked twice, and are counted once; a stopped session is refused."""
    place = {"URL": endpoints.invocations("chat"), "TOKEN": endpoints.token}
    job = run_alone(WATCHED_ALONE, session_kind, tmp_path, **place, SETTINGS="")

    assert 40 < endpoints.stats.requests <= 60
    assert ["ANSWERED 40", "COUNTED 40 40"] == job.stdout.splitlines()[:2], job.stderr
    assert "STOPPED The Spark session is stopped. Hint: " in job.stdout


@pytest.mark.slow
def test_without_an_address_the_job_goes_on(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    """One line says what is missing, and each row is answered."""
    place = {"URL": endpoints.invocations("chat"), "TOKEN": endpoints.token}
    settings = "spark.driver.host=192.0.2.1 spark.driver.bindAddress=127.0.0.1"
    job = run_alone(WATCHED_ALONE, "classic", tmp_path, **place, SETTINGS=settings)

    assert ["ANSWERED 40", "COUNTED 0 0"] == job.stdout.splitlines()[:2], job.stderr
    assert 1 == job.stderr.count("spark_llm: no rows are shown, because this process has no address")
