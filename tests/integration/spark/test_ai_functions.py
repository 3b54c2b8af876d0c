"""The AI functions in SQL and as functions of columns, with a model of known answers."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from spark_llm import ConfigError, Endpoint, Policy, chat_udf, embed_udf, predict_udf, register_ai_functions
from spark_llm import functions as ai
from spark_llm.ai.udf import AIFunction, chat_function, known_endpoints, query_function, similarity_function
from spark_llm.serving import Echo, LocalEndpoints, echo_vector
from spark_llm.serving.protocol.requests import ChatRequest
from spark_llm.udf.model_udf import ModelUDF
from tests.integration.spark.asking import endpoint
from tests.support.media import image
from tests.support.reply_model import ReplyModel

pytestmark = pytest.mark.on_connect

NAMES = {
    *("gen", "classify", "extract", "summarize", "translate", "analyze_sentiment", "fix_grammar", "mask"),
    *("classify_multi", "filter", "score", "similarity", "query", "agg", "summarize_agg"),
}


def answer(request: ChatRequest) -> str:
    """Return the number of messages with the user's text, or the first value of a type; a score is the text's length.

    A text with "odd" in it gets an unknown label at every attempt.
    """
    text = next(message.text for message in request.messages if message.role == "user")
    if request.response_format is None:
        return f"{len(request.messages)}: {text}"
    fields = request.response_format["json_schema"]["schema"]["properties"]
    if "answer" not in fields:
        return json.dumps({name: text.split()[0] if name == "who" else None for name in fields})
    values = {"boolean": text.startswith("Jo"), "number": len(text)}
    if fields["answer"]["type"] == "array":
        return json.dumps({"answer": fields["answer"]["items"]["enum"][::-1]})
    value = values[kind] if (kind := fields["answer"]["type"]) in values else fields["answer"]["enum"][0]
    return json.dumps({"answer": "another" if "odd" in text else value})


def risk(frame: pd.DataFrame) -> list[float]:
    """Return twice the first column."""
    return [2 * float(age) for age in frame.iloc[:, 0]]


@pytest.fixture
def endpoints() -> Iterator[LocalEndpoints]:
    """Endpoints of this model, and of `Echo`'s vectors."""
    with LocalEndpoints(
        {"chat": ReplyModel(answer), "other": ReplyModel(lambda _: "other"), "embed": Echo(), "risk": risk}
    ) as started:
        yield started


@pytest.fixture
def sql(spark: SparkSession, endpoints: LocalEndpoints) -> SparkSession:
    """The session with all functions registered."""
    names = register_ai_functions(
        spark, chat=endpoint(endpoints), embed=endpoint(endpoints, "embed"), endpoints={"mine": endpoint(endpoints)}
    )

    assert {f"ai_{name}" for name in NAMES} | {"try_ai_query"} == {name for name in names if "ai_" in name}
    assert {f"llm_{name}" for name in NAMES} | {"llm_query_or_fail"} == {name for name in names if "llm_" in name}
    return spark


def rows_of(sql: SparkSession, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    return [tuple(row) for row in sql.sql(query).collect()]


@pytest.mark.parametrize(
    ("call", "expected", "kind"),
    [
        ("ai_gen(t)", "1: Jo came", "string"),
        ("ai_classify(t, array('new', 'old'))", "new", "string"),
        ("ai_classify_multi(t, array('new', 'old'))", ["new", "old"], "array<string>"),
        ("llm_classify_multi(t, map('new', 'of today', 'old', '')).parsed", ["new", "old"], "array<string>"),
        ("llm_classify(t, map('new', 'of today', 'old', '')).parsed", "new", "string"),
        ("llm_classify(t, array('new'), map(), 'Irony.', array(), false, true).confidence", None, "double"),
        ("ai_extract(t, array('who', 'where'))", {"who": "Jo", "where": None}, "map<string,string>"),
        ("ai_extract(t, array('who', 'where')).who", "Jo", "string"),
        ("ai_summarize(t, 5)", "2: Jo came", "string"),
        ("ai_translate(t, 'fr')", "2: Jo came", "string"),
        ("ai_analyze_sentiment(t)", "positive", "string"),
        ("ai_fix_grammar(t)", "2: Jo came", "string"),
        ("ai_mask(t, array('who'))", "2: Jo came", "string"),
        ("ai_filter(t, 'somebody came')", True, "boolean"),
        ("ai_filter(to_json(struct(t, 1 AS n)), '{t} at {n}')", True, "boolean"),
        ("llm_filter(struct(t, 1 AS n), '{t} at {n}').parsed", True, "boolean"),
        ("ai_score(t, 'how short it is', 0, 8)", 7.0, "double"),
        ("ai_agg(nullif(array(t), array(CAST(NULL AS STRING))), 'who came')", '2: "Jo came"', "string"),
        ("ai_similarity(t, 'Jo came')", 1.0, "float"),
        ("ai_query('mine', t)", "1: Jo came", "string"),
        ("try_ai_query('mine', t)", "1: Jo came", "string"),
        (f"ai_query('mine', t, unhex('{image('PNG').hex()}'))", "1: Jo came", "string"),
    ],
)
def test_every_function_gives_its_documented_type(
    call: str, expected: object, kind: str, sql: SparkSession, endpoints: LocalEndpoints
) -> None:
    """A text gives a value for one request; a null gives null for none."""
    df = sql.sql(f"SELECT {call} AS value, t FROM VALUES ('Jo came'), (CAST(NULL AS STRING)) AS x(t)")

    assert {"Jo came": expected, None: None} == {row["t"]: row["value"] for row in df.collect()}
    assert kind == df.schema["value"].dataType.simpleString()
    assert 1 == endpoints.stats.requests


def test_arguments_have_names_and_defaults(sql: SparkSession, endpoints: LocalEndpoints) -> None:
    """`max_words` is 50 by default, and 0 sets no limit; a name passes over the arguments before it."""
    files = f"files => unhex('{image('PNG').hex()}')"
    named = f"SELECT ai_score('Jo came', 'how short it is', most => 8), ai_query('mine', 'Jo came', {files})"
    assert [(7.0, "1: Jo came")] == rows_of(sql, named)

    endpoints.reset()
    rows_of(
        sql,
        """SELECT ai_summarize('a'), ai_summarize('b', max_words => 7), ai_summarize(max_words => 0, content => 'c'),
        ai_classify('d', labels => array('x')), ai_query(request => 'e', endpoint => 'mine')""",
    )
    system = {last: first for first, last in _instructions_and_texts(endpoints)}

    assert "50 words" in system["a"]
    assert "7 words" in system["b"]
    assert "words" not in system["c"]
    assert '"x"' in system["d"]


def test_an_unknown_label_is_never_returned(sql: SparkSession, endpoints: LocalEndpoints) -> None:
    """The row is sent once more; then the value is null, and the twin has the error and the usage."""
    query = """SELECT t, ai_classify(t, array('new', 'old')) AS class, llm_classify(t, array('new', 'old')) AS twin
        FROM VALUES ('even'), ('odd') AS x(t)"""
    rows = {row["t"]: row for row in sql.sql(query).collect()}
    even, odd = rows["even"]["twin"], rows["odd"]["twin"]

    assert ["new", None] == [rows[t]["class"] for t in ("even", "odd")]
    assert ("new", None, 1) == (even["parsed"], even["error"], even["attempts"])
    assert (None, "schema_mismatch", 2) == (odd["parsed"], odd["error"]["kind"], odd["attempts"])
    assert (20, '{"answer": "another"}') == (odd["usage"]["total_tokens"], odd["text"])
    assert 2 * (1 + 2) == endpoints.stats.requests


def test_invalid_labels_are_the_rows_error(sql: SparkSession, endpoints: LocalEndpoints) -> None:
    """Each row has its own labels; a row with invalid labels sends no request."""
    query = """SELECT t, r.parsed, r.error.message FROM (SELECT t, llm_classify(t, l) AS r FROM VALUES
        ('a', array('x')), ('b', CAST(array() AS ARRAY<STRING>)), ('c', array('y', 'y')), ('d', NULL) AS v(t, l))"""
    found = {t: (parsed, message and message.partition(" Hint: ")[0]) for t, parsed, message in rows_of(sql, query)}

    assert {
        "a": ("x", None),
        "b": (None, "the list of labels is empty."),
        "c": (None, "a label is in the list twice."),
        "d": (None, None),
    } == found
    assert 1 == endpoints.stats.requests


def test_a_filter_on_a_label_sends_each_row_once(sql: SparkSession, endpoints: LocalEndpoints) -> None:
    """Functions are nondeterministic like their UDFs, so Spark evaluates them once per row."""
    sql.range(40).selectExpr("concat('row ', id) AS t").createOrReplaceTempView("ai_texts")
    sql.sql(
        "CREATE OR REPLACE TEMPORARY VIEW ai_answers AS SELECT t, ai_classify(t, array('x', 'y')) AS c FROM ai_texts"
    )

    assert [(40,)] == rows_of(sql, "SELECT count(*) FROM ai_answers WHERE c IN ('x', 'z') AND t <> c")
    assert 40 == endpoints.stats.requests
    assert [("x", 40)] == rows_of(sql, "SELECT c, count(*) FROM ai_answers GROUP BY c")


def test_ai_query_asks_the_endpoint_that_it_names(
    spark: SparkSession, endpoints: LocalEndpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are looked up in `endpoints`, else in the workspace; each row may name another one."""
    monkeypatch.setenv("DATABRICKS_HOST", endpoints.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", endpoints.token)
    brief = chat_udf(endpoint(endpoints), system="Be brief.", policy=Policy(max_in_flight=2))
    register_ai_functions(spark, endpoints={"brief": brief})
    query = """SELECT id, try_ai_query(e, t) FROM VALUES (1, 'brief', 'a'), (2, 'brief', 'b'), (3, 'other', 'c'),
        (4, 'brief', 'd'), (5, NULL, NULL), (6, 'nobody', 'e') AS x(id, e, t)"""

    assert {1: "2: a", 2: "2: b", 3: "other", 4: "2: d", 5: None, 6: None} == dict(rows_of(spark, query))
    assert [("not_found", None)] == rows_of(
        spark, "SELECT r.error.kind, r.text FROM (SELECT llm_query('nobody', 'x') AS r)"
    )
    with pytest.raises(Exception, match=r"RowFailedError: .*not_found.*nobody[\s\S]* Hint: use try_ai_query"):
        rows_of(spark, "SELECT ai_query('nobody', 'x')")


def test_ai_query_asks_a_custom_model(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Its request is a struct or a column, its prediction a string; a chat model beside it gets texts."""
    risk = predict_udf(endpoint(endpoints, "risk"), returns="DOUBLE")
    register_ai_functions(spark, endpoints={"mine": endpoint(endpoints), "risk": risk}, prefix="both_")
    query = """SELECT CAST(both_ai_query('risk', struct(age, t AS name)) AS DOUBLE), both_try_ai_query('risk', age),
        both_ai_query('mine', t), both_llm_query('risk', struct('x' AS age)).error.kind
        FROM VALUES ('Jo came', 21), (NULL, NULL) AS x(t, age)"""

    assert {(42.0, "42.0", "1: Jo came", "invalid_request"), (None, None, None, "invalid_request")} == set(
        rows_of(spark, query)
    )


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("NULL", "its name is null. Hint: name one of 'mine'"),
        (
            "'yours'",
            "does not know the endpoint 'yours', and there is no workspace to look it up in. Hint: name one of 'mine'",
        ),
    ],
)
def test_an_unknown_endpoint_name_raises_before_any_request(
    name: str, why: str, sql: SparkSession, endpoints: LocalEndpoints
) -> None:
    """The message lists the known names; `try_ai_query` gives null, and its twin the error of an unknown name."""
    with pytest.raises(Exception, match=f"InputTypeError: ai_query .*{why}"):
        rows_of(sql, f"SELECT ai_query({name}, t) FROM VALUES ('a'), ('b') AS x(t)")
    [(text, message)] = rows_of(
        sql,
        f"SELECT try_ai_query(e, 'a'), llm_query(e, 'a').error.message FROM VALUES (CAST({name} AS STRING)) AS x(e)",
    )
    assert text is None
    assert message is None if name == "NULL" else why in message

    assert 0 == endpoints.stats.requests


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda _, chat: ai.ai_gen("t", chat=chat), "1: Jo came"),
        (lambda _, chat: ai.ai_classify("t", ["new", "old"], chat=chat), "new"),
        (lambda _, chat: ai.ai_classify(F.upper("t"), F.col("labels"), chat=chat), "x"),
        (lambda _, chat: ai.llm_classify("t", ["new"], chat=chat)["usage"]["total_tokens"], 10),
        (lambda _, chat: ai.ai_extract("t", ("who",), chat=chat)["who"], "Jo"),
        (lambda _, chat: ai.ai_summarize("t", chat=chat), "2: Jo came"),
        (lambda _, chat: ai.llm_summarize("t", F.col("words"), chat=chat)["text"], "2: Jo came"),
        (lambda _, chat: ai.ai_translate("t", "fr", chat=chat), "2: Jo came"),
        (lambda _, chat: ai.ai_analyze_sentiment("t", chat=chat), "positive"),
        (lambda of, _: ai.ai_fix_grammar("t", chat=of("chat")), "2: Jo came"),
        (lambda _, chat: ai.ai_mask("t", ["who"], chat=chat), "2: Jo came"),
        (lambda _, chat: ai.ai_filter("t", "somebody came", chat=chat), True),
        (lambda _, chat: ai.ai_filter(F.struct("words", "t"), F.col("t"), chat=chat), False),
        (lambda _, chat: ai.llm_filter(F.struct("t", "words"), "{t} at {words}", chat=chat)["parsed"], True),
        (lambda _, chat: ai.ai_score("t", "how short it is", F.col("words") - 9, 8.5, chat=chat), 7.0),
        (lambda _, chat: ai.llm_score("t", "how long", 8, chat=chat)["error"]["kind"], "schema_mismatch"),
        (lambda of, _: ai.ai_similarity("t", F.lit("Jo came"), embed=of("embed")), 1.0),
        (lambda _, chat: ai.ai_query(chat, "t"), "1: Jo came"),
        (lambda of, _: ai.try_ai_query(of("other"), "t"), "other"),
    ],
)
def test_the_functions_of_columns_are_the_same(
    call: Callable[[Callable[[str], Endpoint], ModelUDF], Column],
    expected: object,
    spark: SparkSession,
    endpoints: LocalEndpoints,
) -> None:
    """The `ai_` functions give the value, the `llm_` functions the struct; options are values or columns."""
    df = spark.createDataFrame([("Jo came", ["x"], 9)], "t STRING, labels ARRAY<STRING>, words INT")
    value = call(partial(endpoint, endpoints), chat_udf(endpoint(endpoints)))

    assert [expected] == [row["value"] for row in df.select(value.alias("value")).collect()]


def test_before_spark_4_the_functions_are_udfs(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """They are pandas UDFs that return the value, with positional arguments and defaults."""
    chat, embed = chat_udf(endpoint(endpoints)), embed_udf(endpoint(endpoints, "embed"))
    query_or_fail = query_function(known_endpoints({"mine": chat}), None, raises=True)

    def old(udf: AIFunction, field: str) -> Any:  # noqa: ANN401 -- PySpark types a UDF as a function
        return udf.field(field).for_version("3.5.0")

    df = spark.createDataFrame([(1, "Jo came", ["x"]), (2, None, ["x"])], "id INT, t STRING, labels ARRAY<STRING>")
    columns: list[Column] = [
        old(chat_function("gen", chat), "text")("t"),
        old(chat_function("classify", chat), "parsed")("t", "labels"),
        old(chat_function("extract", chat), "parsed")("t", F.array(F.lit("who"), F.lit("where"))),
        old(chat_function("summarize", chat), "text")("t"),
        old(chat_function("summarize", chat), "text")("t", F.lit(3)),
        old(chat_function("filter", chat), "parsed")(F.struct("t", "id"), F.lit("{t} at {id}")),
        old(chat_function("score", chat), "parsed")("t", F.lit("how short"), F.lit(7)),
        old(similarity_function(embed), "parsed")("t", F.lit("Jo came")),
        old(query_or_fail, "text")(F.lit("mine"), "t"),
        chat_function("classify", chat).for_version("3.5.0")("t", "labels")["usage"]["total_tokens"],
    ]
    found = [dict(tuple(row) for row in df.select("id", column).collect()) for column in columns]
    extracted = {"who": "Jo", "where": None}
    expected = ["1: Jo came", "x", extracted, "2: Jo came", "2: Jo came", True, 7.0, 1.0, "1: Jo came", 10]

    assert [{1: value, 2: None} for value in expected] == found


def test_similarity_is_the_cosine_of_the_vectors(sql: SparkSession) -> None:
    """A blank text has no similarity and costs nothing."""
    a, b = echo_vector("a"), echo_vector("b")
    dot, lengths = sum(x * y for x, y in zip(a, b, strict=True)), sum(x * x for x in a) * sum(y * y for y in b)
    [(near, same, blank)] = rows_of(
        sql, "SELECT ai_similarity('a', 'b'), ai_similarity('a', 'a'), ai_similarity('a', ' ')"
    )

    assert abs(near - dot / lengths**0.5) < 1e-6
    assert (1.0, None) == (same, blank)


@pytest.mark.parametrize(
    "given",
    [
        {"chat": "https://host/v1"},
        {"chat": embed_udf(Endpoint("https://host/v1/embeddings"))},
        {"chat": chat_udf(Endpoint("https://host/invocations"), system="Be brief.")},
        {"chat": chat_udf(Endpoint("https://host/invocations"), template="{a}")},
        {"chat": chat_udf(Endpoint("https://host/invocations"), returns="a INT")},
        {"chat": chat_udf(Endpoint("https://host/invocations"), n=2)},
        {"embed": chat_udf(Endpoint("https://host/invocations"))},
        {"endpoints": {"": "https://host/invocations"}},
        {"endpoints": {None: "https://host/invocations"}},
        {"endpoints": {"mine": embed_udf(Endpoint("https://host/v1/embeddings"))}},
        {"endpoints": {"mine": chat_udf(Endpoint("https://host/invocations"), template="{a}")}},
        {"prefix": "no good "},
        {"prefix": "ü"},
        {"prefix": "1"},
    ],
    ids=str,
)
def test_an_invalid_registration_raises(given: dict[str, Any], spark: SparkSession) -> None:
    """The message has a hint, and no function is registered."""
    with pytest.raises(ConfigError, match=r" Hint: .+\."):
        register_ai_functions(spark, **({"prefix": "refused_"} | given))

    assert not spark.catalog.functionExists("refused_ai_query")


@pytest.mark.usefixtures("spark")
@pytest.mark.parametrize(
    "call",
    [
        lambda chat: ai.ai_classify("t", [], chat=chat),
        lambda chat: ai.ai_classify("t", "angry", chat=chat),
        lambda chat: ai.ai_classify("t", ["a", "a"], chat=chat),
        lambda chat: ai.ai_mask("t", [1], chat=chat),  # type: ignore[list-item]
        lambda chat: ai.ai_extract("t", {"a": "b"}, chat=chat),  # type: ignore[arg-type]
        lambda chat: ai.ai_summarize("t", -1, chat=chat),
        lambda chat: ai.ai_summarize("t", True, chat=chat),
        lambda chat: ai.ai_translate("t", "", chat=chat),
        lambda chat: ai.ai_filter("t", "{", chat=chat),
        lambda chat: ai.ai_filter("t", 3, chat=chat),  # type: ignore[arg-type]
        lambda chat: ai.ai_score("t", "", chat=chat),
        lambda chat: ai.ai_score("t", "how good", 10, chat=chat),
        lambda chat: ai.ai_score("t", "how good", F.col("words"), float("inf"), chat=chat),
        lambda chat: ai.ai_gen(1, chat=chat),  # type: ignore[arg-type]
        lambda chat: ai.ai_gen("t", chat=embed_udf(chat)),
    ],
)
def test_an_invalid_value_raises_in_the_call(call: Any) -> None:  # noqa: ANN401 -- a function
    """In Python, where options are values, no job has to run first."""
    with pytest.raises(ConfigError, match=r" Hint: .+\."):
        call(Endpoint("https://host/invocations"))


def _instructions_and_texts(endpoints: LocalEndpoints) -> list[tuple[str, str]]:
    """Return each request's instructions and text."""
    bodies: list[Any] = [recorded.body for recorded in endpoints.requests]
    return [(body["messages"][0]["content"], body["messages"][-1]["content"]) for body in bodies]
