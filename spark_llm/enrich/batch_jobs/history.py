"""Rows with the digests of their requests, and with the replies to them."""

from collections.abc import Sequence
from dataclasses import replace

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_llm.enrich.batch_jobs.ledger import Ledger
from spark_llm.enrich.batch_jobs.replayed import batch_spec
from spark_llm.enrich.changes import answered_since, any_of, col
from spark_llm.enrich.column_types import fields_of
from spark_llm.enrich.fingerprints.input_form import or_null, row_form
from spark_llm.enrich.plan import FilledColumn, RunPlan
from spark_llm.enrich.staging import Staging
from spark_llm.errors import ConfigError

_DIGEST_DIGITS = 48


def digest_name(place: int) -> str:
    """Return the name of the digests of the requests for a column, by its place in the plan."""
    return f"digest_{place}"


def history_names(place: int) -> tuple[str, str]:
    """Return the names of a column's history: the replies to each row, and whether the row is billed for them."""
    return f"replies_{place}", f"billed_{place}"


def with_digests(rows: DataFrame, plan: RunPlan) -> DataFrame:
    """Return pending rows with the digest of each column's request; null where the row asks nothing."""
    return rows.withColumns({digest_name(place): _digest(each, rows, plan) for place, each in enumerate(plan.filled)})


def all_digests(rows: DataFrame, plan: RunPlan) -> DataFrame:
    """Return the digests of all requests of pending rows, as `digest`."""
    names = [digest_name(place) for place, _ in enumerate(plan.filled)]
    return with_digests(rows, plan).select(F.explode(F.array(*names)).alias("digest"))


def forget_merged(ledger: Ledger, abandoned: Sequence[Staging], target: DataFrame | None, plan: RunPlan) -> None:
    """Remove the replies of rows that are merged, which runs that failed or died have left in the ledger.

    Else a further row with the same request finds them, and is billed for them too.
    """
    for each in abandoned if target is not None and ledger.has_replies() else []:
        rows = each.read("work")
        known = set() if rows is None else {plan.same(field.name) for field in fields_of(rows.schema, "asks")}
        filled = tuple(each for each in plan.filled if plan.same(each.name) in known)
        if rows is not None and target is not None and filled and _has_key(rows, plan):
            some = replace(plan, filled=filled)
            names = [each.name for each in filled]
            ledger.forget(all_digests(answered_since(rows, target, some), some), names)


def check_none_collected(ledger: Ledger | None, rows: DataFrame, plan: RunPlan) -> None:
    """Raise `ConfigError` where pending rows have answers in the ledger: they would be asked, and paid for, again."""
    answered = None if ledger is None else ledger.answered()
    wanted = None if answered is None else answered.join(all_digests(rows, plan), "digest", "left_semi")
    if ledger is not None and wanted is not None and (count := wanted.count()):
        raise ConfigError(
            f"{count:,} answer{'s' * (count != 1)} of batches {'are' if count != 1 else 'is'} paid for and not merged"
            " yet, and batch= is not given.",
            "run the same job with batch=Batch(), which merges them. Only to give them up, empty the table"
            f" {ledger.name}.",
        )


def with_replies(rows: DataFrame, plan: RunPlan, replies: DataFrame) -> DataFrame:
    """Return the rows that have replies for one column at least, with the history of each.

    `rows` have digests, and `replies` are those of `Ledger.replies`. Of rows that share a request one is billed.
    """
    for place, each in enumerate(plan.filled):
        digest, (lines, billed) = digest_name(place), history_names(place)
        mine = replies.select(
            F.col("digest").alias(digest), F.col("replies").alias(lines), F.col("sender").alias(f"sender_{place}")
        )
        is_first = f"row_number() OVER (PARTITION BY {digest} ORDER BY key) = 1"
        is_sender = f"coalesce(sender_{place} = '{each.name}', false)"  # another column may have sent the same request
        rows = rows.join(mine, digest, "left").withColumn(billed, F.expr(f"{is_first} AND {is_sender}"))
    return rows.where(any_of(f"{history_names(place)[0]} IS NOT NULL" for place, _ in enumerate(plan.filled)))


def rows_out(rows: DataFrame, plan: RunPlan, out: DataFrame | None) -> DataFrame:
    """Return the rows, with digests, of which a request is `out`."""
    places = range(len(plan.filled))
    return _with_out(rows, plan, out).where(any_of(f"{_out_name(place)} IS NOT NULL" for place in places))


def rows_to_send(rows: DataFrame, plan: RunPlan, out: DataFrame | None) -> DataFrame:
    """Return the rows, with digests, of which a request is not `out` and not answered."""
    places = range(len(plan.filled))
    unsent = (f"{digest_name(place)} IS NOT NULL AND {_out_name(place)} IS NULL" for place in places)
    return _with_out(rows, plan, out).where(any_of(unsent)).drop(*map(_out_name, places))


def with_again(rows: DataFrame, plan: RunPlan, sent: DataFrame | None) -> DataFrame:
    """Return the rows, with digests, and in `again` whether a request of theirs is among those `sent`."""
    names = [_out_name(place) for place, _ in enumerate(plan.filled)]
    again = any_of(f"{name} IS NOT NULL" for name in names)
    return _with_out(rows, plan, sent).withColumn("again", F.expr(again)).drop(*names)


def _with_out(rows: DataFrame, plan: RunPlan, out: DataFrame | None) -> DataFrame:
    for place, _ in enumerate(plan.filled):
        if out is None:
            rows = rows.withColumn(_out_name(place), F.lit(None))
        else:
            mine = out.select(F.col("digest").alias(digest_name(place)), F.lit(1).alias(_out_name(place)))
            rows = rows.join(mine, digest_name(place), "left")
    return rows


def _out_name(place: int) -> str:
    """Return the name of a column that is not null where the request is with the provider, or is sought otherwise."""
    return f"out_{place}"


def _digest(each: FilledColumn, rows: DataFrame, plan: RunPlan) -> Column:
    """Return the digest of a row's request: the fingerprint, and where equal requests differ by chance the key too.

    The key has its canonical form, because that of JSON depends on the session's time zone, and has no microseconds.
    """
    digest = col("fingerprints", each.name)
    spec = batch_spec(each.name, each.call.udf)
    dedupes = spec.task.repeatable if spec.policy.dedupe is None else spec.policy.dedupe
    if not dedupes:
        kinds = {plan.same(field.name): field.dataType for field in fields_of(rows.schema, "key")}
        names = sorted(map(plan.same, plan.key))
        key = [or_null(row_form(col("key", name), kinds[name])) for name in names]
        digest = F.substring(F.sha2(F.concat(digest, *key).cast("binary"), 256), 1, _DIGEST_DIGITS)
    return F.when(col("asks", each.name), digest)


def _has_key(rows: DataFrame, plan: RunPlan) -> bool:
    """Return whether the rows have the key of the plan, and no other one."""
    return {plan.same(field.name) for field in fields_of(rows.schema, "key")} == set(map(plan.same, plan.key))
