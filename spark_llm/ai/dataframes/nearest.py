"""The nearest vectors: for each row of one DataFrame the k rows of another one whose vectors are most similar.

The queries are cut into parts, and the corpus is sent to each of them. A task reads the queries of its part, and then
the corpus batch by batch: one product of matrices for each, of which the k best of each query are kept. So both sides
are evaluated once, and each query leaves in one row.
"""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DoubleType, FloatType, StructField, StructType

from spark_llm.ai.dataframes.embedding import not_comparable
from spark_llm.ai.dataframes.parts import Batches, check_added_names, part_numbers, part_of, runs
from spark_llm.ai.dataframes.vectors import Vectors
from spark_llm.errors import ConfigError
from spark_llm.protocol.identifiers import quoted
from spark_llm.schemas import ERROR
from spark_llm.udf.parallelism import default_parallelism
from spark_llm.udf.spark_types import arrow_type
from spark_llm.validation.arguments import checks_arguments
from spark_llm.validation.numbers import check_whole

MAX_K = 10_000
_MAX_PARTS = 10_000
_NEAREST, _ERROR, _SIMILARITY = "nearest", "error", "similarity"


@checks_arguments
def nearest(
    queries: DataFrame,
    corpus: DataFrame,
    k: int,
    *,
    query_vector: str = "embedding",
    corpus_vector: str = "embedding",
    parts: int | None = None,
) -> DataFrame:
    """Return the queries, each with the `k` rows of the corpus whose vectors have the highest cosine similarity.

    >>> found = nearest(questions, pages, 3).select("question", F.explode("nearest").alias("page"))
    >>> found.select("question", "page.text", "page.similarity")

    Both DataFrames are evaluated once. The result has the columns of the queries, `nearest`: an array of structs with
    `similarity` and the other columns of the corpus, the most similar first, and `error`. A null vector gives a null.
    A vector of zeros, with a number that is not finite, or of another length than all of the corpus has an error; in
    the corpus such a row is left out.

    Args:
        queries: The rows to search for.
        corpus: The rows to search in. Each part of the queries gets a copy of it.
        k: How many rows to find for each query.
        query_vector: The column of the queries with the vectors: arrays of floats or doubles.
        corpus_vector: That of the corpus.
        parts: How many parts the queries have. The vectors of one have to fit into a task's memory. Default: as many
            as tasks run at once.

    Raises:
        ConfigError: A column is missing or has another type, or a number is invalid.
    """
    for side, given in (("queries", queries), ("corpus", corpus)):
        if not isinstance(given, DataFrame):
            raise ConfigError(f"{side}={given!r} is not a DataFrame.", "pass one; of a table it is spark.table(name).")
    check_whole("k", k, 1, MAX_K, hint="set k within that range.")
    count = check_whole("parts", default_parallelism(queries.sparkSession) if parts is None else parts, 1, _MAX_PARTS)
    for name, frame, vector in (("query", queries, query_vector), ("corpus", corpus, corpus_vector)):
        _check_vector(f"{name}_vector", frame.schema, vector)
    others = [each for each in corpus.columns if each != corpus_vector]
    item = StructType([corpus.schema[name] for name in others])
    check_added_names("queries have", queries.schema, _NEAREST, _ERROR)
    check_added_names("corpus has", item, _SIMILARITY)
    numbers = part_numbers(queries.sparkSession, count)
    vector = quoted(query_vector)
    asked = queries.select(
        part_of(F.xxhash64(vector), numbers).alias("part"),
        F.expr("false").alias("in_corpus"),
        F.col(vector).cast("array<float>").alias("vector"),
        F.struct("*").alias("query"),
        F.lit(None).cast(item).alias("item"),
    )
    searched = corpus.select(
        F.explode(F.array(*map(F.lit, numbers))).alias("part"),
        F.expr("true").alias("in_corpus"),
        F.col(quoted(corpus_vector)).cast("array<float>").alias("vector"),
        F.lit(None).cast(queries.schema).alias("query"),
        F.struct(*map(quoted, others)).alias("item"),
    )
    found = nearest_items(asked.unionByName(searched), k, count, queries.schema, item)
    return found.select("query.*", _NEAREST, _ERROR)


def nearest_items(rows: DataFrame, k: int, parts: int, query: StructType, item: StructType) -> DataFrame:
    """Return each query with its `nearest` items and its `error`; a query with a null vector has neither.

    The rows have the columns `part`, `in_corpus`, `vector`, and one of `query` and `item`, of the types given.
    """
    schema = _result_schema(query, item)
    together = rows.repartition(parts, "part").sortWithinPartitions("part", "in_corpus")
    return together.mapInArrow(_Search(k, schema), schema)


def _result_schema(query: StructType, item: StructType) -> StructType:
    """Return the columns of the result, those of the queries in one struct."""
    found = StructType([StructField(_SIMILARITY, FloatType()), *item])
    columns = {"query": query, _NEAREST: ArrayType(found), _ERROR: ERROR}
    return StructType([StructField(name, kind) for name, kind in columns.items()])


def _check_vector(name: str, schema: StructType, column: str) -> None:
    if column not in schema.names:
        raise ConfigError(f"{name}={column!r} is not a column.", f"the columns are {', '.join(schema.names)}.")
    kind = schema[column].dataType
    if not isinstance(kind, ArrayType) or not isinstance(kind.elementType, (FloatType, DoubleType)):
        raise ConfigError(
            f"{name}={column!r} is of the type {kind.simpleString()}.",
            'vectors are arrays of floats, as in df.withColumn("embedding", F.col("answer.embedding")).',
        )


@dataclass(frozen=True)
class _Search:
    """The function of the tasks; it is pickled."""

    k: int
    schema: StructType

    def __call__(self, batches: Batches) -> Batches:
        part = _Part(self.k, self.schema)
        for batch in batches:
            for run in runs(batch):
                number, in_corpus = run.column(0)[0].as_py(), run.column(1)[0].as_py()
                if number != part.number:
                    yield from part.results()
                    part = _Part(self.k, self.schema, number)
                (part.search if in_corpus else part.add)(run)
        yield from part.results()


@dataclass
class _Part:
    """The queries of one part, and the best rows of the corpus so far."""

    k: int
    schema: StructType
    number: int | None = None
    queries: list[pa.RecordBatch] = field(default_factory=list)
    vectors: Vectors | None = None
    items: pa.Array | None = None  # the rows that are among the best of some query

    def add(self, batch: pa.RecordBatch) -> None:
        """Add queries."""
        self.queries.append(batch)

    def search(self, batch: pa.RecordBatch) -> None:
        """Compare the queries with rows of the corpus."""
        vectors = self._begin()
        if vectors is None:
            return
        before = 0 if self.items is None else len(self.items)
        vectors.search(batch.column(2), first=before)
        found = batch.column(4) if self.items is None else pa.concat_arrays([self.items, batch.column(4)])
        self.items = found.take(pa.array(vectors.compacted()))

    def results(self) -> Batches:
        """Yield the queries with what was found for them."""
        vectors = self._begin()
        if vectors is None:
            return
        query_type, nearest_type, error_type = (arrow_type(each.dataType) for each in self.schema)
        similarities, places, counts = vectors.best()
        item_type = nearest_type.value_type
        if self.items is None:  # the corpus has no rows
            fields = [pa.array([], each.type) for each in item_type]
        else:
            fields = [pa.array(similarities), *self.items.take(pa.array(places)).flatten()]
        cast = [values.cast(each.type) for values, each in zip(fields, item_type, strict=True)]
        items = pa.StructArray.from_arrays(cast, fields=list(item_type))
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
        columns = [
            pa.concat_arrays([batch.column(3) for batch in self.queries]).cast(query_type),
            pa.ListArray.from_arrays(offsets, items, mask=pa.array(vectors.has_none)).cast(nearest_type),
            pa.array([message and not_comparable(message) for message in vectors.errors], error_type),
        ]
        yield pa.RecordBatch.from_arrays(columns, names=self.schema.names)

    def _begin(self) -> Vectors | None:
        if self.vectors is None and self.queries:
            self.vectors = Vectors.of([batch.column(2) for batch in self.queries], self.k)
        return self.vectors
