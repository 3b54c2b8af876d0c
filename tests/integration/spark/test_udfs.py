"""The UDFs on Spark, classic or Connect, as Arrow and as pandas UDFs; the endpoint counts the requests."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from chispa import assert_df_equality
from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from spark_llm import Endpoint, Policy, chat_udf, complete_udf, embed_udf, register, register_ai_functions, schemas
from spark_llm.serving import Faults, LocalEndpoints, echo_vector
from spark_llm.udf.lazy_udf import call_of
from tests.integration.spark.asking import Ask, chat, endpoint
from tests.support.passed import ARROW_UDFS, version_of
from tests.support.waiting import until


def prompts(spark: SparkSession, rows: int, partitions: int = 2) -> DataFrame:
    """Return so many distinct prompts."""
    return spark.range(rows, numPartitions=partitions).select("id", F.concat(F.lit("row "), "id").alias("prompt"))


def test_chat_answers_each_row(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """Each row has the fields of its own answer, and a null sends no request."""
    df = spark.createDataFrame([(1, "one word"), (2, None), (3, "three")], "id int, prompt string")
    answers = df.withColumn("r", ask(chat(endpoints))("prompt"))
    answers = answers.select("id", "r.text", "r.finish_reason", "r.usage.*", "r.model", "r.attempts", "r.error").cache()
    expected = spark.createDataFrame(
        [
            (1, "one word", "stop", 2, 2, 4, *[None] * 6, "echo", 1, None),
            (2, *[None] * 14),
            (3, "three", "stop", 1, 1, 2, *[None] * 6, "echo", 1, None),
        ],
        answers.schema,
    )

    assert_df_equality(expected, answers, ignore_row_order=True)
    assert 2 == endpoints.stats.requests


def test_a_null_gives_a_null_struct_with_arrow(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """With Arrow UDFs the whole struct is null for a null row."""
    df = spark.createDataFrame([(None,), ("x",)], "prompt string").repartition(1)
    rows = df.select(chat(endpoints)("prompt").isNull().alias("nothing"), "prompt").collect()

    assert {None: True, "x": False} == {row["prompt"]: row["nothing"] for row in rows}


def test_a_conversation_is_a_column_of_messages(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """An array of structs is sent as the messages; its own system message takes precedence."""
    messages = [
        Row(role="system", content="Own."),
        Row(role="user", content="hi"),
        Row(role="assistant", content="yes?"),
    ]
    schema = "messages array<struct<role:string,content:string>>"
    df = spark.createDataFrame([(messages,), ([Row(role="user", content="alone")],), (None,)], schema).repartition(1)
    udf = chat_udf(endpoint(endpoints), system="Ours.")
    texts = [row["text"] for row in df.select(ask(udf)("messages").alias("r")).select("r.text").collect()]

    assert {"Own.\nyes?", "Ours.\nalone", None} == set(texts)


def test_completions_continue_each_prompt(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """`complete_udf` sends the prompt and its parameters to the completions route."""
    silent = replace(endpoint(endpoints, "complete"), attribution=False)
    udf = complete_udf(silent, max_tokens=2, extra_body={"extra_params": {"top_p": "0.9"}})
    [row] = spark.sql("SELECT 'one two three' AS p").select(ask(udf)("p").alias("r")).select("r.*").collect()

    assert ("one two", "length") == (row["text"], row["finish_reason"])
    assert [{"prompt": "one two three", "max_tokens": 2, "extra_params": {"top_p": "0.9"}}] == [
        recorded.body for recorded in endpoints.requests
    ]


def test_vectors_are_exact(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """Each text gets its own vector, exact in float32, over many requests; blanks and nulls cost nothing."""
    df = prompts(spark, 500).withColumn("text", F.when(F.col("id") % 10 == 0, F.lit(" ")).otherwise(F.col("prompt")))
    rows = (
        df.withColumn("r", ask(embed_udf(endpoint(endpoints, "embed")))("text")).select("text", "r.embedding").collect()
    )

    assert [] == [
        row for row in rows if row["embedding"] != (echo_vector(row["text"]) if row["text"].strip() else None)
    ]
    assert 450 == endpoints.stats.rows_answered
    assert endpoints.stats.requests <= 16


def test_more_choices_add_a_column(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """`n` above one adds `choices`, whose first element is `text`."""
    udf = chat_udf(endpoint(endpoints), n=3)
    [row] = spark.sql("SELECT 'a' AS p").select(ask(udf)("p").alias("r")).select("r.text", "r.choices").collect()

    assert ("a", ["a", "a", "a"]) == tuple(row)


def test_the_columns_have_the_published_schemas(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """Spark sees `schemas.CHAT`, `COMPLETE` and `EMBED`."""
    df = prompts(spark, 1)
    udfs = {
        chat(endpoints): schemas.CHAT,
        complete_udf(endpoint(endpoints, "complete")): schemas.COMPLETE,
        embed_udf(endpoint(endpoints, "embed")): schemas.EMBED,
    }

    assert list(udfs.values()) == [df.select(ask(udf)("prompt").alias("r")).schema["r"].dataType for udf in udfs]
    assert list(udfs.values()) == [udf.returnType for udf in udfs]


def test_a_filter_on_the_result_sends_each_row_once(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """A filter on the result and a selected field do not double the requests."""
    df = prompts(spark, 100).withColumn("r", ask(chat(endpoints))("prompt"))

    assert 100 == len(df.filter("r.error is null").select("r.text").collect())
    assert 100 == endpoints.stats.requests


def test_rows_of_a_flaky_endpoint_are_all_answered(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """Every refusal and fault costs one more request, and no row fails."""
    endpoints.faults = Faults("ok*9 429 503 500 cut garbage html ok*9 429*3")
    df = (
        prompts(spark, 200)
        .withColumn("r", ask(chat(endpoints))("prompt"))
        .select("prompt", "r.text", "r.attempts")
        .cache()
    )

    assert 200 == df.where("text = prompt").count()
    assert 209 == endpoints.stats.requests
    assert 209 == df.agg(F.sum("attempts")).first()[0]  # type: ignore[index]


def test_a_refused_row_fails_alone(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """The row has a typed error, and the other rows of its batch are answered."""
    endpoints.faults = Faults(poison="row 17")
    embed = embed_udf(endpoint(endpoints, "embed"), policy=Policy(batch_size=10))
    rows = prompts(spark, 60).withColumn("r", ask(embed)("prompt")).select("id", "r.embedding", "r.error.*").collect()
    bad = [row for row in rows if row["kind"] is not None]

    assert [(17, None, "invalid_request", 400, False)] == [
        (row["id"], row["embedding"], row["kind"], row["status"], row["retryable"]) for row in bad
    ]
    assert 59 == sum(row["embedding"] is not None for row in rows)


def test_usage_sums_to_the_billed_tokens(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """The sum of `usage` is the endpoint's own count, with refused attempts and shared requests."""
    endpoints.faults = Faults("ok 429 500 ok cut", poison="row 33")
    df = prompts(spark, 300)
    both = [ask(chat(endpoints))("prompt"), ask(embed_udf(endpoint(endpoints, "embed")))("prompt")]
    for column in both:
        endpoints.reset()
        total = df.select(column.alias("r")).agg(F.sum("r.usage.total_tokens")).first()
        assert total is not None
        assert endpoints.stats.total_tokens == total[0]


@pytest.mark.parametrize("read", ["show", "first", "take"])
def test_a_few_rows_cost_a_few_requests(spark: SparkSession, endpoints: LocalEndpoints, read: str) -> None:
    """`show(5)`, `first()` and `take(5)` of 20,000 rows send at most 64 requests, and none afterwards."""
    endpoints.latency_s = 0.1  # more than Spark takes to end a worker
    # With a filter on the answer Spark does not move its LIMIT in front of the UDF.
    df = (
        prompts(spark, 20_000)
        .withColumn("r", chat(endpoints)("prompt"))
        .where("r.error is null")
        .select("id", "r.text")
    )
    if read == "show":
        df.show(5)
    else:
        assert "row 0" == (df.first() if read == "first" else df.take(5)[0])["text"]  # type: ignore[index]

    def is_over() -> bool:
        before = endpoints.stats
        prompts(spark, 10).collect()  # time for a worker that goes on to show it
        return not before.in_flight and before.requests == endpoints.stats.requests

    until(is_over)
    assert endpoints.stats.requests <= 64


def test_a_wrong_type_raises_before_the_first_request(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """One short exception names the UDF, the types that it takes and a hint."""
    for wrong in ("5", "array('x')"):
        with pytest.raises(Exception, match=r"InputTypeError: chat_udf: .* one string column.*Hint: ") as raised:
            spark.range(3).select(ask(chat(endpoints))(F.expr(wrong))).collect()
        assert "PythonException" == type(raised.value).__name__

    assert 0 == endpoints.stats.requests


WRONG_TYPES: dict[str, Callable[[LocalEndpoints], Column]] = {  # by a pattern of what the error says
    "chat_udf: .*called on double": lambda it: chat(it)(F.expr("2.5D")),
    "embed_udf: .*called on map<string,int>": lambda _: F.expr("short_embed(map('a', 1))"),
    "chat_udf: .*and b is int": lambda it: chat_udf(endpoint(it), template="{b}")(F.expr("struct(1 AS b)")),
    "chat_udf: .*called on int": lambda _: F.expr("short_chat(5)"),
    "ai_classify .*called on bigint": lambda _: F.expr("short_llm_classify(5L, array('a'))"),
    "chat_udf: .*and b is map<string,int>": lambda it: chat_udf(endpoint(it), template="{b}")(b=F.expr("map('a', 1)")),
}


@pytest.mark.one_kind
@pytest.mark.parametrize(
    "named", [pytest.param(each, marks=[pytest.mark.slow] if at > 2 else []) for at, each in enumerate(WRONG_TYPES)]
)
def test_a_type_error_is_short(spark: SparkSession, endpoints: LocalEndpoints, named: str) -> None:
    """It has the type as SQL names it, from Spark 4.1 on, and from 4.0 on no traceback."""
    register(spark, chat=chat(endpoints), embed=endpoint(endpoints, "embed"), prefix="short_")
    if named.startswith("ai_"):
        register_ai_functions(spark, chat=endpoint(endpoints), prefix="short_")
    # before Spark 4.1 the types are those of pandas
    words = named if version_of(spark.version) >= ARROW_UDFS else named.replace(":", " ").split()[0]
    with pytest.raises(Exception, match=rf"InputTypeError: {words}.* Hint: ") as raised:
        spark.range(1).select(WRONG_TYPES[named](endpoints)).collect()

    shown = str(raised.value).partition("JVM stacktrace")[0]
    assert spark.version.startswith("3.") or "Traceback" not in shown
    assert "columns.py" not in shown
    assert 0 == endpoints.stats.requests


def test_an_unknown_endpoint_costs_three_requests_per_task(
    spark: SparkSession, endpoints: LocalEndpoints, ask: Ask
) -> None:
    """Every row has `not_found`, after three requests from each of the two tasks."""
    udf = chat_udf(endpoint(endpoints, "nobody"))
    df = prompts(spark, 1_000).withColumn("r", ask(udf)("prompt"))

    assert [("not_found", 404, 1_000)] == [
        tuple(row) for row in df.groupBy("r.error.kind", "r.error.status").count().collect()
    ]
    assert 6 == endpoints.stats.requests


STRANGE = {
    "empty": "",
    "blank": " \t\n",
    "long": "x" * 1_000_000,
    "emoji": "👩‍🚀 naïve 日本語",
    "null byte": "a\0b",
    "json": '{"messages": [{"role": "system", "content": "\\"}]}',
    "quotes": "\"'`\\\n\r",
}


def test_unusual_texts_are_unchanged(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """Blank, very long, emoji, NUL and JSON: each text gets its own answer, and no other row is affected."""
    df = spark.createDataFrame(list(STRANGE.items()), "name string, prompt string").repartition(1)
    rows = df.withColumn("r", ask(chat(endpoints))("prompt")).select("name", "r.text", "r.error").collect()

    assert STRANGE == {row["name"]: row["text"] for row in rows if row["error"] is None}


def test_invalid_utf8_is_replaced_and_answered(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """On the Arrow path invalid bytes become replacement characters; other rows are unchanged."""
    df = spark.sql("SELECT explode(array(cast(X'61FF62' AS string), 'fine')) AS prompt").repartition(1)

    assert {"a\N{REPLACEMENT CHARACTER}b", "fine"} == {
        row["text"] for row in df.select(chat(endpoints)("prompt").alias("r")).select("r.text").collect()
    }


def test_on_error_raise_fails_the_job(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """With `on_error="raise"` the first failed row ends the task with its error."""
    endpoints.faults = Faults(poison="row 3")
    udf = chat_udf(endpoint(endpoints), policy=Policy(on_error="raise"))
    with pytest.raises(Exception, match="RowFailedError: A row was not answered: invalid_request"):
        prompts(spark, 10).select(ask(udf)("prompt")).collect()


def test_a_condition_inside_the_call_limits_the_requests(
    spark: SparkSession, endpoints: LocalEndpoints, ask: Ask
) -> None:
    """Only the rows that meet the condition are sent."""
    udf = ask(chat(endpoints))
    df = prompts(spark, 100).withColumn("r", udf(F.when(F.col("id") < 10, F.col("prompt"))))

    assert 10 == df.where("r.text is not null").count()
    assert 10 == endpoints.stats.requests


def test_two_udfs_in_one_select(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """Chat answers and embeddings come back in the same row."""
    df = prompts(spark, 50).select(
        "prompt",
        ask(chat(endpoints))("prompt").alias("c"),
        ask(embed_udf(endpoint(endpoints, "embed")))("prompt").alias("e"),
    )
    rows = df.select("prompt", "c.text", "e.embedding").collect()

    assert [(row["prompt"], echo_vector(row["prompt"])) for row in rows] == [
        (row["text"], row["embedding"]) for row in rows
    ]


def test_the_repr_shows_the_request_without_the_token(endpoints: LocalEndpoints) -> None:
    """The repr has the instructions and the URL, and hides the token."""
    shown = repr(chat_udf(endpoint(endpoints), system="Be brief.", max_tokens=5))

    assert "chat_udf(" in shown
    assert "Be brief." in shown
    assert endpoints.invocations("chat") in shown
    assert endpoints.token not in shown


def test_a_column_knows_its_call(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """The column of a call has the UDF and its arguments, for table jobs."""
    udf, prompt = chat(endpoints), prompts(spark, 1)["prompt"]

    assert (udf, (prompt,)) == call_of(udf(prompt))
    assert call_of(udf(prompt)["text"]) is None


def test_results_can_be_joined_and_grouped(spark: SparkSession, endpoints: LocalEndpoints, ask: Ask) -> None:
    """Results can be joined, grouped and cached like any column."""
    df = prompts(spark, 20).withColumn("r", ask(chat(endpoints))("prompt")).select("id", "r.text").cache()
    joined = df.join(prompts(spark, 20), "id").where("text = prompt")

    assert 20 == joined.groupBy((F.col("id") % 2).alias("odd")).count().agg(F.sum("count")).first()[0]  # type: ignore[index]
    assert 20 == endpoints.stats.requests


def test_parameters_are_sent_as_given(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """The request's top level has the given parameters and no others."""
    udf = chat_udf(
        Endpoint(endpoints.openai_url, model="chat", token=endpoints.token),
        max_tokens=7,
        temperature=0,
        stop=["\n"],
        response_format={"type": "text"},
        extra_body={"user": "u"},
    )
    spark.sql("SELECT 'a' AS p").select(udf("p")).collect()

    assert [
        {
            "model": "chat",
            "max_tokens": 7,
            "temperature": 0,
            "stop": ["\n"],
            "response_format": {"type": "text"},
            "user": "u",
            "messages": [{"role": "user", "content": "a"}],
        }
    ] == [json.loads(json.dumps(recorded.body)) for recorded in endpoints.requests]


def test_spark_refuses_the_udf_in_an_aggregate(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Spark names the error before any request, because the UDF is nondeterministic."""
    df = prompts(spark, 5)
    with pytest.raises(Exception, match="AGGREGATE_FUNCTION_WITH_NONDETERMINISTIC_EXPRESSION"):
        df.agg(F.max(chat(endpoints)("prompt")["text"])).collect()

    assert 0 == endpoints.stats.requests
