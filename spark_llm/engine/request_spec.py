"""What travels from the driver to the workers: a task with its parameters, where to ask it, and how hard."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from spark_llm.endpoint.route import Route
from spark_llm.policy import Policy
from spark_llm.protocol.task import Task
from spark_llm.protocol.template import PromptBuilder

Plan = TypeVar("Plan")


@dataclass(frozen=True)
class RequestSpec:
    """Everything that a worker needs to ask; frozen, hashable and picklable. The token in it does not print."""

    task: Task
    route: Route
    policy: Policy
    prompt: PromptBuilder | None = None  # how the columns of a row become what is asked; None where there is one column


def request_specs(value: object) -> Iterator[RequestSpec]:
    """Yield the recipes in what travels to the workers: a dataclass or a tuple that holds some, however deep."""
    if isinstance(value, RequestSpec):
        yield value
    else:
        for part in _parts(value):
            yield from request_specs(part)


def with_request_specs(plan: Plan, change: Callable[[RequestSpec], RequestSpec]) -> Plan:
    """Return the same with each recipe in it changed."""
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
        return tuple(_changed(part, change) for part in value)
    return replace(value, **{field.name: _changed(getattr(value, field.name), change) for field in fields(value)})
