"""The tasks of an endpoint, each with its path and its types; and rerankings, which every embedding model serves."""

from typing import Literal, NamedTuple

from spark_llm.serving.models.base import ChatModel, CompletionModel, EmbeddingModel, PredictionModel
from spark_llm.serving.protocol.predictions import INPUT_FORMATS, PredictionRequest
from spark_llm.serving.protocol.requests import ChatRequest, CompletionRequest, EmbeddingRequest, Request
from spark_llm.serving.protocol.rerank import RerankRequest, ScoreRequest
from spark_llm.serving.protocol.responses_request import ResponsesRequest

TaskName = Literal["chat", "completions", "embeddings", "responses", "predictions"]


class Task(NamedTuple):
    """One task.

    Attributes:
        name: Its name, in `ServingEndpoint.tasks` too; rerankings are not there.
        path: Its path after an OpenAI-style base; None if OpenAI has no such task.
        input_fields: The fields of which its requests have one, and only they.
        databricks_name: The `task` of endpoint descriptions; custom models have none.
        request_type: The type of its requests.
        model_protocol: The protocol of a model that serves it.
    """

    name: str
    path: str | None
    input_fields: tuple[str, ...]
    databricks_name: str | None
    request_type: type[Request]
    model_protocol: type


CHAT = Task("chat", "chat/completions", ("messages",), "llm/v1/chat", ChatRequest, ChatModel)
COMPLETIONS = Task("completions", "completions", ("prompt",), "llm/v1/completions", CompletionRequest, CompletionModel)
EMBEDDINGS = Task("embeddings", "embeddings", ("input",), "llm/v1/embeddings", EmbeddingRequest, EmbeddingModel)
RESPONSES = Task("responses", "responses", ("input",), "agent/v1/responses", ResponsesRequest, ChatModel)
PREDICTIONS = Task("predictions", None, INPUT_FORMATS, None, PredictionRequest, PredictionModel)
RERANK = Task("rerank", "rerank", ("query",), None, RerankRequest, EmbeddingModel)
SCORE = Task("score", "score", ("text_1",), None, ScoreRequest, EmbeddingModel)
TASKS = (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, PREDICTIONS)
RERANKINGS = (RERANK, SCORE)
