"""A join by meaning: which pairs are asked, what they cost, and what fails."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_llm import ConfigError, chat_udf, embed_udf
from spark_llm.errors import HINT
from spark_llm.functions import ai_filter, semantic_join
from spark_llm.serving import Echo, Faults, LocalEndpoints
from spark_llm.serving.protocol.requests import ChatRequest, EmbeddingRequest
from spark_llm.serving.protocol.values import Usage, Vectors
from tests.integration.spark.asking import endpoint
from tests.support.reply_model import PROMPT_TOKENS, ReplyModel, last_message

pytestmark = pytest.mark.on_connect

CONDITION = "{left.title} was written by {right.name}"
BOOKS = [(1, "Dune 1"), (2, "Emma 2"), (3, "Emma 3"), (4, None)]
PEOPLE = [(1, "Herbert 1", 60), (2, "Austen 2", 41), (3, "Austen 3", 42), (4, "Nobody 4", 43), (5, None, 44)]


def is_same(request: ChatRequest) -> str:
    """Judge that a book's last digit is that of its author; a sentence about a rogue gets no JSON."""
    sentence = last_message(request)
    title, _, name = sentence.partition(" was written by ")
    if any("Rogue" in message.text for message in request.messages):
        return "surely"
    return json.dumps({"answer": title[-1:] == name[-1:]})


class Zeros(Echo):
    """Vectors of zeros for texts with that word; other vectors are Echo's."""

    async def embed(self, request: EmbeddingRequest) -> Vectors:
        """Return the vectors."""
        vectors = await super().embed(request)
        zero = bytes(len(vectors.vectors[0]))
        changed = [zero if "zero" in text else of for text, of in zip(request.texts, vectors.vectors, strict=True)]
        return Vectors(changed, Usage(len(changed), 0))


@pytest.fixture
def models() -> Iterator[LocalEndpoints]:
    """Endpoints of the model that judges, and of one that embeds."""
    with LocalEndpoints({"chat": ReplyModel(is_same), "embed": Zeros()}) as started:
        yield started


def books(spark: SparkSession, rows: list[Any] | None = None) -> DataFrame:
    """Return books in two partitions."""
    return spark.createDataFrame(BOOKS if rows is None else rows, "id INT, title STRING").repartition(2)


def people(spark: SparkSession, rows: list[Any] | None = None) -> DataFrame:
    """Return authors in two partitions."""
    return spark.createDataFrame(PEOPLE if rows is None else rows, "id INT, name STRING, age INT").repartition(2)


def join(left: DataFrame, right: DataFrame, models: LocalEndpoints, **options: object) -> list[Any]:
    """Return the joined rows, in order."""
    asked: dict[str, Any] = {
        "condition": CONDITION,
        "chat": endpoint(models),
        "embed": endpoint(models, "embed"),
    } | options
    found = semantic_join(left, right, **asked).collect()
    return sorted(found, key=lambda row: (row["left"] and row["left"]["id"], row["right"] and row["right"]["id"]))


def pairs_of(rows: list[Any]) -> list[tuple[int, int]]:
    """Return the numbers of the rows of each pair."""
    return [(row["left"]["id"], row["right"]["id"]) for row in rows]


@pytest.mark.parametrize("near", [2, 20, None])
def test_pairs_that_meet_the_condition_are_returned(
    near: int | None, spark: SparkSession, models: LocalEndpoints
) -> None:
    """Each text is embedded once, each sentence is asked once, and a null is in no pair."""
    kept = join(books(spark), people(spark), models, near=near, keep="asked")
    asked = 3 * min(near or 4, 4)
    embedded = 0 if near is None else 3 + 4

    assert (asked, embedded) == (len(kept), models.stats.rows_answered - asked)
    assert asked * PROMPT_TOKENS == sum(row["answer"]["usage"]["prompt_tokens"] for row in kept)
    assert all(row["answer"]["error"] is None for row in kept)
    assert [one == other for one, other in pairs_of(kept)] == [row["answer"]["parsed"] for row in kept]
    assert all((row["similarity"] is None) == (near is None) for row in kept)
    assert ("Dune 1", 60) in {(row["left"]["title"], row["right"]["age"]) for row in kept} or near == 2


def test_equal_texts_are_embedded_once(spark: SparkSession, models: LocalEndpoints) -> None:
    """However the rows of either side are partitioned."""
    join(books(spark, BOOKS * 6).repartition(5), people(spark, PEOPLE * 6).repartition(5), models, near=1)

    assert 3 + 4 == models.stats.endpoints["embed"].rows_answered


def test_only_matches_are_kept_and_nothing_is_asked_again(spark: SparkSession, models: LocalEndpoints) -> None:
    """The filter on the answer sends no request; equal titles share theirs."""
    left = books(spark, [*BOOKS, (6, "Emma 2")])
    kept = join(left, people(spark), models)

    assert [(1, 1), (2, 2), (3, 3), (6, 2)] == pairs_of(kept)
    assert 3 * 4 == models.stats.endpoints["chat"].rows_answered


def test_a_condition_is_asked_as_by_ai_filter(spark: SparkSession, models: LocalEndpoints) -> None:
    """The request is the same; braces that are text stay."""
    row = spark.createDataFrame([("x{1", 2.5)], "title STRING, name DOUBLE")
    chat, embed = chat_udf(endpoint(models)), embed_udf(endpoint(models, "embed"))
    row.select(ai_filter(F.struct("title", "name"), "{title} {{is}} was written by {name}", chat=chat)).collect()
    semantic_join(
        row, row, "{left.title} {{is}} was written by {right.name}", chat=chat, embed=embed, keep="asked"
    ).collect()
    first, second = (each.body for each in models.requests if each.endpoint == "chat")

    assert first == second
    assert "x{1 {is} was written by 2.5" in str(first)


def test_what_fails_is_kept_with_its_error(spark: SparkSession, models: LocalEndpoints) -> None:
    """A pair without an answer, and rows without a vector: those are there once, and are asked nothing."""
    models.faults = Faults(poison="cyanide")
    left = books(spark, [(1, "Dune 1"), (2, "cyanide 2"), (3, "zero 3"), (4, " ")]).withColumn(
        "m", F.expr("map(id, 1)")
    )
    right = people(spark, [(1, "Rogue 1", 1), (2, "cyanide 2", 2), (3, "zero 3", 3), (4, None, 4), (5, "Austen 1", 5)])
    options: dict[str, Any] = {"chat": endpoint(models), "embed": endpoint(models, "embed"), "near": 3}
    kept = semantic_join(left, right, CONDITION, **options).collect()
    found = {
        (row["left"] and row["left"]["id"], row["right"] and row["right"]["id"]): row["answer"]["error"] for row in kept
    }

    assert {(1, 1), (1, 5), (2, None), (3, None), (None, 2), (None, 3)} == set(found)
    assert len(kept) == len(found)
    assert found.pop((1, 5)) is None
    assert {"schema_mismatch": 1, "invalid_request": 2, "invalid_response": 2} == {
        kind: [error["kind"] for error in found.values()].count(kind) for kind in {e["kind"] for e in found.values()}
    }
    zeros = [found[at]["message"].partition(HINT) for at in ((3, None), (None, 3))]
    assert all("no direction" in message and hint.endswith(".") for message, _, hint in zeros)


def test_a_pair_that_the_model_refuses_is_kept(spark: SparkSession, models: LocalEndpoints) -> None:
    """Its sentence is refused, and others are answered."""
    models.faults = Faults(poison="Dune 1 was written by Nobody")
    kept = join(books(spark), people(spark), models)

    assert [(1, 1), (1, 4), (2, 2), (3, 3)] == pairs_of(kept)
    assert ["invalid_request"] == [row["answer"]["error"]["kind"] for row in kept if row["answer"]["error"]]


@pytest.mark.parametrize("near", [5, None])
def test_an_empty_side_has_no_pairs(near: int | None, spark: SparkSession, models: LocalEndpoints) -> None:
    """And neither has one whose rows are all null; no sentence is asked."""
    nulls = books(spark, [(1, None), (2, None)])
    sides = [(books(spark, []), people(spark)), (books(spark), people(spark, [])), (nulls, people(spark))]

    assert [[], [], []] == [join(left, right, models, near=near) for left, right in sides]
    assert "chat" not in models.stats.endpoints or models.stats.endpoints["chat"].rows_answered == 0


def test_sides_that_cost_money_are_evaluated_once(spark: SparkSession, models: LocalEndpoints) -> None:
    """Columns of answers come along, and may be those of the condition."""
    embed = embed_udf(endpoint(models, "embed"))
    left = books(spark).withColumn("vector", embed("title"))
    right = people(spark).withColumn("vector", embed("name"))
    kept = join(left.select("id", "title", "vector.*"), right, models)

    assert [(1, 1), (2, 2), (3, 3)] == pairs_of(kept)
    assert all(len(row["left"]["embedding"]) == len(row["right"]["vector"]["embedding"]) == 8 for row in kept)
    assert 2 * (3 + 4) == models.stats.endpoints["embed"].rows_answered


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"condition": "{left.title"}, "condition= has '{' at position 0, which is not a field. Hint: write a field"),
        ({"condition": "{title} and {right.name}"}, "with its side, {left.title} or {right.name}, and double a brace"),
        ({"condition": "{left.title} is good"}, "names no column of the right side. Hint: write both"),
        (
            {"condition": "{left.title} by {right.names}"},
            "names {right.names}, which is not a column of right=. Hint: the columns are id, name, age",
        ),
        ({"condition": 3}, "condition"),
        ({"embed": None}, "needs embed=, to find the rows that are near. Hint: pass an endpoint"),
        ({"near": 0}, "near=0 is not a whole number from 1 to 10,000"),
        ({"near": None, "allow": 19}, "4 × 5 = 20 pairs, more than 19. Hint: pass near=20"),
        ({"allow": 30}, "allow=30 is the number of pairs for near=None"),
        ({"near": None, "allow": 0}, "allow=0"),
        ({"keep": "all"}, "keep='all' is not known. Hint: write \"matches\""),
    ],
    ids=str,
)
def test_wrong_arguments_raise(
    options: dict[str, Any], message: str, spark: SparkSession, models: LocalEndpoints
) -> None:
    """Before any request."""
    with pytest.raises(ConfigError) as raised:
        join(books(spark), people(spark), models, **options)

    assert message in str(raised.value)
    assert 0 == models.stats.requests


def test_too_many_pairs_are_refused(spark: SparkSession, models: LocalEndpoints) -> None:
    """More than 100,000, unless allow= has a larger number."""
    left, right = spark.range(400).selectExpr("id AS title"), spark.range(300).selectExpr("id AS name")
    with pytest.raises(ConfigError, match=r"400 × 300 = 120,000 pairs, more than 100,000\. .*allow=120000"):
        semantic_join(left, right, CONDITION, chat=endpoint(models), near=None)

    assert semantic_join(left, right, CONDITION, chat=endpoint(models), near=None, allow=120_000).columns
    assert 0 == models.stats.requests
