"""The scores of documents for a query: a model's own, or the cosines of its vectors."""

import math
import struct
from operator import mul
from typing import cast

from spark_llm.serving.models.base import EmbeddingModel, Model, RerankModel
from spark_llm.serving.protocol.requests import EmbeddingRequest, parse_request
from spark_llm.serving.protocol.rerank import RerankRequest, ScoreRequest, Scores


async def scores_of(model: Model, request: RerankRequest | ScoreRequest) -> Scores:
    """Return the score of each document: by the model's `rerank`, else the cosine of its vector and the query's."""
    if isinstance(model, RerankModel):
        return await model.rerank(request)
    query, documents = request.pair
    embedding = parse_request({"input": [query, *documents]}, EmbeddingRequest)
    vectors = await cast("EmbeddingModel", model).embed(embedding)
    first, *others = [struct.unpack(f"<{len(vector) // 4}f", vector) for vector in vectors.vectors]
    return Scores([_cosine(first, other) for other in others], vectors.usage)


def _cosine(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    lengths = math.hypot(*one) * math.hypot(*other)
    return sum(map(mul, one, other)) / lengths if lengths else 0.0
