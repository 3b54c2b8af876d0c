"""A join by meaning: pairs of rows that meet a condition, as a chat model judges it.

Each row of the left side is in one part, with all of the right side's vectors, as in `nearest`. So both sides are
evaluated once, and the pairs are asked where they were found. A row of the right side without a vector goes through
one part as a query, which finds nothing: so its error leaves in one row.
"""

from collections.abc import Mapping
from typing import NamedTuple

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, BooleanType, FloatType, StructField, StructType

from spark_llm import schemas
from spark_llm.ai.columns import Model, function_column
from spark_llm.ai.dataframes.embedding import struct_of, vector_error
from spark_llm.ai.dataframes.nearest import MAX_K, nearest_items
from spark_llm.ai.dataframes.parts import nullable, part_numbers, part_of
from spark_llm.errors import ConfigError
from spark_llm.protocol.identifiers import check_distinct, quoted
from spark_llm.protocol.template import Template
from spark_llm.udf.by_task import model_udf
from spark_llm.udf.model_udf import ModelUDF
from spark_llm.udf.parallelism import default_parallelism
from spark_llm.validation.arguments import checks_arguments
from spark_llm.validation.numbers import check_whole

MAX_PAIRS = 100_000  # that are asked without near= and allow=
_ANSWER = schemas.with_parsed(schemas.CHAT, BooleanType())
_EXAMPLE = 'condition="{left.title} was written by {right.name}"'
_KEPT = {"matches": "answer.parsed OR answer.error IS NOT NULL", "asked": "true"}


@checks_arguments
def semantic_join(
    left: DataFrame,
    right: DataFrame,
    condition: str,
    *,
    chat: Model,
    embed: Model | None = None,
    near: int | None = 20,
    allow: int | None = None,
    keep: str = "matches",
) -> DataFrame:
    """Return the pairs of rows that meet a condition: `left`, `right`, `similarity` and `answer`.

    >>> pairs = semantic_join(books, people, "{left.title} was written by {right.name}", chat="llm", embed="vectors")
    >>> pairs.where("answer.parsed").select("left.title", "right.name")

    For each row of the left side, the condition is asked of the `near` rows of the right side with the most similar
    vectors. What is embedded are the columns that the condition names, each value on a line of its own. Both sides are
    evaluated once. A row with a null in one of these columns, or with blanks in all of them, is in no pair and costs
    nothing.

    `left` and `right` are structs of the rows, `similarity` is the cosine of their vectors, and `answer` is that of
    `llm_filter`. A pair that failed has its `answer.error`. A row whose embedding failed is there once: with that error
    and a null for the other side. Tokens of embeddings are not in the result; `progress` counts them.

    Args:
        left: The rows that each look for partners.
        right: The rows that they look among. Each part of the left side gets a copy of the vectors.
        condition: A sentence with fields, `{left.title}` and `{right.name}`; each side has one at least.
        chat: The model that judges: an endpoint, or a `chat_udf` without a type of its own.
        embed: The model of the vectors: an endpoint, or an `embed_udf`. Not needed with `near=None`.
        near: How many rows of the right side to ask about for each of the left side. None asks about all pairs: then
            both sides are counted first, which evaluates them once more.
        allow: How many pairs `near=None` may ask about, if more than 100,000.
        keep: "matches" keeps the pairs that meet the condition and those that failed; "asked" keeps all, so that tokens
            add up to the bill.

    Raises:
        ConfigError: An argument is invalid, a side lacks a column of the condition, or there are too many pairs.
    """
    sides = {"left": left, "right": right}
    sentence = _Sentence.parse(condition, sides)
    if keep not in _KEPT:
        raise ConfigError(f"keep={keep!r} is not known.", 'write "matches" or "asked".')
    if near is None:
        pairs = _all_pairs(sides, sentence, check_whole("allow", MAX_PAIRS if allow is None else allow, 1))
    else:
        check_whole("near", near, 1, MAX_K)
        if allow is not None:
            raise ConfigError(f"allow={allow} is the number of pairs for near=None.", "leave allow= or near= out.")
        if embed is None:
            raise ConfigError(
                "semantic_join needs embed=, to find the rows that are near.",
                'pass an endpoint, as in embed="my-embedding-endpoint"; or near=None, to ask about all pairs.',
            )
        pairs = _near_pairs(sides, sentence, model_udf("embed", embed), near)
    asked = pairs.withColumn(
        "answer", function_column("filter", chat, sentence.content(), condition=sentence.condition)
    )
    failed = struct_of(_ANSWER, error=F.col("error"))
    answer = F.when(F.col("error").isNotNull(), failed).otherwise(F.col("answer"))
    return asked.select("left", "right", "similarity", answer.alias("answer")).where(_KEPT[keep])


class _Sentence(NamedTuple):
    """A condition: the columns of each side that it names, and the condition as `ai_filter` takes it."""

    columns: Mapping[str, list[str]]
    condition: str

    @classmethod
    def parse(cls, condition: str, sides: Mapping[str, DataFrame]) -> "_Sentence":
        """Parse a condition; raises `ConfigError` for a broken one, and for a column that a side lacks."""
        starts = tuple(f"{side}." for side in sides)
        hint = "write a field with its side, {left.title} or {right.name}"
        template = Template.parse("condition", condition, lambda name: name.startswith(starts), hint)
        columns: dict[str, list[str]] = {side: [] for side in sides}
        for side, name in (field.split(".", 1) for field in dict.fromkeys(template.fields)):
            columns[side].append(name)
        for side, frame in sides.items():
            _check_side(side, frame, columns[side])
        fields = [f"{side}.{name}" for side, names in columns.items() for name in names]
        return cls(columns, template.renamed({field: f"field{number}" for number, field in enumerate(fields)}))

    def content(self) -> Column:
        """Return the struct of the fields of pairs; a side that is null has null fields, and is not asked about."""
        values = (F.col(side)[name] for side, names in self.columns.items() for name in names)
        return F.struct(*(value.alias(f"field{number}") for number, value in enumerate(values)))

    def rows(self, side: str, frame: DataFrame) -> DataFrame:
        """Return the rows of a side as structs, each with its `text`; null for a null in a column of the condition."""
        line = F.lit("\n")
        texts = [part for name in self.columns[side] for part in (line, F.col(quoted(name)).cast("string"))]
        return frame.select(F.struct("*").alias(side), F.concat(*texts[1:]).alias("text"))


def _check_side(side: str, frame: DataFrame, names: list[str]) -> None:
    if not names:
        raise ConfigError(f"condition= names no column of the {side} side.", f"write both, as in {_EXAMPLE}.")
    check_distinct(f"{side}= has the columns", frame.columns, str)
    for name in names:
        if name not in frame.columns:
            raise ConfigError(
                f"condition= names {{{side}.{name}}}, which is not a column of {side}=.",
                f"the columns are {', '.join(frame.columns)}.",
            )
        if isinstance(frame.schema[name].dataType, BinaryType):
            raise ConfigError(f"{{{side}.{name}}} is of the type binary.", "cast it to a string, or name another one.")


def _near_pairs(sides: Mapping[str, DataFrame], sentence: _Sentence, embed: ModelUDF, near: int) -> DataFrame:
    spark = sides["left"].sparkSession
    count = default_parallelism(spark)
    numbers = part_numbers(spark, count)
    rows = {side: sentence.rows(side, frame) for side, frame in sides.items()}
    types = {side: nullable(frame.schema[side].dataType) for side, frame in rows.items()}
    query = StructType([*(StructField(side, types[side]) for side in sides), StructField("error", schemas.ERROR)])
    item = StructType([StructField("right", types["right"])])
    embedded = {
        # Equal texts come into one task, which sends each of them once.
        side: frame.repartition(count, "text")
        .select(side, "text", embed("text").alias("vector"))
        .select(
            side, "text", F.col("vector")["embedding"].alias("vector"), vector_error(F.col("vector")).alias("error")
        )
        for side, frame in rows.items()
    }
    is_found, error = F.col("error").isNull(), F.col("error")
    asked = embedded["left"].select(
        part_of(F.xxhash64("text"), numbers).alias("part"),
        F.expr("false").alias("in_corpus"),
        F.when(is_found, F.col("vector")).alias("vector"),
        struct_of(query, left=F.col("left"), error=error).alias("query"),
        F.lit(None).cast(item).alias("item"),
    )
    everywhere = F.array(*map(F.lit, numbers))
    searched = embedded["right"].select(
        F.explode(F.when(is_found, everywhere).otherwise(F.slice(everywhere, 1, 1))).alias("part"),
        is_found.alias("in_corpus"),
        F.when(is_found, F.col("vector")).alias("vector"),
        F.when(~is_found, struct_of(query, right=F.col("right"), error=error)).alias("query"),
        F.when(is_found, F.struct("right")).cast(item).alias("item"),
    )
    found = nearest_items(asked.unionByName(searched), near, count, query, item)
    pair = found.select(
        "query", F.explode_outer("nearest").alias("pair"), F.coalesce(F.col("query")["error"], "error").alias("error")
    )
    return pair.select(
        F.col("query")["left"].alias("left"),
        F.coalesce(F.col("pair")["right"], F.col("query")["right"]).alias("right"),
        F.col("pair")["similarity"].alias("similarity"),
        "error",
    ).where("error IS NOT NULL OR right IS NOT NULL")


def _all_pairs(sides: Mapping[str, DataFrame], sentence: _Sentence, most: int) -> DataFrame:
    counts = {side: frame.count() for side, frame in sides.items()}
    pairs = counts["left"] * counts["right"]
    if pairs > most:
        raise ConfigError(
            f"near=None asks about {counts['left']:,} × {counts['right']:,} = {pairs:,} pairs, more than {most:,}.",
            f"pass near=20, which asks about the most similar ones; or allow={pairs}.",
        )
    spark = sides["left"].sparkSession
    numbers = part_numbers(spark, default_parallelism(spark))
    parts = {
        "left": part_of(F.xxhash64("text"), numbers),
        "right": F.explode(F.array(*map(F.lit, numbers))),
    }
    left, right = (
        sentence.rows(side, frame)
        .where(F.col("text").rlike(r"\S"))
        .select(side, parts[side].alias("part"))
        .repartition(len(numbers), "part")
        for side, frame in sides.items()
    )
    none = (
        F.lit(None).cast(kind).alias(name) for name, kind in (("similarity", FloatType()), ("error", schemas.ERROR))
    )
    return left.join(right, "part").select("left", "right", *none)
