"""Rerankings of the local endpoints: the scores of `Echo`, and the cosines of any other embedding model."""

import struct
from collections.abc import Iterator

import pytest

from spark_llm.serving import Echo, EmbeddingRequest, LocalEndpoints, Model, ServingEndpoint, Usage, Vectors
from tests.support.local_client import RERANK_PATHS, SCORE_PATHS, Client, connected


class Vectors2D:
    """An embedding model without scores of its own: a text is a vector of two numbers."""

    name = "plane"

    async def embed(self, request: EmbeddingRequest) -> Vectors:
        """Return the numbers in each text."""
        vectors = [struct.pack("<2f", *map(float, text.split())) for text in request.texts]
        return Vectors(vectors, Usage(len(vectors)))


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Endpoints with embeddings, and one without."""
    models: dict[str, Model | ServingEndpoint] = {
        "chat": ServingEndpoint(Echo(), tasks=["chat"]),
        "embed": Echo(),
        "plane": Vectors2D(),
    }
    with connected(LocalEndpoints(models)) as client:
        yield client


@pytest.mark.parametrize("path", RERANK_PATHS)
def test_documents_come_with_the_best_first(path: str, client: Client) -> None:
    """Echo's score is the share of the query's words; `top_n` cuts, equal scores stay in order, tokens are words."""
    body = {"model": "embed", "query": "Red fox", "documents": ["dog", "a red car", {"text": "red FOX"}, "fox"]}
    answer = client.post(path, body).json()
    few = [client.post(path, {**body, "top_n": top_n}).json()["results"] for top_n in (2, 0, 9)]

    assert ("echo", {"prompt_tokens": 9, "total_tokens": 9}) == (answer["model"], answer["usage"])
    assert [
        {"index": 2, "document": {"text": "red FOX"}, "relevance_score": 1.0},
        {"index": 1, "document": {"text": "a red car"}, "relevance_score": 0.5},
        {"index": 3, "document": {"text": "fox"}, "relevance_score": 0.5},
        {"index": 0, "document": {"text": "dog"}, "relevance_score": 0.0},
    ] == answer["results"]
    assert [answer["results"][:2], answer["results"], answer["results"]] == few


@pytest.mark.parametrize("path", SCORE_PATHS)
def test_scores_come_in_the_order_of_the_texts(path: str, client: Client) -> None:
    """One text has one score."""
    body = {"model": "embed", "text_1": "red fox", "text_2": ["red", "dog", "red fox"]}
    answer = client.post(path, body).json()

    assert ("list", [0.5, 0.0, 1.0]) == (answer["object"], [each["score"] for each in answer["data"]])
    assert [0, 1, 2] == [each["index"] for each in answer["data"]]
    assert [0.5] == [each["score"] for each in client.post(path, {**body, "text_2": "fox"}).json()["data"]]


@pytest.mark.parametrize(
    ("model", "body", "message"),
    [
        ("embed", {"query": "", "documents": ["a"]}, "length >= 1 - at `$.query`"),
        ("embed", {"query": "q", "documents": []}, "length >= 1 - at `$.documents`"),
        ("embed", {"query": "q", "documents": ["a"] * 1_001}, "length <= 1000 - at `$.documents`"),
        ("embed", {"query": "q", "documents": ["a"], "top_n": -1}, "`$.top_n`"),
        ("embed", {"query": "q"}, "missing required field `documents`"),
        ("chat", {"query": "q", "documents": ["a"]}, "Endpoint chat serves chat"),
    ],
)
def test_a_wrong_reranking_is_refused(client: Client, model: str, body: dict[str, object], message: str) -> None:
    """As vLLM refuses an empty query and an empty list."""
    response = client.post("/v1/rerank", {"model": model, **body})

    assert (400, True) == (response.status_code, message in response.json()["error"]["message"])


def test_a_model_of_vectors_scores_by_their_cosines(client: Client) -> None:
    """A vector of zeros has none, and its score is 0."""
    body = {"model": "plane", "text_1": "3 4", "text_2": ["6 8", "4 -3", "-3 -4", "0 0", "4 3"]}
    answer = client.post("/score", body).json()

    assert [1.0, 0.0, -1.0, 0.0, 0.96] == [pytest.approx(each["score"]) for each in answer["data"]]
    assert 6 == answer["usage"]["total_tokens"]
