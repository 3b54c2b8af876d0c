"""What an endpoint can be asked for: chat, completions, embeddings, and all that goes with each."""

from typing import Literal, NamedTuple

from spark_llm.serving.models.base import ChatModel, CompletionModel, EmbeddingModel
from spark_llm.serving.protocol.requests import ChatRequest, CompletionRequest, EmbeddingRequest

TaskName = Literal["chat", "completions", "embeddings"]


class Task(NamedTuple):
    """One task.

    Attributes:
        name: The word for it.
        path: Where it is asked, behind an OpenAI-style base.
        field: The field that its requests have, and others have not.
        kind: What Databricks calls it where it describes an endpoint.
        request: The type of its requests.
        protocol: What a model must be to serve it.
    """

    name: TaskName
    path: str
    field: str
    kind: str
    request: type[ChatRequest] | type[CompletionRequest] | type[EmbeddingRequest]
    protocol: type


CHAT = Task("chat", "chat/completions", "messages", "llm/v1/chat", ChatRequest, ChatModel)
COMPLETIONS = Task("completions", "completions", "prompt", "llm/v1/completions", CompletionRequest, CompletionModel)
EMBEDDINGS = Task("embeddings", "embeddings", "input", "llm/v1/embeddings", EmbeddingRequest, EmbeddingModel)
TASKS = (CHAT, COMPLETIONS, EMBEDDINGS)
