"""The routes that take requests for a model, each with the dialect of its responses."""

from typing import NamedTuple

from spark_llm.serving.models.tasks import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    PREDICTIONS,
    RERANK,
    RESPONSES,
    SCORE,
    TASKS,
    Task,
)
from spark_llm.serving.protocol.errors import Dialect


class Route(NamedTuple):
    """One path.

    Attributes:
        path: The path, with `{name}` for the endpoint; without it the body's `model` names the endpoint. The path of
            MLflow's scoring server has neither, and asks the first custom model.
        dialect: The dialect of its responses.
        task: Its task; None if the body's fields determine it.
        data_plane: It is an endpoint's own data plane, and takes only tokens issued for that.
        needs_version: Its requests need the parameter `api-version`.
    """

    path: str
    dialect: Dialect
    task: Task | None = None
    data_plane: bool = False
    needs_version: bool = False


# OpenAI clients use one of these bases, and append the task's path to it.
GATEWAY = "/ai-gateway/mlflow/v1"
BASES: dict[str, Dialect] = {
    "/serving-endpoints": "databricks",
    GATEWAY: "databricks",
    "/v1": "openai",
    "/openai/v1": "azure",
}
_AZURE_DEPLOYMENT = "/openai/deployments/{name}"
ROUTES = (
    Route("/serving-endpoints/{name}/invocations", "databricks"),
    Route("/serving-endpoints/{name}/served-models/{served}/invocations", "databricks"),
    Route("/{workspace:[0-9]+}/serving-endpoints/{name}/invocations", "databricks", data_plane=True),
    Route("/invocations", "databricks", PREDICTIONS),
    *(Route(f"{base}/{task.path}", dialect, task) for base, dialect in BASES.items() for task in TASKS if task.path),
    *(
        Route(f"{_AZURE_DEPLOYMENT}/{task.path}", "azure", task, needs_version=True)
        for task in (CHAT, COMPLETIONS, EMBEDDINGS)
    ),
    Route("/openai/responses", "azure", RESPONSES, needs_version=True),
    *(Route(f"{base}/rerank", "openai", RERANK) for base in ("", "/v1", "/v2")),  # of vLLM, Jina and Cohere
    *(Route(f"{base}/score", "openai", SCORE) for base in ("", "/v1")),
)
