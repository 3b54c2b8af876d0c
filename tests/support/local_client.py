"""A small client for the tests of the local endpoints: plain requests, nothing of ours."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests

from spark_llm.serving import LocalEndpoints

TIMEOUT_S = 300  # real models are slow on a machine that is busy with other things
# Every path that takes a request for a model; `{name}` is the endpoint's.
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
        ("/openai/deployments/{name}", "?api-version=2024-10-21"),
    )
    for task in ("chat/completions", "completions", "embeddings")
)
POST_PATHS = (
    *(path.format(name="chat") for path in ANY_TASK_PATHS),
    *(f"{base}/{task}{query}".format(name="chat") for base, task, query in TASK_PATHS),
)
NAMES = {"chat/completions": "chat", "completions": "complete", "embeddings": "embed"}


def paths_of(task: str) -> list[str]:
    """Return every path that a task is asked at, of the default endpoint that serves it."""
    paths = [*ANY_TASK_PATHS, *(f"{base}/{each}{query}" for base, each, query in TASK_PATHS if each == task)]
    return [path.format(name=NAMES[task]) for path in paths]


def is_databricks(path: str) -> bool:
    """Tell whether a path answers in Databricks' manner; OpenAI's and Azure's errors are alike in their shape."""
    return not path.startswith(("/v1/", "/openai/"))


class Client:
    """Posts to local endpoints with their token, also in the background."""

    def __init__(self, endpoints: LocalEndpoints) -> None:
        """Remember where the endpoints are."""
        self.endpoints = endpoints
        self._pool = ThreadPoolExecutor(16)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> requests.Response:
        """Get a document, with the token."""
        return requests.get(
            self.endpoints.url + path,
            headers={"Authorization": f"Bearer {self.endpoints.token}", **(headers or {})},
            timeout=TIMEOUT_S,
        )

    def post(
        self, path: str, body: object = None, *, data: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> requests.Response:
        """Post `body` as JSON, or `data` as it is, on a connection of its own: bad bytes end theirs."""
        return requests.post(
            self.endpoints.url + path,
            json=body,
            data=data,
            headers={"Authorization": f"Bearer {self.endpoints.token}", **(headers or {})},
            timeout=TIMEOUT_S,
        )

    def ask(self, endpoint: str, body: object) -> requests.Response:
        """Post to the invocations route of one endpoint."""
        return self.post(f"/serving-endpoints/{endpoint}/invocations", body)

    def say(self, text: str, **parameters: object) -> requests.Response:
        """Ask for chat, with one message."""
        return self.ask("chat", conversation(text, **parameters))

    def later(self, text: str, **parameters: object) -> "Future[requests.Response]":
        """Ask for chat in the background, on a connection of its own."""
        return self._pool.submit(
            requests.post,
            self.endpoints.invocations("chat"),
            json=conversation(text, **parameters),
            headers={"Authorization": f"Bearer {self.endpoints.token}"},
            timeout=TIMEOUT_S,
        )

    def give_up(self, text: str) -> None:
        """Ask for chat, and hang up before the answer: it must not come at once."""
        with pytest.raises(requests.Timeout):
            requests.post(
                self.endpoints.invocations("chat"),
                json=conversation(text),
                headers={"Authorization": f"Bearer {self.endpoints.token}"},
                timeout=0.1,
            )

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)


@contextmanager
def connected(endpoints: LocalEndpoints) -> Iterator[Client]:
    """Start endpoints, and give a client of them."""
    with endpoints:
        client = Client(endpoints)
        try:
            yield client
        finally:
            endpoints.stop()  # what still hangs is dropped, so that the client's threads end
            client.close()


def conversation(*texts: str, **parameters: object) -> dict[str, object]:
    """Make a chat request of user messages."""
    return {"messages": [{"role": "user", "content": text} for text in texts], **parameters}
