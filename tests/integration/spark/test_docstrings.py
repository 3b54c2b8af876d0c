"""The examples in the docstrings of the public names run, against local endpoints of the same names."""

import doctest
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

import spark_llm
from spark_llm import functions
from spark_llm.metering.tally import Tally
from spark_llm.serving import Echo, LocalEndpoints
from tests.support.reply_model import ReplyModel, schema_example

pytestmark = pytest.mark.one_kind

TEXTS = (
    *("review", "mail", "title", "topic", "body", "text", "question", "prompt", "role", "product", "photo_url"),
    *("year", "name"),
)
LEFT_OUT = {  # names whose examples need what this test has not
    "Batch": "a provider with a Batch API",
    "EnrichReport": "more time; its job is that of enrich_table",
    "classify_by_sample": "a thousand texts",
    "enrich_stream": "a stream",
    "observe_usage": "more time; tests/integration/spark/test_usage.py has it",
    "UsageReport": "a table of answers; as observe_usage",
    "usage_report": "a table of answers; as observe_usage",
}
LINES_LEFT_OUT = (  # of files, of other hosts, and of types of the reader's own
    *("binaryFile", "photos.", "api.openai.com", "GetWeather", "lookup(", "Invoice", "parsed.total.*"),
    "found.selectExpr",
)


def examples() -> dict[str, list[doctest.Example]]:
    """Return the examples of each public function and class, by its name."""
    parser = doctest.DocTestParser()
    found = {}
    for module in (spark_llm, functions):
        for name in dir(module) if module is spark_llm else functions.__all__:
            public = getattr(module, name)
            if callable(public) and not name.startswith("_") and not name.endswith("Error"):
                found[name] = parser.get_examples(public.__doc__ or "")
    return found


def test_each_public_name_has_an_example() -> None:
    """Each function and class; the struct of an AI function is that of its value, which has the example."""
    assert [] == [name for name, shown in examples().items() if not shown and not name.startswith("llm_")]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(examples()) - set(LEFT_OUT)))
def test_the_examples_of_a_docstring_run(name: str, spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line by line, and each column that they make is one that Spark takes."""
    row = spark.range(1, 3).select("*", *(F.concat(F.lit(f"{text} "), "id").alias(text) for text in TEXTS))
    df = row.select("*", F.col("id").alias("review_id"), (F.col("id") + 20).alias("age"))
    df = df.withColumn("passages", F.array("title", "body")).withColumn(
        "messages", F.array(F.struct(F.lit("user").alias("role"), F.col("mail").alias("content")))
    )
    for view in ("reviews", "books", "questions"):
        df.createOrReplaceTempView(view)
    vectors = df.withColumn("embedding", F.array(F.lit(1.0), F.lit(0.5)))
    models: dict[str, Any] = {"my-endpoint": ReplyModel(schema_example), "llm": ReplyModel(schema_example)}
    models |= {"my-embedding-endpoint": Echo(), "vectors": Echo(), "my-model": lambda frame: [0.5] * len(frame)}
    with LocalEndpoints(models) as endpoints:
        monkeypatch.setenv("DATABRICKS_HOST", endpoints.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", endpoints.token)
        names = {each: getattr(spark_llm, each) for each in dir(spark_llm) if not each.startswith("_")}
        names |= {each: getattr(functions, each) for each in functions.__all__}
        names |= {"spark": spark, "df": df, "F": F, "Tally": Tally, "token": "secret", "key": "secret"}
        names |= {"questions": vectors, "pages": vectors, "articles": df, "reviews": df, "books": df, "people": df}
        names |= {"chat": names["chat_udf"]("my-endpoint"), "embed": names["embed_udf"]("my-embedding-endpoint")}
        for example in examples()[name]:
            if not any(word in example.source for word in LINES_LEFT_OUT):
                exec(example.source, names)  # noqa: S102 -- the very thing that is tested
    for table in ("reviews_enriched", "moods"):
        spark.sql(f"DROP TABLE IF EXISTS {table}")
