"""Models as SQL functions, registered by `register` and by `spark.udf.register`."""

import pytest
from pyspark.sql import SparkSession

from spark_llm import ConfigError, chat_udf, complete_udf, embed_udf, register
from spark_llm.serving import LocalEndpoints, echo_vector
from tests.integration.spark.asking import chat, endpoint


def test_endpoints_become_sql_functions(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Endpoints and UDFs become functions with the returned names, which give structs."""
    names = register(
        spark,
        chat=chat_udf(endpoint(endpoints), system="Be brief."),
        complete=endpoint(endpoints, "complete"),
        embed=endpoint(endpoints, "embed"),
    )
    query = "SELECT llm_chat(t).text, llm_complete(t).text, llm_embed(t).embedding FROM VALUES ('hi') AS x(t)"
    [row] = spark.sql(query).collect()

    assert ["llm_chat", "llm_complete", "llm_embed"] == names
    assert ("Be brief.\nhi", "hi", echo_vector("hi")) == tuple(row)


def test_a_lateral_alias_names_the_answer_once(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """`SELECT f(p) AS r, r.text, r.error` sends each row once; nulls in SQL stay null."""
    register(spark, chat=endpoint(endpoints), prefix="one_")
    query = "SELECT one_chat(p) AS r, r.text, r.error.kind FROM VALUES ('a'), ('b'), (NULL) AS x(p)"
    rows = spark.sql(query).drop("r").collect()

    assert {("a", None), ("b", None), (None, None)} == {tuple(row) for row in rows}
    assert 2 == endpoints.stats.requests


def test_sparks_own_register_takes_the_udfs(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """`spark.udf.register` takes a UDF as it is, and the function stays nondeterministic."""
    spark.udf.register("ask_it", chat(endpoints))
    spark.udf.register("embed_it", embed_udf(endpoint(endpoints, "embed")))
    spark.range(10).selectExpr("id", "concat('row ', id) AS prompt").createOrReplaceTempView("prompts")
    query = "SELECT r.text FROM (SELECT ask_it(prompt) AS r FROM prompts) WHERE r.error IS NULL AND r.text <> 'row 3'"

    assert {f"row {number}" for number in range(10) if number != 3} == {
        row["text"] for row in spark.sql(query).collect()
    }
    assert 10 == endpoints.stats.requests
    assert [8] == [row[0] for row in spark.sql("SELECT size(embed_it('x').embedding)").collect()]


def test_a_view_may_use_a_function(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """A temporary view sends requests when it is read."""
    register(spark, chat=endpoint(endpoints), prefix="view_")
    spark.sql("CREATE OR REPLACE TEMPORARY VIEW answered AS SELECT view_chat('hello') AS r")
    assert 0 == endpoints.stats.requests

    assert ["hello"] == [row["text"] for row in spark.table("answered").select("r.text").collect()]


def test_invalid_registrations_raise(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """No model, another task's UDF, a bad prefix and a bad endpoint raise with a hint."""
    complete = complete_udf(endpoint(endpoints, "complete"))
    for given in ({}, {"chat": complete}, {"chat": complete, "prefix": "1 "}, {"embed": "https://host/v1"}):
        with pytest.raises(ConfigError, match="Hint: "):
            register(spark, **given)
    with pytest.raises(TypeError):
        register(spark, chats=endpoint(endpoints))  # type: ignore[call-arg]
