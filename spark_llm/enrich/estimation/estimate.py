"""The estimate of a run, without asking: `estimate`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, StructType

from spark_llm.enrich.api import job_of
from spark_llm.enrich.changes import (
    any_of,
    argument_name,
    asked_condition,
    check_key,
    col,
    key_counts,
    media_count,
    text_size,
)
from spark_llm.enrich.column_types import find_field, same_of
from spark_llm.enrich.estimation.report import ColumnEstimate, Estimate
from spark_llm.enrich.estimation.row_cost import (
    guessed_prompt_tokens,
    guessed_tally,
    instruction_bytes,
    max_answer_tokens,
    may_be_batched,
    task_of,
)
from spark_llm.enrich.plan import FilledColumn, RunPlan
from spark_llm.enrich.runner import Job, Tables
from spark_llm.enrich.source import Source
from spark_llm.enrich.table import Table
from spark_llm.metering.chunking import Limits
from spark_llm.metering.prices import Price, Prices
from spark_llm.metering.tally import TOKENS, Tally
from spark_llm.protocol.identifiers import named, quoted, struct
from spark_llm.protocol.media import IMAGE_TOKENS
from spark_llm.udf.lazy_udf import check_session
from spark_llm.usage.answers import AnswerColumn
from spark_llm.usage.counts import tally_aggregates, tally_of
from spark_llm.validation.arguments import checks_arguments
from spark_llm.validation.numbers import check_whole


@checks_arguments
def estimate(
    spark: SparkSession,
    source: str | DataFrame,
    target: str,
    key: str | Sequence[str],
    columns: Mapping[str, Column],
    *,
    retry_errors: bool = True,
    prices: Prices | None = None,
    on_missing: Literal["keep", "delete"] = "keep",
    sample_rows: int = 1_000,
) -> Estimate:
    """Return how many rows a run of `enrich_table` would ask, and about how many tokens and dollars that takes.

    >>> print(estimate(spark, "reviews", "reviews_enriched", "review_id", {"summary": chat("review")}, prices=0.5))

    It asks, writes and creates nothing. It counts the rows by the query with which a run begins. Their tokens follow
    from the answers in the target, where there are any: tokens of a prompt grow with its length, those of an answer are
    the mean. Else a prompt is guessed at a token for four bytes of its request, with the instructions and the JSON
    around the text, and an answer at `max_tokens`. An image, a PDF or audio counts as 1,000 tokens. With `prices` it
    has both costs: of single requests, and through a Batch API.

    Args:
        spark: The session.
        source: As in `enrich_table`.
        target: As in `enrich_table`; it may be missing.
        key: As in `enrich_table`.
        columns: As in `enrich_table`.
        retry_errors: As in `enrich_table`.
        prices: As in `enrich_table`; without them there is no cost.
        on_missing: As in `enrich_table`.
        sample_rows: How many answers of the target are read at most, for each column.

    Returns:
        The numbers, each with its basis.

    Raises:
        ConfigError: The tables, the key and the columns do not fit together.
    """
    check_session(spark)
    check_whole("sample_rows", sample_rows, 1, hint="leave it out for 1000.")
    job = job_of(
        spark, target, key, columns, Limits(), prices, retry_errors=retry_errors, progress=False, on_missing=on_missing
    )
    table = Table(spark, job.target)
    tables = job.plan(Source.of(spark, source), table)
    counts = _pending_counts(job, tables)
    estimates = {}
    for index, each in enumerate(tables.plan.filled):
        wanted = _Texts(counts[f"rows_{index}"], counts[f"bytes_{index}"], counts[f"media_{index}"])
        known = tables.target if wanted.rows else None
        price = job.prices.get(each.name)
        sample = None if known is None else _sample(known, each, sample_rows, price)
        estimates[each.name] = _column_estimate(each, wanted, sample, price)
    rows = tables.source.count()
    return Estimate(str(table), rows, counts["to_ask"], counts["deleted"], estimates)


@dataclass(frozen=True)
class _Texts:
    """Inputs of rows: how many they are, how long in bytes without the instructions, and their media among these."""

    rows: int
    bytes: int
    media: int = 0


@dataclass(frozen=True)
class _Sample:
    """Answers in the target: their inputs, where the target has those, and their tokens."""

    texts: _Texts | None
    tally: Tally
    earlier: bool  # of other inputs, or of another recipe


def _pending_counts(job: Job, tables: Tables) -> Mapping[str, int]:
    """Count the pending rows in one query; raises `ConfigError` where the key is null or not unique."""
    plan: RunPlan = tables.plan
    if tables.target is not None:  # columns that a run would add are not there to be compared
        plan = plan.without(field.name for field in plan.added_carried)
    pending = job.pending(Tables(tables.source, tables.target, plan))
    counts = {
        "to_ask": F.expr(f"count_if({asked_condition(plan)})"),
        "deleted": F.count_if("deleted"),
        **{name: F.expr(count) for name, count in key_counts(plan.key).items()},
    }
    for index, each in enumerate(plan.filled):
        asked = col("asks", each.name)
        inputs = [(col(argument_name(index, place)), kind) for place, kind in enumerate(each.argument_types)]
        counts |= {
            f"rows_{index}": F.count_if(asked),
            f"bytes_{index}": _sum(F.when(asked, _total(text_size, inputs))),
            f"media_{index}": _sum(F.when(asked, _total(media_count, inputs))),
        }
    [row] = pending.agg(*(count.alias(name) for name, count in counts.items())).collect()
    check_key(pending, plan.key, row.asDict())
    return row.asDict()


def _sample(target: DataFrame, each: FilledColumn, max_rows: int, price: Price | None) -> _Sample | None:
    """Return answers of the target, first those with the present input and recipe; None where there are none."""
    same = same_of(target.sparkSession)
    field = find_field(target.schema, each.name, same)
    if field is None or not isinstance(field.dataType, StructType):
        return None
    answers, tiers = AnswerColumn(quoted(each.name), field.dataType), tuple(price.factors) if price else ()
    arguments = _arguments(target, each)
    comparable = arguments is not None and find_field(target.schema, each.fingerprint_name, same) is not None
    has_tokens = any_of(f"{answers.tokens(name)} IS NOT NULL" for name in TOKENS)
    kept = struct({name: answers.field(name) for name in ("usage", "error", "attempts")})
    sampled = (
        target.where(f"({has_tokens}) AND {answers.field('error')} IS NULL")
        .select(
            F.expr(f"{kept} AS answer"),
            (each.fingerprint.eqNullSafe(col(each.fingerprint_name)) if comparable else F.lit(False)).alias("same"),
            (F.lit(0) if arguments is None else _total(text_size, arguments)).alias("size"),
        )
        .orderBy(F.desc("same"))
        .limit(max_rows)
        .groupBy("same")
    )
    counts = {"size": "coalesce(sum(size), 0)", **tally_aggregates(AnswerColumn("answer", field.dataType), tiers)}
    found = sampled.agg(*map(F.expr, named(counts))).collect()
    groups = sorted((row.asDict() for row in found), key=lambda group: not group["same"])
    if not groups or not groups[0]["asked"]:
        return None
    best = groups[0]
    tally = tally_of(best, tiers)
    texts = None if arguments is None else _Texts(tally.asked, best["size"])
    return _Sample(texts, tally, earlier=not best["same"])


def _arguments(target: DataFrame, each: FilledColumn) -> list[tuple[Column, DataType]] | None:
    """Return the inputs of the answers with their types; None where the target lacks a column."""
    try:
        kinds = [field.dataType for field in target.select(*each.arguments).schema]
    except AnalysisException:
        return None
    return list(zip(each.arguments, kinds, strict=True))


def _column_estimate(each: FilledColumn, wanted: _Texts, sample: _Sample | None, price: Price | None) -> ColumnEstimate:
    task = task_of(each)
    if not task.reports_tokens:
        return ColumnEstimate(wanted.rows, 0, 0, None, "its answers report no tokens")
    instructions = instruction_bytes(task)
    if not wanted.rows:
        tally: Tally | None = Tally()
        prompt, rests_on = 0, "nothing to ask"
    elif sample is not None:
        tally = _scaled(sample, wanted, instructions)
        prompt = tally.prompt_tokens
        count, earlier = sample.tally.asked, "earlier " if sample.earlier else ""
        rests_on = f"measured on {count:,} {earlier}answer{'s' * (count > 1)}"
    else:
        prompt = guessed_prompt_tokens(task, wanted.rows, wanted.bytes)
        tally = guessed_tally(task, wanted.rows, wanted.bytes)
        around = f" and {guessed_prompt_tokens(task, 1, 0):,} tokens around each" if instructions else ""
        media = f", {IMAGE_TOKENS:,} for each image, PDF or audio" if wanted.media else ""
        rests_on = f"guessed from the length of the texts{around}{media}" + _answer_note(max_answer_tokens(task))
    completion = None if tally is None else tally.total_tokens - tally.prompt_tokens
    if tally is None or price is None:
        return ColumnEstimate(wanted.rows, prompt, completion, None, rests_on)
    usd_batch = price.cost_by_batch(tally) if may_be_batched(each) else None
    return ColumnEstimate(wanted.rows, prompt, completion, price.cost_at_once(tally), rests_on, usd_batch)


def _answer_note(max_tokens: int | None) -> str:
    if max_tokens is None:
        return "; answers: unknown"
    return f", answers of at most {max_tokens:,} tokens" if max_tokens else ""


def _scaled(sample: _Sample, wanted: _Texts, instructions: int) -> Tally:
    """Return the sample's tokens scaled to the pending rows: prompts by their length, answers by their number."""
    texts, by_rows = sample.texts, wanted.rows / sample.tally.asked
    length = texts.bytes + texts.rows * instructions if texts else 0
    by_length = (wanted.bytes + wanted.rows * instructions) / length if length else by_rows

    def scaled(tally: Tally) -> Tally:
        unassigned = max(0, tally.total_tokens - tally.prompt_tokens - tally.completion_tokens)
        completion = round((tally.completion_tokens + (unassigned if tally.completion_tokens else 0)) * by_rows)
        prompt = round((tally.prompt_tokens + (0 if tally.completion_tokens else unassigned)) * by_length)
        return Tally(
            prompt_tokens=prompt,
            completion_tokens=completion,
            cached_tokens=round(tally.cached_tokens * by_length),
            total_tokens=prompt + completion,
            cache_write_tokens=round(tally.cache_write_tokens * by_length),
        )

    tiers = {tier: scaled(part) for tier, part in sample.tally.tiers.items()}
    return replace(scaled(sample.tally), asked=wanted.rows, tiers=tiers)


def _total(measure: Callable[[Column, DataType], Column], arguments: Sequence[tuple[Column, DataType]]) -> Column:
    return reduce(Column.__add__, (measure(argument, kind) for argument, kind in arguments), F.lit(0))


def _sum(column: Column) -> Column:
    return F.coalesce(F.sum(column.cast("bigint")), F.lit(0))
