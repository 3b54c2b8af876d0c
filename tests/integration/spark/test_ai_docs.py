"""Runs the page on the AI functions: its code, its costs, and the statements that Spark refuses."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyspark
import pytest
from pyspark.sql import SparkSession

from benchmarks.support.topics import WordVectors
from spark_llm import Endpoint, register_ai_functions
from spark_llm.serving import Echo, LocalEndpoints
from spark_llm.serving.protocol.requests import ChatRequest
from spark_llm.udf.lazy_udf import is_at_least
from tests.conftest import ROOT
from tests.integration.spark.asking import endpoint
from tests.integration.spark.test_readme import blocks_of
from tests.support.reply_model import ReplyModel, last_message

pytestmark = pytest.mark.slow

PAGE = "docs/ai-functions.md"
PAGES = {
    PAGE: {"my-endpoint", "my-embedding-endpoint", "my-model"},
    "docs/search.md": {"my-endpoint", "my-embedding-endpoint", "my-reranker"},
    "docs/classify-by-sample.md": {"my-endpoint", "my-embedding-endpoint"},
    "docs/aggregates.md": {"my-endpoint"},
}
REVIEWS = ("'It is fast.'", "'It broke.'", "'Where is my order?'", "NULL")
SQL_FUNCTIONS = is_at_least(pyspark.__version__, 4, 0)


def answer(request: ChatRequest) -> str:
    """Return a value that the schema allows for each field, or the last message."""
    if request.response_format is None:
        return last_message(request)
    return json.dumps(_value(request.response_format["json_schema"]["schema"], last_message(request)))


def _value(schema: dict, text: str) -> object:  # type: ignore[type-arg]  # a JSON Schema
    """Return the value of a schema that is in the text, or the first one."""
    kinds = {"string": "something", "integer": 4, "number": 1.5, "boolean": True}
    if "enum" in schema:
        return next((value for value in schema["enum"] if str(value) in text), schema["enum"][0])
    if "properties" in schema:
        return {name: _value(field, text) for name, field in schema["properties"].items()}
    return kinds[schema["type"] if isinstance(schema["type"], str) else schema["type"][0]]


def half(frame: pd.DataFrame) -> list[float]:
    """Predict a half for each row."""
    return [0.5] * len(frame)


@pytest.fixture
def endpoints(spark: SparkSession) -> Iterator[LocalEndpoints]:
    """The endpoints that the page names, and the table of reviews in one partition."""
    rows = ", ".join(f"({number}, {review})" for number, review in enumerate(REVIEWS, 1))
    spark.sql(
        "CREATE OR REPLACE TEMPORARY VIEW reviews AS SELECT /*+ REPARTITION(1) */ id, CAST(review AS STRING) AS review"
        f" FROM VALUES {rows} AS r(id, review)"
    )
    models: dict[str, Any] = {
        "my-endpoint": ReplyModel(answer),
        "my-embedding-endpoint": WordVectors(),
        "my-reranker": Echo(),
        "my-model": half,
    }
    with LocalEndpoints(models) as started:
        yield started


@pytest.fixture
def sql(spark: SparkSession, endpoints: LocalEndpoints) -> SparkSession:
    """The session with the functions, registered without the page's own code."""
    chat, embed = Endpoint(endpoints.invocations("my-endpoint"), token=endpoints.token), "my-embedding-endpoint"
    register_ai_functions(spark, chat=chat, embed=endpoint(endpoints, embed), endpoints={"my-endpoint": chat})
    return spark


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_on_ai_functions_run(
    page: str, spark: SparkSession, endpoints: LocalEndpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every block runs from top to bottom; each statement sends requests and returns a row for each of its rows."""
    monkeypatch.setenv("DATABRICKS_HOST", endpoints.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", endpoints.token)
    names = {"spark": spark, "df": spark.table("reviews")}
    for language, block in blocks_of(page):
        if language == "python":
            local = block.replace("http://127.0.0.1:8000", endpoints.url)
            exec(compile(local, page, "exec"), names)  # noqa: S102 -- the very thing that is tested
        elif SQL_FUNCTIONS or "-- Spark 4.0" not in block:
            before = endpoints.stats.requests
            rows = spark.sql(block).collect()
            # The first filter keeps two reviews, which get the first label; the second one all that are not null.
            kept = next(
                (count for where, count in (("id < 3", 2), ("WHERE ai_filter", 3)) if where in block), len(REVIEWS)
            )
            assert kept == len(rows), block
            assert endpoints.stats.requests > before, block

    assert PAGES[page] == set(endpoints.stats.endpoints)


LABELS = "array('praise', 'complaint')"
PLAIN = "VALUES (1, 'a'), (2, 'b'), (3, 'c') AS r(id, review)"


@pytest.mark.parametrize(
    ("statement", "requests"),
    [
        (f"SELECT ai_classify(review, {LABELS}) FROM reviews", 3),
        (f"SELECT ai_classify(review, {LABELS}) FROM reviews WHERE ai_classify(review, {LABELS}) = 'praise'", 6),
        (f"SELECT c FROM (SELECT ai_classify(review, {LABELS}) AS c FROM reviews) WHERE c = 'praise'", 3),
        (f"SELECT ai_classify(review, {LABELS}) AS c, count(*) FROM reviews GROUP BY c", 3),
        ("SELECT ai_gen(review), llm_gen(review).usage FROM reviews", 6),
        ("SELECT r.text, r.usage FROM (SELECT llm_gen(review) AS r FROM reviews)", 3),
        ("SELECT CASE WHEN id = 1 THEN ai_gen(review) END FROM reviews", 3),
        ("SELECT ai_gen(CASE WHEN id = 1 THEN review END) FROM reviews", 1),
        (f"SELECT id FROM {PLAIN} WHERE id < 3 AND ai_classify(review, {LABELS}) = 'praise'", 3),
        (f"SELECT id FROM {PLAIN} WHERE ai_classify(review, {LABELS}) = 'praise' AND id < 3", 3),
        (f"SELECT id FROM (SELECT * FROM reviews WHERE id < 3) WHERE ai_classify(review, {LABELS}) = 'praise'", 2),
        ("SELECT found.x FROM (SELECT ai_extract(review, array('x', 'y')) AS found FROM reviews)", 3),
        ("SELECT ai_gen('equal') FROM reviews", 1),
        ("SELECT ai_filter(review, 'it is fast') FROM reviews", 3),
        ("SELECT ai_score(review, 'how fast it is', most => 5) FROM reviews", 3),
        ("SELECT ai_filter(to_json(struct(id, review)), '{review} has the number {id}') FROM reviews", 3),
        ("SELECT ai_filter(review, '{review} is fast'), ai_score(review, 'it is', 1, 0) FROM reviews", 0),
        ("SELECT ai_similarity(review, '') FROM reviews", 0),
        ("SELECT ai_gen('') FROM reviews", 1),
        ("SELECT ai_summarize(review, -1), ai_translate(review, ''), ai_mask(review, array('x', 'x')) FROM reviews", 0),
    ],
)
def test_a_statement_costs_the_pages_number_of_requests(
    statement: str, requests: int, sql: SparkSession, endpoints: LocalEndpoints
) -> None:
    """The table has three reviews and a null."""
    assert len(REVIEWS) >= len(sql.sql(statement).collect())

    assert requests == endpoints.stats.requests


REFUSED = [
    ("SELECT max(ai_gen(review)) FROM reviews", "AGGREGATE_FUNCTION_WITH_NONDETERMINISTIC_EXPRESSION"),
    (
        "SELECT 1 FROM reviews a JOIN reviews b ON ai_similarity(a.review, b.review) > 0.8",
        "INVALID_NON_DETERMINISTIC_EXPRESSIONS",
    ),
    ("CREATE VIEW lasting AS SELECT ai_gen('x') AS x", "INVALID_TEMP_OBJ_REFERENCE"),
]
REFUSED_OF_SQL_FUNCTIONS = [
    ("SELECT id FROM reviews ORDER BY ai_gen(review)", "UNSUPPORTED_SQL_UDF_USAGE"),
    ("SELECT explode(ai_extract(review, array('x'))) FROM reviews", "UNSUPPORTED_SQL_UDF_USAGE"),
    ("UPDATE reviews SET id = 1 WHERE ai_gen(review) = 'x'", "UNSUPPORTED_SQL_UDF_USAGE"),
    ("DELETE FROM reviews WHERE ai_gen(review) = 'x'", "UNSUPPORTED_SQL_UDF_USAGE"),
    (
        "MERGE INTO reviews r USING (SELECT 1 AS id) s ON r.id = s.id WHEN MATCHED AND ai_gen('x') = 'x' THEN DELETE",
        "UNSUPPORTED_SQL_UDF_USAGE",
    ),
    ("SELECT transform(array(review), x -> ai_gen(x)) FROM reviews", "LAMBDA_FUNCTION_WITH_SQL_UDF"),
    ("SELECT g FROM reviews r, LATERAL (SELECT ai_gen(r.review) AS g)", "NON_DETERMINISTIC_LATERAL_SUBQUERIES"),
    ("SELECT llm_gen(prompt => 'x')", "NAMED_PARAMETERS_NOT_SUPPORTED"),
    ("SELECT ai_query('my-endpoint', 'x', failOnError => false)", "UNRECOGNIZED_PARAMETER_NAME"),
    ("""SELECT ai_classify('x', '["a", "b"]')""", "DATATYPE_MISMATCH"),
]


@pytest.mark.parametrize(("statement", "condition"), [*REFUSED, *(REFUSED_OF_SQL_FUNCTIONS if SQL_FUNCTIONS else [])])
def test_spark_refuses_the_pages_statements(
    statement: str, condition: str, sql: SparkSession, endpoints: LocalEndpoints
) -> None:
    """The error has the condition that the page names, before any request."""
    with pytest.raises(Exception, match=rf"\[[A-Z_.]*{condition}"):
        sql.sql(statement).collect()

    assert condition in Path(ROOT, PAGE).read_text("utf-8")
    assert 0 == endpoints.stats.requests


@pytest.mark.parametrize(
    "instead",
    [
        "SELECT max(g) FROM (SELECT ai_gen(review) AS g FROM reviews)",
        "SELECT 1 FROM reviews a CROSS JOIN reviews b WHERE ai_similarity(a.review, b.review) > 0.8",
        "SELECT id FROM reviews ORDER BY ai_similarity(review, 'x')",
        "SELECT id, ai_gen(review) AS s FROM reviews ORDER BY s",
        "SELECT explode(f) FROM (SELECT ai_extract(review, array('x')) AS f FROM reviews)",
        "SELECT ai_gen(r) FROM (SELECT explode(array(review)) AS r FROM reviews)",
    ],
)
def test_the_pages_alternatives_run(instead: str, sql: SparkSession, endpoints: LocalEndpoints) -> None:
    """The other spelling runs and sends requests."""
    assert sql.sql(instead).collect()
    assert endpoints.stats.requests > 0


def test_an_extract_is_a_map(sql: SparkSession) -> None:
    """`.name` works and `.*` does not; `from_json` makes a struct of it; an unknown label is null."""
    found = "SELECT ai_extract('It is fast.', array('a', 'b')) AS f"
    struct = f"SELECT f, from_json(to_json(f), 'a STRING') AS s FROM ({found})"
    with pytest.raises(Exception, match=r"(?i)star expand"):
        sql.sql(f"SELECT f.* FROM ({found})").collect()

    [row] = sql.sql(f"SELECT f.a, f['b'], f.c, s.* FROM ({struct})").collect()
    assert ("something", "something", None, "something") == tuple(row)


def test_every_function_is_on_the_page(sql: SparkSession, endpoints: LocalEndpoints) -> None:
    """The page has every function and its twin."""
    chat, page = endpoint(endpoints, "my-endpoint"), Path(ROOT, PAGE).read_text("utf-8")
    names = register_ai_functions(sql, chat=chat, embed=endpoint(endpoints, "my-embedding-endpoint"))

    assert set() == {name for name in names if not re.search(rf"`{name}[(`]", page)}
