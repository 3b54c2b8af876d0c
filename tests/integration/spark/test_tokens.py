"""Tokens in a job of two workers: expiry, renewal and revocation."""

import pytest
from pyspark.sql import DataFrame, SparkSession

from spark_llm import Endpoint, Policy, chat_udf
from spark_llm.auth.credentials import ClientCredentials
from spark_llm.serving import After, LocalEndpoints

pytestmark = pytest.mark.one_kind


def rows(spark: SparkSession, count: int) -> DataFrame:
    """Return so many texts in two partitions, for two workers at once."""
    return spark.range(count, numPartitions=2).selectExpr("concat('row ', id) AS p")


def test_an_expired_token_costs_one_renewal_per_worker(spark: SparkSession) -> None:
    """Each worker's first token is valid for 50 of 250 requests; it gets one more, and no row fails."""

    def expire(number: int) -> After | None:
        return After(requests=50) if number < 2 else None

    with LocalEndpoints(issued_tokens_expire=expire, latency_s=0.05) as endpoints:
        client = ClientCredentials(endpoints.client_id, endpoints.client_secret, f"{endpoints.url}/oidc/v1/token")
        chat = chat_udf(Endpoint(endpoints.invocations("chat"), token=client), policy=Policy(max_in_flight=8))
        answers = rows(spark, 500).select("p", chat("p").alias("r")).collect()

        assert {True} == {row.r.error is None and row.r.text == row.p for row in answers}
        assert (500, 4) == (len(answers), endpoints.tokens_issued)


def test_a_revoked_token_stops_the_job(spark: SparkSession) -> None:
    """Every row is `unauthorized` with a hint, after at most three requests per worker."""
    with LocalEndpoints() as endpoints:
        chat = chat_udf(Endpoint(endpoints.invocations("chat"), token=endpoints.token))
        endpoints.revoke()
        errors = {row.r.error for row in rows(spark, 500).select(chat("p").alias("r")).collect()}
        [error] = errors

        assert ("unauthorized", 401, False) == (error.kind, error.status, error.retryable)
        assert " Hint: " in error.message
        assert endpoints.stats.requests <= 6
