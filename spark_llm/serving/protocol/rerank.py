"""Rerank and score requests: a query and its documents in, a score for each document out.

Sources: Jina's and Cohere's rerank references, and vLLM's `RerankRequest` and `ScoreRequest`. A document may be an
object with a `text`, as Cohere's v1 clients send it. As with vLLM, a `top_n` of 0 wants all documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from spark_llm.serving.protocol.requests import Request
from spark_llm.serving.protocol.values import Usage

MAX_DOCUMENTS = 1_000  # of a query, as with Cohere and Voyage

_Text = Annotated[str, msgspec.Meta(min_length=1)]


class Document(msgspec.Struct):
    """A document as an object."""

    text: str


class _Pairs(Request, kw_only=True):
    """A query with documents; they are one row together."""

    @property
    def pair(self) -> tuple[str, list[str]]:
        """The query and its documents."""
        raise NotImplementedError

    @property
    def texts(self) -> list[str]:
        """The query and its documents, as one text."""
        query, documents = self.pair
        return ["\n".join([query, *documents])]


class RerankRequest(_Pairs, kw_only=True):
    """A request for the documents of a query, the best first."""

    query: _Text
    documents: Annotated[list[str | Document], msgspec.Meta(min_length=1, max_length=MAX_DOCUMENTS)]
    top_n: Annotated[int, msgspec.Meta(ge=0)] | None = None

    @property
    def pair(self) -> tuple[str, list[str]]:
        """The query and the texts of its documents."""
        return self.query, [each.text if isinstance(each, Document) else each for each in self.documents]


class ScoreRequest(_Pairs, kw_only=True):
    """A request for the score of one text with another, or with each of several."""

    text_1: _Text
    text_2: str | Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_DOCUMENTS)]

    @property
    def pair(self) -> tuple[str, list[str]]:
        """The first text, and the others."""
        return self.text_1, [self.text_2] if isinstance(self.text_2, str) else self.text_2


@dataclass(frozen=True)
class Scores:
    """The scores of a model, one for each document."""

    values: Sequence[float]
    usage: Usage


def rerank_body(model: str, request: RerankRequest, scores: Scores, request_id: str) -> bytes:
    """Return the body of a rerank response: the documents with the highest scores first, as many as are wanted."""
    _, documents = request.pair
    ranked = sorted(enumerate(scores.values), key=lambda entry: -entry[1])[: request.top_n or None]
    results = [
        {"index": index, "document": {"text": documents[index]}, "relevance_score": score} for index, score in ranked
    ]
    return _body(f"rerank-{request_id}", model, scores.usage, results=results)


def score_body(model: str, scores: Scores, request_id: str, created: int) -> bytes:
    """Return the body of a score response: a score for each document, in their order."""
    data = [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores.values)]
    return _body(f"score-{request_id}", model, scores.usage, object="list", created=created, data=data)


def _body(response_id: str, model: str, usage: Usage, **fields: Any) -> bytes:  # noqa: ANN401 -- any JSON
    tokens = {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.total_tokens}
    return msgspec.json.encode({"id": response_id, "model": model, "usage": tokens, **fields})
