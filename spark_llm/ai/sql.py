"""SQL functions: `register` for a user's own models, `register_ai_functions` for Databricks' AI functions."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from pyspark.sql import SparkSession

from spark_llm.ai.aggregate_plan import CONTEXT_TOKENS, aggregate_signature
from spark_llm.ai.catalog import FUNCTIONS
from spark_llm.ai.plans import SIMILARITY_PARAMETERS
from spark_llm.ai.requests import QUERY_PARAMETERS
from spark_llm.ai.udf import (
    AIFunction,
    aggregate_function,
    chat_function,
    known_endpoints,
    query_function,
    similarity_function,
)
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.engine.request_spec import RequestSpec
from spark_llm.errors import ConfigError
from spark_llm.udf.by_task import model_udf
from spark_llm.udf.factories import chat_udf
from spark_llm.udf.lazy_udf import check_session, is_at_least
from spark_llm.udf.model_udf import ModelUDF
from spark_llm.validation.arguments import checks_arguments
from spark_llm.validation.parameter import Parameter

_SQL_TYPES = {
    "text": "STRING",
    "content": "STRING",
    "texts": "ARRAY<STRING>",
    "labels": "ARRAY<STRING>",
    "descriptions": "MAP<STRING, STRING>",
    "examples": "ARRAY<STRUCT<content: STRING, label: STRING>>",
    "whole": "INT",
    "number": "DOUBLE",
    "flag": "BOOLEAN",
    "file": "BINARY",
}

Model = str | Endpoint | ModelUDF | None


@checks_arguments
def register(
    spark: SparkSession,
    *,
    chat: Model = None,
    complete: Model = None,
    embed: Model = None,
    predict: ModelUDF | None = None,
    rerank: Model = None,
    prefix: str = "llm_",
) -> list[str]:
    """Register models as SQL functions of this session: `llm_` with `chat`, `complete`, `embed`, `predict` or `rerank`.

    Pass an endpoint (a name, a URL or an `Endpoint`) for the default parameters, or a UDF of this library. Each
    function returns a struct, as its UDF does in Python.

    >>> register(spark, chat=chat_udf("my-endpoint", max_tokens=64), embed="my-embedding-endpoint")
    ['llm_chat', 'llm_embed']
    >>> spark.sql("SELECT llm_chat(review).text FROM reviews")

    A UDF with a template takes one struct, whose fields are strings, or BINARY for images, PDFs and audio:

    >>> register(spark, chat=chat_udf("my-endpoint", template="Summarise {title} ({year})"))
    ['llm_chat']
    >>> spark.sql("SELECT llm_chat(struct(title, string(year) AS year)).text FROM books")

    A custom model takes one column, or a struct of its columns:

    >>> register(spark, predict=predict_udf("my-model", returns="DOUBLE"))
    ['llm_predict']
    >>> spark.sql("SELECT llm_predict(struct(age, review AS text)).prediction FROM reviews")

    A reranker takes a query and an array of documents:

    >>> register(spark, rerank=rerank_udf("https://host/v1/rerank", top_n=3))
    ['llm_rerank']
    >>> spark.sql("SELECT llm_rerank(question, passages).ranking FROM questions")

    Returns:
        The names of the registered functions.

    Raises:
        ConfigError: There is no model, a UDF has another task, or an endpoint is invalid.
    """
    check_session(spark)
    models = {"chat": chat, "complete": complete, "embed": embed, "predict": predict, "rerank": rerank}
    udfs = {task: model_udf(task, model) for task, model in models.items() if model is not None}
    if not udfs:
        raise ConfigError(
            "register got no model.",
            'pass chat=, complete=, embed=, predict= or rerank=, for example register(spark, chat="my-endpoint").',
        )
    _check_prefix(prefix)
    for task, udf in udfs.items():
        spark.udf.register(prefix + task, udf.for_session(spark))
    return [prefix + task for task in udfs]


@checks_arguments
def register_ai_functions(
    spark: SparkSession,
    *,
    chat: Model = None,
    embed: Model = None,
    endpoints: Mapping[str, str | Endpoint | ModelUDF] | None = None,
    prefix: str = "",
    context_tokens: int = CONTEXT_TOKENS,
) -> list[str]:
    """Register Databricks' AI functions as SQL functions for this session, on any Spark and any endpoint.

    With `chat`: `ai_gen`, `ai_classify`, `ai_extract`, `ai_summarize`, `ai_translate`, `ai_analyze_sentiment`,
    `ai_fix_grammar` and `ai_mask`, and beside Databricks' own `ai_classify_multi`, `ai_filter` and `ai_score`, and for
    groups `ai_agg` and `ai_summarize_agg`. With `embed`: `ai_similarity`. Always: `ai_query`, which fails the query if
    a row fails, and `try_ai_query`, which returns null for the row. Each has a twin that begins with `llm_` and returns
    the whole struct, with tokens and error: `llm_classify(…).error`. A null in any argument gives null and costs
    nothing; only a null endpoint fails `ai_query`.

    >>> register_ai_functions(spark, chat="my-endpoint", embed="my-embedding-endpoint")
    >>> spark.sql("SELECT ai_classify(review, array('angry', 'happy')), ai_fix_grammar(review) FROM reviews")

    Args:
        spark: The session that gets the functions.
        chat: An endpoint, or a `chat_udf` with parameters and a policy; the functions set instructions and types.
        embed: An endpoint, or an `embed_udf`.
        endpoints: Endpoints that `ai_query` knows by name, or their UDFs for chat, completions or custom models. Other
            names are looked up in the workspace of DATABRICKS_HOST, if it is set.
        prefix: Prefix of every name, for a session that has other functions named `ai_…`.
        context_tokens: The context window of `chat`, into which `ai_agg` and `ai_summarize_agg` pack texts.

    Returns:
        The names of the registered functions.

    Raises:
        ConfigError: A model has another task or instructions of its own, or an endpoint is invalid.
    """
    check_session(spark)
    _check_prefix(prefix)
    functions = list[SQLFunction]()
    if chat is not None:
        model = model_udf("chat", chat)
        for name, function in FUNCTIONS.items():
            udf = chat_function(name, model, [parameter.name for parameter in function.parameters])
            functions.append(SQLFunction(f"ai_{name}", function.parameters, udf, function.field))
        for summarizes in (False, True):
            aggregate = aggregate_function(model, context_tokens, summarizes=summarizes)
            name, parameters = aggregate_signature(summarizes=summarizes)
            functions.append(SQLFunction(name, parameters, aggregate, "text"))
    if embed is not None:
        similarity = similarity_function(model_udf("embed", embed))
        functions.append(SQLFunction("ai_similarity", SIMILARITY_PARAMETERS, similarity, "parsed", is_udf=True))
    known, workspace = known_endpoints(endpoints or {}), _workspace_spec()
    custom = any(udf.task == "predict" for udf in known.values())
    for name, raises in (("ai_query", True), ("try_ai_query", False)):
        query = query_function(known, workspace, raises=raises)
        functions.append(SQLFunction(name, QUERY_PARAMETERS, query, "text", is_udf=custom))
    return [name for function in functions for name in function.register(spark, prefix)]


class SQLFunction(NamedTuple):
    """An SQL function: its name, its parameters, and the field of its UDF's struct that is its value."""

    name: str
    parameters: tuple[Parameter, ...]
    udf: AIFunction
    field: str
    is_udf: bool = False  # for ORDER BY and arguments of any type, where an SQL function is not enough

    def register(self, spark: SparkSession, prefix: str) -> list[str]:
        """Register the UDF, and an SQL function that calls it, whose arguments have names and defaults.

        Before Spark 4.0 there are no SQL functions, and the second function is a UDF too.
        """
        name, twin = prefix + self.name, prefix + self.udf.__name__
        spark.udf.register(twin, self.udf.for_session(spark))
        value = self.udf.field(self.field)
        if is_at_least(spark.version, 4, 0) and not self.is_udf:
            return_type = value.returnType.simpleString()
            arguments = ", ".join(parameter.name for parameter in self.parameters)
            parameters = ", ".join(map(_parameter_ddl, self.parameters))
            body = f"RETURNS {return_type} RETURN {twin}({arguments}).{self.field}"
            spark.sql(f"CREATE OR REPLACE TEMPORARY FUNCTION {name}({parameters}) {body}")
        else:
            spark.udf.register(name, value.for_session(spark))
        return [name, twin]


def _parameter_ddl(parameter: Parameter) -> str:
    kind = _SQL_TYPES[parameter.kind]
    return f"{parameter.name} {kind}{'' if parameter.default is None else f' DEFAULT {_sql_value(parameter, kind)}'}"


def _sql_value(parameter: Parameter, kind: str) -> str:
    match parameter.default:
        case bytes() as file:
            return f"X'{file.hex()}'"
        case ():
            return f"CAST({kind.partition('<')[0]}() AS {kind})"
        case str() as text:
            return f"'{text}'"
    return str(parameter.default)


def _workspace_spec() -> RequestSpec | None:
    """Return the request spec of any endpoint in the workspace; None without a workspace or credentials."""
    try:
        return chat_udf("any").request_spec
    except ConfigError:
        return None


def _check_prefix(prefix: object) -> None:
    if not isinstance(prefix, str) or not re.fullmatch(r"([A-Za-z_]\w*)?", prefix, re.ASCII):
        raise ConfigError(
            f"prefix={prefix!r} cannot begin a function's name in SQL.",
            'use letters, digits and "_", not a digit first.',
        )
