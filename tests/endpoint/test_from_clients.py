"""Endpoints from clients: the requests have the client's URL, headers and credentials."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from spark_llm.auth.credentials import Bearer
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.errors import ConfigError
from spark_llm.serving import LocalEndpoints
from tests.support.asking import ask, engine_at, texts

AZURE = "https://x.openai.azure.com"
VERSION = "2024-10-21"


def give_key() -> str:
    """Return a key; a plain function."""
    return "from-a-function"


async def give_key_late() -> str:
    """Return a key; a coroutine function."""
    return "from-a-coroutine"


def request_parts(endpoint: Endpoint) -> tuple[str, str | None, object]:
    """Return the URL, the model and the token of a chat request."""
    route = endpoint.resolve("/chat/completions", {})
    assert isinstance(route.credential, Bearer)
    return route.url, route.model, route.credential.source


def test_requests_are_those_of_the_openai_client(endpoints: LocalEndpoints) -> None:
    """Its base URL, key, organisation and headers arrive at its server."""
    import openai

    client = openai.OpenAI(
        base_url=endpoints.openai_url,
        api_key=endpoints.token,
        organization="org-1",
        project="proj-1",
        default_headers={"X-Team": "data"},
        default_query={"tier": "gold & more"},
    )
    answers = ask(engine_at(Endpoint.from_openai(client, "chat")), [["hello"]])

    [request] = endpoints.requests
    assert (["hello"], "/v1/chat/completions?tier=gold+%26+more") == (texts(answers), request.path)
    assert {"openai-organization": "org-1", "openai-project": "proj-1", "x-team": "data"}.items() <= (
        request.headers.items()
    )


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda openai: openai.OpenAI(api_key="sk-1"), ("https://api.openai.com/v1/chat/completions", "sk-1")),
        (lambda openai: openai.AsyncOpenAI(api_key="sk-1"), ("https://api.openai.com/v1/chat/completions", "sk-1")),
        (lambda openai: openai.OpenAI(api_key=give_key), ("https://api.openai.com/v1/chat/completions", give_key)),
        (
            lambda openai: openai.AzureOpenAI(azure_endpoint=AZURE, api_key="0123", api_version=VERSION),
            (f"{AZURE}/openai/deployments/my%20model/chat/completions?api-version=2024-10-21", "0123"),
        ),
        (
            lambda openai: openai.AzureOpenAI(
                azure_endpoint=AZURE, azure_deployment="d", azure_ad_token="a.b.c", api_version=VERSION
            ),
            (f"{AZURE}/openai/deployments/d/chat/completions?api-version=2024-10-21", "a.b.c"),
        ),
        (
            lambda openai: openai.AsyncAzureOpenAI(
                azure_endpoint=AZURE, azure_ad_token_provider=give_key, api_version=VERSION
            ),
            (f"{AZURE}/openai/deployments/my%20model/chat/completions?api-version=2024-10-21", give_key),
        ),
    ],
    ids=["openai", "async", "key function", "azure", "azure deployment", "azure provider"],
)
def test_every_kind_of_openai_client_is_read(make: Callable[[Any], Any], expected: tuple[str, object]) -> None:
    """The URL is the one of the client's own requests, and the token is its key or key function."""
    import openai

    url, token = expected

    assert (url, "my model", token) == request_parts(Endpoint.from_openai(make(openai), "my model"))


def test_a_key_from_a_coroutine_function_is_an_error() -> None:
    """A worker cannot run it; the message has a next step."""
    import openai

    for client in (
        openai.AsyncOpenAI(api_key=give_key_late),
        openai.AsyncAzureOpenAI(azure_endpoint=AZURE, azure_ad_token_provider=give_key_late, api_version=VERSION),
    ):
        with pytest.raises(ConfigError, match=r"coroutine function.* Hint: .+\.$"):
            Endpoint.from_openai(client, "m")


def test_a_client_that_authenticates_by_its_transport_is_an_error() -> None:
    """databricks-sdk makes such clients; the hint names `from_workspace`."""
    import openai

    client = openai.OpenAI(base_url="https://h/serving-endpoints", api_key="no-token")

    with pytest.raises(ConfigError, match=r"authenticates by databricks-sdk.* Hint: .*from_workspace.+\.$"):
        Endpoint.from_openai(client, "m")


@pytest.mark.parametrize("value", [None, 7, "https://h/v1", SimpleNamespace(base_url="https://h")])
def test_another_type_is_an_error(value: Any) -> None:  # noqa: ANN401 -- every wrong type
    """The message has its type and an alternative."""
    for from_client in (Endpoint.from_openai, Endpoint.from_workspace, Endpoint.from_mlflow):
        with pytest.raises(ConfigError, match=rf"{type(value).__name__} is not .+ Hint: .+\.$"):
            from_client(value, "my-endpoint")


def deployments(target: str) -> Any:  # noqa: ANN401 -- only this attribute of an MLflow client is read
    """Return a stand-in for `mlflow.deployments.get_deploy_client(target)`."""
    return SimpleNamespace(target_uri=target)


def test_requests_of_a_gateways_client_go_to_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have MLflow's own credentials, if there are any."""
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    plain = Endpoint.from_mlflow(deployments("http://127.0.0.1:5000/"), "chat")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "of-mlflow")
    token = Endpoint.from_mlflow(deployments("https://gateway.corp"), "chat")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "pass")
    basic = Endpoint.from_mlflow(deployments("https://gateway.corp"), "chat")

    assert ("http://127.0.0.1:5000/endpoints/chat/invocations", None, None) == request_parts(plain)
    assert ("https://gateway.corp/endpoints/chat/invocations", None, "of-mlflow") == request_parts(token)
    assert {"Authorization": "Basic bWU6cGFzcw=="} == basic.headers


def test_a_databricks_client_gives_an_endpoint_by_name() -> None:
    """Its workspace is that of the environment, as for the client."""
    assert Endpoint("my-endpoint") == Endpoint.from_mlflow(deployments("databricks"), "my-endpoint")


def test_a_client_of_another_deployment_is_an_error() -> None:
    """A SageMaker client has no URL."""
    with pytest.raises(ConfigError, match=r"'sagemaker'.* Hint: .+\.$"):
        Endpoint.from_mlflow(deployments("sagemaker"), "my-endpoint")


def test_a_model_of_the_gateway_is_asked_there() -> None:
    """A workspace's client gives its host and its token."""

    class Config:
        host, token, auth_type = "https://w.cloud.databricks.com", "dapi-x", "pat"

        def authenticate(self) -> dict[str, str]:
            """Return the headers of the token."""
            return {"Authorization": "Bearer dapi-x"}

    class Client:
        config = Config()

    resolved = Endpoint.from_workspace(Client(), "system.ai.gpt-5").resolve("/embeddings", {})

    assert "https://w.cloud.databricks.com/ai-gateway/mlflow/v1/embeddings" == resolved.url
    assert ("system.ai.gpt-5", "dapi-x") == (resolved.model, getattr(resolved.credential, "source", None))
