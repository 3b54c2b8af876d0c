"""`functions.ai_query` with all of its arguments, against chat, embeddings and a custom model."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import Column, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType

from spark_llm import ConfigError, Endpoint, Policy, chat_udf, complete_udf, embed_udf, predict_udf
from spark_llm import functions as ai
from spark_llm.serving import Echo, LocalEndpoints, echo_media, echo_vector
from spark_llm.serving.protocol.errors import Refused
from spark_llm.serving.protocol.requests import ChatRequest
from tests.integration.spark.asking import endpoint
from tests.support.media import image
from tests.support.reply_model import ReplyModel, schema_example

pytestmark = pytest.mark.on_connect

MOOD = "STRUCT<found: STRUCT<mood: STRING, stars: INT>>"
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "properties": {}}}}
ADDED = ("messages", "prompt", "usage_context", "client_request_id")  # to the settings, in a request
ANY = Endpoint("https://host/invocations")


def risk(frame: pd.DataFrame) -> list[float]:
    """Return twice the age, or twice the one column; 13 is refused."""
    ages = frame["age"] if "age" in frame else frame.iloc[:, 0]
    if (ages == 13).any():
        raise Refused.bad_request("no model of thirteen")
    return [2 * float(age) for age in ages]


def reply(request: ChatRequest) -> str:
    """Return an example of the schema, or reasoning and the last message; "bad" is refused."""
    if request.messages[-1].text == "bad":
        raise Refused.bad_request("a bad text")
    answer = schema_example(request)
    return f"So:\n```json\n{answer}\n```" if request.response_format else f"<think>Hm.</think>{answer}"


@pytest.fixture
def endpoints() -> Iterator[LocalEndpoints]:
    """A chat model, one for embeddings and completions, and a custom model."""
    with LocalEndpoints({"chat": ReplyModel(reply), "echo": Echo(), "score": risk}) as started:
        yield started


def values_of(spark: SparkSession, *columns: Column) -> tuple[Row, dict[str, str]]:
    """Return the columns of a row of a text, an age and a picture, and their types."""
    data = [("good", "bad", 21, 13, bytearray(image("PNG")))]
    # One task: where one of several fails the others are killed, and Spark 3.5 may give their workers to the next job.
    df = spark.createDataFrame(data, "text STRING, wrong STRING, age INT, young INT, photo BINARY").coalesce(1)
    answers = {f"c{number}": df.select(column.alias("c")) for number, column in enumerate(columns)}  # with one worker
    row = Row(**{name: answer.collect()[0]["c"] for name, answer in answers.items()})
    return row, {name: answer.schema["c"].dataType.simpleString() for name, answer in answers.items()}


def test_parameters_and_formats_reach_the_model(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Parameters are merged over those of a UDF; DDL gives the answer its type; everything is asked once."""
    chat = endpoint(endpoints)
    of_its_own = chat_udf(chat, system="Be brief.", max_tokens=9, seed=1)
    row, kinds = values_of(
        spark,
        ai.ai_query(of_its_own, "text", modelParameters={"max_tokens": 7, "stop": ["\n"], "top_k": 3}),
        ai.ai_query(chat, "text", responseFormat=MOOD),
        ai.ai_query(chat, "text", responseFormat=json.dumps(SCHEMA)),
        ai.ai_query(chat, F.col("text"), responseFormat="text", failOnError=True),
        ai.ai_query(complete_udf(endpoint(endpoints, "echo")), "text", modelParameters={"max_tokens": 4}),
    )
    bodies: list[Any] = [request.body for request in endpoints.requests]
    settings = [{name: body[name] for name in body if name not in ADDED} for body in bodies]

    assert ("good", {"mood": "text", "stars": 3}) == (row["c0"], row["c1"]["found"].asDict())
    assert ("So:\n```json\n{}\n```", "good", "good") == (row["c2"], row["c3"], row["c4"])
    assert "struct<found:struct<mood:string,stars:int>>" == kinds["c1"]
    assert {"string"} == {kinds[name] for name in ("c0", "c2", "c3", "c4")}
    assert 5 == endpoints.stats.requests
    assert {"max_tokens": 7, "seed": 1, "stop": ["\n"], "top_k": 3} in settings
    assert {"response_format": SCHEMA} in settings
    assert {"max_tokens": 4} in settings
    assert {} in settings
    assert "found" in [body["response_format"]["json_schema"]["name"] for body in bodies if "response_format" in body]


def test_without_fail_on_error_a_row_has_its_error(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """The result beside the message; that of a typed answer is its JSON alone. A null asks nothing."""
    chat, score = chat_udf(endpoint(endpoints), policy=Policy(on_error="raise")), endpoint(endpoints, "score")
    row, kinds = values_of(
        spark,
        ai.ai_query(chat, "text", failOnError=False),
        ai.ai_query(chat, "wrong", failOnError=False),
        ai.ai_query(chat, "text", failOnError=False, responseFormat=MOOD),
        ai.ai_query(score, "young", "DOUBLE", False),
        ai.ai_query(score, "age", DoubleType(), failOnError=False),
        ai.ai_query(chat, F.lit(None), failOnError=False),
        ai.try_ai_query(predict_udf(score, returns="INT"), "young"),
    )

    assert "struct<result:string,errorMessage:string>" == kinds["c0"] == kinds["c2"]
    assert "struct<result:double,errorMessage:string>" == kinds["c3"]
    assert ("good", None) == tuple(row["c0"])
    assert (None, True) == (row["c1"]["result"], "a bad text" in row["c1"]["errorMessage"])
    assert ({"mood": "text", "stars": 3}, None) == (json.loads(row["c2"]["result"]), row["c2"]["errorMessage"])
    assert (None, True) == (row["c3"]["result"], "no model of thirteen" in row["c3"]["errorMessage"])
    assert (42.0, None) == tuple(row["c4"])
    assert (None, None) == (row["c5"], row["c6"])
    assert 6 == sum("usage_context" in (request.body or {}) for request in endpoints.requests)  # without is a retry


def test_a_custom_model_takes_a_struct_or_a_column(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """Its value has the type that the call names, and a UDF of the library has its own."""
    score = endpoint(endpoints, "score")
    row, kinds = values_of(
        spark,
        ai.ai_query(score, F.struct("age", "text"), returnType="DOUBLE"),
        ai.ai_query(score, "age", return_type="INT"),
        ai.ai_query(predict_udf(score, returns="FLOAT"), F.struct("age")),
        ai.llm_query(predict_udf(score, returns="STRING"), "age")["error"]["kind"],
        ai.ai_query(embed_udf(endpoint(endpoints, "echo")), "text"),
    )

    assert (42.0, 42, 42.0, "schema_mismatch") == tuple(row)[:4]
    assert pytest.approx(echo_vector("good"), abs=1e-6) == row["c4"]
    assert ["double", "int", "float", "string", "array<float>"] == list(kinds.values())


def test_files_follow_the_prompt(spark: SparkSession, endpoints: LocalEndpoints) -> None:
    """A BINARY column is a part of the message; another type fails the query before any request."""
    echo = endpoint(endpoints, "echo")
    row, _ = values_of(
        spark,
        ai.ai_query(echo, "text", files="photo"),
        ai.ai_query(echo, F.lit("What?"), files=F.col("photo"), failOnError=False, modelParameters={"max_tokens": 99}),
        ai.ai_query(echo, "text", files=F.lit(None)),
    )

    assert ("good" + echo_media(image("PNG")).text, None) == (row["c0"], row["c2"])
    assert ("What?" + echo_media(image("PNG")).text, None) == tuple(row["c1"])
    assert 2 == endpoints.stats.requests
    with pytest.raises(Exception, match="takes a BINARY column as files; it was called on str"):
        values_of(spark, ai.ai_query(echo, "text", files="text"))
    assert 2 == endpoints.stats.requests


@pytest.mark.parametrize(
    "ask",
    [
        lambda of: ai.ai_query(of("chat"), "wrong", modelParameters={"max_tokens": 7}),
        lambda of: ai.ai_query(of("score"), "young", "DOUBLE"),
        lambda of: ai.ai_query(of("chat"), "age"),
        lambda of: ai.ai_query(of("score"), F.struct("age", "text")),
    ],
)
def test_a_failed_row_fails_the_query(
    ask: Callable[[Callable[[str], Endpoint]], Column], spark: SparkSession, endpoints: LocalEndpoints
) -> None:
    """So does a request of a type that the model cannot take: a struct needs `returnType`."""
    with pytest.raises(Exception, match=r"(RowFailedError|InputTypeError): .* Hint: "):
        values_of(spark, ask(lambda name: endpoint(endpoints, name)))


@pytest.mark.usefixtures("spark")
@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"failOnError": "no"}, "failOnError='no'"),
        ({"returnType": "INT", "return_type": "INT"}, "both"),
        ({"returnType": "NONE SUCH"}, "not valid DDL"),
        ({"returnType": 3}, "returns=3"),
        ({"returnType": "INT", "modelParameters": {"max_tokens": 1}}, "modelParameters="),
        ({"returnType": "INT", "files": "photo"}, "files="),
        ({"modelParameters": "max_tokens"}, "modelParameters='max_tokens'"),
        ({"modelParameters": {"max_tokens": 0}}, "max_tokens=0"),
        ({"modelParameters": {"temperature": 9}}, "temperature=9"),
        ({"modelParameters": {"messages": []}}, "messages"),
        ({"modelParameters": {"n": 2}}, "'n'"),
        ({"modelParameters": {"response_format": {}}}, "response_format"),
        ({"responseFormat": "STRUCT<a: INT>"}, "STRUCT<a: INT>"),
        ({"responseFormat": "STRUCT<a: STRUCT<b: INT>, c: STRUCT<d: INT>>"}, "one field"),
        ({"responseFormat": "STRUCT<a: NONE>"}, "no DDL"),
        ({"responseFormat": "{"}, "not JSON"),
        ({"responseFormat": "json_object"}, "responseFormat="),
        ({"responseFormat": {"type": 3}}, "response_format="),
        ({"files": 3}, "files=3"),
        ({"request": 3}, "request=3"),
        ({"endpoint": predict_udf(ANY, returns="INT"), "returnType": "INT"}, "a UDF has its type"),
        ({"endpoint": predict_udf(ANY, returns="INT"), "modelParameters": {"seed": 1}}, "modelParameters="),
        ({"endpoint": embed_udf(ANY), "files": "photo"}, "files="),
        ({"endpoint": complete_udf(ANY), "responseFormat": {"type": "json_object"}}, "completions"),
        ({"endpoint": complete_udf(ANY), "files": "photo"}, "completions"),
        ({"endpoint": chat_udf(ANY, returns="a INT"), "responseFormat": MOOD}, "the UDF both"),
        ({"endpoint": chat_udf(ANY, template="{a}"), "files": "photo"}, "template"),
    ],
    ids=str,
)
def test_arguments_that_do_not_go_together_raise_in_the_call(settings: dict[str, Any], what: str) -> None:
    """The message names the argument and has a hint."""
    given: dict[str, Any] = {"endpoint": ANY, "request": "text"} | settings
    with pytest.raises(ConfigError, match=rf"{what}[\s\S]* Hint: .+\."):
        ai.ai_query(**given)
