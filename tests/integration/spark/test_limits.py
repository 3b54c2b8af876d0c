"""Limits of a policy hold over all tasks of a host, on classic Spark and on Connect."""

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_llm import Endpoint, Policy, chat_udf
from spark_llm.serving import Capacity, Faults, LocalEndpoints
from spark_llm.serving.scenario.capacity import Quota

TASKS = 2  # of the tests' session at once


def asked(spark: SparkSession, endpoints: LocalEndpoints, rows: int, policy: Policy) -> DataFrame:
    """Return the answers of all tasks."""
    chat = chat_udf(Endpoint(endpoints.invocations("chat"), token=endpoints.token), policy=policy)
    texts = spark.range(0, rows, 1, TASKS).select(F.concat(F.lit("row "), "id").alias("text"))
    return texts.select("text", chat("text").alias("answer"))


@pytest.mark.on_connect
def test_tasks_share_an_odd_number_of_requests(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """As many as `max_in_flight` are in flight and never more, though the number of tasks does not divide it."""
    endpoints.latency_s = 0.05
    answers = asked(spark, endpoints, 200, Policy(max_in_flight=3)).collect()

    assert [(row.text, None) for row in answers] == [(row.answer.text, row.answer.error) for row in answers]
    assert (3, {200: 200}) == (endpoints.stats.max_in_flight, dict(endpoints.stats.by_status))


@pytest.mark.one_kind
def test_tasks_share_a_quota(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """With `requests_per_minute=1200` at most 20 go at once, and 20 a second: an endpoint that counts refuses none."""
    endpoints.capacity = Capacity(quota=Quota(requests=60, window_s=2.0))
    answers = asked(spark, endpoints, 100, Policy(requests_per_minute=1_200)).collect()

    assert [None] * 100 == [row.answer.error for row in answers]
    assert {200: 100} == dict(endpoints.stats.by_status)


@pytest.mark.one_kind
def test_tasks_share_a_failure_rate(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """A fifth of 1,000 rows fails in sum, not in each of eight tasks; it does not stop the next query."""
    endpoints.faults = Faults(poison="bad")
    chat = chat_udf(
        Endpoint(endpoints.invocations("chat"), token=endpoints.token),
        policy=Policy(max_in_flight=8, max_failure_rate=0.2),
    )
    word = F.when(F.col("id") % 500 < 20, "row ").otherwise("bad ")
    texts = spark.range(0, 4_000, 1, 8).select(F.concat(word, "id").alias("text"))
    failing = texts.select(chat("text").alias("answer")).select("answer.error").collect()
    refused = endpoints.stats.by_status[400]
    good = texts.where("text like 'row %'").select(chat("text").alias("answer")).select("answer.error").collect()

    assert 200 <= refused < 400
    kinds = [None if row.error is None else row.error.kind for row in failing]
    assert refused == kinds.count("invalid_request")
    assert 0 == kinds.count(None) % 20
    assert {None, "invalid_request", "cancelled"} == set(kinds)
    assert "max_failure_rate" in next(
        row.error.message for row in failing if row.error and row.error.kind == "cancelled"
    )
    assert [None] * 160 == [row.error for row in good]
