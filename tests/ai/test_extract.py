"""`extract_udf` before there is a session: what it refuses, what it sends, and its fingerprint's recipe."""

import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, Field
from pyspark import cloudpickle
from pyspark.sql.types import BinaryType, DoubleType, StringType, StructField, StructType

from spark_llm import ConfigError, Endpoint, Policy, chat_udf, embed_udf, extract_udf, predict_udf
from spark_llm.ai.extract import ExtractUDF
from spark_llm.protocol.canonical import spec_digest
from spark_llm.protocol.task import PLAIN

URL = "http://127.0.0.1:9/v1"
ENDPOINT = Endpoint(URL, model="m")
FIELDS = StructType(
    [
        StructField("name", StringType(), metadata={"comment": 'of the {sender}, or "firm"'}),
        StructField("total", DoubleType(), False),
    ]
)


class Invoice(BaseModel):
    """The same as a model."""

    name: str | None = Field(description='of the {sender}, or "firm"')
    total: float


def chat(**settings: Any) -> Any:  # noqa: ANN401 -- a UDF
    """Return a chat UDF of the endpoint."""
    return chat_udf(ENDPOINT, **settings)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: extract_udf(ENDPOINT), "extract_udf: missing a required argument: 'fields'"),  # type: ignore[call-arg]
        (lambda: extract_udf(ENDPOINT, fields=""), "fields='' is not an answer type."),
        (lambda: extract_udf(ENDPOINT, fields=None), "fields=None is not an answer type."),  # type: ignore[arg-type]
        (lambda: extract_udf(ENDPOINT, fields=StringType()), "is not an answer type."),  # type: ignore[arg-type]
        (lambda: extract_udf(ENDPOINT, fields=StructType([])), "is a struct without fields."),
        (lambda: extract_udf(ENDPOINT, fields=StructType([*FIELDS, FIELDS["name"]])), "two fields"),
        (lambda: extract_udf(ENDPOINT, fields=StructType([StructField("a", BinaryType())])), "a is binary"),
        (lambda: extract_udf(ENDPOINT, fields=FIELDS, citations="yes"), "citations='yes' is neither"),  # type: ignore[arg-type]
        (lambda: extract_udf(ENDPOINT, fields=FIELDS, max_tokens=5), "has no argument 'max_tokens'"),  # type: ignore[call-arg]
        (lambda: extract_udf(5, fields=FIELDS), "endpoint=5 is not an endpoint."),  # type: ignore[arg-type]
        (lambda: extract_udf(embed_udf(ENDPOINT), fields=FIELDS), "endpoint= got a UDF for the task 'embed'."),
        (
            lambda: extract_udf(predict_udf(f"{URL}/invocations", returns="INT"), fields=FIELDS),
            "for the task 'predict'.",
        ),
        *(
            (lambda settings=settings: extract_udf(chat(**settings), fields=FIELDS), "endpoint= got a UDF with")
            for settings in (
                *({"system": "x"}, {"template": "{x}"}, {"returns": FIELDS}, {"returns": "a INT"}, {"n": 2}),
                *({"tools": [Invoice]}, {"response_format": {"type": "text"}}),
                {"extra_body": {"response_format": {"type": "text"}}},
            )
        ),
        (lambda: extract_udf(extract_udf(ENDPOINT, fields="a INT"), fields=FIELDS), "endpoint= got a UDF with"),
    ],
)
def test_what_cannot_be_right_is_refused_when_the_udf_is_built(make: Callable[[], object], expected: str) -> None:
    """The error names the argument, and ends in a next step."""
    with pytest.raises(ConfigError) as raised:
        make()

    assert expected in raised.value.what
    assert raised.value.hint.endswith(".")


@pytest.mark.parametrize("fields", [FIELDS, Invoice])
def test_a_request_names_the_fields_and_their_descriptions(fields: type) -> None:
    """The instructions have them, and the schema; with citations each field is a value and a quote."""
    plain, cited = (sent(extract_udf(ENDPOINT, fields=fields, citations=each)) for each in (False, True))
    total = {"type": "number"}
    quote = {"type": ["string", "null"]}
    assert '- "name": of the {sender}, or "firm"\n- "total"\n' in plain["messages"][0]["content"]
    assert "quote" not in plain["messages"][0]["content"]
    assert total == schema_of(plain)["properties"]["total"]
    assert '- "name": of the {sender}, or "firm"\n- "total"\n' in cited["messages"][0]["content"]
    assert "quote" in cited["messages"][0]["content"]
    assert {"value": total, "quote": quote} == schema_of(cited)["properties"]["total"]["properties"]
    assert 'of the {sender}, or "firm"' == schema_of(cited)["properties"]["name"]["description"]


def sent(udf: ExtractUDF, wire_format: int = 0) -> Any:  # noqa: ANN401 -- JSON
    """Return the body of a request."""
    return json.loads(bytes(udf.codec.encode(["a mail"], "m", wire_format)))


def schema_of(body: Any) -> Any:  # noqa: ANN401 -- JSON
    """Return the schema of a request."""
    return body["response_format"]["json_schema"]["schema"]


def test_parameters_and_policy_are_those_of_the_chat_udf() -> None:
    """The request has its parameters, and `Policy` holds; without `response_format` the prompt has the schema."""
    policy = Policy(max_in_flight=3)
    extract = extract_udf(chat(max_tokens=50, temperature=0, policy=policy), fields=FIELDS)
    body = sent(extract, PLAIN)

    assert (50, 0, policy) == (body["max_tokens"], body["temperature"], extract.policy)
    assert '"total":{"type":"number"}' in body["messages"][0]["content"]
    assert "a mail" == body["messages"][1]["content"]


def test_a_udf_of_ddl_needs_no_session_to_be_built_and_pickled() -> None:
    """Its type is parsed at the first call; it says what it is."""
    extract = extract_udf(ENDPOINT, fields="name STRING, total DOUBLE", citations=True)
    copied = pickle.loads(cloudpickle.dumps(extract))  # type: ignore[no-untyped-call]  # noqa: S301 -- our own bytes

    assert repr(extract) == repr(copied)
    assert "fields='name STRING, total DOUBLE'" in repr(extract)


def test_the_column_has_the_fields_and_their_citations() -> None:
    """`parsed` comes last, and NOT NULL stays."""
    plain = extract_udf(ENDPOINT, fields=FIELDS).returnType["parsed"].dataType
    cited = extract_udf(ENDPOINT, fields=FIELDS, citations=True).returnType["parsed"].dataType

    assert "struct<name:string,total:double>" == plain.simpleString()
    assert (
        "struct<name:struct<value:string,quote:string,start:int,stop:int,supported:boolean>,"
        "total:struct<value:double,quote:string,start:int,stop:int,supported:boolean>>" == cited.simpleString()
    )


def test_the_recipe_has_what_the_user_declares() -> None:
    """Its digest depends on the fields, citations and the model, and not on our instructions; it is golden."""
    plain, cited, chatting = (
        spec_digest(udf.plan().canonical)
        for udf in (
            extract_udf(ENDPOINT, fields=FIELDS),
            extract_udf(ENDPOINT, fields=FIELDS, citations=True),
            chat(returns=FIELDS),
        )
    )
    other = spec_digest(extract_udf(chat(max_tokens=5), fields=FIELDS).plan().canonical)

    assert spec_digest(extract_udf(ENDPOINT, fields=Invoice).plan().canonical) == plain
    assert 4 == len({plain, cited, chatting, other})
    assert ("0ffc6ed18a40b9f1", "275c239bf8ea4b32") == (plain, cited)


@pytest.mark.parametrize("columns", [((), {"mail": "mail"}), ((), {}), (("a", "b"), {}), (("a",), {"mail": "mail"})])
def test_several_columns_and_names_are_refused(columns: tuple[tuple[str, ...], dict[str, str]]) -> None:
    """A call takes one column; the hint does not speak of templates."""
    extract, (places, names) = extract_udf(ENDPOINT, fields=FIELDS), columns
    with pytest.raises(ConfigError, match="extract_udf") as raised:
        extract(*places, **names)

    assert raised.value.hint in {"call it on one string column.", "call it on one column."}
