"""The answer type that a user gives: a `StructType` or a pydantic model. DDL needs a session first."""

from pyspark.sql.types import StructType

from spark_llm.errors import ConfigError
from spark_llm.protocol.structured.output import StructuredOutput
from spark_llm.protocol.structured.pydantic_models import is_model, shape_of_model
from spark_llm.udf.spark_types import shape_of


def structured_output_of(returns: object, parameter: str = "returns") -> StructuredOutput:
    """Return the structured output for an answer type; raises `ConfigError` for any other object."""
    if isinstance(returns, StructType):
        return StructuredOutput("answer", shape_of(returns))
    if isinstance(returns, type) and is_model(returns):
        return StructuredOutput(returns.__name__, shape_of_model(returns))
    raise ConfigError(
        f"{parameter}={returns!r} is not an answer type.",
        f'pass DDL, as in {parameter}="mood STRING, stars INT", a StructType, or the class of a pydantic model.',
    )
