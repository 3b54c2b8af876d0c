"""Table jobs in batches under faults: files of tasks that failed, and a large job with everything at once."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import openai
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_llm import Batch, JobFailedError, chat_udf
from spark_llm.enrich.batch_jobs.api import job_batches
from spark_llm.serving import Batches, Faults, LocalEndpoints
from tests.integration.spark.test_batches import Place, asked, filled
from tests.support.batch_files import client_of
from tests.support.waiting import until

ROWS = 12_000
POISON = "arsenic"  # in one row of a hundred
FILES = 4  # of about 3,000 requests: two cores write two each
FATAL = {0: "token_limit_exceeded"}  # the batch that is created in its place has the number 4
EXPIRE, STALL = {1: 1_500}, dict.fromkeys(range(1, FILES + 1), 1_000)
RUNNING = {"in_progress"}


class Seen(NamedTuple):
    """A batch as someone sees it."""

    key: str
    id: str | None
    status: str
    total: int
    completed: int
    failed: int
    created_at: float | None


def listed(client: openai.OpenAI) -> set[Seen]:
    """Return the batches that the official client lists."""
    found = set()
    for batch in client.batches.list():
        assert batch.request_counts is not None
        counts = batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed
        found.add(Seen((batch.metadata or {})["spark_llm_key"], batch.id, batch.status, *counts, batch.created_at))
    return found


@pytest.mark.slow
@pytest.mark.one_kind
def test_files_of_a_run_that_failed_are_removed_by_the_next(
    spark: SparkSession, endpoints: LocalEndpoints, place: Place
) -> None:
    """A task uploads two files and fails at the third: no batch is created, and no file stays in the end."""
    target, columns = place("target"), {"answer": chat_udf(asked(endpoints))("text")}
    rows = spark.range(60).selectExpr("id", "concat('row ', id) AS text")
    small = Batch(poll_s=0.05, max_mb=0.005)  # about 25 requests
    endpoints.batches = Batches(on_upload=Faults("ok*2 400"))
    with pytest.raises(JobFailedError, match="Bad request"):
        filled(rows, target, columns, small)
    assert (2, {}) == (len(endpoints.files), endpoints.answered)

    report = filled(rows, target, columns, small)
    assert (60, 60, 60) == (report.asked, report.answered, len(endpoints.answered))
    assert (endpoints.stats.total_tokens, []) == (report.total_tokens, endpoints.files)


@pytest.mark.slow
def test_a_large_job_ends_well_under_many_faults(spark: SparkSession, endpoints: LocalEndpoints, place: Place) -> None:
    """Requests fail, one batch expires, one finds no room: each row has its answer or its own error, paid once."""
    endpoints.faults = replace(Faults.random({"503": 0.01, "500": 0.01}, seed=7), poison=POISON)
    endpoints.batches = Batches(fail=FATAL, expire_after=EXPIRE, stall_after=STALL)
    text = F.concat(F.lit("row "), "id", F.when(F.col("id") % 100 == 7, f" {POISON}").otherwise(""))
    rows = spark.range(ROWS, numPartitions=4).select("id", text.alias("text"))
    target, columns = place("target"), {"answer": chat_udf(asked(endpoints))("text")}
    settings = Batch(poll_s=0.2, max_requests=5_000)
    with client_of(endpoints) as client, ThreadPoolExecutor(1) as pool:
        run = pool.submit(filled, rows, target, columns, settings)
        try:
            until(lambda: run.done() or FILES == sum(1_000 == each.completed + each.failed for each in listed(client)))
            until(lambda: run.done() or RUNNING == {each.status for each in job_batches(spark, target, columns)})
            shown = {Seen(*each[1:]) for each in job_batches(spark, target, columns)}
            [refused] = (official := listed(client)) - shown
        finally:
            endpoints.release_batches()
        report = run.result(600)
        further = listed(client) - official

    assert ("failed", 0) == (refused.status, refused.completed)
    assert (FILES, RUNNING) == (len(shown), {each.status for each in shown})
    assert ROWS == sum(each.total for each in shown)
    assert {"completed", "expired"} == {each.status for each in further}
    assert len(further) > len(shown)  # what had failed went into further batches
    poisoned = ROWS // 100
    assert (ROWS, ROWS - poisoned, 0, 0) == (report.asked, report.answered, report.left, report.out)
    assert endpoints.stats.total_tokens == report.total_tokens
    found = spark.table(target)
    error = F.col("answer.error")
    right = error.isNull() & (F.col("answer.text") == F.col("text"))
    own = (error["kind"] == "invalid_request") & F.col("text").contains(POISON)
    assert {"rows": ROWS, "right": ROWS - poisoned, "own": poisoned, "tokens": endpoints.stats.total_tokens} == (
        found.select(
            F.count(F.lit(1)).alias("rows"),
            F.count_if(right).alias("right"),
            F.count_if(own).alias("own"),
            F.sum("answer.usage.total_tokens").alias("tokens"),
        )
        .collect()[0]
        .asDict()
    )
    assert [] == endpoints.files
    assert [] == job_batches(spark, target, columns)
