"""The pending rows of a run: rows that differ between source and target, and the columns that are asked for each.

One query over source and target finds them. It is written down at once, so Spark evaluates it once. A row has a struct
for each kind of column, so no name of the user's meets one of these.

Expressions are SQL, because classic PySpark takes about ten calls to Java for each operator of a `Column`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce

from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BinaryType, DataType, StringType, StructField, StructType

from spark_llm.enrich.column_types import differ, nullable
from spark_llm.enrich.plan import RunPlan
from spark_llm.errors import ConfigError
from spark_llm.protocol.chat.content import BYTES_PER_TOKEN
from spark_llm.protocol.identifiers import named, quoted, struct
from spark_llm.protocol.media import IMAGE_TOKENS
from spark_llm.udf.template_columns import URL

MEDIA_BYTES = IMAGE_TOKENS * BYTES_PER_TOKEN  # of a text with as many tokens as a photo


def col(*parts: str) -> Column:
    """Return a column, or a field of it, by its plain name."""
    return F.col(quoted(*parts))


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
    seen: Observation | None = None,
) -> DataFrame:
    """Return the rows with something to ask or to write; all rows of the source where `target` is None, or empty.

    Columns: `key`, `carried`, `fingerprints`; `asks` (the columns to ask), `writes` (the columns to write: also a null
    where an input became null); `new` (the target lacks the row), `changed` (a carried column differs), `deleted` (the
    source lacks the row); `copies` of the key, `size` of the inputs to ask in bytes, and the arguments (`a0_0` …).
    `seen` observes the source: its `rows`, and how many of those that are not written keep an error in the target, as
    `still_failed`.
    """
    rows = source.select(
        *map(F.expr, _own_columns(plan)),
        F.struct(*(each.fingerprint.alias(each.name) for each in plan.filled)).alias("fingerprints"),
        *(
            argument.cast(nullable(kind, numbered=True)).alias(argument_name(i, j))
            for i, each in enumerate(plan.filled)
            for j, (argument, kind) in enumerate(zip(each.arguments, each.argument_types, strict=True))
        ),
    )
    if target is None:
        compared = rows.selectExpr("*", *_answered(None, plan), "true AS new", "false AS deleted", "false AS changed")
    else:
        compared = _compared(rows, target, plan, delete_missing=delete_missing)
    return _with_flags(compared, plan, seen, retry_errors=retry_errors)


def _own_columns(plan: RunPlan, prefix: str = "") -> list[str]:
    """Return the key and the carried columns of a table, each kind as a struct."""
    kinds = {f"{prefix}key": plan.key, f"{prefix}carried": plan.carried}
    return named({kind: struct({name: quoted(name) for name in names}) for kind, names in kinds.items() if names})


def _answered(target: DataFrame | None, plan: RunPlan) -> tuple[str, str]:
    """Return two structs, by the columns to fill: the target's fingerprints, and whether its errors are retryable.

    A column that the target lacks is null in both, and a row without an error is null in the second.
    """
    found = {plan.same(name) for name in target.columns} if target is not None else set[str]()
    fingerprints, retryable = {}, {}
    for each in plan.filled:
        has_fingerprint = plan.same(each.fingerprint_name) in found
        has_error = has_fingerprint and plan.same(each.name) in found
        fingerprints[each.name] = quoted(each.fingerprint_name) if has_fingerprint else "CAST(NULL AS STRING)"
        retryable[each.name] = quoted(each.name, "error", "retryable") if has_error else "CAST(NULL AS BOOLEAN)"
    return f"{struct(fingerprints)} AS t_fingerprints", f"{struct(retryable)} AS t_retryable"


def _compared(rows: DataFrame, target: DataFrame, plan: RunPlan, *, delete_missing: bool) -> DataFrame:
    """Return the source's rows joined to the target's, with `new`, `deleted` and `changed`."""
    kinds = {plan.same(field.name): field.dataType for field in target.schema}
    known = target.selectExpr(*_own_columns(plan, "t_"), *_answered(target, plan), "true AS in_target")
    differs = any_of(
        differ(quoted("carried", name), quoted("t_carried", name), kinds[plan.same(name)]) for name in plan.carried
    )
    flags = {"new": "in_target IS NULL", "deleted": "false", "changed": f"in_target IS NOT NULL AND ({differs})"}
    if delete_missing:
        flags |= {"deleted": "key IS NULL", "key": "coalesce(key, t_key)"}
    joined = rows.join(known, F.expr(_same_key(plan)), "full" if delete_missing else "left")
    return joined.withColumns({name: F.expr(flag) for name, flag in flags.items()})


def _same_key(plan: RunPlan) -> str:
    return " AND ".join(f"{quoted('key', name)} = {quoted('t_key', name)}" for name in plan.key)


def answered_since(earlier: DataFrame, target: DataFrame, plan: RunPlan) -> DataFrame:
    """Return rows that were pending earlier; they ask only what the target has a result of by now.

    `earlier` has the columns of `pending_rows`. An error that may pass is a result only where the target lacked the row
    then: else it may be older than the request.
    """
    known = target.selectExpr(*_own_columns(plan, "t_"), *_answered(target, plan))
    asks = {}
    for name in (each.name for each in plan.filled):
        has_result = f"{quoted('fingerprints', name)} = {quoted('t_fingerprints', name)}"
        is_older = f"NOT new AND coalesce({quoted('t_retryable', name)}, false)"
        asks[name] = f"{quoted('asks', name)} AND {has_result} AND NOT ({is_older})"
    return earlier.join(known, F.expr(_same_key(plan))).withColumn("asks", F.expr(struct(asks)))


def _with_flags(compared: DataFrame, plan: RunPlan, seen: Observation | None, *, retry_errors: bool) -> DataFrame:
    """Return the rows with something to do; rows with a faulty key are among them, so that they can be counted.

    The copies of a key are counted after the join, so that both share one partitioning. A key that is twice in the
    source or in the target is twice there.
    """
    names = [each.name for each in plan.filled]
    writes, asks, keeps_error = {}, {}, []
    for name in names:
        fingerprint, retryable = quoted("fingerprints", name), quoted("t_retryable", name)
        stale = f"NOT {fingerprint} <=> {quoted('t_fingerprints', name)}"
        retried = f"{fingerprint} IS NOT NULL AND coalesce({retryable}, false)"
        writes[name] = f"NOT deleted AND ({f'{stale} OR {retried}' if retry_errors else stale})"
        asks[name] = f"{writes[name]} AND {fingerprint} IS NOT NULL"
        keeps_error.append(f"{retryable} IS NOT NULL AND NOT ({writes[name]})")
    sizes = [
        F.when(F.expr(asks[each.name]), text_size(col(argument_name(i, j)), kind)).otherwise(0)
        for i, each in enumerate(plan.filled)
        for j, kind in enumerate(each.argument_types)
    ]
    keys = [quoted("key", name) for name in plan.key]
    flags = {  # in one step, because Spark analyses the whole query after each
        "copies": F.expr(f"count(1) OVER (PARTITION BY {', '.join(keys)})"),
        "writes": F.expr(struct(writes)),
        "asks": F.expr(struct(asks)),
        "changed": F.expr("changed AND NOT deleted"),
        "size": reduce(Column.__add__, sizes, F.lit(0)).cast("bigint"),
    }
    rows = compared.withColumns(flags)
    if seen is not None:
        kept = F.expr(f"count_if(NOT deleted AND ({any_of(keeps_error)})) AS still_failed")
        rows = rows.observe(seen, F.expr("count_if(NOT deleted) AS rows"), kept)
    faults = [f"{name} IS NULL" for name in keys]
    is_written = any_of(quoted("writes", name) for name in names)
    return rows.where(f"new OR changed OR deleted OR {is_written} OR copies > 1 OR {any_of(faults)}").select(
        "key",
        *(["carried"] if plan.carried else []),
        *("fingerprints", "asks", "writes", "new", "changed", "deleted", "copies", "size"),
        *(argument_name(i, j) for i, each in enumerate(plan.filled) for j, _ in enumerate(each.arguments)),
    )


def any_of(conditions: Iterable[str]) -> str:
    """Return whether one of these is true."""
    return " OR ".join(f"({each})" for each in conditions) or "false"


def text_size(argument: Column, kind: DataType) -> Column:
    """Return about how many bytes a value has as text; an image, a PDF or audio counts as `MEDIA_BYTES`."""
    if _may_hold_media(kind):
        return _sum_over(argument.cast(nullable(kind, numbered=True)), kind, F.octet_length, MEDIA_BYTES)
    text = argument if isinstance(kind, StringType) else F.to_json(F.struct(argument))
    return F.coalesce(F.octet_length(text), F.lit(0))


def media_count(argument: Column, kind: DataType) -> Column:
    """Return how many images, PDFs and audio clips a value has."""
    if not _may_hold_media(kind):
        return F.lit(0)
    return _sum_over(argument.cast(nullable(kind, numbered=True)), kind, lambda _: F.lit(0), 1)


def _sum_over(value: Column, kind: DataType, of_text: Callable[[Column], Column], of_media: int) -> Column:
    """Return the sum over the texts and the media in a value, whose fields have numbers for names."""
    match kind:
        case BinaryType():
            return F.when(value.isNotNull(), of_media).otherwise(0)
        case StructType(fields=fields):
            parts = [
                _sum_over(value.getField(f"f{n}"), _kind_of(field), of_text, of_media) for n, field in enumerate(fields)
            ]
            return reduce(Column.__add__, parts, F.lit(0))
        case ArrayType(elementType=element):
            sums = F.transform(value, lambda each: _sum_over(each, element, of_text, of_media))
            return F.coalesce(F.aggregate(sums, F.lit(0), lambda total, each: total + each), F.lit(0))
    return F.coalesce(of_text(value.cast("string")), F.lit(0))


def _kind_of(field: StructField) -> DataType:
    """Return the type of a field; the URL of an image stands for its bytes."""
    return BinaryType() if field.name == "url" or field.name.startswith(URL) else field.dataType


def _may_hold_media(kind: DataType) -> bool:
    match kind:
        case StructType(fields=fields):
            return any(_may_hold_media(_kind_of(field)) for field in fields)
        case ArrayType(elementType=element):
            return _may_hold_media(element)
    return isinstance(kind, BinaryType)


def key_counts(key: Sequence[str]) -> dict[str, str]:
    """Return aggregates over pending rows: rows that share their key (`repeated`), and those without one.

    These are `null_keys` of the source, and `target_null_keys`, which are looked at where rows are to be deleted.
    """
    no_key = any_of(f"{quoted('key', name)} IS NULL" for name in key)
    return {
        "null_keys": f"count_if(NOT deleted AND ({no_key}))",
        "target_null_keys": f"count_if(deleted AND ({no_key}))",
        "repeated": "count_if(copies > 1)",
    }


def check_key(pending: DataFrame, key: Sequence[str], counts: Mapping[str, int]) -> None:
    """Raise `ConfigError` where the key does not identify the pending rows; `counts` has their `key_counts`."""
    what = f"The key ({', '.join(key)})"
    if null_keys := counts["null_keys"]:
        raise ConfigError(
            f"{what} is null in {null_keys:,} row{'s' * (null_keys > 1)}.",
            "leave such rows out of the source, or name a key that every row has.",
        )
    if null_keys := counts["target_null_keys"]:
        raise ConfigError(
            f"{what} is null in {null_keys:,} row{'s' * (null_keys > 1)} of the target, so no MERGE finds"
            f" {'them' if null_keys > 1 else 'it'}, to delete what the source lacks.",
            'delete such rows yourself, with DELETE FROM … WHERE … IS NULL; or leave out on_missing="delete".',
        )
    if repeated := counts["repeated"]:
        some = pending.where(col("copies") > 1).select("key.*").distinct().limit(3).collect()
        verb = "and others occur" if repeated > 6 and len(some) == 3 else "occurs" if len(some) == 1 else "occur"
        raise ConfigError(
            f"{what} is not unique: {'; '.join(', '.join(map(repr, row)) for row in some)} {verb} more than"
            " once in the source or in the target.",
            "name all columns that identify a row, or remove the duplicates first.",
        )


def asked_condition(plan: RunPlan) -> str:
    """Return the SQL condition that a pending row asks one of the columns to fill."""
    return any_of(quoted("asks", each.name) for each in plan.filled)
