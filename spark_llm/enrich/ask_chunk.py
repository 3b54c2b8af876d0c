"""One chunk of rows: all columns of a row are asked at the same time, and the results are counted."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_llm.batches.settings import Then
from spark_llm.coordination.allotment import HardLimits
from spark_llm.endpoint.attribution import Attribution
from spark_llm.engine.request_spec import RequestSpec, request_specs
from spark_llm.enrich.batch_jobs.history import history_names
from spark_llm.enrich.batch_jobs.replayed import HISTORY_COLUMNS, ReplayedUDF
from spark_llm.enrich.changes import any_of, argument_name, col
from spark_llm.enrich.column_types import nullable
from spark_llm.enrich.multi_udf import LiveReporting, MultiUDF, Part
from spark_llm.enrich.plan import FilledColumn, RunPlan
from spark_llm.enrich.staging import Staging
from spark_llm.errors import Kind
from spark_llm.livecounts.counts import Address
from spark_llm.livecounts.flows import JobFlow
from spark_llm.metering.chunking import FATAL_KINDS, NOT_ROW_ERRORS
from spark_llm.metering.prices import Price
from spark_llm.metering.tally import Tally
from spark_llm.policy import Policy
from spark_llm.protocol.identifiers import named, quoted, struct
from spark_llm.udf.parallelism import default_parallelism
from spark_llm.usage.answers import AnswerColumn
from spark_llm.usage.counts import tally_aggregates, tally_of

EARLIER = "failed_earlier"  # of a row in batches: whether a column that was settled earlier has an error
_NONE: Mapping[str, str | None] = {}


class ChunkResult(NamedTuple):
    """The results of a chunk, in numbers.

    Attributes:
        asked: Rows that were asked.
        answered: Rows that were answered in every column.
        columns: The tally of each column.
        new_rows: How many rows have a result, if the target had none of them when the run began; else None.
        stop_errors: By column, the message of an error of `NOT_ROW_ERRORS`; None where there is none.
    """

    asked: int
    answered: int
    columns: Mapping[str, Tally]
    new_rows: int | None = None
    stop_errors: Mapping[str, str | None] = _NONE

    def plus(self, other: "ChunkResult") -> "ChunkResult":
        """Return the sum of two chunks."""
        columns = {name: tally.plus(other.columns[name]) for name, tally in self.columns.items()}
        return ChunkResult(self.asked + other.asked, self.answered + other.answered, columns)


class AskResult(NamedTuple):
    """The results of all chunks of a run.

    Attributes:
        total: Their sum.
        left: Rows that were not asked, or failed for another reason than their own.
        stopped: Why the run ended before the last row, with a hint; None where it did not.
        limits: Who kept the hard limits of the policies; None where none is set.
        flow: How the requests went; None where no host told the driver.
        out: Rows whose requests are with the provider, in batches.
        out_batches: Those batches.
        out_usd: About the cost of these rows; None where it is unknown.
        out_usd_at_once: About what they would cost as single requests.
        notes: Sentences for the report.
    """

    total: ChunkResult
    left: int
    stopped: str | None
    limits: str | None = None
    flow: JobFlow | None = None
    out: int = 0
    out_batches: int = 0
    out_usd: float | None = None
    out_usd_at_once: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChunkRunner:
    """Asks chunks of pending rows in a fixed number of Spark tasks."""

    plan: RunPlan
    tasks: int
    max_failure_rate: float | None
    prices: Mapping[str, Price]
    attribution: Attribution
    then: Then | None = None  # of a job in batches: the rows have the replies to their requests

    @classmethod
    def of(  # noqa: PLR0917 -- what a runner depends on
        cls,
        spark: SparkSession,
        plan: RunPlan,
        max_failure_rate: float | None,
        prices: Mapping[str, Price],
        attribution: Attribution,
        then: Then | None = None,
    ) -> "ChunkRunner":
        """Choose the number of tasks: what the policies say, else one for each core."""
        tasks = max(policy.tasks for policy in _policies(plan))
        tasks = tasks if tasks > 1 else default_parallelism(spark)
        return cls(plan, tasks, max_failure_rate, prices, attribution, then)

    @property
    def has_limits(self) -> bool:
        """Whether the user set limits that the hosts of the job share."""
        return any(HardLimits.of(policy).are_set for policy in _policies(self.plan))

    def ask(
        self, work: DataFrame, live: LiveReporting | None, driver: Address | None, staging: Staging
    ) -> tuple[DataFrame, ChunkResult]:
        """Ask these rows and write their answers down; return the answers as they were written, and the numbers.

        Tasks report their counts to `live`. Hosts ask `driver` for their share of the limits, and tell it their flow.

        Columns: those of the pending rows that a MERGE reads, `result`, `requests`, and `deferred`: no column of the
        row has a result, for a reason that is not the row's. It stays in the target as it is, for the next run.
        """
        answers, counts = staging.write("answers", self._answers(work, live, driver), self._counts())
        tallies = {}
        for i, each in enumerate(self.plan.filled):
            values = {what: counts[f"{i} {what}"] for what in self._column_counts(each)}
            tallies[each.name] = replace(tally_of(values, self._tiers(each)), requests=values["requests"] or 0)
        new_rows = counts["results"] if counts["only_new"] else None
        errors = {each.name: counts[f"{i} stop_error"] for i, each in enumerate(self.plan.filled)}
        return answers, ChunkResult(counts["asked"], counts["answered"], tallies, new_rows, errors)

    def _answers(self, work: DataFrame, live: LiveReporting | None, driver: Address | None) -> DataFrame:
        filled = self.plan.filled
        parts = [self._part(each) for each in filled]
        arguments = [argument for i, each in enumerate(filled) for argument in self._arguments(i, each)]
        udf = MultiUDF(parts, live, partial(self._task_spec, driver))
        rows = work if self.then == "batch" else work.repartition(self.tasks, "key")  # to replay needs no requests
        asked = rows.withColumn("answer", udf(*arguments))
        deferred = {
            each.name: is_one_of(quoted("answer", each.name, "error", "kind"), NOT_ROW_ERRORS) for each in filled
        }
        kept = (
            "key",
            "carried",
            "changed",
            "deleted",
            "new",
            "fingerprints",
            *(["asks", EARLIER] if self.then else []),
        )
        structs = {
            "writes": {name: f"{quoted('writes', name)} AND NOT {no}" for name, no in deferred.items()},
            "result": {each.name: _result(each) for each in filled},
            "requests": {name: quoted("answer", name, "requests") for name in deferred},
        }
        has_result = any_of(f"{quoted('asks', name)} AND NOT {no}" for name, no in deferred.items())
        return asked.selectExpr(
            *(name for name in kept if name in work.columns),
            *named({name: struct(fields) for name, fields in structs.items()}),
            f"NOT ({has_result}) AS deferred",
        )

    def _part(self, each: FilledColumn) -> Part:
        if self.then is None:
            return Part(each.name, each.call.udf, len(each.arguments))
        return Part(each.name, ReplayedUDF(each.call.udf, self.then), len(each.arguments) + HISTORY_COLUMNS)

    def _arguments(self, place: int, each: FilledColumn) -> list[Column]:
        own = [
            F.when(col("asks", each.name), col(argument_name(place, n)).cast(nullable(kind)))
            for n, kind in enumerate(each.argument_types)
        ]
        return own if self.then is None else [*own, *map(col, history_names(place))]

    def _counts(self) -> dict[str, str]:
        """Return the aggregates over answers that make a `ChunkResult`."""
        names = [each.name for each in self.plan.filled]
        requested = any_of(_was_requested(name) for name in names)
        failed = any_of(f"{quoted('result', name, 'error')} IS NOT NULL" for name in names)
        if self.then is not None:  # a row counts once, when its last column is settled
            requested = f"({requested}) AND NOT ({any_of(map(_waits, names))})"
            failed = f"({failed}) OR {EARLIER}"
        columns = {
            f"{i} {what}": count
            for i, each in enumerate(self.plan.filled)
            for what, count in self._column_counts(each).items()
        }
        return {
            "asked": f"count_if({requested})",
            "answered": f"count_if(({requested}) AND NOT ({failed}))",
            "only_new": "min(new)",
            "results": "count_if(NOT deferred)",
            **columns,
        }

    def _column_counts(self, each: FilledColumn) -> dict[str, str]:
        answers = AnswerColumn(quoted("result", each.name), each.type)
        requests = f"sum({quoted('requests', each.name)})"
        stop_error = _stop_message(answers)
        return {**tally_aggregates(answers, self._tiers(each)), "requests": requests, "stop_error": stop_error}

    def _tiers(self, each: FilledColumn) -> Iterable[str]:
        return self.prices[each.name].factors if self.prices else ()

    def _task_spec(self, driver: Address | None, column: str, spec: RequestSpec) -> RequestSpec:
        """Return a column's request spec in one of these tasks, which has its part of limits that cannot be shared."""
        policy = spec.policy
        rate = self.max_failure_rate if policy.max_failure_rate is None else policy.max_failure_rate
        policy = replace(policy, tasks=self.tasks, max_failure_rate=rate)
        return replace(spec, policy=policy, driver=driver, attribution=replace(self.attribution, column=column))


def _policies(plan: RunPlan) -> list[Policy]:
    return [spec.policy for each in plan.filled for spec in request_specs(each.call.udf.plan())]


def is_one_of(kind: str, kinds: Iterable[Kind]) -> str:
    """Return the SQL condition that an error's kind is one of these; false where there is no error."""
    return f"coalesce({kind} IN ({', '.join(map(repr, kinds))}), false)"


def _result(each: FilledColumn) -> str:
    """Return the result of a UDF; null where a pandas UDF, which cannot return a null struct, has only null fields."""
    result = struct({name: quoted("answer", each.name, name) for name in each.type.fieldNames()})
    return f"CASE WHEN {quoted('answer', each.name, 'attempts')} IS NOT NULL THEN {result} END"


def _waits(name: str) -> str:
    """Return whether a row of answers waits for a batch, in this column."""
    return f"{quoted('asks', name)} AND {is_one_of(quoted('result', name, 'error', 'kind'), ['cancelled'])}"


def _was_requested(name: str) -> str:
    """Return whether a row counts as asked: one that its task stopped asking does not."""
    attempts, kind = quoted("result", name, "attempts"), quoted("result", name, "error", "kind")
    return f"{attempts} IS NOT NULL AND NOT {is_one_of(kind, ['cancelled'])}"


def _stop_message(answers: AnswerColumn) -> str:
    """Return the message of an error that every further row would get, else that of a cancelled row, else null.

    Of several it is the first by the alphabet.
    """
    kind, message = answers.field("error", "kind"), answers.field("error", "message")
    first = (f"min(CASE WHEN {is_one_of(kind, kinds)} THEN {message} END)" for kinds in (FATAL_KINDS, ("cancelled",)))
    return f"coalesce({', '.join(first)})"
