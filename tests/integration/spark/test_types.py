"""Typed answers on Spark: DDL as the session reads it, and exact values of every type."""

import json
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
from pyspark.sql import SparkSession

from spark_llm import chat_udf
from spark_llm.errors import ConfigError
from spark_llm.serving import LocalEndpoints
from spark_llm.udf.spark_types import shape_of, spark_type, struct_of
from tests.integration.spark.asking import Ask, endpoint

pytestmark = pytest.mark.one_kind

DDL = """
    text STRING, flag BOOLEAN NOT NULL, one TINYINT, two SMALLINT, four INT, eight BIGINT, half FLOAT, whole DOUBLE,
    price DECIMAL(38,18), day DATE, at TIMESTAMP, local TIMESTAMP_NTZ, `grö ße` INT COMMENT 'in cm',
    times ARRAY<TIMESTAMP>, named MAP<STRING,STRUCT<at:TIMESTAMP,price:DECIMAL(5,2)>>,
    deep STRUCT<list:ARRAY<STRUCT<local:TIMESTAMP_NTZ,days:MAP<STRING,DATE>>>>
"""
TIMES = ["1500-06-01T00:00:00.123456+00:00", None, "9999-12-31T23:59:59.999999+00:00", "2020-10-25T01:30:00+01:00"]
FIRST = {
    "text": "a\N{SLIGHTLY SMILING FACE}\0",
    "flag": True,
    "one": -128,
    "two": -(2**15),
    "four": 2**31 - 1,
    "eight": 2**63 - 1,
    "half": 0.1,
    "whole": 5e-324,
    "price": "12345678901234567890.123456789012345678",
    "day": "0001-01-01",
    "at": "0001-01-01T00:00:00.000001Z",
    "local": "0001-01-01T00:00:00.000001",
    "grö ße": 7,
    "times": TIMES,
    "named": {"": {"at": "1677-01-01T00:00:00Z", "price": 1.5}, "b": None, "c": {"at": "2300-01-01T00:00:00-05:00"}},
    "deep": {"list": [{"local": "9999-12-31T23:59:59.999999", "days": {"x": "9999-12-31", "y": None}}, None, {}]},
}
LOOK = """
    SELECT r.error, p.text, p.flag, p.one, p.two, p.four, p.eight, CAST(p.half AS STRING) AS half, p.whole, p.price,
      CAST(p.day AS STRING) AS day, unix_micros(p.at) AS at, CAST(p.local AS STRING) AS local, p.`grö ße` AS cm,
      transform(p.times, each -> unix_micros(each)) AS times,
      transform(map_values(p.named), each -> unix_micros(each.at)) AS moments, map_keys(p.named) AS names,
      transform(map_values(p.named), each -> each.price) AS prices,
      CAST(p.deep.list[0].local AS STRING) AS deep, CAST(p.deep.list[0].days['x'] AS STRING) AS last,
      p.deep.list[0].days['y'] AS missing, transform(p.deep.list, each -> each IS NULL) AS nulls, p IS NULL AS nothing
    FROM (SELECT r, r.parsed AS p FROM answers) ORDER BY nothing, p.text
"""


def micros(text: str) -> int:
    """Return a time in microseconds since 1970, by Python's calendar."""
    since = datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_every_value_is_exact(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask, zone: str) -> None:
    """First and last years, nulls inside maps and arrays, and 38 digits are exact, in any time zone."""
    udf = ask(chat_udf(endpoint(endpoints), returns=struct_of(DDL, spark)))
    price = f'"price": {FIRST["price"]}'
    text = json.dumps(FIRST).replace(json.dumps({"price": FIRST["price"]})[1:-1], price)
    before = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", zone)
    try:
        df = spark.createDataFrame([(text,), ('{"flag": false}',), (None,)], "prompt string").repartition(1)
        df.select(udf("prompt").alias("r")).createOrReplaceTempView("answers")
        nulls, first, null = (row.asDict() for row in sorted(spark.sql(LOOK).collect(), key=_order))
    finally:
        spark.conf.set("spark.sql.session.timeZone", str(before))
    expected: dict[str, Any] = {
        **{name: FIRST[name] for name in ("text", "flag", "one", "two", "four", "eight", "whole", "day")},
        "error": None,
        "half": "0.1",
        "price": Decimal(str(FIRST["price"])),
        "at": micros("0001-01-01T00:00:00.000001+00:00"),
        "local": "0001-01-01 00:00:00.000001",
        "cm": 7,
        "times": [each and micros(each) for each in TIMES],
        "moments": [micros("1677-01-01T00:00:00+00:00"), None, micros("2300-01-01T00:00:00-05:00")],
        "names": ["", "b", "c"],
        "prices": [Decimal("1.50"), None, None],
        "deep": "9999-12-31 23:59:59.999999",
        "last": "9999-12-31",
        "missing": None,
        "nulls": [False, True, False],
        "nothing": False,
    }

    assert expected == first
    assert {**dict.fromkeys(expected), "flag": False, "nothing": False} == nulls
    assert {**dict.fromkeys(expected), "nothing": True} == null


def _order(row: Any) -> tuple[bool, bool]:  # noqa: ANN401 -- a Row
    return row["nothing"], row["text"] is not None


def test_a_mismatched_row_has_no_value(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """It has an error, and other rows are read, also with a NOT NULL field."""
    udf = ask(chat_udf(endpoint(endpoints), returns=struct_of("n INT NOT NULL, d DECIMAL(3,1)", spark)))
    rows = ['{"n": 1, "d": 1.25}', '{"n": 2, "d": 1.2}', "nothing"]
    df = spark.createDataFrame([(row,) for row in rows], "prompt string").repartition(1)
    found = df.select("prompt", udf("prompt").alias("r")).select("prompt", "r.parsed", "r.error.kind").collect()

    assert {
        rows[0]: (None, "schema_mismatch"),
        rows[1]: ((2, Decimal("1.2")), None),
        rows[2]: (None, "schema_mismatch"),
    } == {row["prompt"]: (row["parsed"] and tuple(row["parsed"]), row["kind"]) for row in found}


@pytest.mark.parametrize(
    "ddl",
    [
        "a INT",
        "a: int, b: string",
        "struct<a:int>",
        " STRUCT < value : int >",
        "value INT",
        "`value` INT",
        "value: int",
        "-- one\nvalue INT",
        "/* one *//** two **/ value ARRAY<INT>",
        "`grö ße` INT NOT NULL COMMENT 'in cm'",
        DDL,
    ],
)
def test_ddl_is_read_by_spark(spark: SparkSession, ddl: str) -> None:
    """Every spelling of the server works, with comments and NOT NULL."""
    struct = struct_of(ddl, spark)
    column = spark_type(shape_of(struct))

    assert struct.fields
    assert struct.simpleString() == column.simpleString()
    assert [(each.name, each.nullable) for each in struct] == [(each.name, each.nullable) for each in column]  # type: ignore[attr-defined]  # a struct


def test_a_comment_is_sent_and_stays_out_of_the_column(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """It is the field's description in the request, and the column's type has none."""
    udf = chat_udf(endpoint(endpoints), returns="cm INT COMMENT 'Its height, in cm'")
    df = spark.createDataFrame([('{"cm": 7}',)], "prompt string").select(udf("prompt").alias("r"))
    found = df.select("r.parsed.cm").collect()
    schema = (endpoints.requests[0].body or {})["response_format"]["json_schema"]["schema"]

    assert [(7,)] == found
    assert "Its height, in cm" == schema["properties"]["cm"]["description"]
    assert {} == df.select("r.parsed.*").schema["cm"].metadata


@pytest.mark.parametrize(
    "ddl",
    ["int", "array<string>", "map<string,int>", "array<struct<value:int>>", "decimal(3,1)", f"{'/* one */' * 40} int"],
)
def test_ddl_of_another_type_raises(spark: SparkSession, ddl: str) -> None:
    """The hint shows how to make it a struct."""
    with pytest.raises(ConfigError, match=r"is not a struct. Hint: .+\.$"):
        struct_of(ddl, spark)


@pytest.mark.parametrize(
    "ddl",
    ["a", "a nope", "a int,,", "struct<a:int", "a decimal(40,2)", "a char(3)", "a int b", "a int comment", "ü int"],
)
def test_invalid_ddl_raises(spark: SparkSession, ddl: str) -> None:
    """The message quotes Spark in one line, without the stack."""
    with pytest.raises(ConfigError, match=r"^returns='.*' is not valid DDL: .+ Hint: .+\.$") as caught:
        struct_of(ddl, spark)

    assert "\n" not in str(caught.value)
    assert "SQLSTATE" not in str(caught.value)
    assert "org.apache" not in str(caught.value)
