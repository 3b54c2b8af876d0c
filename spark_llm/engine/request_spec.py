"""The request spec travels from the driver to the workers: a task with its parameters, its endpoint and its policy."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, TypeVar

from spark_llm._version import __version__
from spark_llm.endpoint.attribution import Attribution
from spark_llm.endpoint.route import Route
from spark_llm.livecounts.counts import Address
from spark_llm.policy import Policy
from spark_llm.protocol.task import Task
from spark_llm.protocol.template import PromptBuilder
from spark_llm.protocol.values import Result, Row

Plan = TypeVar("Plan")
AnsweredBy = Callable[["RequestSpec", Iterator[Sequence[Row]]], Iterator[list[Result | None]]]


class StreamJob(NamedTuple):
    """The job that a stream of rows belongs to."""

    driver: Address | None = None  # allots the policy's limits to hosts, and is told how requests flow
    stage: int | None = None  # of Spark, whose tasks share `max_failure_rate`
    attribution: bytes = b""  # the fields that name the job in each request; empty where the endpoint gets none


NO_JOB = StreamJob()


@dataclass(frozen=True)
class RequestSpec:
    """Everything that a worker needs to send requests; frozen, hashable and picklable. Its token does not print."""

    task: Task
    route: Route
    policy: Policy
    prompt: PromptBuilder | None = None  # builds a row's prompt from its columns; None where there is one column
    driver: Address | None = None  # allots limits to hosts, and is told of their flow; None where none listens
    attribution: Attribution = field(default_factory=Attribution)
    answered_by: "AnsweredBy | None" = field(default=None, compare=False, repr=False)  # instead of an engine

    def job(self, task: Task, stage: int | None) -> StreamJob:
        """Return the job of a stream of rows of a task, in a stage of Spark."""
        attribution = self.attribution.fields(task.parameters) if self.route.attributed else b""
        return StreamJob(self.driver, stage, attribution)

    @property
    def group(self) -> tuple[object, ...]:
        """The workers of a host that have the same value, those of one Spark application, share one flow controller."""
        policy = self.policy
        limits = (policy.max_in_flight, policy.requests_per_minute, policy.tokens_per_minute)
        return (__version__, self.attribution.application or os.getppid(), self.route.url, self.route.model, *limits)


def request_specs(value: object) -> Iterator[RequestSpec]:
    """Yield the specs in a plan: a dataclass or a tuple that holds some, at any depth."""
    if isinstance(value, RequestSpec):
        yield value
    else:
        for part in _parts(value):
            yield from request_specs(part)


def with_request_specs(plan: Plan, change: Callable[[RequestSpec], RequestSpec]) -> Plan:
    """Return the same plan with each spec in it changed."""
    changed: Plan = _changed(plan, change)
    return changed


def _parts(value: Any) -> tuple[Any, ...]:  # noqa: ANN401 -- anything
    if isinstance(value, tuple):
        return value
    return (
        tuple(getattr(value, field.name) for field in fields(value)) if hasattr(value, "__dataclass_fields__") else ()
    )


def _changed(value: Any, change: Callable[[RequestSpec], RequestSpec]) -> Any:  # noqa: ANN401 -- anything
    if isinstance(value, RequestSpec):
        return change(value)
    if not any(True for _ in request_specs(value)):
        return value
    if isinstance(value, tuple):
        parts = (_changed(part, change) for part in value)
        return value._make(parts) if hasattr(value, "_make") else tuple(parts)  # a named tuple keeps its type
    return replace(value, **{field.name: _changed(getattr(value, field.name), change) for field in fields(value)})
