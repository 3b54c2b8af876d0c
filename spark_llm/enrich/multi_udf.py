"""Several UDFs as one, so a row's columns are asked at the same time; Spark runs UDFs one after the other."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

from pyspark.sql import Column
from pyspark.sql.types import DataType, IntegerType, StructField, StructType

from spark_llm.engine.parallel_columns import Ask, ParallelResults, ask_in_parallel
from spark_llm.engine.request_spec import RequestSpec, with_request_specs
from spark_llm.errors import ConfigError
from spark_llm.livecounts.counts import Address, Reporter
from spark_llm.udf.columns import columns_to_arrow, columns_to_pandas
from spark_llm.udf.lazy_udf import LazyUDF
from spark_llm.udf.plan import Plan, Results, task_sender

REQUESTS = StructField("requests", IntegerType())


class Part(NamedTuple):
    """A column: its name, the UDF that fills it, and the number of that UDF's arguments."""

    name: str
    udf: LazyUDF
    arguments: int


class LiveReporting(NamedTuple):
    """The address to which workers report their counts, and the number of the chunk."""

    address: Address
    chunk: int


class PartPlan(NamedTuple):
    """A worker's plan for one column, and the places of its arguments."""

    name: str
    plan: Plan
    first: int
    arguments: int

    def of(self, batch: Any) -> Any:  # noqa: ANN401 -- a column, or a tuple of them, of Arrow or of pandas
        """Return this part's arguments from those of all parts."""
        if not isinstance(batch, tuple):
            return batch
        mine = batch[self.first : self.first + self.arguments]
        return mine[0] if len(mine) == 1 else mine


@dataclass(frozen=True)
class MultiUDFPlan:
    """The plans of all parts, which a worker runs at the same time."""

    parts: tuple[PartPlan, ...]
    live: LiveReporting | None = None

    def arrow(self, batches: Iterator[Any]) -> Iterator[ParallelResults]:
        """Answer the rows of Arrow arrays."""
        return self._answers(batches, [part.plan.arrow for part in self.parts])

    def pandas(self, batches: Iterator[Any]) -> Iterator[ParallelResults]:
        """Answer the rows of pandas series and frames."""
        return self._answers(batches, [part.plan.pandas for part in self.parts])

    def _answers(self, batches: Iterator[Any], runs: Sequence[Ask]) -> Iterator[ParallelResults]:
        address, chunk = self.live or (None, 0)
        reporter, ended = Reporter(address, task_sender(chunk)), False
        try:
            asks = [partial(_reported_results, part, run, reporter) for part, run in zip(self.parts, runs, strict=True)]
            yield from ask_in_parallel(batches, asks)
            ended = True
        finally:
            reporter.close(ended=ended)


def _reported_results(part: PartPlan, run: Ask, reporter: Reporter, batches: Iterator[Any]) -> Results:
    """Yield the results of one column, and report each chunk of them."""
    for results in run(map(part.of, batches)):
        reporter.add(part.name, results)
        yield results


class MultiUDF(LazyUDF):
    """Several UDFs as one, which is called on the arguments of all of them, one after the other.

    It returns a struct with a field for each part: the struct of the part's UDF, and `requests`, the row's HTTP
    requests. A field is null where its UDF returns null. An exception of one part's UDF ends all.

    >>> both = MultiUDF([Part("mood", chat, 1), Part("vector", embed, 1)])
    >>> df.withColumn("r", both("review", "review")).select("r.mood.text", "r.vector.embedding")
    """

    def __init__(
        self,
        parts: Sequence[Part],
        live: LiveReporting | None = None,
        task_spec: Callable[[str, RequestSpec], RequestSpec] | None = None,
    ) -> None:
        """Combine the parts; workers report to `live` while they ask.

        `task_spec` maps a part's name and request spec to the spec that is used: the same with another policy, say.
        """
        super().__init__("side_by_side")
        self.parts, self.live, self._task_spec = tuple(parts), live, task_spec

    @property
    def returnType(self) -> StructType:  # noqa: N802 -- PySpark's name
        """The type of its column; raises `ConfigError` for a UDF that returns no struct."""
        return StructType([StructField(part.name, _with_requests(part)) for part in self.parts])

    def plan(self) -> MultiUDFPlan:  # type: ignore[override]  # a chunk of its rows has several columns of results
        """Return the plan that travels to the workers."""
        firsts = accumulate((part.arguments for part in self.parts), initial=0)
        plans = [part.udf.plan() for part in self.parts]
        if self._task_spec is not None:
            plans = [
                with_request_specs(plan, partial(self._task_spec, part.name))
                for part, plan in zip(self.parts, plans, strict=True)
            ]
        parts = zip(self.parts, plans, firsts, strict=False)  # one more sum than there are parts
        return MultiUDFPlan(tuple(PartPlan(part.name, plan, at, part.arguments) for part, plan, at in parts), self.live)

    def __call__(self, *arguments: Column | str) -> Column:
        """Return the column of structs; raises `ConfigError` for another number of arguments than the parts have."""
        expected = sum(part.arguments for part in self.parts)
        if len(arguments) != expected:
            raise ConfigError(
                f"The combined UDFs were called on {len(arguments)} columns and take {expected}.",
                "pass the arguments of each part, one part after the other.",
            )
        return self.tagged_column(*arguments)

    def __repr__(self) -> str:
        """Show the parts, without secrets."""
        return f"MultiUDF({', '.join(f'{part.name}={part.udf!r}' for part in self.parts)})"

    def _watched(self, plan: Plan) -> Plan:
        """Return the plan as it is: a table job has counts and a bar of its own."""
        return plan

    def _arrow_converter(self) -> Callable[[Any, Any], Any]:
        return columns_to_arrow

    def _pandas_converter(self) -> Callable[[Any], Any]:
        names = {
            field.name: field.dataType.fieldNames()
            for field in self.returnType
            if isinstance(field.dataType, StructType)
        }
        return partial(columns_to_pandas, names=names)


def _with_requests(part: Part) -> DataType:
    kind = part.udf.returnType
    if not isinstance(kind, StructType):
        raise ConfigError(
            f"The column {part.name} is filled by {part.udf.__name__}, which returns {kind.simpleString()} and not a"
            " struct: a row's error and its tokens would be lost.",
            "use the function that returns the whole struct: its name begins with llm_ where this one begins with ai_.",
        )
    return StructType([*kind, REQUESTS])
