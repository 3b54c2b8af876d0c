"""Groups of rows with similar contents, by the vectors of an embedding model.

Each distinct content is one node, and is embedded once. A node belongs to one part, and is sent to half of the others:
so each pair of nodes meets in one part. A part finds the pairs that are near, and keeps fewer links than it has nodes;
one task makes groups of all links. The rows travel with the nodes, so nothing is evaluated a second time.
"""

from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from spark_llm.ai.columns import Model, Text, text_column_of
from spark_llm.ai.dataframes.embedding import vector_error
from spark_llm.ai.dataframes.groups import NamedGroups, NearPairs
from spark_llm.ai.dataframes.parts import Batches, check_added_names, nullable, part_numbers, place_of, runs
from spark_llm.schemas import ERROR, USAGE
from spark_llm.udf.by_task import model_udf
from spark_llm.udf.model_udf import ModelUDF
from spark_llm.udf.parallelism import default_parallelism
from spark_llm.udf.spark_types import arrow_type
from spark_llm.validation.arguments import checks_arguments
from spark_llm.validation.numbers import check_number

_GROUP, _USAGE, _ERROR = "duplicate_group", "usage", "error"
_OWN, _OTHER, _ROW = 0, 1, 2  # what a record in a part is: a node of the part, one of another part, or a row


@checks_arguments
def dedupe(df: DataFrame, content: Text, embed: Model, threshold: float) -> DataFrame:
    """Return the rows with the group of near-duplicates that each is in: `duplicate_group`, `usage` and `error`.

    >>> groups = dedupe(articles, "body", "my-embedding-endpoint", 0.95)
    >>> key = F.coalesce("duplicate_group", F.expr("uuid()"))  # a row without a group stays
    >>> groups.withColumn("key", key).dropDuplicates(["key"]).drop("key")

    Two contents are near if the cosine similarity of their vectors is at least `threshold`. A group has all contents
    that are connected by near pairs, so its first and its last one may be less similar. Its name, a string, comes from
    its contents: equal rows give equal groups, however they are partitioned. A content that is near no other one is a
    group of its own.

    The rows are evaluated once, and each distinct content is embedded once; one of its rows has the tokens as `usage`.
    A null or blank content has neither group nor error, and costs nothing. Rows whose embedding failed, or is a vector
    of zeros, have the `error`. All pairs of distinct contents are compared.

    Args:
        df: The rows.
        content: The column of the texts, or its name.
        embed: The model of the vectors: an endpoint, or an `embed_udf`.
        threshold: The least similarity of near contents, above 0 and up to 1.

    Raises:
        ConfigError: An argument is invalid, or a column has a name that the result adds.
    """
    check_number("threshold", threshold, 0, 1, exclusive_minimum=True, hint="set it within that range, as in 0.95.")
    column, udf = text_column_of(df, "content", content), model_udf("embed", embed)
    check_added_names("rows have", df.schema, _GROUP, _USAGE, _ERROR)
    numbers = part_numbers(df.sparkSession, 2 * default_parallelism(df.sparkSession) - 1)
    payload = StructType(
        [StructField("row", nullable(df.schema)), StructField(_USAGE, USAGE), StructField(_ERROR, ERROR)],
    )
    links = StructType(
        [StructField("digest", StringType()), StructField("linked", StringType()), StructField("payload", payload)]
    )
    embedded = _embedded(df, column, udf, len(numbers))
    records = (
        _records(embedded, payload, numbers).repartition(len(numbers), "part").sortWithinPartitions("part", "kind")
    )
    linked = records.mapInArrow(_FindLinks(threshold, links), links)
    # The links go to one task; the rows pass it by.
    place = F.when(F.col("payload").isNotNull(), place_of(F.xxhash64("digest"), len(numbers))).otherwise(0)
    together = linked.repartition(len(numbers), _number_at(place, numbers)).mapInArrow(_JoinLinks(links), links)
    of_content = Window.partitionBy("digest")
    found = together.select(
        "payload",
        F.min("linked").over(of_content).alias(_GROUP),
        F.first(F.col("payload")[_ERROR], ignorenulls=True).over(of_content).alias(_ERROR),
    )
    rows = found.where("payload IS NOT NULL")
    return rows.select("payload.row.*", _GROUP, F.col("payload")[_USAGE].alias(_USAGE), _ERROR)


def _number_at(place: Column, numbers: list[int]) -> Column:
    return F.element_at(F.array(*map(F.lit, numbers)), place + 1)


def _embedded(df: DataFrame, content: Column, embed: ModelUDF, parts: int) -> DataFrame:
    """Return the rows with the digest of their content, and the embedding of the first row of each content."""
    rows = df.select(F.struct("*").alias("row"), content.alias("content")).select(
        "row", "content", F.substring(F.sha2("content", 256), 1, 32).alias("digest")
    )
    is_first = F.row_number().over(Window.partitionBy("digest").orderBy("digest")) == 1
    distinct = rows.repartition(parts, "digest").withColumn("content", F.when(is_first, F.col("content")))
    answered = distinct.select("row", "digest", embed("content").alias("answer"))
    answer = F.col("answer")
    return answered.select(
        "row",
        "digest",
        answer["embedding"].alias("vector"),
        answer[_USAGE].alias(_USAGE),
        vector_error(answer).alias(_ERROR),
    )


def _records(embedded: DataFrame, payload: StructType, numbers: list[int]) -> DataFrame:
    """Return what each part reads: its nodes, the nodes of others that it compares them with, and rows."""
    count = len(numbers)
    place = place_of(F.xxhash64("digest"), count)

    def record(kind: int, distance: Column) -> Column:
        return F.struct(_number_at((place + distance) % count, numbers).alias("part"), F.lit(kind).alias("kind"))

    row, nodes = record(_ROW, F.lit(0)), F.array(record(_OWN, F.lit(0)))
    if count > 1:
        # The number of parts is odd, so each two of them are at most this far apart in one direction only.
        distances = F.sequence(F.lit(1), F.lit(count // 2))
        nodes = F.concat(nodes, F.transform(distances, lambda distance: record(_OTHER, distance)))
    is_node = F.col("vector").isNotNull() & F.col(_ERROR).isNull()
    every = F.explode(F.when(is_node, F.concat(F.array(row), nodes)).otherwise(F.array(row))).alias("record")
    is_row = F.col("record")["kind"] == _ROW
    return embedded.select("*", every, is_node.alias("is_node")).select(
        F.col("record")["part"].alias("part"),
        F.col("record")["kind"].alias("kind"),
        "digest",
        F.when(~is_row, F.col("vector")).alias("vector"),
        F.when(is_row & F.col("is_node"), F.col("digest")).alias("linked"),
        F.when(is_row, F.struct("row", _USAGE, _ERROR)).cast(payload).alias("payload"),
    )


@dataclass(frozen=True)
class _FindLinks:
    """The function of the parts; it is pickled. It passes rows on, and yields the links of each part."""

    threshold: float
    schema: StructType

    def __call__(self, batches: Batches) -> Batches:
        number, pairs = None, NearPairs(self.threshold)
        for batch in batches:
            for run in runs(batch):
                part, kind = run.column(0)[0].as_py(), run.column(1)[0].as_py()
                if part != number:
                    yield _without_rows(self.schema, *pairs.links())
                    number, pairs = part, NearPairs(self.threshold)
                if kind == _ROW:
                    yield _as(self.schema, [run.column(2), run.column(4), run.column(5)])
                else:
                    (pairs.add if kind == _OWN else pairs.search)(run.column(2), run.column(3))
        yield _without_rows(self.schema, *pairs.links())


@dataclass(frozen=True)
class _JoinLinks:
    """The function of the task that has all links; it is pickled. It passes rows on, and yields each node's group."""

    schema: StructType

    def __call__(self, batches: Batches) -> Batches:
        groups = NamedGroups()
        for batch in batches:
            is_link = batch.column(2).is_null()
            links = batch.filter(is_link)
            groups.link(links.column(0).to_pylist(), links.column(1).to_pylist())
            yield _as(self.schema, batch.filter(batch.column(2).is_valid()).columns)
        yield _without_rows(self.schema, *(pa.array(names, pa.string()) for names in groups.first_names()))


def _without_rows(schema: StructType, digests: pa.Array, linked: pa.Array) -> pa.RecordBatch:
    return _as(schema, [digests, linked, pa.nulls(len(digests), arrow_type(schema["payload"].dataType))])


def _as(schema: StructType, columns: list[pa.Array]) -> pa.RecordBatch:
    types = (arrow_type(each.dataType) for each in schema)
    cast = [column.cast(kind) for column, kind in zip(columns, types, strict=True)]
    return pa.RecordBatch.from_arrays(cast, names=schema.names)
