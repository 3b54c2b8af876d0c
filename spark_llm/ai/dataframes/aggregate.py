"""Aggregates of groups that are too large for one row: a stage a level, spread over the cluster.

Each level is two steps. The texts or the answers of a group, in order, are packed into requests (`levels`); then the
requests, wherever their group is, are asked. What was asked is kept, in a folder or by Spark, before the next level
reads it, so that nothing is asked twice.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import uuid4

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.types import MapType, StringType, StructType

from spark_llm.ai.aggregate_plan import CONTEXT_TOKENS, window_of
from spark_llm.ai.aggregates import check_instruction
from spark_llm.ai.aggregation import Instructions
from spark_llm.ai.columns import Model
from spark_llm.ai.dataframes.levels import PackAnswers, PackTexts, level_schema
from spark_llm.ai.packing import measured_bytes_per_token
from spark_llm.ai.plans import model_words
from spark_llm.ai.udf import level_function, plain_task
from spark_llm.errors import ConfigError
from spark_llm.flow.batcher import BYTES_PER_TOKEN
from spark_llm.protocol.canonical import canonical_function, spec_digest
from spark_llm.protocol.identifiers import quoted
from spark_llm.udf.by_task import model_udf
from spark_llm.udf.model_udf import ModelUDF
from spark_llm.udf.parallelism import default_parallelism
from spark_llm.validation.arguments import checks_arguments
from spark_llm.validation.texts import check_text

ANSWER = "answer"  # the column that is added to the groups'
FORMAT = 1  # of the levels in a folder; another one shares nothing with this one


@checks_arguments
def aggregate(
    df: DataFrame,
    *,
    by: str | Sequence[str],
    content: str,
    instruction: str,
    chat: Model,
    context_tokens: int = CONTEXT_TOKENS,
    folder: str | None = None,
) -> DataFrame:
    """Return a row for each group: its columns `by`, and `answer`, the answer to an instruction about all its texts.

    >>> complaints = aggregate(
    ...     reviews, by="product", content="review", instruction="List the complaints.", chat="my-endpoint"
    ... )
    >>> complaints.select("product", "answer.text", "answer.rows", "answer.error")

    The requests are sent when it is called, level by level, and the DataFrame that is evaluated once reads what they
    gave. `answer` is `schemas.AGGREGATE`. Nulls are skipped, and a group of nulls asks nothing. A null in `by` is a
    group, as in GROUP BY. A request that fails is its group's error, and says how many rows it left out.

    Args:
        df: The rows.
        by: The columns of the groups, or one.
        content: The column of the texts, strings.
        instruction: What to do with all texts of a group.
        chat: An endpoint, or a `chat_udf` with its parameters and its policy.
        context_tokens: The model's context window, into which texts are packed, less the prompt and the answer.
        folder: Where each level's answers are kept, as Parquet. A call with the same texts, instruction, model and
            window continues after the last level that is whole there. A level with a failure that may pass is asked
            again. Default: Spark keeps them, as `persist` does.

    Raises:
        ConfigError: A column is missing or has another type, or the instruction, the model or the window is wrong.
    """
    names = _check_columns(df, by, content)
    udf = model_udf("chat", chat)
    instructions = check_instruction("aggregate", instruction, window_of(context_tokens, plain_task(udf)))
    group = F.struct(*map(quoted, names))
    schema = level_schema(df.select(group.alias("group")).schema["group"].dataType)
    texts = df.select(
        group.alias("group"), F.col(quoted(content)).alias("text"), _number(map(quoted, names), quoted(content))
    )
    max_bytes = instructions.budget_tokens * BYTES_PER_TOKEN
    leaves = texts.mapInArrow(PackTexts(max_bytes, schema), schema)
    keep: _Kept | _Folder = _Kept()
    if folder is not None:
        leaves = leaves.persist()
        keep = _Folder(check_text("folder", folder).rstrip("/"), _digest(leaves, udf, instruction, context_tokens))
    result = _answered(leaves, udf, instructions, schema, keep)
    rows, splits = F.col("last") + 1, F.size("cut_rows").cast("long")
    fields: list[str | Column] = [
        "text",
        rows.alias("rows"),
        "leaves",
        "levels",
        "usage",
        "error",
        splits.alias("split_rows"),
    ]
    return result.select("group.*", F.struct(fields).alias(ANSWER))


class _Progress(NamedTuple):
    """What is known of a level that was asked."""

    unfinished: int  # groups that need another level
    prompt_bytes: int
    prompt_tokens: int


def _answered(
    level: DataFrame, udf: ModelUDF, instructions: Instructions, schema: StructType, keep: "_Kept | _Folder"
) -> DataFrame:
    """Ask level after level; return the rows of the last one, one for each group."""
    max_bytes, number = instructions.budget_tokens * BYTES_PER_TOKEN, 0
    while True:
        asked = keep.kept(_asked(level, udf, instructions, number), number)
        progress = _progress_of(asked, instructions)
        measured = measured_bytes_per_token(progress.prompt_bytes, progress.prompt_tokens)
        if measured is not None:
            max_bytes = int(instructions.budget_tokens * measured)
        numbered = asked.withColumn("number", _number(["group"], "part"))
        level = numbered.mapInArrow(PackAnswers(max_bytes, schema), schema)
        if not progress.unfinished:
            return level
        number += 1


def _asked(level: DataFrame, udf: ModelUDF, instructions: Instructions, number: int) -> DataFrame:
    """Return a level with what its requests give; rows without texts ask nothing."""
    spread = level.repartition(default_parallelism(level.sparkSession))
    ask = level_function(udf, instructions, number)
    rows = spread.withColumn("asked", ask(F.col("texts"), F.col("first"), F.col("parts")))
    found = F.col("asked.answers")
    return rows.select(
        *("group", "part", "first", "last", "levels", "usage", "error"),
        F.coalesce("leaves", F.when(found.isNull(), 0).otherwise(F.size(found)).cast("long")).alias("leaves"),
        F.array_union(
            F.coalesce("cut_rows", F.array().cast("array<long>")),
            F.coalesce("asked.cut_rows", F.array().cast("array<long>")),
        ).alias("cut_rows"),
        F.coalesce(found, F.when(F.col("text").isNotNull(), F.array("text"))).alias("answers"),
        F.col("asked.usage").alias("asked_usage"),
        F.col("asked.error").alias("failure"),
        F.aggregate("texts", F.lit(0).cast("long"), lambda total, text: total + F.octet_length(text) + 3).alias(
            "asked_bytes"
        ),
    )


def _progress_of(asked: DataFrame, instructions: Instructions) -> _Progress:
    """Return what a level has come to, by one job over its answers."""
    ended = F.col("failure").isNotNull() | F.col("error").isNotNull()
    groups = asked.groupBy("group").agg(
        F.max(ended).alias("failed"),
        F.sum(F.when(F.col("answers").isNull(), 0).otherwise(F.size("answers"))).alias("answers"),
        F.sum(F.when(F.col("asked_usage.prompt_tokens") > 0, F.col("asked_bytes"))).alias("bytes"),
        F.count_if(F.col("asked_usage.prompt_tokens") > 0).alias("prompts"),
        F.sum("asked_usage.prompt_tokens").alias("tokens"),
    )
    unfinished = F.count_if(~F.col("failed") & (F.col("answers") > 1))
    [row] = groups.agg(unfinished, F.sum("bytes"), F.sum("prompts"), F.sum("tokens")).collect()
    prompts, system_bytes = row[2] or 0, len(instructions.part.encode("utf-8", "replace"))
    return _Progress(row[0], (row[1] or 0) + prompts * system_bytes, row[3] or 0)


class _Kept:
    """Keeps the last level with Spark's `persist`."""

    def __init__(self) -> None:
        self._last: DataFrame | None = None

    def kept(self, asked: DataFrame, number: int) -> DataFrame:  # noqa: ARG002 -- a folder's signature
        """Ask a level, and return what reads its answers; the level before it is freed."""
        asked = asked.persist()
        asked.count()
        if self._last is not None:
            self._last.unpersist()
        self._last = asked
        return asked


class _Folder:
    """Keeps each level in a folder. A level counts once its mark is written, and while the level before is the same.

    A level in which a request may succeed later is asked again by the next call, and so are those after it.
    """

    def __init__(self, folder: str, digest: str) -> None:
        self._path = f"{folder}/{digest}"
        self._before = ""  # the mark of the level before

    def kept(self, asked: DataFrame, number: int) -> DataFrame:
        """Return what reads the answers of a level, which is asked unless it is whole in the folder."""
        path, spark = f"{self._path}/level-{number}", asked.sparkSession
        mark = _mark(spark, path, self._before)
        if mark is None:
            asked.write.mode("overwrite").parquet(path)
            rows, mark = spark.read.parquet(path).count(), uuid4().hex
            marks = spark.range(1).select(*map(F.lit, (rows, mark, self._before)))
            marks.toDF("rows", "mark", "before").write.mode("overwrite").parquet(f"{path}-whole")
        self._before = mark
        return spark.read.schema(asked.schema).parquet(path)


def _mark(spark: SparkSession, path: str, before: str) -> str | None:
    """Return the mark of a level that is whole, comes after this other level, and has no failure to try again."""
    try:
        [found] = spark.read.parquet(f"{path}-whole").collect()
        passing = F.coalesce(F.col("failure.retryable"), F.lit(False))
        [row] = spark.read.parquet(path).agg(F.count("*"), F.count_if(passing)).collect()
    except (AnalysisException, ValueError):  # there is no such path, or no row in it
        return None
    is_whole = row[0] == found["rows"] and not row[1] and before == found["before"]
    return str(found["mark"]) if is_whole else None


def _digest(leaves: DataFrame, udf: ModelUDF, instruction: str, context_tokens: int) -> str:
    """Return a name for the texts and what is asked about them; the order of rows and partitions is not part of it."""
    number = F.xxhash64("group", "part", "texts")
    [row] = leaves.agg(F.count(F.lit(1)), F.bit_xor(number), F.sum(number.cast("decimal(38,0)"))).collect()
    asked = canonical_function("aggregate", ("content",), model_words(udf.request_spec))
    return spec_digest([FORMAT, asked, instruction, context_tokens, [str(value) for value in row]])


def _number(groups: Iterable[str], order: str) -> Column:
    """Return a row's number in its group from 1 on; the rows then are in order, one group after the other."""
    return F.row_number().over(Window.partitionBy(*groups).orderBy(order)).alias("number")


def _check_columns(df: DataFrame, by: str | Sequence[str], content: str) -> list[str]:
    """Return the names of the groups' columns; raises `ConfigError` for one that is missing or of a wrong type."""
    if isinstance(by, Column) or not all(isinstance(name, str) for name in by):
        raise ConfigError(
            f"by={by!r} is not a name or a list of names.", 'write it as by="product"; add a column first.'
        )
    names = [by] if isinstance(by, str) else list(by)
    if not names:
        raise ConfigError("by= has no columns.", "name those of the groups; for one group, a column F.lit('all').")
    for parameter, name in (*(("by", name) for name in names), ("content", content)):
        if name not in df.columns:
            raise ConfigError(f"{parameter}={name!r} is not a column.", f"the columns are {', '.join(df.columns)}.")
        if df.columns.count(name) > 1 or names.count(name) > 1:
            raise ConfigError(f"{parameter}={name!r} is there twice.", "rename or leave out one of them.")
    if ANSWER in names:
        raise ConfigError(f"The result adds a column {ANSWER!r}, which is in by=.", "rename it before the call.")
    for name in names:
        if isinstance(df.schema[name].dataType, MapType):
            raise ConfigError(f"by={name!r} is a map, which cannot be grouped by.", "pass one of its values.")
    kind = df.schema[content].dataType
    if not isinstance(kind, StringType):
        raise ConfigError(f"content={content!r} is of the type {kind.simpleString()}.", "cast it to string.")
    return names
