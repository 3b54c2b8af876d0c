"""Columns of the AI functions' answers, made of columns and constants."""

from pyspark.sql import Column
from pyspark.sql import functions as F

from spark_llm.ai.catalog import FUNCTIONS
from spark_llm.ai.udf import chat_function
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.errors import ConfigError
from spark_llm.udf.by_task import model_udf
from spark_llm.udf.model_udf import ModelUDF
from spark_llm.validation.parameter import PARAMETER_KINDS

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


def _constant(value: object) -> Column:
    return F.array(*map(F.lit, value)) if isinstance(value, (list, tuple)) else F.lit(value)


def text_column(name: str, text: object) -> Column:
    """Return a column that was given as one, or by its name; raises `ConfigError` for anything else."""
    if not isinstance(text, (Column, str)):
        raise ConfigError(f"{name}={text!r} is not a column.", "pass a column or its name; a value is F.lit(value).")
    return F.col(text) if isinstance(text, str) else text
