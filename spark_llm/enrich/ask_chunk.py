"""One chunk of rows asked: every column of a row at the same time, and what came of it in numbers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_llm.engine.request_spec import RequestSpec, request_specs
from spark_llm.enrich.changes import Asking, any_of, col
from spark_llm.enrich.multi_udf import LiveReporting, MultiUDF, Part
from spark_llm.enrich.table import nullable
from spark_llm.errors import KINDS, Kind
from spark_llm.metering.chunking import FATAL_KINDS, NOT_ROW_ERRORS
from spark_llm.metering.tally import Tally

_TOKENS = ("prompt", "completion", "cached", "total")


class ChunkResult(NamedTuple):
    """What a chunk came to: rows asked and answered, each column by itself, whether all are new, and what stops all."""

    asked: int
    answered: int
    columns: Mapping[str, Tally]
    only_new: bool
    trouble: str | None = None

    @classmethod
    def of_nothing(cls, names: Iterable[str]) -> "ChunkResult":
        """Begin to add up."""
        return cls(0, 0, {name: Tally() for name in names}, only_new=True)

    def plus(self, other: "ChunkResult") -> "ChunkResult":
        """Add two up."""
        columns = {name: tally.plus(other.columns[name]) for name, tally in self.columns.items()}
        only_new = self.only_new and other.only_new
        return ChunkResult(self.asked + other.asked, self.answered + other.answered, columns, only_new)


@dataclass(frozen=True)
class ChunkRunner:
    """Asks chunks of work, in so many tasks at once."""

    asking: Sequence[Asking]
    tasks: int
    max_failure_rate: float | None

    @classmethod
    def of(cls, spark: SparkSession, asking: Sequence[Asking], max_failure_rate: float | None) -> "ChunkRunner":
        """Choose the number of tasks: what the policies say, else as many as there are cores."""
        policies = [recipe.policy for each in asking for recipe in request_specs(each.call.udf.plan())]
        tasks = max(policy.tasks for policy in policies)
        if tasks == 1:  # nobody said
            tasks = spark.range(10_000).select(F.spark_partition_id()).distinct().count()
        return cls(asking, min([tasks, *(each.max_in_flight or tasks for each in policies)]), max_failure_rate)

    def answers(self, work: DataFrame, live: LiveReporting | None) -> DataFrame:
        """Return rows of work with their answers, which are asked when the rows are written down.

        Columns: those of the work that a merge reads, `result`, `requests`, and `held`: nothing came of the row, for a
        reason that is not the row's. It stays in the target as it is, and waits for the next run.
        """
        parts = [Part(each.name, each.call.udf, len(each.arguments)) for each in self.asking]
        arguments = [
            F.when(col("asks", each.name), col(f"a{i}_{j}").cast(nullable(kind)))
            for i, each in enumerate(self.asking)
            for j, kind in enumerate(each.types)
        ]
        asked = work.repartition(self.tasks, "key").withColumn(
            "answer", MultiUDF(parts, live, self._recipe)(*arguments)
        )
        stopped = {each.name: _is(col("answer", each.name, "error", "kind"), NOT_ROW_ERRORS) for each in self.asking}
        return asked.select(
            *(name for name in ("key", "carried", "moved", "gone", "fresh", "fingerprints") if name in work.columns),
            F.struct(*((col("writes", name) & ~held).alias(name) for name, held in stopped.items())).alias("writes"),
            F.struct(*(_result(each).alias(each.name) for each in self.asking)).alias("result"),
            F.struct(*(col("answer", name, "requests").alias(name) for name in stopped)).alias("requests"),
            (~any_of(col("asks", name) & ~held for name, held in stopped.items())).alias("held"),
        )

    def counted(self, answers: DataFrame) -> ChunkResult:
        """Count answers that were written down."""
        names = [each.name for each in self.asking]
        tried = any_of(_tried(name) for name in names)
        failed = any_of(col("result", name, "error").isNotNull() for name in names)
        row = answers.agg(
            F.count_if(tried).alias("asked"),
            F.count_if(tried & ~failed).alias("answered"),
            F.min("fresh").alias("fresh"),
            F.coalesce(*(_trouble(name) for name in names)).alias("trouble"),
            *(count.alias(f"{i} {what}") for i, name in enumerate(names) for what, count in _counts(name).items()),
        ).collect()[0]
        columns = {
            name: _tally({what: row[f"{i} {what}"] or 0 for what in _counts(name)}) for i, name in enumerate(names)
        }
        return ChunkResult(row["asked"], row["answered"], columns, bool(row["fresh"]), row["trouble"])

    def _recipe(self, recipe: RequestSpec) -> RequestSpec:
        """Return the recipe by which a task of this many asks: it takes its part of what the user allows."""
        policy = recipe.policy
        rate = self.max_failure_rate if policy.max_failure_rate is None else policy.max_failure_rate
        return replace(recipe, policy=replace(policy, tasks=self.tasks, max_failure_rate=rate))


def _is(kind: Column, kinds: Iterable[Kind]) -> Column:
    return F.coalesce(kind.isin(*kinds), F.lit(False))


def _result(each: Asking) -> Column:
    """Return a result as its UDF gives it; a null one is a null, which a pandas UDF cannot return."""
    result = F.struct(*(col("answer", each.name, name).alias(name) for name in each.returns.fieldNames()))
    return F.when(col("answer", each.name, "attempts").isNotNull(), result)


def _tried(name: str) -> Column:
    """Return whether a request was due to a row: one that its task no longer asked had none."""
    asked = col("result", name, "attempts").isNotNull()
    return asked & ~_is(col("result", name, "error", "kind"), ["cancelled"])


def _trouble(name: str) -> Column:
    """Return what an error says that every further row would have too."""
    error = col("result", name, "error")
    return F.first(F.when(_is(error["kind"], FATAL_KINDS), error["message"]), ignorenulls=True)


def _counts(name: str) -> dict[str, Column]:
    result = partial(col, "result", name)
    counts = {"asked": F.count(result("attempts")), "requests": F.sum(col("requests", name))}
    counts |= {f"{part}_tokens": F.sum(result("usage", f"{part}_tokens").cast("bigint")) for part in _TOKENS}
    return counts | {kind: F.count_if(result("error", "kind") == kind) for kind in KINDS}


def _tally(counts: Mapping[str, int]) -> Tally:
    failed = {kind: counts[kind] for kind in KINDS if counts[kind]}
    return Tally(failed=failed, **{name: count for name, count in counts.items() if name not in KINDS})
