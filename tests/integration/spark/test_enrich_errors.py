"""Errors of table jobs in their arguments and tables: each is found before the first request."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_llm import ConfigError, InputTypeError, Policy, chat_udf
from spark_llm.enrich.api import enrich_stream, enrich_table
from spark_llm.enrich.table import Table
from spark_llm.functions import ai_gen
from spark_llm.metering.budget import Budget
from spark_llm.serving import LocalEndpoints
from tests.integration.spark.asking import chat, endpoint, texts

WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("a column that is no call", {"columns": lambda _: {"a": F.col("text")}}, "direct result"),
    ("a field of an answer", {"columns": lambda ask: {"a": ask("text")["text"]}}, "direct result"),
    ("a function without tokens", {"columns": lambda ask: {"a": ai_gen("text", chat=ask)}}, "direct result"),
    ("no columns", {"columns": {}}, "names no columns"),
    ("a new column with a blank", {"columns": lambda ask: {"a b": ask("text")}}, "'a b'"),
    ("a new column with SQL", {"columns": lambda ask: {"a` INT); DROP": ask("text")}}, "DROP"),
    ("an input that is missing", {"columns": lambda ask: {"a": ask("body")}}, "cannot be read from the source"),
    (
        "an input that is a number",
        {"columns": lambda ask: {"a": ask("id")}},
        "columns['a'] on 'id': The UDF takes one string column",
    ),
    (
        "an input that no worker reads",
        {"columns": lambda ask: {"a": ask(F.expr("INTERVAL 1 MONTH"))}},
        "columns['a']: The UDF was called on interval month",
    ),
    ("a name that the source has", {"columns": lambda ask: {"team": ask("text")}}, "of another type, string"),
    ("the key as a column", {"columns": lambda ask: {"id": ask("text")}}, "key column cannot be filled"),
    ("a key that is missing", {"key": "no"}, "The source lacks the key 'no'"),
    ("a key inside a column", {"key": "a.b"}, "not the name of one column"),
    ("no key", {"key": []}, "names no column"),
    (
        "a key without an order",
        {"key": "tags"},
        "The key 'tags' is map<string,bigint>, whose values Spark does not comp",
    ),
    ("a key that is given twice", {"key": ["id", "ID"]}, "key= has 'id' and 'ID', which are one name"),
    (
        "a column that is given twice",
        {"columns": lambda ask: {"a": ask("text"), "A": ask("text")}},
        "fills 'a' and 'A'",
    ),
    (
        "a column where a fingerprint goes",
        {"columns": lambda ask: {"a": ask("text"), "A_fingerprint": ask("text")}},
        "fills 'a_fingerprint' and 'A_fingerprint'",
    ),
    (
        "a key where a fingerprint goes",
        {"columns": lambda ask: {"i": ask("text")}, "key": "I_fingerprint"},
        "key column cannot",
    ),
    ("a source with a name twice", {"more": "TEXT"}, "The source has the columns 'text' and 'TEXT'"),
    ("no format", {"format": "a b"}, "format='a b' is not the name"),
    (
        "a format that is unknown",
        {"format": "nothing", "target": "created_as_nothing"},
        "Delta Lake needs spark.jars.packages",
    ),
    ("a format of another path", {"format": "iceberg"}, "is not a table of format='iceberg'"),
    ("a key with duplicates", {"key": "team"}, "The key (team) is not unique: 'x' occurs more than once in"),
    ("a key with nulls", {"key": ["id", "text"]}, "is null in 2 rows"),
    (
        "a key with nulls in the target",
        {"target": "{unkeyed}", "on_missing": "delete"},
        "The key (id) is null in 1 row of the target, so no MERGE finds it",
    ),
    ("a name that Delta refuses", {"more": "my, col"}, "Hint: give these columns other names in the source; or create"),
    ("a source that is missing", {"source": "no_such_table"}, "There is no table no_such_table"),
    ("a source that is a folder", {"source": "delta.`{folder}`"}, "There is no table"),
    ("a name with SQL in it", {"source": "t; DROP TABLE t"}, "not a table's name"),
    ("a name with a blank", {"target": "my table"}, "not a table's name"),
    ("a name in quotes", {"target": "'t'"}, "not a table's name"),
    ("a schema that is missing", {"target": "no_such_schema.t"}, "a place where you may create one"),
    ("a target that is a folder", {"target": "delta.`{folder}`"}, "a folder with files in it"),
    ("a target without the key", {"target": "{other}"}, "lacks the key 'id'"),
    ("a target with another type", {"target": "{typed}"}, "of another type, int"),
    ("a target with another type of key", {"target": "{keyed}"}, "'id' is string in"),
    ("a target that is a view", {"target": "a_view"}, "is a view"),
    ("a target without MERGE", {"target": "a_parquet"}, "cannot merge into a_parquet: its format has no MERGE"),
    ("a chunk of no rows", {"chunk_rows": 0}, "chunk_rows=0"),
    ("dollars without prices", {"budget": Budget(usd=1)}, "prices"),
    ("a flag that is a text", {"retry_errors": "no"}, "retry_errors='no' is neither True nor False"),
    ("a bar that is a text", {"show": "no"}, "progress='no' is neither True nor False"),
    ("another way to go missing", {"on_missing": "drop"}, "on_missing='drop'"),
    ("a policy that raises", {"columns": lambda ask: {"a": ask.raising("text")}}, "on_error"),
]


@pytest.fixture(scope="module")
def wrong_targets(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """Tables that cannot be filled, each for a reason of another type, string."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "not a table.txt").write_text("text")
    places = {name: f"delta.`{folder}/{name}`" for name in ("other", "typed", "keyed", "unkeyed")}
    spark.sql(f"CREATE TABLE {places['other']} (review_id BIGINT) USING delta")
    spark.sql(f"CREATE TABLE {places['typed']} (id BIGINT, a INT) USING delta")
    spark.sql(f"CREATE TABLE {places['keyed']} (id STRING) USING delta")
    spark.sql(f"CREATE TABLE {places['unkeyed']} USING delta AS SELECT CAST(NULL AS BIGINT) AS id")
    spark.sql("CREATE OR REPLACE VIEW a_view AS SELECT 1L AS id")
    spark.sql("CREATE TABLE IF NOT EXISTS a_parquet (id BIGINT) USING parquet")
    yield {**places, "folder": str(folder)}
    spark.sql("DROP VIEW a_view")
    spark.sql("DROP TABLE a_parquet")


def test_a_trigger_that_spark_lacks_is_an_error(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], tmp_path: Path
) -> None:
    """It ends in a next step; no stream was started."""
    stream = spark.readStream.format("rate").load().select(F.col("value").alias("id"), F.lit("a").alias("text"))
    ask = {"a": chat(endpoints)("text")}
    for trigger in ({"foo": 1}, {"processingTime": 7}, {}):
        with pytest.raises(ConfigError, match=r"^trigger=.* is not one of Spark's: .* Hint: write it as in "):
            enrich_stream(spark, stream, place("target"), "id", ask, str(tmp_path / "checkpoint"), trigger=trigger)


@pytest.mark.one_kind
def test_arguments_that_do_not_fit_are_an_error_before_the_first_request(
    spark: SparkSession, endpoints: LocalEndpoints, place: Callable[[str], str], wrong_targets: Mapping[str, str]
) -> None:
    """Each error says what is wrong and ends in a next step; no request was sent."""
    ask = chat(endpoints)
    vars(ask)["raising"] = chat_udf(endpoint(endpoints), policy=Policy(on_error="raise"))
    rows = texts(spark, 20).select(
        "*", F.col("id").alias("i_fingerprint"), F.create_map(F.lit("a"), "id").alias("tags")
    )
    for number, (what, given, words) in enumerate(WRONG):
        options = dict(given)
        source = rows.select("*", F.lit(1).alias(options.pop("more", "more")))
        columns = options.get("columns", lambda ask: {"a": ask("text")})
        arguments: dict[str, Any] = {"source": source, "target": place(f"target {number}"), "key": "id"} | options
        for name in ("source", "target"):
            if isinstance(arguments[name], str):
                arguments[name] = arguments[name].replace("{folder}", wrong_targets["folder"])
                arguments[name] = wrong_targets.get(arguments[name].strip("{}"), arguments[name])
        asked = columns(ask) if callable(columns) else columns
        try:
            shown = arguments.pop("show", False)
            enrich_table(spark, **{**arguments, "columns": asked}, progress=shown)
        except (ConfigError, InputTypeError) as error:
            message = str(error)
        else:
            message = "no error"
        assert words in message, what
        assert "Hint: " in message, what
    assert 0 == endpoints.stats.requests


@pytest.mark.one_kind
def test_no_column_name_hides_that_a_table_has_merge(spark: SparkSession, place: Callable[[str], str]) -> None:
    """The statement that looks for MERGE has names of its own, which a table may have too."""
    spark.sql(f"CREATE TABLE {place('t')} (id BIGINT, one STRING, spark_llm STRUCT<one: INT>, `1` INT) USING delta")
    Table.named(spark, "target=", place("t")).check_merge()


@pytest.mark.one_kind
def test_a_table_that_the_catalog_forgot_is_an_error_with_a_way_out(
    spark: SparkSession, endpoints: LocalEndpoints
) -> None:
    """Without a metastore, as on a laptop, the files of a killed run are there and its tables are not."""
    warehouse = Path(unquote(urlsplit(spark.conf.get("spark.sql.warehouse.dir")).path))
    spark.range(1).write.parquet(str(warehouse / "forgotten__spark_llm_lease"))
    source = spark.createDataFrame([(1, "x")], "id INT, text STRING")
    with pytest.raises(ConfigError, match=r"__spark_llm_lease cannot be created .* Hint: .* Name the target by a path"):
        enrich_table(spark, source, "forgotten", "id", {"answer": chat_udf(endpoint(endpoints))("text")})

    assert 0 == endpoints.stats.requests
