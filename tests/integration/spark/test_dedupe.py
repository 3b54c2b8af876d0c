"""Groups of near-duplicates: which rows are in one, what they cost, and what fails."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_llm import ConfigError, embed_udf
from spark_llm.functions import dedupe
from spark_llm.serving import Echo, Faults, LocalEndpoints
from spark_llm.serving.protocol.requests import EmbeddingRequest
from spark_llm.serving.protocol.values import Vectors
from tests.integration.spark.asking import endpoint

pytestmark = pytest.mark.on_connect


class FirstWord(Echo):
    """Equal vectors for texts with the same first word; a vector of zeros for "zero"."""

    async def embed(self, request: EmbeddingRequest) -> Vectors:
        """Return the vectors, with the tokens of the whole texts."""
        words = [text.split()[0] for text in request.texts]
        vectors = await super().embed(msgspec.structs.replace(request, input=words))
        usage = (await super().embed(request)).usage
        zero = bytes(len(vectors.vectors[0]))
        made = [zero if word == "zero" else of for word, of in zip(words, vectors.vectors, strict=True)]
        return replace(vectors, vectors=made, usage=usage)


@pytest.fixture
def models() -> Iterator[LocalEndpoints]:
    """An endpoint of the model that embeds."""
    with LocalEndpoints({"embed": FirstWord()}) as started:
        yield started


TEXTS = ["red one", "red two", "red one", "blue", "green x", "green y", "green z", None, " ", None, "zero", "cyanide"]


def rows(spark: SparkSession, texts: list[Any], partitions: int = 3) -> DataFrame:
    """Return texts with their numbers."""
    return spark.createDataFrame(list(enumerate(texts)), "id INT, text STRING").repartition(partitions)


def groups(found: DataFrame) -> dict[int, Any]:
    """Return the rows of the result by their number."""
    return {row["id"]: row for row in found.collect()}


def test_near_contents_are_in_one_group(spark: SparkSession, models: LocalEndpoints) -> None:
    """Each distinct content is embedded once; nulls and blanks have no group, and failed rows have their error."""
    models.faults = Faults(poison="cyanide")
    found = groups(dedupe(rows(spark, TEXTS), "text", endpoint(models, "embed"), 0.99))
    numbers = {number: row["duplicate_group"] for number, row in found.items()}

    assert set(range(len(TEXTS))) == set(found)
    assert [TEXTS[number] for number in range(len(TEXTS))] == [found[number]["text"] for number in range(len(TEXTS))]
    assert 1 == len({numbers[number] for number in (0, 1, 2)}) == len({numbers[number] for number in (4, 5, 6)})
    assert {None} == {numbers[number] for number in range(7, 12)}
    assert 3 == len({group for group in numbers.values() if group is not None})
    assert {10: "invalid_response", 11: "invalid_request"} == {
        number: row["error"]["kind"] for number, row in found.items() if row["error"] is not None
    }
    assert 7 == models.stats.rows_answered
    assert models.stats.total_tokens == sum(row["usage"]["total_tokens"] for row in found.values() if row["usage"])


def test_groups_do_not_depend_on_the_partitions(spark: SparkSession, models: LocalEndpoints) -> None:
    """They are named by the contents; the recipe keeps one row of each group and all rows without one."""
    texts = [f"{word} {number}" for word in "abcdefgh" for number in range(word.encode()[0] % 5 + 1)] + [None, None]
    first = dedupe(rows(spark, texts), F.col("text"), embed_udf(endpoint(models, "embed")), 1)
    second = dedupe(rows(spark, texts[::-1], 5), "text", endpoint(models, "embed"), 1)
    by_text = [{(row["text"], row["duplicate_group"]) for row in each.collect()} for each in (first, second)]
    kept = first.withColumn("key", F.coalesce("duplicate_group", F.expr("uuid()"))).dropDuplicates(["key"]).collect()

    assert by_text[0] == by_text[1]
    assert 8 == len({group for _, group in by_text[0]}) - 1
    assert ["a", "b", "c", "d", "e", "f", "g", "h"] == sorted(row["text"][0] for row in kept if row["text"])
    assert 10 == len(kept)
    assert 3 * (len(texts) - 2) == models.stats.rows_answered  # three runs


def test_rows_that_cost_money_are_evaluated_once(spark: SparkSession, models: LocalEndpoints) -> None:
    """Columns of answers come along, of any type."""
    embed = embed_udf(endpoint(models, "embed"))
    asked = rows(spark, TEXTS[:7]).withColumn("vector", embed("text")).withColumn("a map.", F.expr("map(id, text)"))
    found = groups(dedupe(asked, "text", embed, 0.9))

    assert 6 + 6 <= models.stats.rows_answered <= 7 + 6  # equal texts in two tasks are asked twice, by the first column
    assert all({number: TEXTS[number]} == row["a map."] for number, row in found.items())
    assert all(8 == len(row["vector"]["embedding"]) for row in found.values())


@pytest.mark.parametrize("texts", [[], [None, None], ["zero", "zero"]], ids=str)
def test_without_vectors_there_are_no_groups(texts: list[Any], spark: SparkSession, models: LocalEndpoints) -> None:
    """Every row is there."""
    found = groups(dedupe(rows(spark, texts), "text", endpoint(models, "embed"), 0.9))

    assert [None] * len(texts) == [row["duplicate_group"] for row in found.values()]


@pytest.mark.parametrize("threshold", [0, 1.01, -0.5, float("nan"), "0.9", None])
def test_a_threshold_is_a_cosine(threshold: Any, spark: SparkSession, models: LocalEndpoints) -> None:  # noqa: ANN401 -- the point
    """Above 0, up to 1."""
    with pytest.raises(
        ConfigError, match=r"threshold=.* is not a number above 0, up to 1\. Hint: set it within that range, as in"
    ):
        dedupe(rows(spark, TEXTS), "text", endpoint(models, "embed"), threshold)


def test_a_column_that_is_missing_is_named(spark: SparkSession, models: LocalEndpoints) -> None:
    """The hint has the columns that there are."""
    with pytest.raises(
        ConfigError, match=r"content='tekst' is not a column of these rows\. Hint: their columns are .*text"
    ):
        dedupe(rows(spark, TEXTS), "tekst", endpoint(models, "embed"), 0.9)


def test_a_column_that_the_result_adds_is_refused(spark: SparkSession, models: LocalEndpoints) -> None:
    """A hint says to rename it."""
    with pytest.raises(ConfigError, match=r"a column 'duplicate_group'.* Hint: rename it"):
        dedupe(rows(spark, TEXTS).withColumn("duplicate_group", F.lit(1)), "text", endpoint(models, "embed"), 0.9)
