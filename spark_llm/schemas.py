"""The result of a row as Spark types: `CHAT`, `COMPLETE`, `EMBED`, `RERANK`; `PREDICT` with the type of predictions."""

from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    StringType,
    StructField,
    StructType,
)


def _struct(**fields: DataType) -> StructType:
    return StructType([StructField(name, kind) for name, kind in fields.items()])


USAGE = _struct(
    prompt_tokens=IntegerType(),
    completion_tokens=IntegerType(),
    total_tokens=IntegerType(),
    cached_tokens=IntegerType(),
    reasoning_tokens=IntegerType(),
    cache_write_tokens=IntegerType(),
    service_tier=StringType(),
    image_tokens=IntegerType(),
    audio_tokens=IntegerType(),
)
"""Tokens as the server reported them, and its service tier; over all rows they add up to the billed tokens.

New fields are last: tables of older versions have those before them.
"""

TEXT_CHUNKS = ArrayType(
    _struct(position=IntegerType(), start=IntegerType(), text=StringType(), heading=StringType()), containsNull=False
)
"""The chunks of a text: each one's number and the place of its first character, both from 0, and its heading."""

ERROR = _struct(kind=StringType(), status=IntegerType(), message=StringType(), retryable=BooleanType())
"""Why a row failed: one of `errors.KINDS`, the HTTP status, the message; null for an answered row."""

TOOL_CALL = _struct(id=StringType(), name=StringType(), arguments=StringType())
"""A call of a tool: the `id` that its result has to name, and its `arguments` as JSON."""

LABEL = _struct(confidence=DoubleType(), rationale=StringType())
"""What an answer has beside its label: the confidence, above 0 and at most 1, and the reason; null unless asked for.

They are last: tables of older versions have the fields before them.
"""

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
"""The result of `chat_udf`: `text` or `error`, the other is null; `latency_ms` is that of the last attempt."""

COMPLETE = CHAT
"""The result of `complete_udf`: the same as `CHAT`."""

AGGREGATE = _struct(
    text=StringType(),
    rows=LongType(),
    leaves=LongType(),
    levels=IntegerType(),
    usage=USAGE,
    error=ERROR,
    split_rows=LongType(),
)
"""The result of an aggregate: the one answer about all texts of a group, `text`, or `error`; the other is null.

`rows` is how many texts are not null. `leaves` is how many requests carried texts, and `levels` how many requests lie
on the way from a text to the answer: 1 where all texts fit into one request. `usage` is that of all requests of the
group. `split_rows` is how many texts were longer than a request, and were cut into parts.
"""

EMBED = _struct(
    embedding=ArrayType(FloatType()),
    usage=USAGE,
    model=StringType(),
    attempts=IntegerType(),
    latency_ms=DoubleType(),
    error=ERROR,
)
"""The result of `embed_udf`: `embedding`, as long as the model's dimension, or `error`."""

RERANK = _struct(
    ranking=ArrayType(_struct(index=IntegerType(), score=DoubleType(), text=StringType())),
    usage=USAGE,
    model=StringType(),
    attempts=IntegerType(),
    latency_ms=DoubleType(),
    error=ERROR,
)
"""The result of `rerank_udf`: `ranking`, the best document first, or `error`; `index` counts the array from 0."""

PREDICT = _struct(model=StringType(), attempts=IntegerType(), latency_ms=DoubleType(), error=ERROR)
"""The result of `predict_udf` beside its first field, `prediction`; custom models report no tokens."""


def with_prediction(prediction: DataType) -> StructType:
    """Return the result of a `predict_udf` whose `returns` is this type: `prediction`, then `PREDICT`."""
    return StructType([StructField("prediction", prediction), *PREDICT.fields])


def with_choices(schema: StructType) -> StructType:
    """Return `schema` with the field `choices array<string>`, for a UDF with n > 1."""
    return StructType([*schema.fields, StructField("choices", ArrayType(StringType()))])


def with_tool_calls(schema: StructType) -> StructType:
    """Return `schema` with the field `tool_calls`, an array of `TOOL_CALL`, for a UDF with `tools`."""
    return StructType([*schema.fields, StructField("tool_calls", ArrayType(TOOL_CALL))])


def with_parsed(schema: StructType, parsed: DataType) -> StructType:
    """Return `schema` with the field `parsed`, for a UDF with `returns`."""
    return StructType([*schema.fields, StructField("parsed", parsed)])
