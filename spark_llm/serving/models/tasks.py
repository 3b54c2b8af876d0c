"""The tasks of an endpoint: chat, completions, embeddings, each with its path, request type and model protocol."""

from typing import Literal, NamedTuple

from spark_llm.serving.models.base import ChatModel, CompletionModel, EmbeddingModel
from spark_llm.serving.protocol.requests import ChatRequest, CompletionRequest, EmbeddingRequest

TaskName = Literal["chat", "completions", "embeddings"]


class Task(NamedTuple):
    """One task.

    Attributes:
        name: Its name in `ServingEndpoint.tasks`.
        path: Its path after an OpenAI-style base.
        input_field: The field that only its requests have.
        databricks_name: The `task` of endpoint descriptions.
        request_type: The type of its requests.
        model_protocol: The protocol of a model that serves it.
    """

    name: TaskName
    path: str
    input_field: str
    databricks_name: str
    request_type: type[ChatRequest] | type[CompletionRequest] | type[EmbeddingRequest]
    model_protocol: type


CHAT = Task("chat", "chat/completions", "messages", "llm/v1/chat", ChatRequest, ChatModel)
COMPLETIONS = Task("completions", "completions", "prompt", "llm/v1/completions", CompletionRequest, CompletionModel)
EMBEDDINGS = Task("embeddings", "embeddings", "input", "llm/v1/embeddings", EmbeddingRequest, EmbeddingModel)
TASKS = (CHAT, COMPLETIONS, EMBEDDINGS)
