"""Typed answers on Spark: the type as DDL, as a struct and as a pydantic model, in Python and in SQL."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal
from enum import Enum
from threading import Barrier
from typing import Any

import pytest
from pydantic import BaseModel, Field
from pyspark.sql import SparkSession
from pyspark.sql.types import ArrayType, BinaryType, IntegerType, LongType, StringType, StructField, StructType

from spark_llm import ConfigError, chat_udf, register, schemas
from spark_llm.serving import LocalEndpoints
from spark_llm.udf.model_udf import ModelUDF
from tests.conftest import SessionKind
from tests.integration.spark.asking import Ask, endpoint
from tests.support.reply_model import ReplyModel

pytestmark = pytest.mark.one_kind

ANSWER = """{"mood": "good", "stars": 4, "price": 19.90, "on": "2026-02-28", "topics": ["taste", "price"],
    "more": {"who": null}}"""
DDL = "mood STRING, stars INT, price DECIMAL(6,2), on DATE, topics ARRAY<STRING>, more MAP<STRING, STRING>"
EXPECTED = ("good", 4, Decimal("19.90"), date(2026, 2, 28), ["taste", "price"], {"who": None})


class Mood(Enum):
    """The mood of a review."""

    GOOD = "good"
    BAD = "bad"


class Review(BaseModel):
    """The answer about a review."""

    mood: Mood
    stars: int = Field(ge=1, le=5, description="what the review would give")
    price: Decimal = Field(max_digits=6, decimal_places=2)
    on: date
    topics: list[str]
    more: dict[str, str | None]


@pytest.fixture
def endpoints() -> Iterator[LocalEndpoints]:
    """An endpoint with one answer, which does not fit for a bad row."""
    model = ReplyModel(lambda request: "{}" if request.messages[0].text == "bad" else ANSWER)
    with LocalEndpoints({"chat": model}) as started:
        yield started


@pytest.mark.parametrize("kind", ["DDL", "StructType", "model"])
def test_an_answer_is_a_struct_of_its_type(kind: str, spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """`parsed` has exact values; a null row is null, and a mismatched row keeps its text."""
    schema = spark.createDataFrame([], DDL).schema
    returns = {"DDL": DDL, "StructType": schema, "model": Review}[kind]
    review = chat_udf(endpoint(endpoints), returns=returns)  # type: ignore[arg-type]  # one of the three
    df = spark.createDataFrame([("a",), ("bad",), (None,)], "t STRING")
    rows = {row["t"]: row for row in df.select("t", ask(review)("t").alias("r")).select("t", "r.*").collect()}

    assert EXPECTED == tuple(rows["a"]["parsed"])
    assert (None, "{}", "schema_mismatch") == (rows["bad"]["parsed"], rows["bad"]["text"], rows["bad"]["error"]["kind"])
    assert (None, None, None) == (rows[None]["parsed"], rows[None]["text"], rows[None]["error"])
    assert 1 + 2 == endpoints.stats.requests


def test_a_typed_udf_works_in_sql(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Registered by `register` or by Spark, it has named fields."""
    review = chat_udf(endpoint(endpoints), returns=DDL)
    register(spark, chat=review, prefix="typed_")
    spark.udf.register("judge", chat_udf(endpoint(endpoints), returns=Review))
    query = "SELECT typed_chat('a').parsed.stars, judge('a').parsed.topics[1]"

    assert [(4, "price")] == [tuple(row) for row in spark.sql(query).collect()]


@pytest.mark.usefixtures("spark")
def test_the_type_is_part_of_the_udf(endpoints: LocalEndpoints) -> None:
    """`choices` comes before `parsed`, and the type is parsed once there is a session."""
    review = chat_udf(endpoint(endpoints), returns="stars INT COMMENT 'from 1 to 5'", n=2)
    before = repr(review)
    names = review.returnType.fieldNames()

    assert 'returns="stars INT' in before
    assert ["choices", "parsed"] == names[-2:]
    assert "from 1 to 5" in str(review.codec)


class Circle(BaseModel):
    """A model that contains itself."""

    inner: "Circle | None"


@pytest.mark.parametrize(
    ("returns", "why"),
    [
        (" ", "returns="),
        (5, "is not an answer type"),
        (Review.model_construct(), "is not an answer type"),
        (list[Review], "is not an answer type"),
        (IntegerType(), "is not an answer type"),
        (StructType([]), "without fields"),
        (StructType([StructField("a", BinaryType())]), "a"),
        (StructType([StructField("a", ArrayType(BinaryType()))]), "a"),
        (Circle, "inner"),
    ],
    ids=str,
)
def test_an_unsupported_answer_type_raises(returns: Any, why: str) -> None:  # noqa: ANN401 -- anything
    """It raises when the UDF is built, with the type's path and a hint."""
    with pytest.raises(ConfigError, match=why) as refused:
        chat_udf("https://host/invocations", returns=returns)

    assert refused.value.hint.endswith(".")


@pytest.mark.usefixtures("spark")
@pytest.mark.parametrize(
    "ddl", ["stars", "INT", "array<string>", "a BINARY", "a INT, a STRING", "a INT, A INT", "a INTERVAL DAY"]
)
def test_unsupported_ddl_raises(ddl: str) -> None:
    """When the UDF is built; only Spark can parse DDL, so without a session yet it raises in the call."""
    with pytest.raises(ConfigError, match=r" Hint: .+\."):
        chat_udf("https://host/invocations", returns=ddl)


def test_two_answer_formats_raise() -> None:
    """`returns` and `response_format` exclude each other."""
    for given in ({"response_format": {"type": "json_object"}}, {"extra_body": {"response_format": {"type": "text"}}}):
        with pytest.raises(ConfigError, match="give one of them"):
            chat_udf("https://host/invocations", returns=StructType([StructField("a", LongType())]), **given)


def test_a_field_may_have_any_name(spark: SparkSession) -> None:
    """Spaces, dots and letters of any script work."""
    names = ["a b", "a.b", "ü", "null", "select"]
    answer = '{"a b": "1", "a.b": "2", "ü": "3", "null": "4", "select": "5"}'
    struct = StructType([StructField(name, StringType()) for name in names])
    with LocalEndpoints({"chat": ReplyModel(lambda _: answer)}) as endpoints:
        answers = spark.sql("SELECT 'x' AS t").select(chat_udf(endpoint(endpoints), returns=struct)("t").alias("r"))

        assert [("1", "2", "3", "4", "5")] == [tuple(row["parsed"]) for row in answers.select("r.parsed").collect()]


def test_threads_may_share_a_udf_with_ddl(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """All threads see one type with one `parsed`, and the task that belongs to it."""
    threads = 4
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(25):
            review, together = chat_udf(endpoint(endpoints), returns="mood STRING"), Barrier(threads)

            def look(number: int, review: ModelUDF = review, together: Barrier = together) -> tuple[list[str], int]:
                together.wait(timeout=60)
                task = review.request_spec.task if number % 2 else review.codec
                return review.returnType.names, hash(task)

            seen = set(map(repr, pool.map(look, range(threads))))
            assert 1 == len(seen)
            assert [*schemas.CHAT.names, "parsed"] == review.returnType.names


def test_register_reads_ddl_for_its_own_session(
    spark: SparkSession, session_kind: SessionKind, endpoints: LocalEndpoints
) -> None:
    """The session of `register`, and not the active one, parses the type."""
    if session_kind == "connect":
        pytest.skip("A Connect client makes no second session of its server.")
    other = spark.newSession()
    other.conf.set("spark.sql.timestampType", "TIMESTAMP_NTZ")
    review = chat_udf(endpoint(endpoints), returns="at TIMESTAMP")
    register(other, chat=review, prefix="other_")

    assert "timestamp_ntz" == other.sql("SELECT other_chat('a').parsed.at AS at").schema["at"].dataType.simpleString()
    assert "struct<at:timestamp_ntz>" == review.returnType["parsed"].dataType.simpleString()
