"""The AI functions as functions of columns, for DataFrames; each takes the model that it uses.

>>> from spark_llm import functions as ai
>>> df.withColumn("mood", ai.ai_classify("review", ["angry", "happy"], chat="my-endpoint"))

A text is a column or its name. Labels, a language and numbers are values, or columns. A model is an endpoint (a name, a
URL or an `Endpoint`), or a UDF of this library with its parameters and its policy. A null in any argument gives a null
and costs nothing; a failed row gives a null too. The functions that begin with `llm_` return the whole struct, with
`usage` and `error`; the value of the `ai_` function is its field `text`, or `parsed` where it is not a text.
"""

from collections.abc import Mapping, Sequence

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import DataType

from spark_llm.ai.catalog import FUNCTIONS, PARAMETER_KINDS
from spark_llm.ai.nearest import nearest
from spark_llm.ai.query import query_of
from spark_llm.ai.split_text import split_text
from spark_llm.ai.udf import chat_function, similarity_function
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.errors import ConfigError
from spark_llm.udf.by_task import model_udf
from spark_llm.udf.model_udf import ModelUDF
from spark_llm.validation.arguments import checks_arguments

Model = str | Endpoint | ModelUDF
Text = Column | str

__all__ = [
    "ai_analyze_sentiment",
    "ai_classify",
    "ai_extract",
    "ai_filter",
    "ai_fix_grammar",
    "ai_gen",
    "ai_mask",
    "ai_query",
    "ai_score",
    "ai_similarity",
    "ai_summarize",
    "ai_translate",
    "llm_analyze_sentiment",
    "llm_classify",
    "llm_extract",
    "llm_filter",
    "llm_fix_grammar",
    "llm_gen",
    "llm_mask",
    "llm_query",
    "llm_score",
    "llm_similarity",
    "llm_summarize",
    "llm_translate",
    "nearest",
    "split_text",
    "try_ai_query",
]


@checks_arguments
def ai_gen(prompt: Text, *, chat: Model) -> Column:
    """Return the model's answer to a prompt, as a string."""
    return llm_gen(prompt, chat=chat)["text"]


@checks_arguments
def llm_gen(prompt: Text, *, chat: Model) -> Column:
    """Return the model's answer to a prompt, as `schemas.CHAT`."""
    return _function_column("gen", chat, prompt)


@checks_arguments
def ai_classify(content: Text, labels: Sequence[str] | Column, *, chat: Model) -> Column:
    """Return the label that fits a text best, as a string; it is always one of `labels`.

    >>> df.withColumn("mood", ai_classify("review", ["angry", "happy"], chat="my-endpoint"))
    """
    return llm_classify(content, labels, chat=chat)["parsed"]


@checks_arguments
def llm_classify(content: Text, labels: Sequence[str] | Column, *, chat: Model) -> Column:
    """Return the label that fits a text best as `parsed`, with tokens and error."""
    return _function_column("classify", chat, content, labels)


@checks_arguments
def ai_extract(content: Text, labels: Sequence[str] | Column, *, chat: Model) -> Column:
    """Return the part of a text that belongs to each label, as `map<string,string>`; null where there is none.

    >>> df.withColumn("found", ai_extract("mail", ["person", "city"], chat="my-endpoint")).select("found.person")
    """
    return llm_extract(content, labels, chat=chat)["parsed"]


@checks_arguments
def llm_extract(content: Text, labels: Sequence[str] | Column, *, chat: Model) -> Column:
    """Return the part of a text that belongs to each label as `parsed`, with tokens and error."""
    return _function_column("extract", chat, content, labels)


@checks_arguments
def ai_summarize(content: Text, max_words: int | Column = 50, *, chat: Model) -> Column:
    """Return a summary of a text, as a string; `max_words` of 0 leaves its length to the model."""
    return llm_summarize(content, max_words, chat=chat)["text"]


@checks_arguments
def llm_summarize(content: Text, max_words: int | Column = 50, *, chat: Model) -> Column:
    """Return a summary of a text, as `schemas.CHAT`."""
    return _function_column("summarize", chat, content, max_words)


@checks_arguments
def ai_translate(content: Text, to_lang: str | Column, *, chat: Model) -> Column:
    """Return a text in another language, as a string; `to_lang` is a code, like "fr", or a language's name."""
    return llm_translate(content, to_lang, chat=chat)["text"]


@checks_arguments
def llm_translate(content: Text, to_lang: str | Column, *, chat: Model) -> Column:
    """Return a text in another language, as `schemas.CHAT`."""
    return _function_column("translate", chat, content, to_lang)


@checks_arguments
def ai_analyze_sentiment(content: Text, *, chat: Model) -> Column:
    """Return the sentiment of a text: "positive", "negative", "neutral" or "mixed"."""
    return llm_analyze_sentiment(content, chat=chat)["parsed"]


@checks_arguments
def llm_analyze_sentiment(content: Text, *, chat: Model) -> Column:
    """Return the sentiment of a text as `parsed`, with tokens and error."""
    return _function_column("analyze_sentiment", chat, content)


@checks_arguments
def ai_fix_grammar(content: Text, *, chat: Model) -> Column:
    """Return a text with its grammar and spelling corrected, as a string."""
    return llm_fix_grammar(content, chat=chat)["text"]


@checks_arguments
def llm_fix_grammar(content: Text, *, chat: Model) -> Column:
    """Return a text with its grammar and spelling corrected, as `schemas.CHAT`."""
    return _function_column("fix_grammar", chat, content)


@checks_arguments
def ai_mask(content: Text, labels: Sequence[str] | Column, *, chat: Model) -> Column:
    """Return a text with `[MASKED]` in place of everything that `labels` name, as a string."""
    return llm_mask(content, labels, chat=chat)["text"]


@checks_arguments
def llm_mask(content: Text, labels: Sequence[str] | Column, *, chat: Model) -> Column:
    """Return a text with `[MASKED]` in place of everything that `labels` name, as `schemas.CHAT`."""
    return _function_column("mask", chat, content, labels)


@checks_arguments
def ai_filter(content: Text, condition: str | Column, *, chat: Model) -> Column:
    """Return whether a text meets a condition, as a boolean.

    A condition with fields in braces is about several columns, which `content` has as a struct:

    >>> df.where(ai_filter("review", "the customer wants their money back", chat="my-endpoint"))
    >>> df.where(ai_filter(F.struct("title", "topic"), "{title} is about {topic}", chat="my-endpoint"))
    """
    return llm_filter(content, condition, chat=chat)["parsed"]


@checks_arguments
def llm_filter(content: Text, condition: str | Column, *, chat: Model) -> Column:
    """Return whether a text meets a condition as `parsed`, with tokens and error."""
    return _function_column("filter", chat, content, condition)


@checks_arguments
def ai_score(
    content: Text, rubric: str | Column, least: float | Column = 0, most: float | Column = 10, *, chat: Model
) -> Column:
    """Return a text's score by a rubric, as a double from `least` to `most`; a rubric may have fields, as a condition.

    >>> df.withColumn("urgency", ai_score("mail", "how soon the customer needs an answer", chat="my-endpoint"))
    """
    return llm_score(content, rubric, least, most, chat=chat)["parsed"]


@checks_arguments
def llm_score(
    content: Text, rubric: str | Column, least: float | Column = 0, most: float | Column = 10, *, chat: Model
) -> Column:
    """Return a text's score by a rubric as `parsed`, with tokens and error."""
    return _function_column("score", chat, content, rubric, least, most)


@checks_arguments
def ai_similarity(expr1: Text, expr2: Text, *, embed: Model) -> Column:
    """Return the cosine similarity of two texts, as a float: 1.0 for equal ones; it is a rank, not a probability."""
    return llm_similarity(expr1, expr2, embed=embed)["parsed"]


@checks_arguments
def llm_similarity(expr1: Text, expr2: Text, *, embed: Model) -> Column:
    """Return the cosine similarity of two texts as `parsed`, with tokens and error."""
    return similarity_function(model_udf("embed", embed))(_column("expr1", expr1), _column("expr2", expr2))


@checks_arguments
def ai_query(  # noqa: PLR0917 -- as Databricks' function takes them
    endpoint: Model,
    request: Text,
    returnType: str | DataType | None = None,  # noqa: N803 -- the arguments have Databricks' names
    failOnError: bool = True,  # noqa: FBT001, FBT002, N803 -- as above
    modelParameters: Mapping[str, object] | None = None,  # noqa: N803 -- as above
    responseFormat: str | Mapping[str, object] | None = None,  # noqa: N803 -- as above
    files: Text | None = None,
    *,
    return_type: str | DataType | None = None,
) -> Column:
    """Return an endpoint's answer to a request, as a string; a failed row fails the query.

    >>> df.withColumn("reply", ai_query("my-endpoint", "mail", modelParameters={"max_tokens": 100}))
    >>> df.withColumn("risk", ai_query("my-model", F.struct("age", "review"), returnType="DOUBLE"))

    Args:
        endpoint: A serving endpoint's name, a URL, an `Endpoint`, or a UDF of this library, of any task.
        request: The prompt; for a custom model a column, or a struct of the model's columns.
        returnType: The type of a custom model's predictions; the endpoint is asked as one.
        failOnError: False returns `struct<result, errorMessage>`, and a failed row has the second.
        modelParameters: Parameters of a chat or completions model by name, as in {"max_tokens": 100}.
        responseFormat: "text"; the JSON of a `response_format`; or DDL, `STRUCT<name: STRUCT<…>>`, which is the type of
            the answer. With `failOnError=False` the answer is JSON.
        files: A BINARY column: an image, a PDF or audio, which follows the prompt.
        return_type: The same as `returnType`, which is its name in SQL.

    Raises:
        ConfigError: The endpoint or an argument is invalid, or arguments do not go together.
    """
    if not isinstance(failOnError, bool):
        raise ConfigError(f"failOnError={failOnError!r} is neither True nor False.", "leave it out for True.")
    if returnType is not None and return_type is not None:
        raise ConfigError("ai_query got both returnType= and return_type=.", "give one of them.")
    query = query_of(
        endpoint,
        returns=return_type if returnType is None else returnType,
        parameters=modelParameters,
        response_format=responseFormat,
        files=files is not None,
    )
    of_files = None if files is None else _column("files", files)
    return (query.values if failOnError else query.results)(_column("request", request), of_files)


@checks_arguments
def try_ai_query(endpoint: Model, request: Text) -> Column:
    """Return an endpoint's answer to a request, as a string; null for a failed row."""
    query = query_of(endpoint)
    return query.answers(_column("request", request), raises=False)[query.field]


@checks_arguments
def llm_query(endpoint: Model, request: Text) -> Column:
    """Return an endpoint's answer to a request, as `schemas.CHAT`; that of another task's UDF as its own struct."""
    return query_of(endpoint).answers(_column("request", request), raises=False)


def _function_column(name: str, chat: Model, content: Text, *options: object) -> Column:
    """Return the column of a function's answers; raises `ConfigError` for a constant option that is wrong."""
    function = FUNCTIONS[name]
    text, *others = function.parameters
    constants = {}
    for parameter, option in zip(others, options, strict=True):
        if not isinstance(option, Column):
            constants[parameter.name] = option
            if not parameter.accepts(option):
                raise ConfigError(
                    f"ai_{name}: {parameter.name}={option!r} is not {PARAMETER_KINDS[parameter.kind]}.",
                    "pass one, or a column of them.",
                )
    if (error := function.option_error(constants)) is not None:
        raise ConfigError(f"ai_{name}: {error.what}", error.hint)
    columns = [option if isinstance(option, Column) else _constant(option) for option in options]
    return chat_function(name, model_udf("chat", chat))(_column(text.name, content), *columns)


def _constant(value: object) -> Column:
    return F.array(*map(F.lit, value)) if isinstance(value, (list, tuple)) else F.lit(value)


def _column(name: str, text: object) -> Column:
    if not isinstance(text, (Column, str)):
        raise ConfigError(f"{name}={text!r} is not a column.", "pass a column or its name; a value is F.lit(value).")
    return F.col(text) if isinstance(text, str) else text
