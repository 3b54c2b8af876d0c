"""What travels from the driver to the workers: a task with its parameters, where to ask it, and how hard."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from spark_llm.endpoint.route import Route
from spark_llm.policy import Policy
from spark_llm.protocol.task import Task
from spark_llm.protocol.template import Prompt

Plan = TypeVar("Plan")


@dataclass(frozen=True)
class Recipe:
    """Everything that a worker needs to ask; frozen, hashable and picklable. The token in it does not print."""

    task: Task
    route: Route
    policy: Policy
    prompt: Prompt | None = None  # how the columns of a row become what is asked; None where there is one column


def recipes(value: object) -> Iterator[Recipe]:
    """Yield the recipes in what travels to the workers: a dataclass or a tuple that holds some, however deep."""
    if isinstance(value, Recipe):
        yield value
    else:
        for part in _parts(value):
            yield from recipes(part)


def with_recipes(plan: Plan, change: Callable[[Recipe], Recipe]) -> Plan:
    """Return the same with each recipe in it changed."""
    changed: Plan = _changed(plan, change)
    return changed


def _parts(value: Any) -> tuple[Any, ...]:  # noqa: ANN401 -- anything
    if isinstance(value, tuple):
        return value
    return (
        tuple(getattr(value, field.name) for field in fields(value)) if hasattr(value, "__dataclass_fields__") else ()
    )


def _changed(value: Any, change: Callable[[Recipe], Recipe]) -> Any:  # noqa: ANN401 -- anything
    if isinstance(value, Recipe):
        return change(value)
    if not any(True for _ in recipes(value)):
        return value
    if isinstance(value, tuple):
        return tuple(_changed(part, change) for part in value)
    return replace(value, **{field.name: _changed(getattr(value, field.name), change) for field in fields(value)})
