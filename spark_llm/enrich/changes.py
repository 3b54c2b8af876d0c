"""The pending rows of a run: rows that differ between source and target, and the columns that are asked for each.

One query over source and target finds them. It is written down at once, so Spark evaluates it once. A row has a struct
for each kind of column, so no name of the user's meets one of these.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce

from pyspark.sql import Column, DataFrame, Observation, Window
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, StringType

from spark_llm.enrich.column_types import is_comparable, nullable
from spark_llm.enrich.plan import RunPlan
from spark_llm.errors import ConfigError
from spark_llm.protocol.identifiers import quoted


def col(*parts: str) -> Column:
    """Return a column, or a field of it, by its plain name."""
    return F.col(quoted(parts))


def argument_name(column: int, argument: int) -> str:
    """Return the name of a pending row's argument, by the places of its column and of itself."""
    return f"a{column}_{argument}"


def pending_rows(
    source: DataFrame,
    target: DataFrame | None,
    plan: RunPlan,
    *,
    retry_errors: bool,
    delete_missing: bool,
    errors: Observation | None = None,
) -> DataFrame:
    """Return the rows with something to ask or to write; all rows of the source where `target` is None, or empty.

    Columns: `key`, `carried`, `fingerprints`; `asks` (the columns to ask), `writes` (the columns to write: also a null
    where an input became null); `new` (the target lacks the row), `changed` (a carried column differs), `deleted` (the
    source lacks the row); `copies` of the key, `size` of the inputs to ask in bytes, and the arguments (`a0_0` …).
    `errors` observes `kept`: how many other rows of the source keep an error in the target.
    """
    rows = source.select(
        _struct(plan.key).alias("key"),
        *([_struct(plan.carried).alias("carried")] if plan.carried else []),
        F.struct(*(each.fingerprint.alias(each.name) for each in plan.filled)).alias("fingerprints"),
        *(
            argument.cast(nullable(kind, numbered=True)).alias(argument_name(i, j))
            for i, each in enumerate(plan.filled)
            for j, (argument, kind) in enumerate(zip(each.arguments, each.argument_types, strict=True))
        ),
    )
    if target is None:
        new, false = F.lit(True), F.lit(False)
        flags = new.alias("new"), false.alias("deleted"), false.alias("changed")
        compared = rows.select("*", *_answered(None, plan), *flags)
    else:
        compared = _compared(rows, target, plan, delete_missing=delete_missing)
    return _with_flags(compared, plan, errors, retry_errors=retry_errors)


def _answered(target: DataFrame | None, plan: RunPlan) -> tuple[Column, Column]:
    """Return two structs, by the columns to fill: the target's fingerprints, and whether its errors are retryable.

    A column that the target lacks is null in both, and a row without an error is null in the second.
    """
    found = {plan.same(name) for name in target.columns} if target is not None else set[str]()
    null = F.lit(None)
    fingerprints, retryable = [], []
    for each in plan.filled:
        has_fingerprint = plan.same(each.fingerprint_name) in found
        has_error = has_fingerprint and plan.same(each.name) in found
        fingerprint = col(each.fingerprint_name) if has_fingerprint else null.cast("string")
        error = col(each.name, "error", "retryable") if has_error else null.cast("boolean")
        fingerprints.append(fingerprint.alias(each.name))
        retryable.append(error.alias(each.name))
    return F.struct(*fingerprints).alias("t_fingerprints"), F.struct(*retryable).alias("t_retryable")


def _compared(rows: DataFrame, target: DataFrame, plan: RunPlan, *, delete_missing: bool) -> DataFrame:
    """Return the source's rows joined to the target's, with `new`, `deleted` and `changed`."""
    kinds = {plan.same(field.name): field.dataType for field in target.schema}
    known = target.select(
        _struct(plan.key).alias("t_key"),
        *([_struct(plan.carried).alias("t_carried")] if plan.carried else []),
        *_answered(target, plan),
        F.lit(True).alias("in_target"),
    )
    same_key = reduce(Column.__and__, [col("key", name) == col("t_key", name) for name in plan.key])
    new = col("in_target").isNull()
    differences = (
        _differ(col("carried", name), col("t_carried", name), kinds[plan.same(name)]) for name in plan.carried
    )
    flags = {"new": new, "deleted": F.lit(False), "changed": ~new & any_of(differences)}
    if delete_missing:
        flags |= {"deleted": col("key").isNull(), "key": F.coalesce("key", "t_key")}
    return rows.join(known, same_key, "full" if delete_missing else "left").withColumns(flags)


def _with_flags(compared: DataFrame, plan: RunPlan, errors: Observation | None, *, retry_errors: bool) -> DataFrame:
    """Return the rows with something to do; rows with a faulty key are among them, so that they can be counted.

    The copies of a key are counted after the join, so that both share one partitioning. A key that is twice in the
    source or in the target is twice there.
    """
    writes, keeps_error = {}, []
    for each in plan.filled:
        retryable = col("t_retryable", each.name)
        stale = ~col("fingerprints", each.name).eqNullSafe(col("t_fingerprints", each.name))
        retried = col("fingerprints", each.name).isNotNull() & F.coalesce(retryable, F.lit(False))
        writes[each.name] = ~col("deleted") & (stale | retried if retry_errors else stale)
        keeps_error.append(retryable.isNotNull() & ~writes[each.name])
    asks = {each.name: writes[each.name] & col("fingerprints", each.name).isNotNull() for each in plan.filled}
    sizes = [
        F.when(asks[each.name], text_size(col(argument_name(i, j)), kind)).otherwise(0)
        for i, each in enumerate(plan.filled)
        for j, kind in enumerate(each.argument_types)
    ]
    same_key = Window.partitionBy(*(col("key", name) for name in plan.key))
    faulty = (col("copies") > 1) | any_of(col("key", name).isNull() for name in plan.key)
    flags = {  # in one step, because Spark analyses the whole query after each
        "copies": F.count(F.lit(1)).over(same_key),
        "writes": F.struct(*(condition.alias(name) for name, condition in writes.items())),
        "asks": F.struct(*(condition.alias(name) for name, condition in asks.items())),
        "changed": col("changed") & ~col("deleted"),
        "size": reduce(Column.__add__, sizes, F.lit(0)).cast("bigint"),
    }
    is_written = any_of(col("writes", name) for name in writes)
    rows = compared.withColumns(flags)
    if errors is not None:
        rows = rows.observe(errors, F.count_if(any_of(keeps_error) & ~col("deleted")).alias("kept"))
    return rows.where(col("new") | col("changed") | col("deleted") | is_written | faulty).select(
        "key",
        *(["carried"] if plan.carried else []),
        *("fingerprints", "asks", "writes", "new", "changed", "deleted", "copies", "size"),
        *(argument_name(i, j) for i, each in enumerate(plan.filled) for j, _ in enumerate(each.arguments)),
    )


def any_of(conditions: Iterable[Column]) -> Column:
    """Return whether one of these is true."""
    return reduce(Column.__or__, conditions, F.lit(False))


def text_size(argument: Column, kind: DataType) -> Column:
    """Return about how many bytes a value has as text."""
    text = argument if isinstance(kind, StringType) else F.to_json(F.struct(argument))
    return F.coalesce(F.octet_length(text), F.lit(0))


def key_counts(key: Sequence[str]) -> dict[str, Column]:
    """Return aggregates over pending rows: `null_keys`, and `repeated` for rows that share their key."""
    no_key = any_of(col("key", name).isNull() for name in key)
    return {"null_keys": F.count_if(no_key), "repeated": F.count_if(col("copies") > 1)}


def check_key(pending: DataFrame, key: Sequence[str], counts: Mapping[str, int]) -> None:
    """Raise `ConfigError` where the key does not identify the pending rows; `counts` has their `key_counts`."""
    named = f"The key ({', '.join(key)})"
    if null_keys := counts["null_keys"]:
        raise ConfigError(
            f"{named} is null in {null_keys:,} row{'s' * (null_keys > 1)}.",
            "leave such rows out of the source, or name a key that every row has.",
        )
    if repeated := counts["repeated"]:
        some = pending.where(col("copies") > 1).select("key.*").distinct().limit(3).collect()
        verb = "and others occur" if repeated > 6 and len(some) == 3 else "occurs" if len(some) == 1 else "occur"
        raise ConfigError(
            f"{named} is not unique: {'; '.join(', '.join(map(repr, row)) for row in some)} {verb} more than"
            " once in the source or in the target.",
            "name all columns that identify a row, or remove the duplicates first.",
        )


def asked_condition(plan: RunPlan) -> str:
    """Return the SQL condition that a pending row asks one of the columns to fill."""
    return " OR ".join(quoted(("asks", each.name)) for each in plan.filled)


def _struct(names: Sequence[str]) -> Column:
    return F.struct(*(col(name).alias(name) for name in names))


def _differ(one: Column, other: Column, kind: DataType) -> Column:
    """Return whether two values differ; values that Spark cannot compare are compared as JSON."""
    if is_comparable(kind):
        return ~one.eqNullSafe(other)
    return ~F.to_json(F.struct(one)).eqNullSafe(F.to_json(F.struct(other)))
