"""The work of a UDF on one worker, and its counts where its query runs in a `progress` block."""

import secrets
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from pyspark import TaskContext

from spark_llm.engine.registry import engine_for
from spark_llm.engine.request_spec import RequestSpec, request_specs, with_request_specs
from spark_llm.livecounts.blocks import SETTING, last_block
from spark_llm.livecounts.counts import Address, Reporter
from spark_llm.livecounts.datagrams import Sender
from spark_llm.livecounts.labels import Label
from spark_llm.protocol.values import Result, Row

Results = Iterator[list[Result | None]]  # in the rows' order; an empty list asks for a flush


class Plan(Protocol):
    """The work of a UDF on one worker; it is pickled, so it is made of values.

    A batch is one column, or a tuple of columns for a UDF that was called on several.
    """

    @property
    def canonical(self) -> Any:  # noqa: ANN401 -- what JSON holds
        """The request in the form of `protocol.canonical`; table jobs compare it with the one of earlier runs."""

    def arrow(self, batches: Iterator[Any]) -> Results:
        """Yield the results for rows in Arrow arrays."""

    def pandas(self, batches: Iterator[Any]) -> Results:
        """Yield the results for rows in pandas series and frames."""


@dataclass(frozen=True)
class WatchedPlan:
    """A plan; where its query runs in a `progress` block, the block's driver gets its counts, and allots its limits."""

    name: str
    plan: Plan
    secret: bytes = field(repr=False)  # signs the datagrams

    @property
    def canonical(self) -> Any:  # noqa: ANN401 -- what JSON holds
        """That of the plan."""
        return self.plan.canonical

    def arrow(self, batches: Iterator[Any]) -> Results:
        """Yield the results for rows in Arrow arrays."""
        return self._results(lambda plan: plan.arrow(batches))

    def pandas(self, batches: Iterator[Any]) -> Results:
        """Yield the results for rows in pandas series and frames."""
        return self._results(lambda plan: plan.pandas(batches))

    def _results(self, run: Callable[[Plan], Results]) -> Results:
        task = TaskContext.get()
        block = None if task is None else last_block(task.getLocalProperty(SETTING))
        if block is None:
            return run(self.plan)
        driver = Address(block.host, block.port, self.secret, block.operations)
        plan = with_request_specs(self.plan, lambda spec: replace(spec, driver=driver))
        label = _label(self.name, self.plan) if block.operations else self.name
        return _reported(label, run(plan), Reporter(driver, task_sender(block.number)))


def _label(name: str, plan: Plan) -> str:
    """Return the label of a UDF; without whom it asks, where it asks several."""
    asked = {(spec.task.name, spec.route.shown, spec.route.model or "") for spec in request_specs(plan)}
    return str(Label(name, *asked.pop())) if len(asked) == 1 else name


def _reported(name: str, chunks: Results, reporter: Reporter) -> Results:
    """Yield the results, and report them."""
    ended = False
    try:
        for results in chunks:
            reporter.add(name, results)
            yield results
        ended = True
    finally:
        if isinstance(chunks, Generator):
            chunks.close()
        reporter.close(ended=ended)


def task_sender(chunk: int) -> Sender:
    """Return a new sender of counts: a stream of rows in the running task, for a chunk or block."""
    task, stream = TaskContext.get(), secrets.randbits(32)
    if task is None:
        return Sender(chunk, 0, 0, 0, stream)
    return Sender(chunk, task.stageId(), task.partitionId(), task.taskAttemptId(), stream)


def answers(spec: RequestSpec, rows: Iterator[Sequence[Row]]) -> Results:
    """Yield the results of the rows of a Spark task."""
    if spec.answered_by is not None:
        return spec.answered_by(spec, rows)
    task = TaskContext.get()
    return engine_for(spec, None if task is None else task.stageId()).stream(spec.task, rows)
