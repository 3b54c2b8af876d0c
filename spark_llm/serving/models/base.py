"""The protocols of a model: chat, completions, embeddings, predictions, streaming.

A model serves the tasks whose method it has. It gets validated requests and returns values; it knows no HTTP. A model
that must be started (weights, threads) is a context manager too, and is entered when the endpoints start.
"""

from collections.abc import AsyncGenerator
from typing import Protocol, runtime_checkable

from spark_llm.serving.protocol.predictions import PredictionRequest, Predictions
from spark_llm.serving.protocol.requests import ChatRequest, CompletionRequest, EmbeddingRequest
from spark_llm.serving.protocol.rerank import RerankRequest, ScoreRequest, Scores
from spark_llm.serving.protocol.values import Piece, Texts, Vectors


class _Named(Protocol):
    @property
    def name(self) -> str:
        """The `model` field of responses."""


@runtime_checkable
class ChatModel(_Named, Protocol):
    """Serves chat: a conversation in, replies out."""

    async def chat(self, request: ChatRequest) -> Texts:
        """Return `n` replies to one conversation."""


@runtime_checkable
class CompletionModel(_Named, Protocol):
    """Serves completions: prompts in, texts out."""

    async def complete(self, request: CompletionRequest) -> Texts:
        """Return `n` texts for each prompt, in the order of the prompts."""


@runtime_checkable
class EmbeddingModel(_Named, Protocol):
    """Serves embeddings: texts in, vectors out."""

    async def embed(self, request: EmbeddingRequest) -> Vectors:
        """Return one vector for each input, in the order of the inputs."""


@runtime_checkable
class RerankModel(_Named, Protocol):
    """An embedding model that scores documents itself, in place of the cosines of its vectors."""

    async def rerank(self, request: RerankRequest | ScoreRequest) -> Scores:
        """Return one score for each document, in their order."""


@runtime_checkable
class PredictionModel(_Named, Protocol):
    """Serves predictions: rows or tensors in, predictions out."""

    async def predict(self, request: PredictionRequest) -> Predictions:
        """Return the predictions for all rows, in their order."""


@runtime_checkable
class StreamingModel(_Named, Protocol):
    """Streams chat, completions or both in pieces; whole answers of other models are split into words."""

    def stream(self, request: ChatRequest | CompletionRequest) -> AsyncGenerator[Piece, None]:
        """Yield `n` replies, each in pieces; pieces of different replies may come in any order."""


Model = ChatModel | CompletionModel | EmbeddingModel | PredictionModel
