"""The embeddings of texts that are compared: their vectors, and the errors of texts that have none to compare."""

from typing import Any

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from spark_llm.ai.dataframes.vectors import NO_DIRECTION
from spark_llm.errors import HINT
from spark_llm.protocol.values import RowError
from spark_llm.schemas import ERROR

_ONE_MODEL = "embed all texts with the same model, and leave this one out."


def not_comparable(message: str) -> dict[str, Any]:
    """Return the error of a row whose vector cannot be compared."""
    return RowError("invalid_response", None, f"{message}.{HINT}{_ONE_MODEL}", retryable=False)._asdict()


def vector_error(answer: Column) -> Column:
    """Return the error of an embedding, by its answer; a vector of zeros has one."""
    no_direction = struct_of(ERROR, **{name: F.lit(value) for name, value in not_comparable(NO_DIRECTION).items()})
    is_zero = F.forall(answer["embedding"], lambda number: number == 0)
    return F.when(answer["error"]["kind"].isNotNull(), answer["error"]).when(is_zero, no_direction)


def struct_of(schema: StructType, **fields: Column) -> Column:
    """Return a struct of this type; fields that are not given are null."""
    columns = (fields.get(each.name, F.lit(None)).cast(each.dataType).alias(each.name) for each in schema)
    return F.struct(*columns)
