"""Tables with names, types and settings that Spark takes and few people use."""

from collections.abc import Callable

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_llm import Endpoint, chat_udf
from spark_llm.enrich.column_types import differ, fields_of, same_of
from spark_llm.protocol.identifiers import named, quoted, struct
from spark_llm.serving import LocalEndpoints
from tests.integration.spark.asking import Run, chat, texts
from tests.integration.spark.test_enrich_failures import at
from tests.integration.spark.test_other_writers import fail

DAY = "timestamp'2024-01-01 00:00:00.{}'"
DIFFERENT = {  # two values of one type that Spark does not compare
    "microseconds": (f"map('t', {DAY.format('123456')})", f"map('t', {DAY.format('123999')})"),
    "values": ("map('a', 1, 'b', 2)", "map('a', 2, 'b', 1)"),
    "entries": ("map('a', 1)", "map('a', 1, 'b', 1)"),
    "a null": ("map('a', 1)", "map('a', CAST(NULL AS INT))"),
    "no map": ("map('a', 1)", "CAST(NULL AS map<string,int>)"),
    "inside": (
        "array(named_struct('a', map(1, map('b', X'01'))))",
        "array(named_struct('a', map(1, map('b', X'02'))))",
    ),
}
EQUAL = {
    "another order": ("map('a', 1, 'b', 2)", "map('b', 2, 'a', 1)"),
    "bytes": ("map(X'01', 'a')", "map(X'01', 'a')"),
    "a wider type": ("array(map('a', int(1)))", "array(map('a', bigint(1)))"),
    "other names": ("named_struct('A', map('x', 1), 'b', 2)", "named_struct('a', map('x', 1), 'B', 2)"),
    "nulls": ("named_struct('a', CAST(NULL AS map<string,int>))", "named_struct('a', CAST(NULL AS map<string,int>))"),
}


@pytest.mark.one_kind
def test_maps_are_compared_exactly(spark: SparkSession) -> None:
    """By their entries in any order, whatever is in them: JSON has no microseconds, and bytes never look the same."""
    pairs = {**DIFFERENT, **EQUAL}
    sides = {side: struct({what: pair[n] for what, pair in pairs.items()}) for n, side in enumerate(("one", "other"))}
    values = spark.sql(f"SELECT {', '.join(named(sides))}")
    kinds = {field.name: field.dataType for field in fields_of(values.schema, "other")}
    differs = {what: differ(quoted("one", what), quoted("other", what), kind) for what, kind in kinds.items()}
    found = values.selectExpr(*named(differs)).collect()[0]
    assert {**dict.fromkeys(DIFFERENT, True), **dict.fromkeys(EQUAL, False)} == found.asDict()


@pytest.mark.one_kind
def test_a_setting_is_read_as_spark_reads_it(spark: SparkSession) -> None:
    """In any case: to Spark, names differ by their case where it is "True"."""
    for value, name in ((" True ", "Mood"), ("FALSE", "mood")):
        spark.conf.set("spark.sql.caseSensitive", value.strip())
        try:
            assert name == same_of(spark)("Mood"), value
        finally:
            spark.conf.unset("spark.sql.caseSensitive")


@pytest.mark.one_kind
def test_columns_and_folders_may_have_any_names(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """A target in a catalog with blanks and commas in its names; one in a folder whose path looks like a pattern.

    Rows are written in two chunks, and after a failure the next run merges the staged answers of the first.
    """
    columns = {"answer": chat(endpoints)("text")}
    by_name = "TBLPROPERTIES ('delta.columnMapping.mode' = 'name')"
    spark.sql(f"CREATE OR REPLACE TABLE odd (`my, id` BIGINT, `a = {{b}}` STRING, text STRING) USING delta {by_name}")
    rows = texts(spark, 4).select(F.col("id").alias("my, id"), F.lit("x").alias("a = {b}"), "text")
    requests, report = run(rows, "odd", columns, key="`my, id`", chunk_rows=2)
    assert (4, 4) == (requests, report.answered)
    assert 4 == spark.table("odd").where("answer.text = text AND `a = {b}` = 'x'").count()
    spark.sql("DROP TABLE odd")

    target = place("x[1]/{a,b}*?/t")
    with at("chunk 1: 3 of 3 rows answered", fail), pytest.raises(OSError, match="test"):
        run(texts(spark, 3), target, columns)
    requests, report = run(texts(spark, 3), target, columns)
    assert (0, 3) == (requests, report.recovered)
    assert 3 == spark.table(target).where("answer.text = text").count()


@pytest.mark.one_kind
def test_the_rows_of_a_run_that_is_refused_add_up(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], run: Run
) -> None:
    """Rows that were asked with a rejected token are asked again, and counted as such."""
    target = place("target")
    run(texts(spark, 3), target, {"answer": chat(endpoints)("text")})
    rejected = chat_udf(Endpoint(endpoints.invocations("chat"), token="rejected"))
    _, report = run(texts(spark, 6), target, {"answer": rejected("text")})
    assert (6, 3, 3, 3, 3) == (report.rows, report.skipped, report.asked, report.left, report.asked_and_left)
