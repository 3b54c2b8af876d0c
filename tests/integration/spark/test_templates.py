"""Templates on Spark, classic or Connect, as Arrow and as pandas UDFs: columns by name, structs, SQL, nulls."""

from typing import Any

import pytest
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from spark_llm import ConfigError, Policy, chat_udf, complete_udf, embed_udf, register
from spark_llm.serving import LocalEndpoints
from spark_llm.udf.model_udf import ModelUDF
from tests.integration.spark.asking import Fill, endpoint

pytestmark = pytest.mark.one_kind

BOOKS = """
    SELECT * FROM VALUES
        (1, 'Dune', 'sand'), (2, NULL, 'x'), (3, 'Emma', NULL), (4, '{body}', '{title} {{ }'), (5, '', '')
    AS books(id, title, body)
"""
FILLED = {1: "Sum {Dune}: SAND", 2: None, 3: None, 4: "Sum {{body}}: {TITLE} {{ }", 5: "Sum {}: "}
CONVERSATIONS = "id int, turns array<struct<role:string,content:string>>, mood string"


def sums(endpoints: LocalEndpoints) -> ModelUDF:
    """Return a chat UDF of two fields, with braces in the text."""
    return chat_udf(endpoint(endpoints), template="Sum {{{title}}}: {body}")


def test_columns_by_name_fill_the_template(spark: SparkSession, endpoints: LocalEndpoints, fill: Fill) -> None:
    """Each row sends its own text once; a null field sends none; braces in the data stay text."""
    df = spark.sql(BOOKS).repartition(1)
    answers = df.withColumn("r", fill(sums(endpoints))(title="title", body=F.upper("body")))

    assert FILLED == {row["id"]: row["text"] for row in answers.select("id", "r.text").collect()}
    assert 3 == endpoints.stats.requests
    assert {text for text in FILLED.values() if text is not None} == {
        recorded.body["messages"][0]["content"]  # type: ignore[index]
        for recorded in endpoints.requests
    }


def test_a_struct_fills_the_template(spark: SparkSession, endpoints: LocalEndpoints, fill: Fill) -> None:
    """A struct may have the fields in any order, and others; a null struct is a null row."""
    book = F.when(F.col("id") != 3, F.struct("id", F.upper("body").alias("body"), "title"))
    df = spark.sql(BOOKS).select("id", book.alias("book"))
    answers = df.withColumn("r", fill(sums(endpoints))("book")).select("id", "r.text", "r.error")

    assert FILLED == {row["id"]: row["text"] for row in answers.collect()}
    assert 3 == endpoints.stats.requests


def test_a_null_field_gives_a_null_struct_with_arrow(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """With Arrow UDFs the whole result is null, as for a null in a column of texts."""
    answer = sums(endpoints)(title="title", body="body")

    assert [2, 3] == sorted(
        row["id"] for row in spark.sql(BOOKS).select("id", answer.alias("r")).where("r IS NULL").collect()
    )


@pytest.mark.parametrize("ansi", ["true", "false"])
def test_other_types_are_cast_by_spark(spark: SparkSession, endpoints: LocalEndpoints, fill: Fill, ansi: str) -> None:
    """Numbers, booleans, dates, times, decimals and intervals become the text that CAST gives in this session."""
    df = spark.sql("""
        SELECT 7 AS whole, 1e21D AS double, 0.1F AS float, 1E-9BD AS decimal, true AS yes, DATE'2024-02-29' AS day,
               TIMESTAMP'2024-03-31 01:30:00.120Z' AS moment, TIMESTAMP_NTZ'2024-03-31 02:30:00' AS local,
               INTERVAL '1 02' DAY TO HOUR AS span, double('NaN') AS nan, 'text' AS text
    """)
    template = "|".join(f"{{{name}}}" for name in df.columns)
    by_name = {name: F.col(name) for name in df.columns}
    zone, mode = spark.conf.get("spark.sql.session.timeZone"), spark.conf.get("spark.sql.ansi.enabled")
    spark.conf.set("spark.sql.session.timeZone", "America/St_Johns")
    spark.conf.set("spark.sql.ansi.enabled", ansi)
    try:
        udf = complete_udf(endpoint(endpoints, "complete"), template=template)
        cast_by_spark = df.select(F.concat_ws("|", *(F.col(name).cast("string") for name in df.columns)).alias("text"))
        row = df.select(fill(udf)(**by_name).alias("r")).select("r.text").first()
        assert cast_by_spark.first() == row
        assert row is not None
        assert "7|1.0E21|0.1|" == row[0][:13]
        assert "2024-03-30 23:00:00.12" in row[0]
    finally:
        spark.conf.set("spark.sql.session.timeZone", str(zone))
        spark.conf.set("spark.sql.ansi.enabled", str(mode))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("array('a')", "array<string>"),
        ("named_struct('a', 1)", "struct<a:int>"),
        ("map('a', 1)", "map<string,int>"),
        ("CAST(NULL AS ARRAY<STRING>)", "array<string>"),
    ],
)
def test_unsupported_types_raise_with_the_columns_name(
    spark: SparkSession, endpoints: LocalEndpoints, fill: Fill, column: str, kind: str
) -> None:
    """Arrays, structs and maps raise one exception with the column and a hint; no request is sent."""
    df = spark.sql(BOOKS).select(fill(sums(endpoints))(title="title", body=F.expr(column)))
    with pytest.raises(Exception, match=r"InputTypeError: .*strings, and body is .*Hint: .*to_json") as raised:
        df.collect()

    assert "PythonException" == type(raised.value).__name__
    assert f"body is {kind}." in str(raised.value)
    assert 0 == endpoints.stats.requests


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("title", "called on .*"),
        ("id", "called on .*"),
        ("array(struct(title, body))", "called on .*"),
        ("struct(title)", "called on a struct of title, without body"),
        ("struct(title, body AS Body)", "called on a struct of title, Body, without body"),
        ("struct(title, id AS body)", "fields are strings, and body is int.*"),
        ("struct(title, array(body) AS body)", "fields are strings, and body is .*"),
    ],
)
def test_a_struct_without_the_fields_raises(
    spark: SparkSession, endpoints: LocalEndpoints, fill: Fill, column: str, words: str
) -> None:
    """Another type, a missing field or a field of another type raises before the first request."""
    df = spark.sql(BOOKS).where("id = 1").select(fill(sums(endpoints))(F.expr(column)))
    with pytest.raises(Exception, match=rf"InputTypeError: chat_udf: The template.* {words}\. Hint: .+\.") as raised:
        df.collect()

    assert "PythonException" == type(raised.value).__name__
    assert 0 == endpoints.stats.requests


def test_untyped_nulls_give_null_rows(spark: SparkSession, endpoints: LocalEndpoints, fill: Fill) -> None:
    """`lit(None)` in place of the struct or of a field sends no request."""
    udf = fill(sums(endpoints))
    for column in (udf(F.lit(None)), udf(title=F.lit(None), body="body")):
        assert [None] * 5 == [row[0] for row in spark.sql(BOOKS).select(column.alias("r")).select("r.text").collect()]

    assert 0 == endpoints.stats.requests


def test_instructions_are_a_template_too(spark: SparkSession, endpoints: LocalEndpoints, fill: Fill) -> None:
    """The columns of the call also fill `system`; a null in one of its fields is a null row."""
    udf = chat_udf(endpoint(endpoints), template="About {title}", system="In {language}, {{not}} {title}.")
    column = fill(udf)(title="title", language=F.when(F.col("id") != 5, F.concat(F.lit("no. "), "id")))
    answers = spark.sql(BOOKS).withColumn("r", column).select("id", "r.text")

    assert {
        1: "In no. 1, {not} Dune.\nAbout Dune",
        2: None,
        3: "In no. 3, {not} Emma.\nAbout Emma",
        4: "In no. 4, {not} {body}.\nAbout {body}",
        5: None,
    } == {row["id"]: row["text"] for row in answers.collect()}
    assert 3 == endpoints.stats.requests


def test_instructions_without_a_field_are_the_same_for_all(
    spark: SparkSession, endpoints: LocalEndpoints, fill: Fill
) -> None:
    """With a template their braces are doubled; without one they are plain text."""
    udf = chat_udf(endpoint(endpoints), template="{title}", system="Answer {{json}}.")
    plain = chat_udf(endpoint(endpoints), system="Answer {json}.")
    df = spark.sql(BOOKS).where("id = 1")
    texts = [
        df.select(column.alias("r")).select("r.text").collect() for column in (fill(udf)(title="title"), plain("title"))
    ]

    assert [[Row(text="Answer {json}.\nDune")]] * 2 == texts


@pytest.mark.parametrize("by_name", [True, False])
def test_a_conversation_has_instructions_of_its_row(
    spark: SparkSession,
    endpoints: LocalEndpoints,
    fill: Fill,
    by_name: bool,  # noqa: FBT001 -- both ways
) -> None:
    """A template of one field takes a conversation; its own system message takes precedence, and nulls cost nothing."""
    hi, own = Row(role="user", content="hi {mood}"), Row(role="system", content="Own.")
    rows = [(1, [hi], "kind"), (2, [own, hi], "kind"), (3, None, "kind"), (4, [hi], None), (5, [hi, hi], "curt")]
    df = spark.createDataFrame(rows, CONVERSATIONS).repartition(1)
    udf = fill(chat_udf(endpoint(endpoints), template="{turns}", system="Be {mood}."))
    column = udf(turns="turns", mood="mood") if by_name else udf(F.struct("id", "turns", "mood"))
    answers = {row["id"]: row["text"] for row in df.select("id", column.alias("r")).select("id", "r.text").collect()}

    assert {1: "Be kind.\nhi {mood}", 2: "Own.\nhi {mood}", 3: None, 4: None, 5: "Be curt.\nhi {mood}"} == answers
    assert 3 == endpoints.stats.requests


def test_a_conversation_may_be_built_in_the_call(spark: SparkSession, endpoints: LocalEndpoints, fill: Fill) -> None:
    """An inline array of structs works, with and without an alias for the result."""
    udf = fill(chat_udf(endpoint(endpoints), template="{turns}", system="Be {mood}."))
    turns = F.array(F.struct(F.lit("user").alias("role"), F.col("title").alias("content")))
    df = spark.sql(BOOKS).where("id = 1")
    for column in (udf(turns=turns, mood="body"), udf(turns=turns, mood="body").alias("r")):
        assert "Be sand.\nDune" == df.select(column).collect()[0][0]["text"]


def test_a_template_of_one_field_takes_any_text(spark: SparkSession, endpoints: LocalEndpoints, fill: Fill) -> None:
    """Such a field also takes texts and numbers, and refuses other arrays."""
    udf = fill(chat_udf(endpoint(endpoints), template="{turns}", system="No. {id}"))
    df = spark.sql(BOOKS).where("id = 1")
    texts = [df.select(udf(turns=name, id="id").alias("r")).select("r.text").first() for name in ("title", "id")]

    assert [("No. 1\nDune",), ("No. 1\n1",)] == texts
    endpoints.reset()
    for column in (F.array("title"), F.struct("title"), F.array(F.struct("title"))):
        with pytest.raises(Exception, match=r"InputTypeError: .*turns may be array.*and turns is .* Hint: "):
            df.select(udf(turns=column, id="id")).collect()
    assert 0 == endpoints.stats.requests


def test_sql_takes_a_struct(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """A registered function takes `struct` and `named_struct`; nulls stay null."""
    register(
        spark,
        chat=sums(endpoints),
        complete=complete_udf(endpoint(endpoints, "complete"), template="{n} of {title}"),
        prefix="template_",
    )
    spark.udf.register("template_own", sums(endpoints))
    spark.sql(BOOKS).createOrReplaceTempView("template_books")
    query = """
        SELECT id, template_chat(struct(title, upper(body) AS body)).text AS by_struct,
               template_own(named_struct('body', upper(body), 'title', title)).text AS by_name,
               template_complete(struct(title, string(id) AS n)).text AS completed
        FROM template_books
    """
    rows = spark.sql(query).collect()

    assert FILLED == {row["id"]: row["by_struct"] for row in rows} == {row["id"]: row["by_name"] for row in rows}
    assert {"1 of Dune", None, "3 of Emma", "4 of {body}", "5 of "} == {row["completed"] for row in rows}
    with pytest.raises(Exception, match=r"InputTypeError: .*and body is int.* Hint: .*CAST"):
        spark.sql("SELECT template_chat(struct(title, id AS body)) FROM template_books").collect()
    with pytest.raises(Exception, match=r"InputTypeError: .* called on several columns\. Hint: .*named_struct"):
        spark.sql("SELECT template_chat(title, body) FROM template_books").collect()


def test_rows_with_equal_texts_are_sent_once(spark: SparkSession, endpoints: LocalEndpoints, fill: Fill) -> None:
    """Rows are compared by the filled text and not by their columns."""
    df = spark.range(40, numPartitions=1).selectExpr("CAST(id % 2 AS STRING) AS a", "IF(id % 2 = 0, 1, 0) AS b")
    policy = Policy(max_in_flight=4)
    udf = chat_udf(endpoint(endpoints), template="{a}{b}", policy=policy)

    assert {"01", "10"} == {row[0] for row in df.select(fill(udf)(a="a", b="b").alias("r")).select("r.text").collect()}
    assert 2 == endpoints.stats.requests


def test_an_answer_fills_the_next_template(spark: SparkSession, endpoints: LocalEndpoints, fill: Fill) -> None:
    """A column of answers costs one request per row, although the struct also reads its type."""
    first = chat_udf(endpoint(endpoints))("title")
    udf = fill(chat_udf(endpoint(endpoints), template="{turns}", system="Think of {body}"))
    column = udf(turns=first["text"], body="body")
    answers = spark.sql(BOOKS).where("id IN (1, 4)").select(column.alias("r")).select("r.text").collect()

    assert {"Think of sand\nDune", "Think of {title} {{ }\n{body}"} == {row["text"] for row in answers}
    assert 4 == endpoints.stats.requests


def test_unusual_texts_are_unchanged(spark: SparkSession, endpoints: LocalEndpoints, fill: Fill) -> None:
    """Emoji, quotes, NUL, line ends, JSON and a megabyte fill the template unchanged."""
    strange = ["👩‍🚀 日本語", "\"'`\\\n\r\0", '{"a": "{title}"}', "%s {0} $1", "x" * 1_000_000]
    df = spark.createDataFrame(list(enumerate(strange)), "id int, title string").repartition(1)
    udf = fill(chat_udf(endpoint(endpoints), template="«{title}»"))
    answers = df.select("id", udf(title="title").alias("r")).select("id", "r.text").collect()

    assert {number: f"«{text}»" for number, text in enumerate(strange)} == {row["id"]: row["text"] for row in answers}


def test_invalid_utf8_is_replaced_and_answered(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """The Arrow path replaces it in a field as in a column."""
    df = spark.sql("SELECT cast(X'61FF62' AS string) AS title, 'fine' AS body")

    assert ("Sum {a\N{REPLACEMENT CHARACTER}b}: fine",) == df.select(
        sums(endpoints)(title="title", body="body").alias("r")
    ).select("r.text").first()


def test_a_wrong_call_raises(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Wrong names, no columns, a column beside names, and values raise `ConfigError` in the call."""
    assert spark is not None
    wrong: list[tuple[list[Any], dict[str, Any], str]] = [
        ([], {"title": "title"}, "fields title, body; the UDF was called with title"),
        ([], {"title": "title", "body": "body", "author": "id"}, "called with title, body, author"),
        ([], {"titel": "title", "body": "body"}, "called with titel, body"),
        (["book"], {"title": "title", "body": "body"}, "both one column and columns by name"),
        ([], {}, "called on no column"),
        ([None], {}, "called on no column"),
        ([], {"title": "title", "body": 5}, "body=5 is not a column"),
        ([], {"title": None, "body": "body"}, "title=None is not a column"),
    ]
    for given, by_name, words in wrong:
        with pytest.raises(ConfigError, match=rf"{words}.* Hint: .+\.$"):
            sums(endpoints)(*given, **by_name)


def test_columns_by_name_need_a_template(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """The message names the columns, and the hint says how to build a template."""
    assert spark is not None
    for udf in (chat_udf(endpoint(endpoints)), complete_udf(endpoint(endpoints))):
        with pytest.raises(ConfigError, match=r"no template, .*\(title, body\)\. Hint: build it with template="):
            udf(title="title", body="body")
        with pytest.raises(ConfigError, match=r"no template, .* Hint: build it with template="):
            udf("title", body="body")
    with pytest.raises(ConfigError, match=r"no template, .* Hint: call it on one column\."):
        embed_udf(endpoint(endpoints, "embed"))(text="title")


@pytest.mark.parametrize("given", [{"template": "{title"}, {"template": "title"}, {"template": "{t}", "system": "{"}])
def test_a_broken_template_raises_when_the_udf_is_built(endpoints: LocalEndpoints, given: dict[str, Any]) -> None:
    """It needs no session and sends no request."""
    with pytest.raises(ConfigError, match=r"Hint: .+\.$"):
        chat_udf(endpoint(endpoints), **given)
    if "system" not in given:
        with pytest.raises(ConfigError, match=r"Hint: .+\.$"):
            complete_udf(endpoint(endpoints), **given)


def test_the_repr_shows_the_templates(endpoints: LocalEndpoints) -> None:
    """The repr has them as the user wrote them."""
    shown = repr(chat_udf(endpoint(endpoints), template="Sum {title}", system="In {language}"))

    assert "'Sum {title}'" in shown
    assert "'In {language}'" in shown
    assert endpoints.token not in shown


def test_any_name_may_be_a_field(spark: SparkSession, endpoints: LocalEndpoints, fill: Fill) -> None:
    """Names with a meaning in Python or Spark work too."""
    names = ("self", "column", "class", "naïve", "_")
    df = spark.sql(BOOKS).where("id = 1")
    udf = fill(chat_udf(endpoint(endpoints), template=" ".join(f"{{{name}}}" for name in names)))
    column = udf(**{name: F.lit(name) for name in names})

    assert (" ".join(names),) == df.select(column.alias("r")).select("r.text").first()
