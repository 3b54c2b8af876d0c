"""The examples in the docstrings of the public names run, against local endpoints of the same names."""

import doctest
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

import spark_llm
from benchmarks.support.topics import WordVectors
from spark_llm import Endpoint, chat_udf, embed_udf, functions
from spark_llm.metering.tally import Tally
from spark_llm.serving import Echo, LocalEndpoints
from spark_llm.serving.protocol.requests import ChatRequest
from tests.support.media import image
from tests.support.reply_model import ReplyModel, last_message, schema_example

pytestmark = pytest.mark.one_kind

TEXTS = (
    *("review", "mail", "title", "topic", "body", "text", "question", "prompt", "role", "product", "photo_url"),
    *("year", "name"),
)
LEFT_OUT = "https://api.openai.com/v1/chat/completions"  # preflight sends requests to it
TABLES = ("reviews", "reviews_enriched", "moods")


class GetWeather(BaseModel):
    """The weather of a city now."""

    city: str


class Invoice(BaseModel):
    """The total of a bill."""

    total: float


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


def reply(request: ChatRequest) -> str:
    """Return the simplest answer; a text with "bad" has the other label of `classify_by_sample`."""
    answer = schema_example(request)
    return answer.replace("praise", "complaint") if "bad" in last_message(request) else answer


def rows(spark: SparkSession, count: int) -> DataFrame:
    """Return rows with the columns that the examples name."""
    row = spark.range(1, 1 + count).select("*", *(F.concat(F.lit(f"{text} "), "id").alias(text) for text in TEXTS))
    df = row.select("*", F.col("id").alias("review_id"), (F.col("id") + 20).alias("age"))
    messages = F.array(F.struct(F.lit("user").alias("role"), F.col("mail").alias("content")))
    return df.withColumns({"passages": F.array("title", "body"), "messages": messages})


@pytest.fixture
def names(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Return what the examples take as given: endpoints, tables, files, and DataFrames by their names."""
    models: dict[str, Any] = dict.fromkeys(("my-endpoint", "llm"), ReplyModel(reply))
    models |= dict.fromkeys(("my-embedding-endpoint", "vectors"), Echo())
    models |= {"my-vectors": WordVectors(), "my-model": lambda frame: [0.5] * len(frame)}
    df = rows(spark, 2)
    for view in ("books", "questions"):
        df.createOrReplaceTempView(view)
    df.write.format("delta").saveAsTable("reviews")
    tmp_path.joinpath("photos").mkdir()
    tmp_path.joinpath("photos", "photo.png").write_bytes(image())
    with LocalEndpoints(models) as endpoints:
        monkeypatch.setenv("DATABRICKS_HOST", endpoints.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", endpoints.token)
        found = {name: getattr(spark_llm, name) for name in dir(spark_llm) if not name.startswith("_")}
        found |= {name: getattr(functions, name) for name in functions.__all__}
        found |= {"spark": spark, "F": F, "Tally": Tally, "GetWeather": GetWeather, "Invoice": Invoice}
        found |= dict.fromkeys(("token", "key"), "secret")
        found |= dict.fromkeys(("df", "articles", "reviews", "books", "people"), df)
        found |= dict.fromkeys(("questions", "pages"), df.withColumn("embedding", F.array(F.lit(1.0), F.lit(0.5))))
        found |= {"chat": chat_udf("my-endpoint"), "embed": embed_udf("my-embedding-endpoint")}
        found |= {"openai": chat_udf(Endpoint(endpoints.openai_url, model="llm", token=endpoints.token))}
        yield found
    for table in TABLES:
        spark.sql(f"DROP TABLE IF EXISTS {table}")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(examples()))
def test_the_examples_of_a_docstring_run(name: str, names: dict[str, Any], spark: SparkSession, tmp_path: Path) -> None:
    """Line by line, and each column that they make is one that Spark takes."""
    answered = names["df"].withColumn("mood", names["chat"]("review"))
    if name in ("UsageReport", "usage_report"):  # what earlier jobs left
        answered.write.format("delta").saveAsTable("reviews_enriched")
        answered.write.parquet(str(tmp_path / "answers"))
    if name == "classify_by_sample":
        mood = F.when(F.col("id") % 2 == 0, "good ").otherwise("bad ")
        names["df"] = rows(spark, 2_000).withColumn("review", F.concat(mood, "review"))
    if name == "Batch":  # Databricks has no Batch API
        names["chat"] = names["openai"]
    for example in examples()[name]:
        source = re.sub('"(?=photos|answers)|"/data/', f'"{tmp_path}/', example.source)
        if LEFT_OUT not in source:
            exec(source, names)  # noqa: S102 -- the very thing that is tested
