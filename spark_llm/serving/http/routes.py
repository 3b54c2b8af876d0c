"""Where models are asked: every path that takes a request for one, and in whose manner it answers."""

from typing import NamedTuple

from spark_llm.serving.models.tasks import TASKS, Task
from spark_llm.serving.protocol.errors import Dialect


class Route(NamedTuple):
    """One path.

    Attributes:
        path: The path, with `{name}` where the endpoint stands; where it has none, the body's `model` names it.
        dialect: Whose manner it answers in.
        task: What is asked there; None where the body's fields tell it.
        data_plane: It is the endpoint's own data plane, and takes only tokens that are issued for that.
    """

    path: str
    dialect: Dialect
    task: Task | None = None
    data_plane: bool = False


# OpenAI clients are pointed at one of these bases, and add the task's path to it.
BASES: dict[str, Dialect] = {
    "/serving-endpoints": "databricks",
    "/ai-gateway/mlflow/v1": "databricks",
    "/v1": "openai",
    "/openai/deployments/{name}": "azure",
}
ROUTES = (
    Route("/serving-endpoints/{name}/invocations", "databricks"),
    Route("/serving-endpoints/{name}/served-models/{served}/invocations", "databricks"),
    Route("/{workspace:[0-9]+}/serving-endpoints/{name}/invocations", "databricks", data_plane=True),
    *(Route(f"{base}/{task.path}", dialect, task) for base, dialect in BASES.items() for task in TASKS),
)
