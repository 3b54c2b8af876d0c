"""Rows that are cut into parts, each of which one task reads: the numbers of the parts, and their runs of rows."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, MapType, StructField, StructType

from spark_llm.errors import ConfigError

Batches = Iterator[pa.RecordBatch]


def part_numbers(spark: SparkSession, count: int) -> list[int]:
    """Return as many whole numbers as there are parts, which Spark's hash brings to as many partitions."""
    found: dict[int, int] = {}
    tried = 0
    while len(found) < count:
        rows = spark.range(tried, tried + 8 * count, 1, 1).selectExpr("cast(id AS int) AS n")
        found |= {place: number for number, place in rows.selectExpr("n", f"pmod(hash(n), {count})").collect()}
        tried += 8 * count
    return list(found.values())


def place_of(digest: Column, count: int) -> Column:
    """Return the place of a row's part among all of them, from 0 on, by a whole number."""
    return F.pmod(digest, F.lit(count)).cast("int")


def part_of(digest: Column, numbers: Sequence[int]) -> Column:
    """Return the number of a row's part."""
    return F.element_at(F.array(*map(F.lit, numbers)), place_of(digest, len(numbers)) + 1)


def runs(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yield the slices of a batch whose first two columns, a part and a small number or a boolean, are the same."""
    if not batch.num_rows:
        return
    parts, kinds = (pc.cast(batch.column(place), pa.int64()).to_numpy() for place in (0, 1))
    edges = [0, *(np.flatnonzero((np.diff(parts) != 0) | (np.diff(kinds) != 0)) + 1).tolist(), batch.num_rows]
    for start, end in pairwise(edges):
        yield batch.slice(start, end - start)


def nullable(data_type: DataType) -> DataType:
    """Return a type whose parts may all be null, as those of a struct that is null are to Arrow."""
    match data_type:
        case StructType():
            return StructType([StructField(each.name, nullable(each.dataType)) for each in data_type])
        case ArrayType():
            return ArrayType(nullable(data_type.elementType))
        case MapType():
            return MapType(data_type.keyType, nullable(data_type.valueType))
    return data_type


def check_added_names(owner: str, schema: StructType, *added: str) -> None:
    """Raise `ConfigError` where a column has the name of one that the result adds."""
    if taken := [name for name in added if name in schema.names]:
        raise ConfigError(
            f"The {owner} a column {taken[0]!r}, which the result adds.", "rename it, as in withColumnRenamed()."
        )
