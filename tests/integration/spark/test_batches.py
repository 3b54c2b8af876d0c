"""Table jobs through a Batch API: each request is in one batch, and each row gets its answer or its own error."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_llm import Batch, ConfigError, Endpoint, chat_udf, embed_udf
from spark_llm.enrich.api import enrich_table
from spark_llm.enrich.report import EnrichReport
from spark_llm.functions import llm_classify, llm_similarity
from spark_llm.metering.budget import Budget
from spark_llm.metering.chunking import NOT_ROW_ERRORS
from spark_llm.serving import Batches, Faults, LocalEndpoints
from spark_llm.udf.model_udf import ModelUDF
from tests.integration.spark.test_enrich_failures import at

AT_ONCE = Batch(poll_s=0.05)
Place = Callable[[str], str]


def asked(endpoints: LocalEndpoints, name: str = "chat") -> Endpoint:
    """Return one of the local endpoints by OpenAI's base URL."""
    return Endpoint(endpoints.openai_url, model=name, token=endpoints.token)


def filled(
    rows: DataFrame,
    target: str,
    columns: Mapping[str, Column],
    batch: Batch = AT_ONCE,
    **options: Any,  # noqa: ANN401 -- what enrich_table takes
) -> EnrichReport:
    """Fill a table through batches."""
    return enrich_table(rows.sparkSession, rows, target, "id", columns, batch=batch, progress=False, **options)


def texts(spark: SparkSession, count: int, distinct: int | None = None, first: int = 0) -> DataFrame:
    """Return rows with texts, of which every tenth is null, and so many are different."""
    text = F.concat(F.lit("row "), F.col("id") % (distinct or first + count))
    ids = spark.range(first, first + count, numPartitions=2)
    return ids.select("id", F.when(F.col("id") % 10 != 9, text).alias("text"))


def sums(spark: SparkSession, target: str, column: str) -> dict[str, Any]:
    """Return what the answers of a column cost, and how many errors it has."""
    fields = {
        "tokens": f"sum({column}.usage.total_tokens)",
        "attempts": f"sum({column}.attempts)",
        "errors": f"count({column}.error)",
        "latencies": f"count({column}.latency_ms)",
        "tiers": f"collect_set({column}.usage.service_tier)",
    }
    return spark.table(target).selectExpr(*(f"{sql} AS {name}" for name, sql in fields.items())).collect()[0].asDict()


def typed(endpoints: LocalEndpoints) -> ModelUDF:
    """Return a chat whose answers have a type; an echo of JSON fits it."""
    return chat_udf(asked(endpoints), returns="mood STRING")


@pytest.mark.on_connect
def test_rows_are_answered_in_batches(spark: SparkSession, endpoints: LocalEndpoints, place: Place) -> None:
    """Each distinct request is one line of a file; all rows that share it have its answer, and one has its tokens."""
    target = place("target")
    chat, embed = chat_udf(asked(endpoints), system="Say it again."), embed_udf(asked(endpoints, "embed"))
    columns = {"answer": chat("text"), "vector": embed("text")}
    report = filled(texts(spark, 50, distinct=20), target, columns, prices=(10.0, 20.0))

    requests = 18  # 20 different texts less two nulls
    assert (45, 45, 0, 0, None) == (report.asked, report.answered, report.left, report.out, report.stopped)
    assert (2 * requests, {1}) == (len(endpoints.answered), set(endpoints.answered.values()))
    assert 2 * requests == report.requests == endpoints.stats.requests
    for name in columns:
        assert {"attempts": requests, "errors": 0, "latencies": 0, "tiers": ["batch"]} == {
            key: value for key, value in sums(spark, target, name).items() if key != "tokens"
        }
    assert endpoints.stats.total_tokens == report.total_tokens
    assert report.usd is not None
    assert report.usd_at_once == pytest.approx(2 * report.usd)
    rows = spark.table(target).collect()
    answers = {row["id"]: row["answer"] and row["answer"]["text"] for row in rows}
    assert answers == {row["id"]: row["text"] and f"Say it again.\n{row['text']}" for row in rows}
    assert all((row["vector"] is None) == (row["text"] is None) for row in rows)
    assert [] == endpoints.files
    assert not [row for row in spark.sql("SHOW TABLES").collect() if "spark_llm" in row["tableName"]]


@pytest.mark.slow
@pytest.mark.on_connect
def test_a_run_that_only_submits_is_continued_by_the_next(
    spark: SparkSession, endpoints: LocalEndpoints, place: Place
) -> None:
    """The next run merges what was answered, sends what is new, and asks nothing twice."""
    target, columns = place("target"), {"answer": chat_udf(asked(endpoints), max_tokens=9)("text")}
    submit = Batch(poll_s=0.05, wait_s=0)
    endpoints.batches = Batches(stall_after={0: 4, 1: 0})
    first = filled(texts(spark, 20), target, columns, submit, prices=1.0)
    assert (0, 0, 18, 1) == (first.asked, first.left, first.out, first.out_batches)
    assert (True, None) == (first.submitted, first.stopped)
    assert "submitted in" in str(first)
    assert first.out_usd is not None
    assert first.usd_at_once == pytest.approx(2 * first.out_usd)

    columns = {name.upper(): column for name, column in columns.items()}  # one name to the session
    with pytest.raises(ConfigError, match="1 batch is with the provider"):
        enrich_table(spark, texts(spark, 20), target, "id", columns, progress=False)

    again = filled(texts(spark, 30), target, columns, submit)
    assert (0, 27, 2) == (again.asked, again.out, again.out_batches)
    endpoints.release_batches()
    last = filled(texts(spark, 40), target, columns)
    assert (36, 36, 0, True) == (last.asked, last.answered, last.out, last.done)
    assert (36, {1}, []) == (len(endpoints.answered), set(endpoints.answered.values()), endpoints.files)
    assert endpoints.stats.total_tokens == last.total_tokens


@pytest.mark.slow
@pytest.mark.one_kind
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])  # it leaves everything, or only what the next run needs
def test_a_request_is_billed_to_one_row_after_runs_that_died(
    error: type[BaseException], spark: SparkSession, endpoints: LocalEndpoints, place: Place
) -> None:
    """A run dies after its merge, the next one before: the replies of the first are no other row's, the others are.

    The case of the column's name changes nothing. A run without batches does not ask what was answered.
    """

    def die() -> None:
        raise error

    target, column = place("target"), chat_udf(asked(endpoints))("text")
    deaths = ((10, "answer", "batches are left to later runs: 0"), (20, "Answer", "the rows with replies are settled"))
    for rows, name, moment in deaths:
        with at(moment, die), pytest.raises(error):
            filled(texts(spark, rows, distinct=10), target, {name: column})
    with pytest.raises(ConfigError, match="9 answers of batches are paid for and not merged yet"):
        enrich_table(spark, texts(spark, 20, distinct=10), target, "id", {"ANSWER": column}, progress=False)
    report = filled(texts(spark, 30, distinct=10), target, {"ANSWER": column})

    found = sums(spark, target, "answer")
    assert (endpoints.stats.total_tokens, endpoints.stats.requests) == (found["tokens"], found["attempts"])
    assert (18, {1}) == (len(endpoints.answered), set(endpoints.answered.values()))
    assert (18, 9, 27) == (report.asked, report.requests, spark.table(target).where("answer.text = text").count())


@pytest.mark.slow
@pytest.mark.one_kind
def test_a_column_that_leaves_the_job_keeps_its_batch(
    spark: SparkSession, endpoints: LocalEndpoints, place: Place
) -> None:
    """A job of the other columns goes on, with batches or without; put back, the column gets the answers."""
    target, chat, other = place("target"), chat_udf(asked(endpoints)), chat_udf(asked(endpoints), system="Again.")
    one, both = {"one": chat("text")}, {"one": chat("text"), "two": other("text")}
    endpoints.batches = Batches(stall_after={0: 0, 1: 0})
    assert 2 == filled(texts(spark, 5), target, both, Batch(poll_s=0.05, wait_s=0)).out_batches
    endpoints.release_batches()
    left = filled(texts(spark, 5), target, one)
    assert (5, ["1 batch of 'two'"]) == (left.answered, [note[:16] for note in left.notes])

    assert 3 == enrich_table(spark, texts(spark, 8), target, "id", one, progress=False).answered
    with pytest.raises(ConfigError, match="1 batch is with the provider"):
        enrich_table(spark, texts(spark, 8), target, "id", both, progress=False)
    assert 8 == filled(texts(spark, 8), target, both).answered
    assert ({1}, []) == (set(endpoints.answered.values()), endpoints.files)


@pytest.mark.slow
@pytest.mark.one_kind
def test_replies_of_a_column_that_left_the_job_are_kept(
    spark: SparkSession, endpoints: LocalEndpoints, place: Place
) -> None:
    """They were paid for, and a run failed before it merged them; put back, the column gets them."""

    def fail() -> None:
        raise OSError("the test ends it")

    target, chat, other = place("target"), chat_udf(asked(endpoints)), chat_udf(asked(endpoints), system="Again.")
    one, both = {"one": chat("text")}, {"one": chat("text"), "two": other("text")}
    with at("the rows with replies are settled", fail), pytest.raises(OSError, match="the test ends it"):
        filled(texts(spark, 5), target, both)
    assert 5 == filled(texts(spark, 5), target, one).answered

    report = filled(texts(spark, 5), target, both)
    assert (5, 0, {1}) == (report.answered, report.left, set(endpoints.answered.values()))
    assert endpoints.stats.total_tokens == sums(spark, target, "one")["tokens"] + sums(spark, target, "two")["tokens"]


@pytest.mark.slow
@pytest.mark.one_kind
def test_what_may_pass_goes_into_the_next_batch(spark: SparkSession, endpoints: LocalEndpoints, place: Place) -> None:
    """So do the rows of an expired batch, of one refused for a line, of one that found no room, and odd answers."""
    target = place("target")
    endpoints.faults = Faults("ok*3 503 ok*2 500", poison="row 11")
    endpoints.batches = Batches(expire_after={1: 3}, fail={0: "invalid_json_line@2", 2: "token_limit_exceeded"})
    good = F.when(F.col("id") % 7 != 0, F.concat(F.lit('{"mood": "'), "text", F.lit('"}'))).otherwise(F.col("text"))
    rows = texts(spark, 30).withColumn("text", good)
    columns = {"mood": typed(endpoints)("text"), "answer": chat_udf(asked(endpoints))("text")}
    report = filled(rows, target, columns, Batch(poll_s=0.05, max_requests=20))

    assert (27, 0, 0) == (report.asked, report.left, report.out)
    assert endpoints.stats.total_tokens == report.total_tokens
    found = spark.table(target).where("text IS NOT NULL").collect()
    moods = [row["mood"]["error"] for row in found if row["mood"]["error"] and row["mood"]["error"]["status"]]
    assert {"schema_mismatch", "invalid_request"} == {error["kind"] for error in moods}
    errors = [row["answer"]["error"] for row in found if row["answer"]["error"]]
    assert ["invalid_request"] == [error["kind"] for error in errors]  # of the poisoned text
    assert all(row["answer"]["error"] or row["answer"]["text"] == row["text"] for row in found)
    assert [] == endpoints.files


@pytest.mark.slow
@pytest.mark.one_kind
def test_what_is_left_may_be_asked_now(spark: SparkSession, endpoints: LocalEndpoints, place: Place) -> None:
    """With `then="now"`, single requests take the place of the next batch; the row has the tokens of both."""
    target = place("target")
    endpoints.batches = Batches(expire_after={0: 5})
    report = filled(
        texts(spark, 20), target, {"answer": chat_udf(asked(endpoints))("text")}, Batch(poll_s=0.05, then="now")
    )
    assert (18, 18, 5) == (report.asked, report.answered, len(endpoints.answered))
    assert endpoints.stats.total_tokens == report.total_tokens
    attempts = spark.table(target).where("text IS NOT NULL").groupBy("answer.attempts").count().collect()
    assert {1: 5, 2: 13} == dict(attempts)  # expired, then asked


@pytest.mark.slow
@pytest.mark.one_kind
def test_the_budget_holds_before_a_batch_is_created(
    spark: SparkSession, endpoints: LocalEndpoints, place: Place
) -> None:
    """What is out counts as spent, by the estimate; the next run goes on. A run that only submits says what is left."""
    target, columns = place("target"), {"answer": chat_udf(asked(endpoints), max_tokens=10)("text")}
    endpoints.batches = Batches(expire_after={0: 2})  # the others go into the next batch, and count once
    first = filled(texts(spark, 20), target, columns, budget=Budget(rows=5))
    assert (5, 5, 13) == (len(endpoints.answered), first.asked, first.left)
    assert "5 rows would be exceeded" in str(first.stopped)
    assert (0, None, None) == (first.out, first.out_usd, first.usd_at_once)

    endpoints.batches = Batches(stall_after={0: 0})
    tokens = filled(texts(spark, 20), target, columns, Batch(wait_s=0), budget=Budget(tokens=40))
    assert 0 < tokens.out < 4
    assert 13 == tokens.out + tokens.left
    assert (False, None, None) == (tokens.done, tokens.out_usd, tokens.usd_at_once)
    assert f"40 tokens would be exceeded: {tokens.left} rows are left" in str(tokens.stopped)


@pytest.mark.one_kind
def test_an_endpoint_without_batches_is_named_before_anything_is_sent(
    spark: SparkSession, endpoints: LocalEndpoints, place: Place
) -> None:
    """No file is uploaded, and the error says what to do."""
    endpoints.batches = Batches(enabled=False)
    with pytest.raises(ConfigError, match="has no Batch API"):
        filled(texts(spark, 5), place("target"), {"answer": chat_udf(asked(endpoints))("text")})
    assert 0 == endpoints.stats.requests


@pytest.mark.one_kind
def test_functions_without_a_place_in_a_batch_are_refused(
    spark: SparkSession, endpoints: LocalEndpoints, place: Place
) -> None:
    """Databricks has no such routes, and two vectors are no single request."""
    rows = texts(spark, 5)
    with pytest.raises(ConfigError, match="has no Batch API"):
        filled(rows, place("target"), {"answer": chat_udf(Endpoint(endpoints.invocations("chat"), token="t"))("text")})
    similar = llm_similarity("text", "text", embed=embed_udf(asked(endpoints, "embed")))
    with pytest.raises(ConfigError, match="llm_similarity, which has no place in a batch"):
        filled(rows, place("target"), {"near": similar})


@pytest.mark.slow
@pytest.mark.one_kind
def test_ai_functions_work_in_batches(spark: SparkSession, endpoints: LocalEndpoints, place: Place) -> None:
    """Their prompts are made in the tasks that write the files."""
    target, chat = place("target"), chat_udf(asked(endpoints))
    kind = llm_classify("text", F.array(F.lit("row"), F.lit("column")), chat=chat)
    report = filled(texts(spark, 10), target, {"kind": kind})
    assert 9 == report.asked
    kinds = {row["kind"]["error"]["kind"] for row in spark.table(target).where("text IS NOT NULL").collect()}
    assert {"schema_mismatch"} == kinds  # an echo classifies nothing
    assert kinds.isdisjoint(NOT_ROW_ERRORS)
