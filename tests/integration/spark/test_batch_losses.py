"""Table jobs in batches whose provider loses replies, or refuses what nobody sent: no request is bought without end."""

import pytest
from pyspark.sql import SparkSession

from spark_llm import Batch, Policy, chat_udf
from spark_llm.serving import Batches, Faults, LocalEndpoints
from tests.integration.spark.test_batches import Place, asked, filled, sums
from tests.integration.spark.test_enrich_failures import at


@pytest.mark.slow
@pytest.mark.one_kind
def test_replies_that_a_completed_batch_lacks_count_as_tries(
    spark: SparkSession, endpoints: LocalEndpoints, place: Place
) -> None:
    """So do those of an expired one. Rows go into the next batch, up to `max_tries`; there may be no file at all."""
    target = place("target")
    endpoints.batches = Batches(expire_after={0: 4}, lose_after={0: 3, **dict.fromkeys(range(1, 9), 0)})
    chat = chat_udf(asked(endpoints), policy=Policy(max_tries=2))
    rows = spark.range(5).selectExpr("id", "concat('row ', id) AS text")
    report = filled(rows, target, {"answer": chat("text")})

    assert (5, 3, 0, True) == (report.asked, report.answered, report.left, report.done)
    assert {"invalid_response": 2} == report.failed
    found = sums(spark, target, "answer")
    assert (4 + 2, 7, 2) == (endpoints.stats.requests, found["attempts"], found["errors"])
    assert [] == endpoints.files


@pytest.mark.slow
@pytest.mark.one_kind
def test_errors_that_may_pass_are_merged_once_after_runs_that_died(
    spark: SparkSession, endpoints: LocalEndpoints, place: Place
) -> None:
    """A run dies after it merged them: the next one asks again. It dies before its merge: the third has its answers."""

    def fail() -> None:
        raise OSError("the test ends it")

    target, rows = place("target"), spark.range(3).selectExpr("id", "concat('row ', id) AS text")
    columns = {"answer": chat_udf(asked(endpoints), policy=Policy(max_tries=1))("text")}
    deaths = (Faults("500*3 ok*9"), "batches are left to later runs: 0"), (None, "the rows with replies are settled")
    for number, (faults, moment) in enumerate(deaths, 1):
        if faults is not None:
            endpoints.faults = faults
        with at(moment, fail), pytest.raises(OSError, match="the test ends it"):
            filled(rows, target, columns)
        assert 3 * number == endpoints.stats.requests
    report = filled(rows, target, columns)

    assert (3, 3, 3, 6) == (report.asked, report.answered, report.requests, endpoints.stats.requests)


@pytest.mark.slow
@pytest.mark.one_kind
def test_a_batch_that_is_refused_for_a_line_that_it_lacks_stops_the_run(
    spark: SparkSession, endpoints: LocalEndpoints, place: Place
) -> None:
    """Else the same file would be uploaded again and again; the message has the batch and the provider's words."""
    endpoints.batches = Batches(fail=dict.fromkeys(range(50), "invalid_json_line@99"))
    rows = spark.range(3).selectExpr("id", "concat('row ', id) AS text")
    report = filled(
        rows, place("target"), {"answer": chat_udf(asked(endpoints))("text")}, Batch(poll_s=0.05, wait_s=60)
    )

    assert (0, 3, 0) == (report.asked, report.left, endpoints.stats.requests)
    assert report.stopped is not None
    assert "refused batch batch_" in report.stopped
    assert "invalid_json_line: The script fails this batch. (line 99), which its file does not have" in report.stopped
    assert [] == endpoints.files
