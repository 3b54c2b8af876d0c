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

from spark_llm.ai.aggregates import ai_agg, ai_summarize_agg, llm_agg, llm_summarize_agg
from spark_llm.ai.columns import Model, Text, function_column, text_column
from spark_llm.ai.dataframes.aggregate import aggregate
from spark_llm.ai.dataframes.classify_by_sample import classify_by_sample
from spark_llm.ai.dataframes.dedupe import dedupe
from spark_llm.ai.dataframes.nearest import nearest
from spark_llm.ai.dataframes.semantic_join import semantic_join
from spark_llm.ai.query import ai_query, llm_query, try_ai_query
from spark_llm.ai.split_text import split_text
from spark_llm.ai.texts import (
    ai_analyze_sentiment,
    ai_fix_grammar,
    ai_gen,
    ai_mask,
    ai_summarize,
    ai_translate,
    llm_analyze_sentiment,
    llm_fix_grammar,
    llm_gen,
    llm_mask,
    llm_summarize,
    llm_translate,
)
from spark_llm.ai.udf import similarity_function
from spark_llm.udf.by_task import model_udf
from spark_llm.validation.arguments import checks_arguments

__all__ = [
    "aggregate",
    "ai_agg",
    "ai_analyze_sentiment",
    "ai_classify",
    "ai_classify_multi",
    "ai_extract",
    "ai_filter",
    "ai_fix_grammar",
    "ai_gen",
    "ai_mask",
    "ai_query",
    "ai_score",
    "ai_similarity",
    "ai_summarize",
    "ai_summarize_agg",
    "ai_translate",
    "classify_by_sample",
    "dedupe",
    "llm_agg",
    "llm_analyze_sentiment",
    "llm_classify",
    "llm_classify_multi",
    "llm_extract",
    "llm_filter",
    "llm_fix_grammar",
    "llm_gen",
    "llm_mask",
    "llm_query",
    "llm_score",
    "llm_similarity",
    "llm_summarize",
    "llm_summarize_agg",
    "llm_translate",
    "nearest",
    "semantic_join",
    "split_text",
    "try_ai_query",
]

Labels = Sequence[str] | Mapping[str, str] | Column
Examples = Sequence[tuple[str, str] | Mapping[str, str]] | Column


@checks_arguments
def ai_classify(
    content: Text,
    labels: Labels,
    *,
    instructions: str | Column = "",
    examples: Examples = (),
    rationale: bool | Column = False,
    chat: Model,
) -> Column:
    """Return the label that fits a text best, as a string; it is always one of `labels`.

    Labels are a list, or a map to what each means. A constant that is wrong raises `ConfigError`.

    >>> df.withColumn("mood", ai_classify("review", ["angry", "happy"], chat="my-endpoint"))
    >>> moods = {"angry": "the customer complains", "happy": "the customer praises something"}
    >>> df.withColumn("mood", ai_classify("review", moods, examples=[("It broke.", "angry")], chat="my-endpoint"))

    Args:
        content: The column of texts.
        labels: 1 to 500 texts; or a mapping of them to descriptions, of which none may be null.
        instructions: What else the model has to know, in your words.
        examples: Pairs of a text and its label, or mappings with `content` and `label`.
        rationale: Whether the model gives its reason first, which costs tokens and is in the struct of `llm_classify`.
        chat: The model.
    """
    return llm_classify(content, labels, instructions=instructions, examples=examples, rationale=rationale, chat=chat)[
        "parsed"
    ]


@checks_arguments
def llm_classify(
    content: Text,
    labels: Labels,
    *,
    instructions: str | Column = "",
    examples: Examples = (),
    rationale: bool | Column = False,
    confidence: bool | Column = False,
    chat: Model,
) -> Column:
    """Return the label that fits a text best as `parsed`, with tokens and error; further options as `ai_classify` has.

    With `confidence` the model's logprobs are asked for too, and `confidence` is the probability of the label, above 0
    and at most 1. It is null where the endpoint gives no logprobs, and where the first token of the label begins
    another one too. With `rationale` the reason is in `rationale`.

    >>> df.withColumn("mood", llm_classify("review", ["angry", "happy"], confidence=True, chat="my-endpoint"))
    """
    return function_column(
        "classify",
        chat,
        content,
        labels=labels,
        instructions=instructions,
        examples=examples,
        rationale=rationale,
        confidence=confidence,
    )


@checks_arguments
def ai_classify_multi(
    content: Text,
    labels: Labels,
    *,
    instructions: str | Column = "",
    examples: Examples = (),
    rationale: bool | Column = False,
    chat: Model,
) -> Column:
    """Return all labels that fit a text, as an array in the order of `labels`; it is empty where none fits.

    The options are those of `ai_classify`. A text with several labels is in several `examples`.

    >>> df.withColumn("topics", ai_classify_multi("review", ["price", "delivery", "quality"], chat="my-endpoint"))
    """
    return llm_classify_multi(
        content, labels, instructions=instructions, examples=examples, rationale=rationale, chat=chat
    )["parsed"]


@checks_arguments
def llm_classify_multi(
    content: Text,
    labels: Labels,
    *,
    instructions: str | Column = "",
    examples: Examples = (),
    rationale: bool | Column = False,
    chat: Model,
) -> Column:
    """Return all labels that fit a text as `parsed`, with tokens and error; `rationale` has the reason if asked for."""
    return function_column(
        "classify_multi",
        chat,
        content,
        labels=labels,
        instructions=instructions,
        examples=examples,
        rationale=rationale,
    )


@checks_arguments
def ai_extract(content: Text, labels: Sequence[str] | Column, *, chat: Model) -> Column:
    """Return the part of a text that belongs to each label, as `map<string,string>`; null where there is none.

    >>> df.withColumn("found", ai_extract("mail", ["person", "city"], chat="my-endpoint")).select("found.person")
    """
    return llm_extract(content, labels, chat=chat)["parsed"]


@checks_arguments
def llm_extract(content: Text, labels: Sequence[str] | Column, *, chat: Model) -> Column:
    """Return the part of a text that belongs to each label as `parsed`, with tokens and error."""
    return function_column("extract", chat, content, labels=labels)


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
    return function_column("filter", chat, content, condition=condition)


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
    return function_column("score", chat, content, rubric=rubric, least=least, most=most)


@checks_arguments
def ai_similarity(expr1: Text, expr2: Text, *, embed: Model) -> Column:
    """Return the cosine similarity of two texts, as a float: 1.0 for equal ones; it is a rank, not a probability.

    >>> df.withColumn("nearness", ai_similarity("review", F.lit("It broke."), embed="my-embedding-endpoint"))
    """
    return llm_similarity(expr1, expr2, embed=embed)["parsed"]


@checks_arguments
def llm_similarity(expr1: Text, expr2: Text, *, embed: Model) -> Column:
    """Return the cosine similarity of two texts as `parsed`, with tokens and error."""
    return similarity_function(model_udf("embed", embed))(text_column("expr1", expr1), text_column("expr2", expr2))
