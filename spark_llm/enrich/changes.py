"""What there is to do for a table: which rows, and what of each row is asked.

It is worked out by one query over the source and the target, which Spark evaluates once, and written down. A row is a
struct of each kind of column, so that no name of the user's meets one of ours.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, MapType, StringType, StructField, StructType

from spark_llm.protocol.identifiers import CaseFold, quoted
from spark_llm.udf.lazy_udf import Call


@dataclass(frozen=True)
class Asking:
    """A column to fill: its name, its type, the call that fills it, the call's arguments, and its fingerprint."""

    name: str
    returns: StructType
    call: Call
    arguments: tuple[Column, ...]
    types: tuple[DataType, ...]
    fingerprint: Column

    @property
    def mark(self) -> str:
        """The name of the column that keeps what an answer is of."""
        return mark_of(self.name)


def mark_of(name: str) -> str:
    """Return the name of the column that keeps what the answers in a column are of."""
    return f"{name}_fingerprint"


@dataclass(frozen=True)
class Layout:
    """Which columns of the source are the key, and which go along into the target as they are."""

    key: tuple[str, ...]
    carried: tuple[str, ...]
    same: CaseFold = str.lower  # which names are one to the session


def col(*parts: str) -> Column:
    """Return a column, or a field of it, by its plain name."""
    return F.col(quoted(parts))


def pending_rows(
    source: DataFrame,
    target: DataFrame | None,
    layout: Layout,
    asking: Sequence[Asking],
    *,
    retry_errors: bool,
    delete_missing: bool,
) -> DataFrame:
    """Return the rows for which there is something to do; all of them where there is no `target` yet.

    Columns: `key`, `carried`, `fingerprints`, `asks` (what is asked), `writes` (what is written: also a null where a
    text has gone), `fresh` (the target has no such row), `moved` (what goes along has changed), `gone` (the source has
    no such row), `copies` of its key, `size` in bytes of what is asked, and `a<i>_<j>`: argument j of column i.
    """
    rows = source.select(
        _struct(layout.key).alias("key"),
        *([_struct(layout.carried).alias("carried")] if layout.carried else []),
        F.struct(*(each.fingerprint.alias(each.name) for each in asking)).alias("fingerprints"),
        *(
            argument.cast(plain(kind)).alias(f"a{i}_{j}")
            for i, each in enumerate(asking)
            for j, (argument, kind) in enumerate(zip(each.arguments, each.types, strict=True))
        ),
    ).withColumn("copies", _copies("key", layout.key))
    if target is None:
        nothing = F.lit(None)
        there = rows.select("*", nothing.cast("boolean").alias("there"), F.lit(False).alias("gone"))
        marks = {each.name: nothing.cast("string") for each in asking}
        retry = {each.name: F.lit(False) for each in asking}
        moved = F.lit(False)
    else:
        there, marks, retry, moved = _compared(rows, target, layout, asking, delete_missing=delete_missing)
    writes = {}
    for each in asking:
        new = ~col("fingerprints", each.name).eqNullSafe(marks[each.name])
        again = col("fingerprints", each.name).isNotNull() & retry[each.name] if retry_errors else F.lit(False)
        writes[each.name] = ~col("gone") & (new | again)
    asks = {each.name: writes[each.name] & col("fingerprints", each.name).isNotNull() for each in asking}
    sizes = [
        F.when(asks[each.name], size_of(col(f"a{i}_{j}"), kind)).otherwise(0)
        for i, each in enumerate(asking)
        for j, kind in enumerate(each.types)
    ]
    moved = moved & ~col("gone")
    faulty = (col("copies") > 1) | any_of([col("key", name).isNull() for name in layout.key])
    return (
        there.withColumn("writes", F.struct(*(writes[each.name].alias(each.name) for each in asking)))
        .withColumn("asks", F.struct(*(asks[each.name].alias(each.name) for each in asking)))
        .withColumn("fresh", col("there").isNull())
        .withColumn("moved", moved)
        .withColumn("size", reduce(Column.__add__, sizes, F.lit(0)).cast("bigint"))
        .where(col("fresh") | col("moved") | col("gone") | any_of(list(writes.values())) | faulty)
        .select(
            "key",
            *(["carried"] if layout.carried else []),
            *("fingerprints", "asks", "writes", "fresh", "moved", "gone", "copies", "size"),
            *(f"a{i}_{j}" for i, each in enumerate(asking) for j, _ in enumerate(each.types)),
        )
    )


def _compared(
    rows: DataFrame, target: DataFrame, layout: Layout, asking: Sequence[Asking], *, delete_missing: bool
) -> tuple[DataFrame, dict[str, Column], dict[str, Column], Column]:
    """Return the rows beside what the target has of them, and what tells the two apart."""
    kinds = {layout.same(field.name): field.dataType for field in target.schema}
    told = [each.name for each in asking if layout.same(each.mark) in kinds]
    tried = [name for name in told if layout.same(name) in kinds]
    there = target.select(
        _struct(layout.key).alias("t_key"),
        *([_struct(layout.carried).alias("t_carried")] if layout.carried else []),
        *([F.struct(*(col(mark_of(name)).alias(name) for name in told)).alias("t_marks")] if told else []),
        *(
            [F.struct(*(col(name, "error", "retryable").alias(name) for name in tried)).alias("t_retry")]
            if tried
            else []
        ),
        F.lit(True).alias("there"),
    ).withColumn("t_copies", _copies("t_key", layout.key))
    same_key = reduce(Column.__and__, [col("key", name) == col("t_key", name) for name in layout.key])
    both = rows.join(there, same_key, "full" if delete_missing else "left")
    gone = col("key").isNull()
    both = (
        both.withColumn("gone", gone)
        .withColumn("key", F.coalesce("key", "t_key"))
        .withColumn("copies", F.greatest(F.coalesce("copies", F.lit(1)), F.coalesce("t_copies", F.lit(1))))
    )
    changes = [
        _differ(col("carried", name), col("t_carried", name), kinds[layout.same(name)]) for name in layout.carried
    ]
    moved = col("there").isNotNull() & any_of(changes) if changes else F.lit(False)
    null = F.lit(None).cast("string")
    marks = {each.name: col("t_marks", each.name) if each.name in told else null for each in asking}
    retry = {
        each.name: F.coalesce(col("t_retry", each.name), F.lit(False)) if each.name in tried else F.lit(False)
        for each in asking
    }
    return both, marks, retry, moved


def plain(kind: DataType) -> DataType:
    """Return the type with structs whose fields are numbered: any table can hold it, and a cast gives the names back.

    Spark casts a struct to a struct field by field, in their order.
    """
    if isinstance(kind, StructType):
        return StructType([StructField(f"f{at}", plain(field.dataType)) for at, field in enumerate(kind)])
    if isinstance(kind, ArrayType):
        return ArrayType(plain(kind.elementType))
    if isinstance(kind, MapType):
        return MapType(plain(kind.keyType), plain(kind.valueType))
    return kind


def _struct(names: Sequence[str]) -> Column:
    return F.struct(*(col(name).alias(name) for name in names))


def _copies(where: str, key: Sequence[str]) -> Column:
    """Return how many rows have a row's key."""
    by = [col(where, name) for name in key]
    return F.count(F.lit(1)).over(Window.partitionBy(*by))


def any_of(conditions: Iterable[Column]) -> Column:
    """Return whether one of these is true."""
    return reduce(Column.__or__, conditions, F.lit(False))


def _differ(one: Column, other: Column, kind: DataType) -> Column:
    """Return whether two values are not the same; Spark compares no maps and no variants."""
    if _is_comparable(kind):
        return ~one.eqNullSafe(other)
    return ~F.to_json(F.struct(one)).eqNullSafe(F.to_json(F.struct(other)))


def _is_comparable(kind: DataType) -> bool:
    if isinstance(kind, StructType):
        return all(_is_comparable(field.dataType) for field in kind)
    if isinstance(kind, ArrayType):
        return _is_comparable(kind.elementType)
    return not isinstance(kind, MapType) and kind.typeName() != "variant"


def size_of(argument: Column, kind: DataType) -> Column:
    """Return about how many bytes a value has as text."""
    text = argument if isinstance(kind, StringType) else F.to_json(F.struct(argument))
    return F.coalesce(F.octet_length(text), F.lit(0))
