"""A small client of the local endpoints for their tests: plain `requests`, without the library's client code."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests

from spark_llm.serving import LocalEndpoints

TIMEOUT_S = 300  # real models are slow on a busy machine
# Every path for requests to a model; `{name}` is the endpoint's.
ANY_TASK_PATHS = (
    "/serving-endpoints/{name}/invocations",
    "/serving-endpoints/{name}/served-models/{name}-1/invocations",
)
TASK_PATHS = tuple(
    (base, task, query)
    for base, query in (
        ("/serving-endpoints", ""),
        ("/ai-gateway/mlflow/v1", ""),
        ("/v1", ""),
        ("/openai/v1", ""),
        ("/openai/deployments/{name}", "?api-version=2024-10-21"),
    )
    for task in ("chat/completions", "completions", "embeddings")
)
RESPONSES_PATHS = (
    "/serving-endpoints/responses",
    "/ai-gateway/mlflow/v1/responses",
    "/v1/responses",
    "/openai/v1/responses",
    "/openai/responses?api-version=2025-04-01-preview",
)
RERANK_PATHS, SCORE_PATHS = ("/rerank", "/v1/rerank", "/v2/rerank"), ("/score", "/v1/score")
POST_PATHS = (
    *(path.format(name="chat") for path in ANY_TASK_PATHS),
    *(f"{base}/{task}{query}".format(name="chat") for base, task, query in TASK_PATHS),
    *RESPONSES_PATHS,
)
ENDPOINTS = {"chat/completions": "chat", "completions": "complete", "embeddings": "embed"}


def paths_of(task: str) -> list[str]:
    """Return every path of a task, for the default endpoint that serves it."""
    paths = [*ANY_TASK_PATHS, *(f"{base}/{each}{query}" for base, each, query in TASK_PATHS if each == task)]
    return [path.format(name=ENDPOINTS[task]) for path in paths]


def is_databricks(path: str) -> bool:
    """Return whether a path has Databricks' error shape; OpenAI's and Azure's are alike."""
    return not path.startswith(("/v1/", "/openai/"))


class Client:
    """Sends requests to local endpoints with their token, also in the background."""

    def __init__(self, endpoints: LocalEndpoints) -> None:
        """Use these endpoints."""
        self.endpoints = endpoints
        self._pool = ThreadPoolExecutor(16)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> requests.Response:
        """Return the response to a GET."""
        return requests.get(
            self.endpoints.url + path,
            headers={"Authorization": f"Bearer {self.endpoints.token}", **(headers or {})},
            timeout=TIMEOUT_S,
        )

    def post(
        self, path: str, body: object = None, *, data: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> requests.Response:
        """Post `body` as JSON, or `data` unchanged, on a new connection, since bad bytes close theirs."""
        return requests.post(
            self.endpoints.url + path,
            json=body,
            data=data,
            headers={"Authorization": f"Bearer {self.endpoints.token}", **(headers or {})},
            timeout=TIMEOUT_S,
        )

    def query(self, endpoint: str, body: object) -> requests.Response:
        """Post to the invocations route of one endpoint."""
        return self.post(f"/serving-endpoints/{endpoint}/invocations", body)

    def chat(self, text: str, **parameters: object) -> requests.Response:
        """Request chat with one message."""
        return self.query("chat", chat_body(text, **parameters))

    def chat_in_background(self, text: str, **parameters: object) -> "Future[requests.Response]":
        """Request chat in the background, on a new connection."""
        return self._pool.submit(
            requests.post,
            self.endpoints.invocations("chat"),
            json=chat_body(text, **parameters),
            headers={"Authorization": f"Bearer {self.endpoints.token}"},
            timeout=TIMEOUT_S,
        )

    def chat_and_hang_up(self, text: str) -> None:
        """Request chat, and hang up after 0.1 s; the response must not come before."""
        with pytest.raises(requests.Timeout):
            requests.post(
                self.endpoints.invocations("chat"),
                json=chat_body(text),
                headers={"Authorization": f"Bearer {self.endpoints.token}"},
                timeout=0.1,
            )

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(cancel_futures=True)


@contextmanager
def connected(endpoints: LocalEndpoints) -> Iterator[Client]:
    """Start endpoints, and yield a client of them."""
    with endpoints:
        client = Client(endpoints)
        try:
            yield client
        finally:
            endpoints.stop()  # drops hanging requests, so that the client's threads end
            client.close()


def chat_body(*texts: str, **parameters: object) -> dict[str, object]:
    """Return a chat request with these user messages."""
    return {"messages": [{"role": "user", "content": text} for text in texts], **parameters}
