"""Columns of the AI functions' answers, made of columns and constants."""

from collections.abc import Mapping
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StringType

from spark_llm.ai.catalog import FUNCTIONS
from spark_llm.ai.udf import chat_function
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.errors import ConfigError
from spark_llm.udf.by_task import model_udf
from spark_llm.udf.model_udf import ModelUDF
from spark_llm.validation.parameter import PARAMETER_KINDS, Parameter

Model = str | Endpoint | ModelUDF
Text = Column | str


def function_column(name: str, chat: Model, content: Text, **options: object) -> Column:
    """Return the column of a function's answers; raises `ConfigError` for a constant option that is wrong."""
    defaults = {each.name: each for each in FUNCTIONS[name].parameters if each.extra}
    options = {
        key: value
        for key, value in options.items()
        if isinstance(value, Column) or key not in defaults or not defaults[key].is_default(value)
    }
    text, *others = FUNCTIONS[name].with_options(options).parameters
    constants = {}
    for parameter in others:
        if not isinstance(option := options[parameter.name], Column):
            constants[parameter.name] = option
            if not parameter.accepts(option):
                raise ConfigError(
                    f"ai_{name}: {parameter.name}={option!r} is not {PARAMETER_KINDS[parameter.kind]}.",
                    "pass one, or a column of them.",
                )
    if (error := FUNCTIONS[name].option_error(constants)) is not None:
        raise ConfigError(f"ai_{name}: {error.what}", error.hint)
    columns = [_column(parameter, options[parameter.name]) for parameter in others]
    return chat_function(name, model_udf("chat", chat), options)(text_column(text.name, content), *columns)


def _column(parameter: Parameter, value: Any) -> Column:  # noqa: ANN401 -- a column, or a value that the parameter accepts
    if isinstance(value, Column):
        return value
    if parameter.kind == "examples":
        pairs = [(each["content"], each["label"]) if isinstance(each, Mapping) else each for each in value]
        return F.array(*(F.struct(F.lit(text).alias("content"), F.lit(label).alias("label")) for text, label in pairs))
    if isinstance(value, Mapping):
        return F.create_map(*(F.lit(each) for entry in value.items() for each in entry))
    return F.array(*map(F.lit, value)) if isinstance(value, (list, tuple)) else F.lit(value)


def text_column(name: str, text: object) -> Column:
    """Return a column that was given as one, or by its name; raises `ConfigError` for anything else."""
    if not isinstance(text, (Column, str)):
        raise ConfigError(f"{name}={text!r} is not a column.", "pass a column or its name; a value is F.lit(value).")
    return F.col(text) if isinstance(text, str) else text


def text_column_of(df: DataFrame, name: str, text: object) -> Column:
    """Return a column of a DataFrame, given as one or by its name; raises `ConfigError` unless it has strings."""
    column = text_column(name, text)
    try:
        kind = df.select(column.alias(name)).schema[name].dataType
    except AnalysisException:
        given = text if isinstance(text, str) else column
        raise ConfigError(
            f"{name}={given!r} is not a column of these rows.", f"their columns are {', '.join(df.columns)}."
        ) from None
    if not isinstance(kind, StringType):
        raise ConfigError(f"{name} is of the type {kind.simpleString()}.", 'cast it: F.col("id").cast("string").')
    return column
