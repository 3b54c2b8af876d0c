"""`rerank_udf`: a reranking model as a function of a query and its documents."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column

from spark_llm import schemas
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.engine.request_spec import RequestSpec
from spark_llm.policy import Policy
from spark_llm.protocol.canonical import canonical_model
from spark_llm.protocol.parameters import RESERVED, encode_parameters
from spark_llm.protocol.rerank import Rerank, rerank_item
from spark_llm.protocol.values import Row
from spark_llm.udf.arguments import Arguments, Columns
from spark_llm.udf.model_udf import ModelUDF
from spark_llm.udf.plan import Results, answers
from spark_llm.validation.arguments import checks_arguments
from spark_llm.validation.numbers import check_whole
from spark_llm.validation.parameter import Parameter

_DEFAULT_POLICY = Policy()
_RESERVED = {
    **RESERVED,
    **dict.fromkeys(("query", "text_1"), "the first column is the query"),
    **dict.fromkeys(("documents", "texts", "text_2"), "the second column has the documents"),
    **dict.fromkeys(("top_n", "top_k"), "top_n= sets it"),
}


@checks_arguments
def rerank_udf(
    endpoint: str | Endpoint,
    *,
    top_n: int | None = None,
    extra_body: Mapping[str, object] | None = None,
    policy: Policy = _DEFAULT_POLICY,
) -> "RerankUDF":
    """Return a UDF that ranks the documents of each row by how well they answer its query.

    Call it on a string column, the query, and on an `array<string>` column, the documents. All documents of a row go in
    one request. A null query or array gives null and costs nothing, and so does a blank query. A document that is null
    or blank is not sent and not ranked; without any other the ranking is empty, and costs nothing. Equal rows are asked
    once. A row that fails carries its `error`, and the job goes on.

    >>> rerank = rerank_udf(Endpoint("http://127.0.0.1:8000/v1", model="bge-reranker-v2-m3"), top_n=3)
    >>> df.withColumn("r", rerank("question", "passages")).selectExpr("question", "r.ranking[0].text", "r.error")

    Args:
        endpoint: A URL that ends in /rerank (Jina, Cohere, Voyage, vLLM, LiteLLM, Text Embeddings Inference) or in
            /score (vLLM); or an `Endpoint` with such a base URL and a model, to which /rerank is added.
        top_n: How many documents a ranking has at most; default: all of them.
        extra_body: Further top-level fields of the request.
        policy: Limits, retries and error handling; see `Policy`.

    Returns:
        A callable for columns of `schemas.RERANK`: `ranking`, an array of `index` (from 0, in the given array), `score`
        and `text`, with the best first and equal scores in the given order; `usage` (tokens, where the server reports
        them), `model`, `attempts`, `latency_ms` and `error`. Scores of different models do not compare.

    Raises:
        ConfigError: A parameter is invalid, or the endpoint serves no reranking, as Databricks' do. The check sends no
            request.
    """
    if top_n is not None:
        check_whole("top_n", top_n, 1, 2**31 - 1, hint="leave it out to have all documents ranked.")
    place = Endpoint(endpoint) if isinstance(endpoint, str) else endpoint
    route = {"route": place.rerank_route} if isinstance(place, Endpoint) else {}  # `ModelUDF` refuses what is none
    task = Rerank(encode_parameters({}, extra_body, _RESERVED), top_n, **route)
    return RerankUDF("rerank_udf", task, place, policy, schemas.RERANK)


@dataclass(frozen=True)
class RerankPlan:
    """Plan of a `RerankUDF`: each row is the JSON of its query and its documents."""

    spec: RequestSpec

    signature = "rerank_udf", (Parameter("query"), Parameter("documents", "texts"))

    @property
    def canonical(self) -> dict[str, Any]:
        """The request without the credentials and the policy."""
        return canonical_model(self.spec.route.url, self.spec.route.model, self.spec.task, None)

    def arrow(self, batches: Iterator[Any]) -> Results:
        """Yield the results for rows in Arrow arrays."""
        return answers(self.spec, map(_rows, Arguments(*self.signature).arrow(batches)))

    def pandas(self, batches: Iterator[Any]) -> Results:
        """Yield the results for rows in pandas series."""
        return answers(self.spec, map(_rows, Arguments(*self.signature).pandas(batches)))


def _rows(columns: Columns) -> list[Row]:
    """Return the inputs of rows, from their queries and documents."""
    return list(map(rerank_item, *columns))


class RerankUDF(ModelUDF):
    """A reranking model as a function of a query and its documents.

    >>> rerank = rerank_udf(Endpoint("https://api.jina.ai/v1", model="jina-reranker-v3", token=token))
    >>> df.withColumn("r", rerank("question", "passages")).select("r.ranking.text", "r.error")
    """

    @checks_arguments
    def __call__(self, query: Column | str, documents: Column | str) -> Column:  # type: ignore[override]  # two columns
        """Return the result column, a struct with the fields of `returnType`."""
        return self.tagged_column(query, documents)

    def plan(self) -> RerankPlan:  # type: ignore[override]  # the plan of another kind of rows
        """Return the plan that workers run."""
        return RerankPlan(self.request_spec)
