"""The rows of `classify_by_sample`: their different texts, and the decisions on these.

A decision is a row with the digest of a text and the columns `ADDED`.
"""

from collections.abc import Sequence
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType, StringType, StructField

from spark_llm.schemas import ERROR, USAGE

ADDED = (
    StructField("label", StringType()),
    StructField("decided_by", StringType()),
    StructField("probability", DoubleType()),
    StructField("usage", USAGE),
    StructField("embed_usage", USAGE),
    StructField("error", ERROR),
)
LABEL = "answer.parsed"
"""The chat model's label."""


def with_digests(df: DataFrame, text: Column) -> DataFrame:
    """Return each row as a struct, with its content, the content's digest, and whether it is the content's first row.

    Nulls are spread over the partitions; each is the first row of none.
    """
    numbered = df.select(
        F.struct("*").alias("row"), text.alias("content"), F.monotonically_increasing_id().alias("number")
    ).withColumn("digest", F.sha2("content", 256))
    equal = Window.partitionBy("digest", F.expr("CASE WHEN digest IS NULL THEN number END")).orderBy("number")
    return numbered.withColumn("first", F.row_number().over(equal) == 1).drop("number")


def of_sample(rows: DataFrame) -> DataFrame:
    """Return the decisions on the sample, from its columns `answer` and `vector`."""
    return _by_chat(rows, F.lit(None).cast("double"), F.col("vector.usage"))


def of_asked(rows: DataFrame) -> DataFrame:
    """Return the decisions on texts that were asked, because the small model is not sure."""
    return _by_chat(rows, F.col("probability"), F.col("embed_usage"))


def of_model(rows: DataFrame) -> DataFrame:
    """Return the decisions of the small model, on the rows without a `content`."""
    return rows.where("content IS NULL").select(
        "digest",
        "label",
        F.lit("model").alias("decided_by"),
        "probability",
        F.lit(None).cast(USAGE).alias("usage"),
        "embed_usage",
        F.lit(None).cast(ERROR).alias("error"),
    )


def _by_chat(rows: DataFrame, probability: Column, embed_usage: Column) -> DataFrame:
    return rows.select(
        "digest",
        F.col(LABEL).alias("label"),
        F.lit("chat").alias("decided_by"),
        probability.alias("probability"),
        F.col("answer.usage").alias("usage"),
        embed_usage.alias("embed_usage"),
        F.col("answer.error").alias("error"),
    )


def with_decisions(rows: DataFrame, decisions: Sequence[DataFrame]) -> DataFrame:
    """Return the rows with the decisions on their texts; what was paid is in the first row of a text."""
    if not decisions:
        return rows.select("row.*", *(F.lit(None).cast(each.dataType).alias(each.name) for each in ADDED))
    joined = rows.join(reduce(DataFrame.unionByName, decisions), "digest", "left")
    added = [
        F.when(F.col("first"), F.col(each.name)).alias(each.name) if each.dataType == USAGE else F.col(each.name)
        for each in ADDED
    ]
    return joined.select("row.*", *added)
