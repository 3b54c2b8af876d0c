"""Taking over a client that the user has already: what it asks, and as whom, is what our requests ask."""

from types import SimpleNamespace
from typing import Any

import openai
import pytest

from spark_llm.auth.credentials import Bearer
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.errors import ConfigError
from spark_llm.serving import LocalEndpoints
from tests.support.asking import ask, engine_at, texts

AZURE = "https://x.openai.azure.com"
VERSION = "2024-10-21"


def give_key() -> str:
    """Return a key, as a function."""
    return "from-a-function"


async def give_key_late() -> str:
    """Return a key, as a coroutine."""
    return "from-a-coroutine"


def seen(endpoint: Endpoint) -> tuple[str, str | None, object]:
    """Return the URL, the model and the token that a chat request would have."""
    route = endpoint.resolve("/chat/completions", {})
    assert isinstance(route.credential, Bearer)
    return route.url, route.model, route.credential.source


def test_an_openai_client_is_asked_as_it_asks(endpoints: LocalEndpoints) -> None:
    """Its base, its key, its organisation and its headers arrive at the server that it talks to."""
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
    ("client", "expected"),
    [
        (openai.OpenAI(api_key="sk-1"), ("https://api.openai.com/v1/chat/completions", "sk-1")),
        (openai.AsyncOpenAI(api_key="sk-1"), ("https://api.openai.com/v1/chat/completions", "sk-1")),
        (openai.OpenAI(api_key=give_key), ("https://api.openai.com/v1/chat/completions", give_key)),
        (
            openai.AzureOpenAI(azure_endpoint=AZURE, api_key="0123", api_version=VERSION),
            (f"{AZURE}/openai/deployments/my%20model/chat/completions?api-version=2024-10-21", "0123"),
        ),
        (
            openai.AzureOpenAI(azure_endpoint=AZURE, azure_deployment="d", azure_ad_token="a.b.c", api_version=VERSION),
            (f"{AZURE}/openai/deployments/d/chat/completions?api-version=2024-10-21", "a.b.c"),
        ),
        (
            openai.AsyncAzureOpenAI(azure_endpoint=AZURE, azure_ad_token_provider=give_key, api_version=VERSION),
            (f"{AZURE}/openai/deployments/my%20model/chat/completions?api-version=2024-10-21", give_key),
        ),
    ],
    ids=["openai", "async", "key function", "azure", "azure deployment", "azure provider"],
)
def test_every_kind_of_openai_client_is_read(client: Any, expected: tuple[str, object]) -> None:  # noqa: ANN401 -- four classes
    """The URL that the client itself would post to, and its key or what gives it."""
    url, token = expected

    assert (url, "my model", token) == seen(Endpoint.from_openai(client, "my model"))


def test_a_key_from_a_coroutine_is_refused() -> None:
    """No worker could run it; the next step is told."""
    for client in (
        openai.AsyncOpenAI(api_key=give_key_late),
        openai.AsyncAzureOpenAI(azure_endpoint=AZURE, azure_ad_token_provider=give_key_late, api_version=VERSION),
    ):
        with pytest.raises(ConfigError, match=r"coroutine function.* Hint: .+\.$"):
            Endpoint.from_openai(client, "m")


def test_a_client_that_is_signed_in_by_its_transport_is_refused() -> None:
    """databricks-sdk makes such ones; their login does not travel, and the workspace's does."""
    client = openai.OpenAI(base_url="https://h/serving-endpoints", api_key="no-token")

    with pytest.raises(ConfigError, match=r"signed in by databricks-sdk.* Hint: .*from_workspace.+\.$"):
        Endpoint.from_openai(client, "m")


@pytest.mark.parametrize("thing", [None, 7, "https://h/v1", SimpleNamespace(base_url="https://h")])
def test_what_is_no_client_is_refused(thing: Any) -> None:  # noqa: ANN401 -- every wrong type
    """By its type's name, with what to pass instead."""
    for take_over in (Endpoint.from_openai, Endpoint.from_workspace, Endpoint.from_mlflow):
        with pytest.raises(ConfigError, match=rf"{type(thing).__name__} is not .+ Hint: .+\.$"):
            take_over(thing, "my-endpoint")


def deployments(target: str) -> Any:  # noqa: ANN401 -- an MLflow client stands for itself by this one attribute
    """Return what `mlflow.deployments.get_deploy_client(target)` is known by."""
    return SimpleNamespace(target_uri=target)


def test_a_gateways_client_is_asked_at_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """With MLflow's own login, if there is one."""
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    plain = Endpoint.from_mlflow(deployments("http://127.0.0.1:5000/"), "chat")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "of-mlflow")
    token = Endpoint.from_mlflow(deployments("https://gateway.corp"), "chat")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "pass")
    basic = Endpoint.from_mlflow(deployments("https://gateway.corp"), "chat")

    assert ("http://127.0.0.1:5000/endpoints/chat/invocations", None, None) == seen(plain)
    assert ("https://gateway.corp/endpoints/chat/invocations", None, "of-mlflow") == seen(token)
    assert {"Authorization": "Basic bWU6cGFzcw=="} == basic.headers


def test_databricks_client_names_the_endpoint() -> None:
    """At the workspace that the environment names, as the client itself does."""
    assert Endpoint("my-endpoint") == Endpoint.from_mlflow(deployments("databricks"), "my-endpoint")


def test_a_client_of_another_kind_of_deployment_is_refused() -> None:
    """A SageMaker client asks no URL."""
    with pytest.raises(ConfigError, match=r"'sagemaker'.* Hint: .+\.$"):
        Endpoint.from_mlflow(deployments("sagemaker"), "my-endpoint")
