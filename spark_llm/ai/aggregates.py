"""Aggregates of arrays of texts, as functions of columns."""

from pyspark.sql import Column
from pyspark.sql import functions as F

from spark_llm.ai.aggregate_plan import CONTEXT_TOKENS, window_of
from spark_llm.ai.aggregation import Instructions, Window, instructions_of
from spark_llm.ai.columns import Model, Text, text_column
from spark_llm.ai.udf import aggregate_function, plain_task
from spark_llm.errors import ConfigError
from spark_llm.protocol.values import RowError
from spark_llm.udf.by_task import model_udf
from spark_llm.validation.arguments import checks_arguments


@checks_arguments
def ai_agg(content: Text, instruction: str | Column, *, chat: Model, context_tokens: int = CONTEXT_TOKENS) -> Column:
    """Return the answer to an instruction about all texts of an array, as a string, however many they are.

    >>> groups = df.groupBy("product").agg(F.collect_list("review").alias("reviews"))
    >>> groups.select("product", ai_agg("reviews", "List the three most common complaints.", chat="my-endpoint"))

    Texts are packed into requests of `context_tokens`, whose answers are combined by further requests. See
    `aggregate` for groups that are too large for one row.
    """
    return llm_agg(content, instruction, chat=chat, context_tokens=context_tokens)["text"]


@checks_arguments
def llm_agg(content: Text, instruction: str | Column, *, chat: Model, context_tokens: int = CONTEXT_TOKENS) -> Column:
    """Return the answer to an instruction about all texts of an array, as `schemas.AGGREGATE`."""
    return _aggregate_column(chat, context_tokens, content, instruction)


@checks_arguments
def ai_summarize_agg(content: Text, *, chat: Model, context_tokens: int = CONTEXT_TOKENS) -> Column:
    """Return a summary of all texts of an array, as a string.

    >>> groups = df.groupBy("product").agg(F.collect_list("review").alias("reviews"))
    >>> groups.select("product", ai_summarize_agg("reviews", chat="my-endpoint"))
    """
    return llm_summarize_agg(content, chat=chat, context_tokens=context_tokens)["text"]


@checks_arguments
def llm_summarize_agg(content: Text, *, chat: Model, context_tokens: int = CONTEXT_TOKENS) -> Column:
    """Return a summary of all texts of an array, as `schemas.AGGREGATE`."""
    return _aggregate_column(chat, context_tokens, content)


def check_instruction(function: str, instruction: object, window: Window) -> Instructions:
    """Return the instructions of an aggregate; raises `ConfigError` for one that no group can be asked with."""
    if not isinstance(instruction, str):
        raise ConfigError(f"{function}: instruction={instruction!r} is not a string.", "say what to do with the texts.")
    instructions = instructions_of(instruction, window)
    if isinstance(instructions, RowError):
        raise ConfigError(f"{function}: {instructions.what}", instructions.hint)
    return instructions


def _aggregate_column(chat: Model, context_tokens: int, content: Text, *instruction: object) -> Column:
    """Return the column of aggregates, or without an instruction of summaries; raises `ConfigError` for a wrong one."""
    udf = model_udf("chat", chat)
    function = aggregate_function(udf, context_tokens, summarizes=not instruction)
    for given in instruction:
        if not isinstance(given, Column):
            check_instruction("ai_agg", given, window_of(context_tokens, plain_task(udf)))
    options = [given if isinstance(given, Column) else F.lit(given) for given in instruction]
    return function(text_column("content", content), *options)
