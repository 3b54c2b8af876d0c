"""What travels from the driver to the workers: a task with its parameters, where to ask it, and how hard."""

from dataclasses import dataclass

from spark_llm._route import Route
from spark_llm._tasks import Task
from spark_llm._template import Prompt
from spark_llm.policy import Policy


@dataclass(frozen=True)
class Recipe:
    """Everything that a worker needs to ask; frozen, hashable and picklable. The token in it does not print."""

    task: Task
    route: Route
    policy: Policy
    prompt: Prompt | None = None  # how the columns of a row become what is asked; None where there is one column
