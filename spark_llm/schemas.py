"""What a row gets back, as Spark types: `CHAT`, `COMPLETE` and `EMBED`."""

from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DoubleType,
    FloatType,
    IntegerType,
    StringType,
    StructField,
    StructType,
)

USAGE = StructType(
    [StructField(f"{name}_tokens", IntegerType()) for name in ("prompt", "completion", "total", "cached", "reasoning")]
)
"""Tokens as the server reported them; over all rows they add up to what was billed."""

ERROR = StructType(
    [
        StructField("kind", StringType()),
        StructField("status", IntegerType()),
        StructField("message", StringType()),
        StructField("retryable", BooleanType()),
    ]
)
"""Why a row was not answered: one of `errors.KINDS`, the HTTP status, the server's words; null when it was."""


def _struct(**fields: DataType) -> StructType:
    return StructType([StructField(name, kind) for name, kind in fields.items()])


CHAT = _struct(
    text=StringType(),
    finish_reason=StringType(),
    usage=USAGE,
    model=StringType(),
    request_id=StringType(),
    attempts=IntegerType(),
    latency_ms=DoubleType(),
    error=ERROR,
)
"""What `chat_udf` gives: `text` and `error`, of which one is null; `latency_ms` is the last try's."""

COMPLETE = CHAT
"""What `complete_udf` gives: the same as `CHAT`."""

EMBED = _struct(
    embedding=ArrayType(FloatType()),
    usage=USAGE,
    model=StringType(),
    attempts=IntegerType(),
    latency_ms=DoubleType(),
    error=ERROR,
)
"""What `embed_udf` gives: `embedding`, as long as the model's dimension, or `error`."""


def with_choices(schema: StructType) -> StructType:
    """Return `schema` with `choices array<string>`, as a UDF with n > 1 gives it."""
    return StructType([*schema.fields, StructField("choices", ArrayType(StringType()))])


def with_parsed(schema: StructType, parsed: DataType) -> StructType:
    """Return `schema` with `parsed`, as a UDF with `returns` gives it."""
    return StructType([*schema.fields, StructField("parsed", parsed)])
