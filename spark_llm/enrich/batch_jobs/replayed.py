"""UDFs whose answers come from replies that are written down, and the bodies of what is still to be asked.

A UDF's plan reads its columns, makes prompts of them and has them answered. Here the last step is another one: each
row's replies are replayed. So every function that makes one request of a row works in batches as it does otherwise.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
from pyspark.sql.types import DataType

from spark_llm.ai.plans import FunctionPlan
from spark_llm.batches.replay import NextTry, replay, unbilled
from spark_llm.batches.settings import Then
from spark_llm.engine.request_body import BodyWriter
from spark_llm.engine.request_spec import RequestSpec, request_specs, with_request_specs
from spark_llm.errors import ConfigError
from spark_llm.protocol.batches.lines import read_line
from spark_llm.protocol.batches.urls import deployment_of
from spark_llm.protocol.bodies import RequestBody
from spark_llm.protocol.task import RESPONSES, UnsendableError
from spark_llm.protocol.values import Item, Result, Row, RowError
from spark_llm.udf.lazy_udf import LazyUDF
from spark_llm.udf.model_udf import ModelPlan
from spark_llm.udf.plan import Plan, Results, answers
from spark_llm.udf.slices import python_values

HISTORY_COLUMNS = 2  # that follow a UDF's own arguments: the row's replies, and whether it is billed for them

Ask = Callable[[Iterator[Sequence[Row]]], Results]


class Request(NamedTuple):
    """The request that a row needs next: its body, or the error for which none can be sent."""

    body: RequestBody | None = None
    error: RowError | None = None


class _History(NamedTuple):
    """The replies to a row's requests as lines of output files, and whether their cost is this row's."""

    lines: Sequence[str]
    billed: bool


def batch_spec(name: str, udf: LazyUDF) -> RequestSpec:
    """Return the request spec of a UDF that makes one request of a row; raises `ConfigError` for any other UDF."""
    plan = udf.plan()
    if not isinstance(plan, (ModelPlan, FunctionPlan)):
        raise ConfigError(
            f"columns[{name!r}] is filled by {udf.__name__}, which has no place in a batch: it is no single request to"
            " one chat, completion or embedding model.",
            "fill that column in a job without batch=.",
        )
    return next(request_specs(plan))


class ReplayedUDF(LazyUDF):
    """A UDF whose results follow from replies; it is called on the UDF's own arguments and `HISTORY_COLUMNS`.

    A row whose next request is still to be answered gets the error `cancelled`, which no run writes into its table.
    With `then="now"` such a row is asked at once, if it has replies.
    """

    def __init__(self, udf: LazyUDF, then: Then) -> None:
        """Replay the replies to the requests of `udf`."""
        super().__init__(udf.__name__)
        self._udf, self._then = udf, then

    @property
    def returnType(self) -> DataType:  # noqa: N802 -- PySpark's name
        """The type of the UDF's column."""
        return self._udf.returnType

    def plan(self) -> "ReplayedPlan":
        """Return the plan that workers run."""
        return ReplayedPlan(self._udf.plan(), self._then)


@dataclass(frozen=True)
class ReplayedPlan:
    """A plan whose rows are answered by replies."""

    plan: Plan
    then: Then

    @property
    def canonical(self) -> Any:  # noqa: ANN401 -- what JSON holds
        """That of the plan."""
        return self.plan.canonical

    def arrow(self, batches: Iterator[Any]) -> Results:
        """Yield the results for rows in Arrow arrays."""
        histories = deque[_History]()
        return self._with(histories).arrow(_own_arguments(batches, histories))

    def pandas(self, batches: Iterator[Any]) -> Results:
        """Yield the results for rows in pandas series and frames."""
        histories = deque[_History]()
        return self._with(histories).pandas(_own_arguments(batches, histories))

    def _with(self, histories: deque[_History]) -> Plan:
        def answered_by(spec: RequestSpec, rows: Iterator[Sequence[Row]]) -> Results:
            ask = partial(answers, replace(spec, answered_by=None)) if self.then == "now" else None
            return _replayed(spec, rows, histories, ask)

        return with_request_specs(self.plan, lambda spec: replace(spec, answered_by=answered_by))


def requests_of(plan: Plan, batches: Iterator[tuple[pa.Array, ...]]) -> Iterator[list[Request | None]]:
    """Yield the request that each row needs next; None for a row that needs none.

    The batches are Arrow arrays of the plan's own arguments and of `HISTORY_COLUMNS`.
    """
    histories = deque[_History]()

    def answered_by(spec: RequestSpec, rows: Iterator[Sequence[Row]]) -> Iterator[list[Any]]:
        route = replace(spec.route, model=spec.route.model or deployment_of(spec.route.url))
        bodies = BodyWriter.of(spec.task, spec.policy, route, b"")
        for some in rows:
            yield [_request(_state(spec, row, histories.popleft()), bodies) for row in some]

    asking = with_request_specs(plan, lambda spec: replace(spec, answered_by=answered_by))
    yield from asking.arrow(_own_arguments(batches, histories))  # type: ignore[misc]  # requests in place of results


def _own_arguments(batches: Iterator[Any], histories: deque[_History]) -> Iterator[Any]:
    """Yield the batches without their history, which is put in line."""
    for batch in batches:
        *own, replies, billed = batch
        histories.extend(map(_History, _lists(replies), _values(billed)))
        yield own[0] if len(own) == 1 else tuple(own)


def _lists(column: pa.Array | pd.Series) -> list[Sequence[str]]:
    return [[] if value is None else list(value) for value in _values(column)]


def _values(column: pa.Array | pd.Series) -> list[Any]:
    return python_values(column) if isinstance(column, pa.Array) else list(column)


def _state(spec: RequestSpec, row: Row, history: _History) -> Result | NextTry | None:
    """Return what a row came to; None where it asks nothing."""
    if isinstance(row, RowError):
        return Result(error=row)
    if row is None or isinstance(row, Result) or spec.task.skips(row):
        return row if isinstance(row, Result) else None
    replies = [reply for line in history.lines if (reply := read_line(line)) is not None]
    first_format = RESPONSES if spec.route.api == "responses" else 0
    state = replay(spec.task, row, replies, spec.policy, first_format)
    if history.billed:
        return state
    return unbilled(state) if isinstance(state, Result) else NextTry(state.item, state.wire_format)


def _replayed(spec: RequestSpec, rows: Iterator[Sequence[Row]], histories: deque[_History], ask: Ask | None) -> Results:
    """Yield each row's result; `ask` answers those that have replies and are not settled by them."""
    if ask is None:
        for some in rows:
            states = [_state(spec, row, histories.popleft()) for row in some]
            yield [state.waiting() if isinstance(state, NextTry) else state for state in states]
        return
    waiting = deque[Result | NextTry | None]()

    def unsettled() -> Iterator[list[Item | None]]:
        for some in rows:
            items: list[Item | None] = []
            for row in some:
                history = histories.popleft()
                state = _state(spec, row, history)
                if isinstance(state, NextTry) and not history.lines:
                    state = state.waiting()
                waiting.append(state)
                items.append(state.item if isinstance(state, NextTry) else None)
            yield items

    for results in ask(unsettled()):
        yield [_joined(waiting.popleft(), result) for result in results]


def _joined(state: Result | NextTry | None, asked: Result | None) -> Result | None:
    if isinstance(state, NextTry):
        return state.waiting() if asked is None else state.plus(asked)
    return state


def _request(state: Result | NextTry | None, bodies: BodyWriter) -> Request | None:
    """Return the request that follows, or the error of a row that has none; None for a row that asks nothing."""
    if not isinstance(state, NextTry):
        return None if state is None else Request(error=state.error)
    try:
        body = bodies.task.encode([state.item], bodies.model, state.wire_format)
    except UnsendableError as unsendable:
        return Request(error=unsendable.failure.error)
    error = bodies.size_error(body)
    return Request(body) if error is None else Request(error=error)
