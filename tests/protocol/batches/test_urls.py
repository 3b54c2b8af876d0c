"""Addresses of a Batch API beside the routes of services."""

import pytest

from spark_llm.errors import ConfigError
from spark_llm.protocol.batches.urls import batch_urls, deployment_of

AZURE = "https://x.openai.azure.com/openai"


@pytest.mark.parametrize(
    ("url", "base", "query", "line_url", "endpoint"),
    [
        (f"{host}{route}", host, "", f"/v1{route}", f"/v1{route}")
        for host in ("https://api.openai.com/v1", "http://127.0.0.1:8000/v1", "https://api.groq.com/openai/v1")
        for route in ("/chat/completions", "/responses", "/embeddings", "/completions")
    ]
    + [
        (f"{AZURE}/v1/chat/completions", f"{AZURE}/v1", "", "/v1/chat/completions", "/chat/completions"),
        (f"{AZURE}/v1/responses", f"{AZURE}/v1", "", "/v1/responses", "/chat/completions"),
        (f"{AZURE}/v1/embeddings", f"{AZURE}/v1", "", "/v1/embeddings", "/v1/embeddings"),
        (
            f"{AZURE}/deployments/d/chat/completions?api-version=2024-10-21",
            AZURE,
            "?api-version=2024-10-21",
            "/chat/completions",
            "/chat/completions",
        ),
        (
            "https://open.bigmodel.cn/api/paas/v4/chat/completions",
            "https://open.bigmodel.cn/api/paas/v4",
            "",
            "/v4/chat/completions",
            "/v4/chat/completions",
        ),
        (
            "https://api.deepinfra.com/v1/openai/chat/completions",
            "https://api.deepinfra.com/v1/openai",
            "",
            "/v1/chat/completions",
            "/v1/chat/completions",
        ),
    ],
)
def test_files_and_batches_are_beside_a_route(url: str, base: str, query: str, line_url: str, endpoint: str) -> None:
    """A query stays; the version of lines is that of the base."""
    urls = batch_urls(url)

    assert (f"{base}/files{query}", f"{base}/batches{query}", line_url, endpoint) == urls


@pytest.mark.parametrize(
    ("url", "deployment"),
    [
        (f"{AZURE}/deployments/my%20d/chat/completions?api-version=2024-10-21", "my d"),
        (f"{AZURE}/deployments/d/completions", "d"),
        (f"{AZURE}/deployments/d", None),
        (f"{AZURE}/v1/embeddings", None),
        ("https://api.openai.com/v1/chat/completions", None),
    ],
)
def test_a_deployment_is_part_of_a_route(url: str, deployment: str | None) -> None:
    """Only Azure's older URLs have one."""
    assert deployment == deployment_of(url)


def test_ids_are_part_of_a_path() -> None:
    """Whatever characters they have; pages add to the query."""
    urls = batch_urls(f"{AZURE}/deployments/d/chat/completions?api-version=1")

    assert f"{AZURE}/files/a%2Fb%3F?api-version=1" == urls.file("a/b?")
    assert f"{AZURE}/files/f/content?api-version=1" == urls.content("f")
    assert f"{AZURE}/batches/b/cancel?api-version=1" == urls.cancel("b")
    assert f"{AZURE}/batches?api-version=1&limit=100&after=b%261" == urls.batches_page("b&1")
    assert "https://h/v1/files?purpose=batch&limit=1000" == batch_urls("https://h/v1/embeddings").files_page()


@pytest.mark.parametrize(
    "url",
    [
        "https://adb-1.azuredatabricks.net/serving-endpoints/e/invocations",
        "https://adb-1.azuredatabricks.net/serving-endpoints/chat/completions",
        "https://proxy.example/serving-endpoints/chat/completions",
        "https://adb-1.azuredatabricks.net/ai-gateway/mlflow/v1/chat/completions",
        "http://127.0.0.1:5000/invocations",
        "https://h/v1/rerank?key=s3cret-s3cret",
    ],
)
def test_other_routes_have_none(url: str) -> None:
    """The message names the route without its secrets, and what to do."""
    with pytest.raises(ConfigError, match=r"has no Batch API. Hint: leave batch= out") as error:
        batch_urls(url)

    assert "s3cret" not in str(error.value)
