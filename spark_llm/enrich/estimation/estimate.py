"""What a run would ask and cost, without asking: `estimate`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, StructType

from spark_llm.engine.request_spec import request_specs
from spark_llm.enrich.api import job_of, rows_of
from spark_llm.enrich.changes import Asking, any_of, col, size_of
from spark_llm.enrich.estimation.report import ColumnEstimate, Estimate
from spark_llm.enrich.estimation.row_cost import BYTES_A_TOKEN, envelope_of, longest_answer
from spark_llm.enrich.table import Table, field_of, same_of
from spark_llm.errors import ConfigError
from spark_llm.metering.chunking import Limits
from spark_llm.metering.prices import Price, Prices
from spark_llm.metering.tally import Tally
from spark_llm.validation.numbers import check_whole

_PARTS = ("prompt", "completion", "cached", "total")


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
    """Say how many rows a run of `enrich_table` would ask, and about how many tokens and dollars that is.

    >>> print(estimate(spark, "reviews", "reviews_enriched", "review_id", {"summary": chat("review")}, prices=0.5))

    Nothing is asked, written or made. The rows are counted, by the query with which a run begins. Their tokens follow
    from what answers in the target took, where there are any: a question's grow with its length, an answer's are the
    mean. Else a question is guessed at a token for four bytes, and an answer at `max_tokens`.

    Args:
        spark: The session.
        source: As in `enrich_table`.
        target: As in `enrich_table`; it need not be there.
        key: As in `enrich_table`.
        columns: As in `enrich_table`.
        retry_errors: As in `enrich_table`.
        prices: As in `enrich_table`; without them there is no cost.
        on_missing: As in `enrich_table`.
        sample_rows: How many answers in the target are looked at, at most, for each column.

    Returns:
        The numbers, with what each rests on.

    Raises:
        ConfigError: The tables, the key and the columns do not fit together.
    """
    check_whole("sample_rows", sample_rows, 1, hint="leave it out for 1000.")
    job = job_of(
        spark, key, columns, Limits(), prices, retry_errors=retry_errors, progress=False, on_missing=on_missing
    )
    place, rows = Table.named(spark, "target=", target), rows_of(spark, source)
    to_do, asking = job.waiting(rows, place)
    waits = _counted(to_do, asking)
    there = place.read()
    found = {}
    for index, each in enumerate(asking):
        wanted = _Texts(waits[f"rows_{index}"], waits[f"bytes_{index}"])
        answers = None if there is None or not wanted.rows else _answers(there, each, sample_rows)
        found[each.name] = _of_column(each, wanted, answers, job.prices.get(each.name))
    return Estimate(str(place), rows.count(), waits["to_ask"], waits["gone"], found)


@dataclass(frozen=True)
class _Texts:
    """What rows ask: how many they are, and how long it is in bytes, without the instructions."""

    rows: int
    size: int


@dataclass(frozen=True)
class _Answers:
    """Answers that were looked at: their texts, where the target has those, and their tokens."""

    texts: _Texts | None
    tally: Tally
    earlier: bool  # of other inputs or another recipe than they would be asked with now


def _counted(to_do: DataFrame, asking: Sequence[Asking]) -> Mapping[str, int]:
    """Count what there is to do, in one query; raises `ConfigError` where the key does not tell rows apart."""
    sums = []
    for index, each in enumerate(asking):
        asked = col("asks", each.name)
        size = _bytes([(col(f"a{index}_{place}"), kind) for place, kind in enumerate(each.types)])
        sums += [F.count_if(asked).alias(f"rows_{index}"), _sum(F.when(asked, size)).alias(f"bytes_{index}")]
    key = to_do.schema["key"].dataType
    names = key.fieldNames() if isinstance(key, StructType) else []
    counts = to_do.agg(
        F.count_if(any_of(col("asks", each.name) for each in asking)).alias("to_ask"),
        F.count_if("gone").alias("gone"),
        F.count_if(any_of(col("key", name).isNull() for name in names)).alias("null"),
        F.count_if(col("copies") > 1).alias("repeated"),
        *sums,
    ).collect()[0]
    if counts["null"] or counts["repeated"]:
        wrong = "is null in" if counts["null"] else "does not tell rows apart:"
        raise ConfigError(
            f"The key ({', '.join(names)}) {wrong} {counts['null'] or counts['repeated']:,} of the rows"
            f"{'' if counts['null'] else ' share theirs with another'}.",
            "name all columns that tell a row apart, and leave rows without a key out of the source.",
        )
    return dict(counts.asDict())


def _answers(there: DataFrame, each: Asking, most: int) -> _Answers | None:
    """Look at answers in the target, at those first that would be asked now as they were; None where there are none."""
    same = same_of(there.sparkSession)
    if field_of(there.schema, each.name, same) is None:
        return None
    arguments = _arguments(there, each)
    known = arguments is not None and field_of(there.schema, each.mark, same) is not None
    usage = [col(each.name, "usage", f"{part}_tokens") for part in _PARTS]
    looked_at = (
        there.where(any_of(part.isNotNull() for part in usage) & col(each.name, "error").isNull())
        .select(
            *(part.alias(name) for name, part in zip(_PARTS, usage, strict=True)),
            (each.fingerprint.eqNullSafe(col(each.mark)) if known else F.lit(False)).alias("same"),
            (F.lit(0) if arguments is None else _bytes(arguments)).alias("size"),
        )
        .orderBy(F.desc("same"))
        .limit(most)
        .groupBy("same")
        .agg(F.count(F.lit(1)).alias("rows"), *(_sum(F.col(name)).alias(name) for name in (*_PARTS, "size")))
    )
    groups = sorted(looked_at.collect(), key=lambda group: not group["same"])
    if not groups:
        return None
    best = groups[0]
    prompt, completion, cached, total = (best[part] for part in _PARTS)
    tally = Tally(best["rows"], {}, prompt, completion, cached, total)
    texts = None if arguments is None else _Texts(best["rows"], best["size"])
    return _Answers(texts, tally, earlier=not best["same"])


def _arguments(there: DataFrame, each: Asking) -> list[tuple[Column, DataType]] | None:
    """Return what the answers were asked about, with its types; None where the target has not all of it."""
    try:
        kinds = [field.dataType for field in there.select(*each.arguments).schema]
    except AnalysisException:
        return None
    return list(zip(each.arguments, kinds, strict=True))


def _of_column(each: Asking, wanted: _Texts, answers: _Answers | None, price: Price | None) -> ColumnEstimate:
    task = next(request_specs(each.call.udf.plan())).task
    longest = longest_answer(task)
    if not wanted.rows:
        tally: Tally | None = Tally()
        prompt, rests_on = 0, "nothing to ask"
    elif answers is not None:
        tally = _scaled(answers, wanted, envelope_of(task))
        prompt = tally.prompt_tokens
        count, earlier = answers.tally.asked, "earlier " if answers.earlier else ""
        rests_on = f"measured on {count:,} {earlier}answer{'s' * (count > 1)}"
    else:
        prompt = int((wanted.size + wanted.rows * envelope_of(task)) / BYTES_A_TOKEN) + wanted.rows
        answer = None if longest is None else longest * wanted.rows
        tally = None if answer is None else Tally(wanted.rows, {}, prompt, answer, 0, prompt + answer)
        rests_on = "guessed from the length of the texts" + _of_answers(longest)
    completion = None if tally is None else tally.total_tokens - tally.prompt_tokens
    usd = None if tally is None or price is None else price.cost(tally)
    return ColumnEstimate(wanted.rows, prompt, completion, usd, rests_on)


def _of_answers(longest: int | None) -> str:
    if longest is None:
        return "; answers: unknown"
    return f", answers of at most {longest:,} tokens" if longest else ""


def _scaled(answers: _Answers, wanted: _Texts, envelope: int) -> Tally:
    """Return what the answers took, for the rows that wait: questions by their length, answers by their number."""
    seen, tally = answers.texts, answers.tally
    by_rows = wanted.rows / tally.asked
    length = seen.size + seen.rows * envelope if seen else 0
    by_length = (wanted.size + wanted.rows * envelope) / length if length else by_rows
    apart = max(0, tally.total_tokens - tally.prompt_tokens - tally.completion_tokens)
    completion = round((tally.completion_tokens + (apart if tally.completion_tokens else 0)) * by_rows)
    prompt = round((tally.prompt_tokens + (0 if tally.completion_tokens else apart)) * by_length)
    cached = round(tally.cached_tokens * by_length)
    return Tally(wanted.rows, {}, prompt, completion, cached, prompt + completion)


def _bytes(arguments: Sequence[tuple[Column, DataType]]) -> Column:
    return reduce(Column.__add__, (size_of(argument, kind) for argument, kind in arguments), F.lit(0))


def _sum(column: Column) -> Column:
    return F.coalesce(F.sum(column.cast("bigint")), F.lit(0))
