"""The catalog of served endpoints: their models, tasks and state."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import cast, get_args

from spark_llm.serving.models.base import Model
from spark_llm.serving.models.custom import CustomModel, PredictFunction
from spark_llm.serving.models.tasks import CHAT, RESPONSES, TASKS, Task, TaskName


@dataclass(frozen=True)
class ServingEndpoint:
    """An endpoint with one model or several; a bare model means `ServingEndpoint(model)`.

    >>> ServingEndpoint(Echo(), tasks=["embeddings"])  # refuses chat, though the model can do it
    >>> ServingEndpoint(Echo(), tasks=["responses"])  # refuses chat, and says that it is served at v1/responses
    >>> ServingEndpoint({"chat-1": Echo(), "chat-2": Echo(name="rival")})  # two; the first has all traffic
    >>> ServingEndpoint(Echo(), route_optimized=True)
    >>> ServingEndpoint(lambda table: table["age"] * 2)  # a custom model

    Attributes:
        models: One model, or models by the names of their served entities. The first serves requests to the endpoint;
            each has its own path. A single model has the endpoint's name, with "-1" appended. A function is a
            `CustomModel`.
        tasks: The tasks that it serves. None: all that its models can do.
        route_optimized: It also has a data plane of its own, which takes only OAuth tokens issued for it.
    """

    models: Model | PredictFunction | Mapping[str, Model | PredictFunction]
    tasks: Collection[TaskName] | None = field(default=None, kw_only=True)
    route_optimized: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        """Check that there is a model, and that the tasks are known."""
        if isinstance(self.models, Mapping) and not self.models:
            raise ValueError("An endpoint needs a model. Hint: give it one.")
        if self.tasks is not None and (not self.tasks or not set(self.tasks) <= set(get_args(TaskName))):
            raise ValueError(
                f"tasks={self.tasks!r} is not a list of tasks. "
                f"Hint: give a list of these: {', '.join(get_args(TaskName))}."
            )


@dataclass
class Deployment:
    """A served endpoint.

    Attributes:
        name: Its name in requests.
        id: Its id in permissions; equal names have equal ids.
        entities: Its models, by the names of their served entities; the first has all traffic.
        tasks: Its tasks; descriptions name the first.
        route_optimized: Whether it has a data plane of its own.
        ready: Whether it runs; False when it is stopped.
    """

    name: str
    id: str
    entities: Mapping[str, Model]
    tasks: tuple[Task, ...]
    route_optimized: bool
    ready: bool = True

    @property
    def is_service(self) -> bool:
        """Whether it is a model service, with a name of three parts, which only the gateway serves and describes."""
        return self.name.count(".") >= 2

    @property
    def own_path_tasks(self) -> tuple[Task, ...]:
        """The tasks at the endpoint's own path, where the fields of a body tell which one it wants.

        An `input` means embeddings there, and a response only where the model does not take `messages`.
        """
        return tuple(task for task in self.tasks if task != RESPONSES or CHAT not in self.tasks)

    @classmethod
    def of(cls, name: str, endpoint: ServingEndpoint) -> "Deployment":
        """Deploy an endpoint under a name; raises `ValueError` if its models cannot serve its tasks."""
        models = endpoint.models if isinstance(endpoint.models, Mapping) else {f"{name}-1": endpoint.models}
        entities = {entity: _model(each) for entity, each in models.items()}
        served = [task for task in TASKS if all(isinstance(model, task.model_protocol) for model in entities.values())]
        tasks = tuple(task for task in served if endpoint.tasks is None or task.name in endpoint.tasks)
        if not tasks or (endpoint.tasks is not None and len(tasks) < len(set(endpoint.tasks))):
            wanted = "any task" if endpoint.tasks is None else " and ".join(endpoint.tasks)
            raise ValueError(
                f"The models of endpoint {name} do not all serve {wanted}. Hint: give them the methods for it."
            )
        endpoint_id = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return cls(name, endpoint_id, entities, tasks, endpoint.route_optimized)


def _model(model: Model | PredictFunction) -> Model:
    """Return a model as it is, and a function as a custom model."""
    has_task = any(isinstance(model, task.model_protocol) for task in TASKS)
    return CustomModel(model) if callable(model) and not has_task else cast("Model", model)


Catalog = dict[str, Deployment]
"""The deployments, by the names of their endpoints."""


def deploy(endpoints: Mapping[str, Model | PredictFunction | ServingEndpoint]) -> Catalog:
    """Deploy endpoints, each under its name; raises `ValueError` as `Deployment.of` does."""
    return {
        name: Deployment.of(name, each if isinstance(each, ServingEndpoint) else ServingEndpoint(each))
        for name, each in endpoints.items()
    }
