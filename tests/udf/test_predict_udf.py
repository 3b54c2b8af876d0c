"""`predict_udf` before there is a session: what is wrong is found when it is built."""

import pickle

import pytest
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    CharType,
    DoubleType,
    FloatType,
    IntegerType,
    MapType,
    StringType,
    StructField,
    StructType,
    VarcharType,
)
from pyspark.sql.types import DataType as SparkType

from spark_llm import ConfigError, Endpoint, Policy, chat_udf, embed_udf, predict_udf, schemas
from spark_llm.udf.model_udf import ModelUDF

URL = "http://127.0.0.1:9/invocations"


@pytest.mark.parametrize(
    "returns",
    [
        DoubleType(),
        BinaryType(),
        ArrayType(FloatType()),
        MapType(StringType(), ArrayType(IntegerType())),
        StructType([StructField("label", StringType()), StructField("raw", BinaryType())]),
    ],
    ids=str,
)
def test_a_type_is_known_at_once(returns: SparkType) -> None:
    """The column's type needs no session: the prediction, and what is known of each row."""
    udf = predict_udf(URL, returns=returns)

    assert schemas.with_prediction(returns) == udf.returnType
    assert ["prediction", "model", "attempts", "latency_ms", "error"] == udf.returnType.names
    assert "predict" == udf.task
    assert pickle.loads(pickle.dumps(udf)).returnType == udf.returnType  # noqa: S301 -- our own


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"returns": ""}, r"^returns=.* Hint: "),
        ({"returns": 7}, r'^returns=7 is not a type\. Hint: pass DDL, as in returns="DOUBLE"'),
        ({"returns": float}, r"^returns=<class 'float'> is not a type\. Hint: "),
        ({"returns": MapType(IntegerType(), StringType())}, r"is map<int,string>, but the keys .* Hint: "),
        ({"returns": CharType(3)}, r"is char\(3\), .* Hint: "),
        ({"returns": StructType([StructField("a", ArrayType(VarcharType(3)))])}, r"^a\[\] is varchar\(3\)"),
        ({"returns": DoubleType(), "format": "records"}, r"^format='records' is unknown\. Hint: pass one of 'data"),
        ({"returns": DoubleType(), "policy": "fast"}, r"^policy='fast' is not a Policy\. Hint: "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_when_it_is_built(arguments: dict[str, object], message: str) -> None:
    """Each message names the argument and ends in a next step."""
    with pytest.raises(ConfigError, match=message):
        predict_udf(URL, **arguments)  # type: ignore[arg-type]  # wrong on purpose


def test_an_endpoint_of_another_route_is_refused() -> None:
    """A URL of chat takes no rows."""
    with pytest.raises(ConfigError, match=r"serves /chat/completions, but this UDF sends requests to /invocations"):
        predict_udf("https://host/v1/chat/completions", returns=DoubleType())


@pytest.mark.parametrize("model", ["m", None])
def test_a_base_url_has_no_custom_models(model: str | None) -> None:
    """It has the routes of OpenAI alone, with a model or without."""
    with pytest.raises(ConfigError, match=r"https://api\.openai\.com/v1.*Hint: .*http://host:5000/invocations"):
        predict_udf(Endpoint("https://api.openai.com/v1", model=model), returns=DoubleType())


def test_a_model_of_the_ai_gateway_is_no_custom_model() -> None:
    """The gateway has no route for columns."""
    with pytest.raises(ConfigError, match=r"'system\.ai\.x'.*serves no custom model.* Hint: "):
        predict_udf("system.ai.x", returns=DoubleType())


@pytest.mark.parametrize("udf", [predict_udf(URL, returns=DoubleType()), chat_udf(URL), embed_udf(URL)], ids=str)
def test_two_columns_without_names_are_refused(udf: ModelUDF) -> None:
    """The message says how to call it, and it comes before any session is needed."""
    with pytest.raises(ConfigError, match=r"was called on 2 columns without names\. Hint: "):
        udf("a", "b")


def test_it_prints_its_type_and_no_secret() -> None:
    """DDL is shown as it was given."""
    typed, untyped = (predict_udf(URL, returns=each, policy=Policy(batch_size=7)) for each in (DoubleType(), "DOUBLE"))

    assert "Nullable(shape=Scalar(kind='double'" in repr(typed)
    assert "returns='DOUBLE'" in repr(untyped)
    assert "batch_size=7" in repr(untyped)


def test_calls_without_columns_are_refused() -> None:
    """One column, or columns by name, and not both."""
    predict = predict_udf(URL, returns=DoubleType())

    with pytest.raises(ConfigError, match=r"was called on no column\. Hint: .*predict\(age="):
        predict()
    with pytest.raises(ConfigError, match="was called on both one column and columns by name"):
        predict("a", b="b")
    with pytest.raises(ConfigError, match=r"^age=7 is not a column\. Hint: .*F\.lit\(value\)"):
        predict(age=7)  # type: ignore[arg-type]  # wrong on purpose
