"""`rerank_udf` without Spark: what is wrong is found when it is built, and rows of Arrow and pandas are read alike."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark import cloudpickle

from spark_llm import ConfigError, Endpoint, InputTypeError, Policy, embed_udf, rerank_udf, schemas
from spark_llm.protocol.rerank import rerank_item
from spark_llm.protocol.values import Result
from spark_llm.udf.arguments import Arguments
from spark_llm.udf.by_task import model_udf
from spark_llm.udf.rerank_udf import RerankPlan

URL = "https://host/v1/rerank"
READER = Arguments(*RerankPlan.signature)


def test_it_has_a_type_a_name_and_no_secret() -> None:
    """Nothing is asked to build it; it travels."""
    rerank = rerank_udf(Endpoint("https://host/v1", model="m", token="s3cret"), top_n=3, policy=Policy(max_tries=2))

    assert schemas.RERANK == rerank.returnType
    assert ("rerank", "rerank_udf", False) == (rerank.task, rerank.__name__, rerank.deterministic)
    assert "top_n=3" in repr(rerank)
    assert "max_tries=2" in repr(rerank)
    assert "s3cret" not in repr(rerank)
    assert repr(rerank) == repr(cloudpickle.loads(cloudpickle.dumps(rerank)))  # type: ignore[no-untyped-call]  # PySpark gives it no types


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        (URL, URL),
        ("https://host/v2/rerank?key=1", "https://host/v2/rerank?key=1"),
        ("https://host/score", "https://host/score"),
        (Endpoint("https://host/v1/", model="m"), "https://host/v1/rerank"),
        (Endpoint("https://host", model="m"), "https://host/rerank"),
    ],
)
def test_a_base_url_gets_the_route_and_a_route_stays(endpoint: str | Endpoint, url: str) -> None:
    """Both routes are known; a base URL stands for /rerank."""
    assert url == rerank_udf(endpoint).request_spec.route.url


@pytest.mark.parametrize(
    "target",
    ["my-endpoint", "system.ai.reranker", "https://host/serving-endpoints/a/invocations", "https://host/invocations"],
)
def test_databricks_serves_no_reranking(target: str) -> None:
    """The message names the endpoint, and says what to pass."""
    with pytest.raises(ConfigError, match=r"serves no reranking: .* Hint: pass a URL that ends in /rerank or /score"):
        rerank_udf(target)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"endpoint": "https://host/v1"}, r"is a base URL, which needs a model\. Hint: .* ends in /rerank\.$"),
        ({"endpoint": "https://host/v1/embeddings"}, r"serves /embeddings, but this UDF sends requests to /rerank"),
        ({"endpoint": 7}, r"Hint: "),
        ({"endpoint": Endpoint(URL, api="chat")}, r"api='chat'\) is for a chat\. Hint: "),
        ({"top_n": 0}, r"top_n=0 .* Hint: leave it out"),
        ({"top_n": True}, r"top_n=True .* Hint: "),
        ({"extra_body": {"top_k": 3}}, r"may not set 'top_k': top_n= sets it\. Hint: "),
        ({"extra_body": {"documents": []}}, r"may not set 'documents': the second column has the documents\. Hint: "),
        ({"extra_body": {"model": "m"}}, r"may not set 'model': name it in Endpoint.* Hint: "),
        ({"policy": 3}, r"policy=3 is not a Policy\. Hint: "),
        ({"top": 3}, r"has no argument 'top'\. Hint: did you mean 'top_n'"),
    ],
)
def test_what_is_wrong_is_found_when_it_is_built(arguments: dict[str, object], message: str) -> None:
    """Each message names the argument and ends in a next step."""
    with pytest.raises(ConfigError, match=message):
        rerank_udf(**{"endpoint": URL, **arguments})  # type: ignore[arg-type]  # wrong on purpose


def test_another_task_at_its_routes_is_refused() -> None:
    """An embedding is not asked there."""
    with pytest.raises(ConfigError, match=r"serves /score, but this UDF sends requests to /embeddings\. Hint: "):
        embed_udf("https://host/score")


def test_two_columns_are_needed() -> None:
    """The message names the arguments, and comes before any session is needed."""
    rerank = rerank_udf(URL)

    with pytest.raises(ConfigError, match=r"missing a required argument: 'documents'.* Hint: .*query, documents"):
        rerank("question")  # type: ignore[call-arg]  # wrong on purpose
    with pytest.raises(ConfigError, match=r"no argument 'passages'\. Hint: "):
        rerank("question", passages="a")  # type: ignore[call-arg]  # as above


def test_it_has_its_place_among_the_tasks() -> None:
    """An endpoint gets the defaults; a UDF of another task is refused."""
    assert repr(rerank_udf(URL)) == repr(model_udf("rerank", URL))
    with pytest.raises(ConfigError, match=r"rerank= got a UDF for the task 'embed'\. Hint: pass it as embed="):
        model_udf("rerank", embed_udf("https://host/v1/embeddings"))


QUERIES = ["red", None, "blue", " ", "green", "grey"]
DOCUMENTS: list[list[str | None] | None] = [["a", None, "b"], ["a"], None, ["a"], [], [" ", None]]
ROWS = [rerank_item("red", ["a", None, "b"]), None, None, None, Result(ranking=[]), Result(ranking=[])]


def read_arrow(queries: pa.Array, documents: pa.Array) -> list[object]:
    """Read one Arrow batch."""
    return [item for columns in READER.arrow(iter([(queries, documents)])) for item in map(rerank_item, *columns)]


def read_pandas(queries: pd.Series, documents: pd.Series) -> list[object]:
    """Read one pandas batch."""
    return [item for columns in READER.pandas(iter([(queries, documents)])) for item in map(rerank_item, *columns)]


def test_rows_of_arrow_and_of_pandas_are_alike() -> None:
    """Spark's pandas has arrays of numpy in the cells; text that is no UTF-8 is replaced."""
    arrays = [None if cell is None else np.array(cell, dtype=object) for cell in DOCUMENTS]
    broken = pa.array([[b"caf\xe9", None]], pa.list_(pa.binary())).view(pa.list_(pa.string()))

    assert ROWS == read_arrow(pa.array(QUERIES), pa.array(DOCUMENTS, pa.list_(pa.string())))
    assert ROWS == read_pandas(pd.Series(QUERIES), pd.Series(arrays))
    assert [rerank_item("q", ["caf\N{REPLACEMENT CHARACTER}", None])] == read_arrow(pa.array(["q"]), broken)


@pytest.mark.parametrize(
    ("query", "documents", "message"),
    [
        (1, ["a"], "a string as query; it was called on bigint"),
        ("q", "a", "a list of strings as documents; it was called on string"),
        ("q", [1], "a list of strings as documents; it was called on array<bigint>"),
    ],
)
def test_another_type_raises_at_the_first_batch(query: object, documents: object, message: str) -> None:
    """The message names the UDF, the argument and the type."""
    with pytest.raises(InputTypeError, match=f"^rerank_udf takes {message}"):
        read_arrow(pa.array([query]), pa.array([documents]))
    with pytest.raises(InputTypeError, match=r"^rerank_udf takes a"):
        read_pandas(pd.Series([query]), pd.Series([documents]))
