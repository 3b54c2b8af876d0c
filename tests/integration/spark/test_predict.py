"""Custom models on Spark, classic or Connect, as Arrow and as pandas UDFs; the server counts the rows."""

import math
from collections.abc import Iterator
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, StringType

from spark_llm import ConfigError, predict_udf, register
from tests.integration.spark.asking import Ask
from tests.support.scoring_server import RefusedError, ScoringServer, scoring_server

ANSWER = "label STRING, raw BINARY, parts ARRAY<INT>, extra MAP<STRING, DECIMAL(10, 2)>, at TIMESTAMP"
NOON = datetime(2024, 2, 29, 12, tzinfo=timezone.utc).replace(tzinfo=None)


def echo(rows: list[Any]) -> list[Any]:
    """Predict each row itself."""
    return rows


@pytest.fixture
def served() -> Iterator[ScoringServer]:
    """A server that predicts each row itself."""
    with scoring_server(echo) as running:
        yield running


def people(spark: SparkSession, rows: int = 100) -> DataFrame:
    """Return rows with a number, a text, and some nulls."""
    age = F.when(F.col("id") % 10 != 3, F.col("id") + 0.5)
    text = F.when(F.col("id") % 5 != 3, F.concat(F.lit("row "), "id"))
    return spark.range(rows, numPartitions=2).select("id", age.alias("age"), text.alias("text"))


def test_columns_by_name_reach_the_model_and_predictions_their_rows(
    spark: SparkSession, served: ScoringServer, ask: Ask
) -> None:
    """Numbers and texts by name, a null beside another value as null, and a row of nulls without a request."""
    predict = predict_udf(served.url, returns="age DOUBLE, text STRING")
    column = predict.argument(age="age", text="text")
    rows = people(spark).withColumn("r", ask(predict)(column)).select("id", "age", "text", "r.*").collect()

    asked = [row for row in rows if row["id"] % 10 != 3]
    assert [Row(age=row["age"], text=row["text"]) for row in asked] == [row["prediction"] for row in asked]
    assert {(None, "score-1", 1)} == {(row["error"], row["model"], row["attempts"]) for row in asked}
    assert {(None, None, None)} == {
        (row["prediction"], row["attempts"], row["error"]) for row in rows if row["id"] % 10 == 3
    }
    assert 90 == sum(map(len, served.requests))


def test_a_struct_and_a_single_column_are_rows_too(spark: SparkSession, served: ScoringServer, ask: Ask) -> None:
    """The struct's fields are the columns; a single column has no name in the request."""
    predict = ask(predict_udf(served.url, returns="MAP<STRING, STRING>"))
    single = ask(predict_udf(served.url, returns="STRING", format="instances"))
    df = spark.createDataFrame([("a",), ("b",), (None,)], "t string").repartition(1)
    columns = [predict(F.struct("t", F.upper("t").alias("u"))).alias("r"), single("t").alias("s")]
    rows = {
        row["t"]: (row["p"], row["q"])
        for row in df.select("t", *columns).selectExpr("t", "r.prediction AS p", "s.prediction AS q").collect()
    }

    assert {"a": ({"t": "a", "u": "A"}, "a"), "b": ({"t": "b", "u": "B"}, "b"), None: (None, None)} == rows


def test_every_type_goes_in_and_comes_back(spark: SparkSession, ask: Ask) -> None:
    """Numbers, decimals, bytes, times, arrays, structs and maps in; a struct of such types out."""
    seen: list[dict[str, Any]] = []
    answer = {"raw": "AP8=\n", "extra": {"a": 1.1, "b": None}, "at": "2024-02-29T12:00:00+02:00"}

    def model(rows: list[Any]) -> list[dict[str, Any]]:
        seen.extend(rows)
        return [{"label": row["text"], "parts": row["list"], **answer} for row in rows]

    with scoring_server(model) as server:
        df = spark.range(1).selectExpr(
            *("int(id) AS n", "'é' AS text", "id > 0 AS flag", "1.10BD AS money", "X'00FF' AS raw", "NULL AS nothing"),
            *("DATE'2024-02-29' AS day", "TIMESTAMP'2024-02-29 12:00:00.25Z' AS at", "array(1, null) AS list"),
            *("named_struct('a', id, 'b', 'x') AS pair", "map('k', array(0.5D)) AS map", "DOUBLE('NaN') AS nan"),
            "array(named_struct('at', TIMESTAMP'2024-02-29 12:00:00Z')) AS times",
        )
        predict = predict_udf(server.url, returns=ANSWER)
        column = ask(predict)(predict.argument(**{name: name for name in df.columns}))
        [row] = df.select(column.alias("r")).selectExpr("r.prediction.*", "unix_micros(r.prediction.at) m").collect()

    assert [
        {
            "n": 0,
            "text": "é",
            "flag": False,
            "money": 1.1,
            "raw": "AP8=",
            "nothing": None,
            "day": "2024-02-29",
            "at": "2024-02-29T12:00:00.250000Z",
            "list": [1, None],
            "pair": {"a": 0, "b": "x"},
            "map": {"k": [0.5]},
            "nan": None,
            "times": [{"at": "2024-02-29T12:00:00Z"}],
        }
    ] == seen
    assert ("é", b"\x00\xff", [1, None]) == (row["label"], bytes(row["raw"]), row["parts"])
    assert {"a": Decimal("1.10"), "b": None} == row["extra"]
    assert datetime(2024, 2, 29, 10, tzinfo=timezone.utc).timestamp() * 1_000_000 == row["m"]


@pytest.mark.one_kind
def test_what_python_lacks_reaches_the_model(spark: SparkSession, served: ScoringServer) -> None:
    """The last second of 9999 in America, a later day and broken text fail neither their row nor the others."""
    df = (
        spark.range(2)
        .coalesce(1)
        .selectExpr(
            *(
                "id",
                "IF(id = 0, TIMESTAMP'9999-12-31 23:59:59 America/Los_Angeles', TIMESTAMP'2024-02-29 12:00:00Z') AS at",
            ),
            *("array(DATE'+10000-01-01') AS days", "map('k', CAST(X'FF' AS STRING)) AS map"),
        )
    )
    predict = predict_udf(served.url, returns="at STRING, days ARRAY<STRING>, map MAP<STRING, STRING>")
    rows = df.withColumn("r", predict(at="at", days="days", map="map")).select("r.*").collect()

    days, broken = ["+10000-01-01"], {"k": "\N{REPLACEMENT CHARACTER}"}
    assert [None, None] == [row["error"] for row in rows]
    assert [("+10000-01-01T07:59:59Z", days, broken), ("2024-02-29T12:00:00Z", days, broken)] == [
        tuple(row["prediction"]) for row in rows
    ]


@pytest.mark.parametrize(
    ("returns", "predicted", "expected"),
    [
        ("DOUBLE", [math.nan, math.inf, None, 2], [math.nan, math.inf, None, 2.0]),
        ("ARRAY<FLOAT>", [[0.5, None], None, []], [[0.5, None], None, []]),
        ("BIGINT", [2**53 + 1, -(2**63), None, 3.0], [2**53 + 1, -(2**63), None, 3]),
        ("DECIMAL(20, 10)", [0.1, None], [Decimal("0.1000000000"), None]),
        ("BINARY", ["AP8=", None], [b"\x00\xff", None]),
        ("DATE", ["2024-02-29T00:00:00", "NaT"], [date(2024, 2, 29), None]),
        ("TIMESTAMP_NTZ", ["2024-02-29T12:00:00"], [NOON]),
        (StringType(), ["a", None], ["a", None]),
    ],
    ids=str,
)
def test_a_single_value_has_its_type(
    spark: SparkSession, ask: Ask, returns: str | DataType, predicted: list[object], expected: list[object]
) -> None:
    """A type alone makes a column of that type, with NaN and infinity where it has them."""
    with scoring_server(lambda rows: [predicted[row] for row in rows]) as server:
        predict = ask(predict_udf(server.url, returns=returns, format="instances"))
        rows = spark.range(len(predicted)).coalesce(1).select("id", predict("id").alias("r"))
        found = [(row["r"]["prediction"], row["r"]["error"]) for row in sorted(rows.collect())]

    found = [(bytes(each) if isinstance(each, bytearray) else each, error) for each, error in found]  # before Spark 4.1
    assert repr([(each, None) for each in expected]) == repr(found)


def test_nan_inside_an_array_a_map_or_a_struct_is_nan(spark: SparkSession, ask: Ask) -> None:
    """A null beside it is null."""
    answer = {"a": [math.nan, None, 0.5], "b": math.nan, "c": {"k": math.nan}, "d": math.inf}
    with scoring_server(lambda rows: [answer for _ in rows]) as server:
        predict = ask(predict_udf(server.url, returns="a ARRAY<DOUBLE>, b FLOAT, c MAP<STRING, DOUBLE>, d DOUBLE"))
        [row] = spark.range(1).select(predict("id").alias("r")).select("r.prediction.*").collect()

    assert "Row(a=[nan, None, 0.5], b=nan, c={'k': nan}, d=inf)" == repr(row)


def test_a_bad_row_fails_alone(spark: SparkSession, ask: Ask) -> None:
    """One row of 500 that the model refuses has the error; one whose prediction does not fit has another."""

    def model(rows: list[Any]) -> list[object]:
        if 250 in rows:
            raise RefusedError("row 250 is refused")
        return [str(row) if row == 7 else row for row in rows]

    with scoring_server(model) as server:
        predict = ask(predict_udf(server.url, returns="DOUBLE", format="inputs"))
        rows = (
            spark.range(500).coalesce(1).select("id", predict("id").alias("r")).select("id", "r.prediction", "r.error")
        )
        found = {row["id"]: row for row in rows.collect()}

    assert [None if row in (7, 250) else float(row) for row in range(500)] == [
        found[row]["prediction"] for row in range(500)
    ]
    kinds = {row: found[row]["error"]["kind"] for row in found if found[row]["error"]}
    assert {7: "schema_mismatch", 250: "invalid_request"} == kinds
    assert "hidden" not in str(found[250]["error"])


def test_sql_asks_with_a_struct(spark: SparkSession, served: ScoringServer) -> None:
    """`register` makes `llm_predict`, of one column or of a struct; an endpoint alone does not say its type."""
    assert ["llm_predict"] == register(spark, predict=predict_udf(served.url, returns="MAP<STRING, BIGINT>"))
    [row] = spark.sql("SELECT llm_predict(struct(id AS a, id + 1 AS b)).prediction AS p FROM range(1)").collect()

    assert {"a": 0, "b": 1} == row["p"]
    with pytest.raises(ConfigError, match=r"type of its predictions is not known\. Hint: pass a UDF, as in predict="):
        register(spark, predict=served.url)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT bad(id, id) FROM range(1)", "predict_udf takes one column"),
        ("SELECT bad(map(1, 'a')) FROM range(1)", "called on (map<int,string>|a map with keys of int)"),
        ("SELECT bad(INTERVAL '1' DAY) FROM range(1)", "called on interval day to second"),
    ],
)
def test_a_wrong_column_raises_at_the_first_batch(
    spark: SparkSession, served: ScoringServer, query: str, message: str
) -> None:
    """Before any request, with a hint."""
    spark.udf.register("bad", predict_udf(served.url, returns="STRING"))

    with pytest.raises(Exception, match=message):
        spark.sql(query).collect()
    assert [] == served.requests


def test_invalid_ddl_is_spark_s_own_error_with_a_hint(spark: SparkSession, served: ScoringServer) -> None:
    """It is read when the UDF is built; names and types of a struct, and types alone, are both fine."""
    with pytest.raises(ConfigError, match=r"returns='DUBBLE' is not valid DDL: .*Hint: write a type, as in .DOUBLE."):
        predict_udf(served.url, returns="DUBBLE")
    for returns, kind in (("a INT, b STRING", "struct<a:int,b:string>"), ("array<int>", "array<int>")):
        udf = predict_udf(served.url, returns=returns)
        assert kind == udf.returnType["prediction"].dataType.simpleString()
