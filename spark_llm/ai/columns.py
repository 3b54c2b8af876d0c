"""Columns of the AI functions' answers, made of columns and constants."""

from pyspark.sql import Column
from pyspark.sql import functions as F

from spark_llm.ai.aggregate_plan import window_of
from spark_llm.ai.aggregation import Instructions, Window, instructions_of
from spark_llm.ai.catalog import FUNCTIONS, PARAMETER_KINDS
from spark_llm.ai.udf import aggregate_function, chat_function, plain_task
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.errors import ConfigError
from spark_llm.protocol.values import RowError
from spark_llm.udf.by_task import model_udf
from spark_llm.udf.model_udf import ModelUDF

Model = str | Endpoint | ModelUDF
Text = Column | str


def function_column(name: str, chat: Model, content: Text, *options: object) -> Column:
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
    return chat_function(name, model_udf("chat", chat))(text_column(text.name, content), *columns)


def aggregate_column(chat: Model, context_tokens: int, content: Text, *instruction: object) -> Column:
    """Return the column of aggregates, or without an instruction of summaries; raises `ConfigError` for a wrong one."""
    udf = model_udf("chat", chat)
    function = aggregate_function(udf, context_tokens, summarizes=not instruction)
    for given in instruction:
        if not isinstance(given, Column):
            check_instruction("ai_agg", given, window_of(context_tokens, plain_task(udf)))
    options = [given if isinstance(given, Column) else F.lit(given) for given in instruction]
    return function(text_column("content", content), *options)


def check_instruction(function: str, instruction: object, window: Window) -> Instructions:
    """Return the instructions of an aggregate; raises `ConfigError` for one that no group can be asked with."""
    if not isinstance(instruction, str):
        raise ConfigError(f"{function}: instruction={instruction!r} is not a string.", "say what to do with the texts.")
    instructions = instructions_of(instruction, window)
    if isinstance(instructions, RowError):
        raise ConfigError(f"{function}: {instructions.what}", instructions.hint)
    return instructions


def _constant(value: object) -> Column:
    return F.array(*map(F.lit, value)) if isinstance(value, (list, tuple)) else F.lit(value)


def text_column(name: str, text: object) -> Column:
    """Return a column that was given as one, or by its name; raises `ConfigError` for anything else."""
    if not isinstance(text, (Column, str)):
        raise ConfigError(f"{name}={text!r} is not a column.", "pass a column or its name; a value is F.lit(value).")
    return F.col(text) if isinstance(text, str) else text
