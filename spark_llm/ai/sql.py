"""Models in SQL: `register` makes functions of endpoints, `register_ai_functions` those of Databricks' names."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from pyspark.sql import SparkSession

from spark_llm.ai.catalog import FUNCTIONS, Parameter
from spark_llm.ai.udf import (
    PAIR,
    QUERY,
    AIFunction,
    chat_function,
    known_endpoints,
    query_function,
    similarity_function,
)
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.engine.request_spec import RequestSpec
from spark_llm.errors import ConfigError
from spark_llm.udf.factories import chat_udf, model_udf
from spark_llm.udf.lazy_udf import is_at_least
from spark_llm.udf.model_udf import ModelUDF

_TYPES = {"text": "STRING", "texts": "ARRAY<STRING>", "whole": "INT"}

Model = str | Endpoint | ModelUDF | None


def register(
    spark: SparkSession, *, chat: Model = None, complete: Model = None, embed: Model = None, prefix: str = "llm_"
) -> list[str]:
    """Register models as SQL functions for this session: `llm_chat`, `llm_complete` and `llm_embed`.

    Each is given as an endpoint (a name, a URL or an `Endpoint`) for the UDF with its defaults, or as a UDF of this
    library with everything set. What a function returns is a struct, as in Python.

    >>> register(spark, chat=chat_udf("my-endpoint", max_tokens=64), embed="my-embedding-endpoint")
    ['llm_chat', 'llm_embed']
    >>> spark.sql("SELECT llm_chat(review).text FROM reviews")

    A UDF with a template takes one struct with its fields, which are strings:

    >>> register(spark, chat=chat_udf("my-endpoint", template="Summarise {title} ({year})"))
    ['llm_chat']
    >>> spark.sql("SELECT llm_chat(struct(title, string(year) AS year)).text FROM books")

    Returns:
        The names that were registered.

    Raises:
        ConfigError: Nothing was given, a UDF of another task was, or an endpoint cannot be right.
    """
    given = {"chat": chat, "complete": complete, "embed": embed}
    made = {task: model_udf(task, model) for task, model in given.items() if model is not None}
    if not made:
        raise ConfigError(
            "register was given no model.",
            'pass chat=, complete= or embed=, for example register(spark, chat="my-endpoint").',
        )
    _check_prefix(prefix)
    for task, udf in made.items():
        spark.udf.register(prefix + task, udf.made_for(spark))
    return [prefix + task for task in made]


def register_ai_functions(
    spark: SparkSession,
    *,
    chat: Model = None,
    embed: Model = None,
    endpoints: Mapping[str, str | Endpoint | ModelUDF] | None = None,
    prefix: str = "",
) -> list[str]:
    """Register the AI functions of Databricks' SQL for this session, on any Spark and any endpoint.

    With `chat`: `ai_gen`, `ai_classify`, `ai_extract`, `ai_summarize`, `ai_translate`, `ai_analyze_sentiment`,
    `ai_fix_grammar` and `ai_mask`. With `embed`: `ai_similarity`. Always: `ai_query`, which fails the query where a row
    fails, and `try_ai_query`, which is null there. Each has a twin that begins with `llm_` and gives the whole struct,
    with tokens and error: `llm_classify(…).error`. A null in any argument gives a null and costs nothing.

    >>> register_ai_functions(spark, chat="my-endpoint", embed="my-embedding-endpoint")
    >>> spark.sql("SELECT ai_classify(review, array('angry', 'happy')), ai_fix_grammar(review) FROM reviews")

    Args:
        spark: The session that the functions are for.
        chat: An endpoint, or a `chat_udf` with parameters and a policy; instructions and types are the functions' own.
        embed: An endpoint, or an `embed_udf`.
        endpoints: What `ai_query` asks by name: endpoints, or UDFs of chat or completions. Any other name is looked up
            at the workspace of DATABRICKS_HOST, where there is one.
        prefix: What every name begins with, where a plain `ai_` is another's.

    Returns:
        The names that were registered.

    Raises:
        ConfigError: A model is one of another task, has instructions of its own, or an endpoint cannot be right.
    """
    _check_prefix(prefix)
    functions = list[SQLFunction]()
    if chat is not None:
        model = model_udf("chat", chat)
        for name, function in FUNCTIONS.items():
            functions.append(SQLFunction(f"ai_{name}", function.parameters, chat_function(name, model), function.field))
    if embed is not None:
        similarity = similarity_function(model_udf("embed", embed))
        functions.append(SQLFunction("ai_similarity", PAIR, similarity, "parsed", sorts=True))
    known, workspace = known_endpoints(endpoints or {}), _workspace()
    for name, raises in (("ai_query", True), ("try_ai_query", False)):
        functions.append(SQLFunction(name, QUERY, query_function(known, workspace, raises=raises), "text"))
    return [name for function in functions for name in function.register(spark, prefix)]


class SQLFunction(NamedTuple):
    """A function of SQL: its name, its parameters, and the field of a UDF's struct that is its value."""

    name: str
    parameters: tuple[Parameter, ...]
    udf: AIFunction
    field: str
    sorts: bool = False  # it is for ORDER BY, where Spark takes a UDF and no SQL function

    def register(self, spark: SparkSession, prefix: str) -> list[str]:
        """Register the UDF, and over it a SQL function, whose arguments have names and defaults.

        Spark before 4.0 has no SQL functions; there it is a second UDF.
        """
        name, twin = prefix + self.name, prefix + self.udf.__name__
        spark.udf.register(twin, self.udf.made_for(spark))
        value = self.udf.value(self.field)
        if is_at_least(spark.version, 4, 0) and not self.sorts:
            kind = value.returnType.simpleString()
            names = ", ".join(parameter.name for parameter in self.parameters)
            taken = ", ".join(map(_declared, self.parameters))
            body = f"RETURNS {kind} RETURN {twin}({names}).{self.field}"
            spark.sql(f"CREATE OR REPLACE TEMPORARY FUNCTION {name}({taken}) {body}")
        else:
            spark.udf.register(name, value.made_for(spark))
        return [name, twin]


def _declared(parameter: Parameter) -> str:
    default = "" if parameter.default is None else f" DEFAULT {parameter.default}"
    return f"{parameter.name} {_TYPES[parameter.kind]}{default}"


def _workspace() -> RequestSpec | None:
    """Return how any endpoint of the workspace is asked; None where nothing says which, or who is asking."""
    try:
        return chat_udf("any").recipe
    except ConfigError:
        return None


def _check_prefix(prefix: object) -> None:
    if not isinstance(prefix, str) or not re.fullmatch(r"([A-Za-z_]\w*)?", prefix, re.ASCII):
        raise ConfigError(f"prefix={prefix!r} cannot begin a function's name in SQL.", 'use letters, digits and "_".')
