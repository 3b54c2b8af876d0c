"""The digests of requests in batches, where equal requests are not shared: each key has one of its own."""

import pytest
from pyspark.sql import DataFrame, SparkSession

from spark_llm import Endpoint, Policy, chat_udf
from spark_llm.enrich.batch_jobs.history import digest_name, with_digests
from spark_llm.enrich.changes import pending_rows
from spark_llm.enrich.column_types import same_of
from spark_llm.enrich.plan import plan_run
from spark_llm.enrich.source import input_types
from spark_llm.udf.lazy_udf import call_of

ENDPOINT = Endpoint("https://api.example.com/v1", model="m", token="t")
CHAT = chat_udf(ENDPOINT, policy=Policy(dedupe=False))


def digests(rows: DataFrame, *key: str) -> list[str]:
    """Return the digest of each row's request, sorted."""
    call = call_of(CHAT("text"))
    assert call is not None
    calls, same = {"answer": call}, same_of(rows.sparkSession)
    plan = plan_run(rows.schema, None, "target", key, calls, input_types(rows, calls, same), same)
    pending = pending_rows(rows, None, plan, retry_errors=True, delete_missing=False)
    return sorted(row[0] for row in with_digests(pending, plan).select(digest_name(0)).collect())


@pytest.mark.one_kind
def test_a_key_has_one_digest_in_every_session(spark: SparkSession) -> None:
    """Whatever the time zone is, and the case and the order of the names; a wider type of numbers changes nothing."""
    moment = "timestamp_micros(1700000000000000 + id)"
    rows = spark.range(3).selectExpr(f"{moment} AS ts", "int(id) AS n", "'same' AS text")
    wide = spark.range(3).selectExpr("id AS N", f"{moment} AS TS", "'same' AS text")
    zone = spark.conf.get("spark.sql.session.timeZone")
    try:
        spark.conf.set("spark.sql.session.timeZone", "UTC")
        found = digests(rows, "ts", "n")
        spark.conf.set("spark.sql.session.timeZone", "America/New_York")
        assert found == digests(wide, "n", "TS")
    finally:
        spark.conf.set("spark.sql.session.timeZone", str(zone))
    assert (3, {48}) == (len(set(found)), set(map(len, found)))


@pytest.mark.one_kind
@pytest.mark.parametrize(
    "key",
    [
        "timestamp_micros(1700000000000000 + id)",
        "timestamp_ntz'2024-01-01 00:00:00' + make_dt_interval(0, 0, 0, 0.000001 * id)",
        "make_dt_interval(0, 0, 0, 0.000001 * id)",
        "named_struct('a', nullif(id, 0), 'b', array(id))",
    ],
    ids=["timestamp", "timestamp_ntz", "interval", "struct"],
)
def test_keys_that_differ_have_digests_that_differ(spark: SparkSession, key: str) -> None:
    """Also by a microsecond: else rows would share one request."""
    assert 3 == len(set(digests(spark.range(3).selectExpr(f"{key} AS k", "'same' AS text"), "k")))
