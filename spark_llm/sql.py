"""Models in SQL: `register` makes functions of endpoints."""

from collections.abc import Callable, Mapping

from pyspark.sql import SparkSession

from spark_llm._model_udf import ModelUDF
from spark_llm.endpoint import Endpoint
from spark_llm.errors import ConfigError
from spark_llm.udfs import chat_udf, complete_udf, embed_udf

Model = str | Endpoint | ModelUDF | None
_WITH_DEFAULTS: Mapping[str, Callable[..., ModelUDF]] = {
    "chat": chat_udf,
    "complete": complete_udf,
    "embed": embed_udf,
}


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
    made = {
        task: model if isinstance(model, ModelUDF) else _WITH_DEFAULTS[task](model)
        for task, model in given.items()
        if model is not None
    }
    if not made:
        raise ConfigError(
            "register was given no model.",
            'pass chat=, complete= or embed=, for example register(spark, chat="my-endpoint").',
        )
    if not isinstance(prefix, str) or not (prefix + "x").isidentifier():
        raise ConfigError(f"prefix={prefix!r} cannot begin a function's name in SQL.", 'use letters, digits and "_".')
    for task, udf in made.items():
        if udf.task != task:
            raise ConfigError(f"{task}= was given a UDF that asks for {udf.task}.", f"pass it as {udf.task}=.")
    for task, udf in made.items():
        spark.udf.register(prefix + task, udf)
    return [prefix + task for task in made]
