"""The nearest rows of another DataFrame, by their vectors."""

import math
import random
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_llm import ConfigError, embed_udf
from spark_llm.errors import HINT
from spark_llm.functions import nearest
from spark_llm.serving import LocalEndpoints
from tests.integration.spark.asking import endpoint

pytestmark = pytest.mark.on_connect

VECTOR = "id INT, text STRING, embedding ARRAY<FLOAT>"


def rows(spark: SparkSession, count: int, seed: int) -> DataFrame:
    """Return rows with random vectors of 5 numbers, in three partitions."""
    dice = random.Random(seed)
    made = [(number, f"row {number}", [dice.gauss(0, 1) for _ in range(5)]) for number in range(count)]
    return spark.createDataFrame(made, VECTOR).repartition(3)


@pytest.mark.parametrize("parts", [None, 1, 7])
def test_they_are_those_of_a_cross_join(spark: SparkSession, parts: int | None) -> None:
    """In the same order, with the same similarity; each query is in one row, whatever the number of parts."""
    queries, corpus = rows(spark, 40, 1), rows(spark, 300, 2)
    found = nearest(queries, corpus, 4, parts=parts).collect()
    vectors = {row["id"]: row["embedding"] for row in corpus.collect()}

    assert list(range(40)) == sorted(row["id"] for row in found)
    for row in found:
        query = row["embedding"]
        best = sorted(((_cosine(query, other), number) for number, other in vectors.items()), reverse=True)[:4]
        assert [number for _, number in best] == [each["id"] for each in row["nearest"]]
        assert [f"row {number}" for _, number in best] == [each["text"] for each in row["nearest"]]
        assert all(
            abs(each["similarity"] - cosine) < 1e-6 for each, (cosine, _) in zip(row["nearest"], best, strict=True)
        )


def test_vectors_that_cannot_be_compared_are_errors(spark: SparkSession) -> None:
    """A null has neither list nor error; in the corpus such rows are left out; an empty corpus has no rows."""
    queries = [
        (1, "a", [1.0, 0.0]),
        (2, "b", None),
        (3, "c", [0.0, 0.0]),
        (4, "d", [1.0]),
        (5, "e", [float("nan"), 1.0]),
    ]
    corpus = [(1, "x", [2.0, 0.1]), (2, "y", None), (3, "z", [0.0, 0.0]), (4, "w", [1.0, 1.0, 1.0])]
    made = spark.createDataFrame(queries, VECTOR)
    found = {row["id"]: row for row in nearest(made, spark.createDataFrame(corpus, VECTOR), 3).collect()}
    empty = nearest(made, spark.createDataFrame([], VECTOR), 3).where("id < 3").orderBy("id").collect()

    assert ["x"] == [each["text"] for each in found[1]["nearest"]]
    assert (None, None) == (found[2]["nearest"], found[2]["error"])
    errors = {number: found[number]["error"]["message"] for number in (3, 4, 5)}
    assert "no direction" in errors[3]
    assert "has 1 numbers, and those of the corpus have 2, 3" in errors[4]
    assert "not finite" in errors[5]
    assert all(message.partition(HINT)[2].endswith(".") for message in errors.values())
    assert {"invalid_response"} == {found[number]["error"]["kind"] for number in errors}
    assert all(found[number]["nearest"] is None for number in errors)
    assert [([], None), (None, None)] == [(row["nearest"], row["error"]) for row in empty]


def test_both_sides_are_asked_once(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Vectors of a model, which cost money, are made once for each text; any type of column comes along."""
    embed = embed_udf(endpoint(endpoints, "embed"))

    def embedded(count: int) -> DataFrame:
        texts = spark.range(0, count, 1, 2).selectExpr(
            "id", "concat('row ', id) AS text", "map(id, current_date()) AS m"
        )
        return texts.withColumn("embedding", embed("text")["embedding"])

    corpus = embedded(50).withColumnRenamed("embedding", "a `vector`.").withColumnRenamed("m", "a `map`.")
    found = nearest(embedded(20), corpus, 1, corpus_vector="a `vector`.").collect()

    assert 70 == endpoints.stats.rows_answered
    assert [row["text"] for row in found] == [row["nearest"][0]["text"] for row in found]
    assert all({row["id"]} == set(row["nearest"][0]["a `map`."]) for row in found)
    assert all(abs(row["nearest"][0]["similarity"] - 1) < 1e-6 for row in found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k=0 is not a whole number from 1 to 10,000"),
        ({"parts": 0}, "parts=0"),
        (
            {"query_vector": "vector"},
            "query_vector='vector' is not a column. Hint: the columns are id, text",
        ),
        ({"corpus_vector": "text"}, "corpus_vector='text' is of the type string. Hint: vectors are arrays of floats"),
    ],
    ids=str,
)
def test_wrong_arguments_raise(spark: SparkSession, options: dict[str, Any], message: str) -> None:
    """Before Spark runs."""
    frame = rows(spark, 3, 1)
    with pytest.raises(ConfigError) as raised:
        nearest(frame, frame, **({"k": 1} | options))

    assert message in str(raised.value)


def test_a_column_that_the_result_adds_is_refused(spark: SparkSession) -> None:
    """A hint says to rename it."""
    frame = rows(spark, 3, 1)
    with pytest.raises(ConfigError, match=r"a column 'error'.* Hint: rename it"):
        nearest(frame.withColumn("error", F.lit(1)), frame, 1)
    with pytest.raises(ConfigError, match=r"a column 'similarity'.* Hint: rename it"):
        nearest(frame, frame.withColumn("similarity", F.lit(1)), 1)


def _cosine(one: list[float], other: list[float]) -> float:
    return sum(x * y for x, y in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))
