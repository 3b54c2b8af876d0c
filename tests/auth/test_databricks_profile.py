"""Profiles and clients of the real databricks-sdk: their credentials travel to the workers."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from spark_llm import Endpoint
from spark_llm.auth.credentials import Bearer, ClientCredentials
from spark_llm.auth.databricks_profile import Profile, workspace_of_profile
from spark_llm.errors import ConfigError
from spark_llm.serving import LocalEndpoints
from tests.support.asking import ask, distinct, engine_at, texts

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.core import Config


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove the machine's own credentials from the environment."""
    for name in [name for name in os.environ if name.startswith(("DATABRICKS_", "ARM_", "AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def profiles(endpoints: LocalEndpoints, tmp_path: Path) -> dict[str, str]:
    """Write ~/.databrickscfg with a token and with a client, and return the environment of it."""
    client = f"client_id = {endpoints.client_id}\nclient_secret = {endpoints.client_secret}\n"
    (tmp_path / ".databrickscfg").write_text(
        f"[DEFAULT]\nhost = {endpoints.url}\ntoken = {endpoints.token}\n\n"
        f"[client]\nhost = {endpoints.url}\n{client}\n[empty]\nhost = {endpoints.url}\n",
        encoding="utf-8",
    )
    return dict(os.environ)


def client(endpoints: LocalEndpoints, **arguments: Any) -> "WorkspaceClient":  # noqa: ANN401 -- what the SDK takes
    """Return a client of the workspace; the SDK takes two seconds to import."""
    from databricks.sdk import WorkspaceClient

    return WorkspaceClient(host=endpoints.url, **arguments)


def client_of_a_vault(endpoints: LocalEndpoints, headers: dict[str, str]) -> "WorkspaceClient":
    """Return a client with credentials that only this machine has, and these headers."""
    from databricks.sdk.core import CredentialsStrategy

    class Vault(CredentialsStrategy):
        def auth_type(self) -> str:
            return "vault"

        def __call__(self, config: "Config") -> Callable[[], dict[str, str]]:
            return lambda: headers

    return client(endpoints, credentials_strategy=Vault())


def test_the_default_profile_has_workspace_and_token(endpoints: LocalEndpoints, profiles: dict[str, str]) -> None:
    """Without variables, an endpoint's name belongs to the profile's workspace, with its token."""
    route = Endpoint("chat").resolve("/chat/completions", profiles)

    assert (endpoints.invocations("chat"), Bearer.of(endpoints.token)) == (route.url, route.credential)
    assert "the profile DEFAULT" == route.credential.origin


def test_a_profile_with_a_client_gives_client_credentials(endpoints: LocalEndpoints, profiles: dict[str, str]) -> None:
    """Each worker requests and renews its own tokens."""
    route = Endpoint("chat").resolve("/chat/completions", profiles | {"DATABRICKS_CONFIG_PROFILE": "client"})
    results = ask(engine_at(Endpoint(route.url, token=route.credential)), [distinct(20)])

    assert isinstance(route.credential, ClientCredentials)
    assert distinct(20) == texts(results)
    assert f"{endpoints.url}/oidc/v1/token" == route.credential.token_url


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, True),
        ({"DATABRICKS_CONFIG_PROFILE": "client"}, True),
        ({"DATABRICKS_CONFIG_PROFILE": "nobody"}, False),
        ({"DATABRICKS_CONFIG_FILE": "/nowhere"}, False),
        ({"DATABRICKS_HOST": "https://elsewhere.cloud.databricks.com"}, False),
    ],
)
def test_a_profile_is_found_without_a_network(
    environ: dict[str, str],
    expected: bool,  # noqa: FBT001 -- a table
    endpoints: LocalEndpoints,
    profiles: dict[str, str],
) -> None:
    """It must exist, and be of the workspace of DATABRICKS_HOST."""
    endpoints.stop()

    assert expected is Profile().is_available(profiles | environ)


@pytest.mark.parametrize(
    "text", ["no sections", "[DEFAULT\n", "[DEFAULT]\nhost = https://[\n", "\xff\xfe", "", "[__settings__]\n"]
)
def test_an_invalid_file_has_no_profile(text: str, tmp_path: Path) -> None:
    """The provider is not available, and nothing is raised."""
    file = tmp_path / "cfg"
    file.write_text(text, encoding="latin-1")

    assert not Profile().is_available({"DATABRICKS_CONFIG_FILE": str(file)})


def test_the_file_may_name_its_default_profile(endpoints: LocalEndpoints, profiles: dict[str, str]) -> None:
    """It is used for the search and the sign-in; DATABRICKS_CONFIG_PROFILE takes precedence."""
    with Path(profiles["HOME"], ".databrickscfg").open("a", encoding="utf-8") as file:
        file.write("\n[__settings__]\ndefault_profile = client\n")
    origins = [
        Endpoint("chat").resolve("/chat/completions", profiles | environ).credential.origin
        for environ in ({}, {"DATABRICKS_CONFIG_PROFILE": "DEFAULT"})
    ]

    assert ["the profile client", "the profile DEFAULT"] == origins
    assert Profile().is_available(profiles | {"DATABRICKS_HOST": endpoints.url})


def test_a_profile_that_cannot_sign_in_is_an_error(profiles: dict[str, str]) -> None:
    """A missing profile and one without credentials raise an error with the command to run."""
    for name in ("nobody", "empty"):
        with pytest.raises(ConfigError, match=rf"the profile '{name}'.* Hint: .*databricks auth.+\.$"):
            workspace_of_profile(name)


def test_a_workspace_client_with_a_token_becomes_an_endpoint(endpoints: LocalEndpoints) -> None:
    """The endpoint has its host and its token, and the served model if one is named."""
    workspace = client(endpoints, token=endpoints.token)
    asked = engine_at(Endpoint.from_workspace(workspace, "chat", served_model="chat-1"))

    assert ["hello"] == texts(ask(asked, [["hello"]]))
    assert "/serving-endpoints/chat/served-models/chat-1/invocations" == endpoints.requests[-1].path


def test_a_workspace_client_with_an_oauth_client_becomes_an_endpoint(endpoints: LocalEndpoints) -> None:
    """The OAuth client travels, not one of its tokens."""
    workspace = client(endpoints, client_id=endpoints.client_id, client_secret=endpoints.client_secret)
    endpoint = Endpoint.from_workspace(workspace, "chat")

    assert isinstance(endpoint.token, ClientCredentials)
    assert ["hello"] == texts(ask(engine_at(endpoint), [["hello"]]))


def test_of_other_credentials_the_current_token_travels(endpoints: LocalEndpoints) -> None:
    """Its origin says that it cannot be renewed on the workers."""
    workspace = client_of_a_vault(endpoints, {"Authorization": f"Bearer {endpoints.token}"})
    endpoint = Endpoint.from_workspace(workspace, "chat")

    assert Bearer.of(endpoints.token) == endpoint.token
    assert "vault, as it was when the UDF was made" in getattr(endpoint.token, "origin", "")


def test_credentials_without_a_token_are_an_error(endpoints: LocalEndpoints) -> None:
    """Basic authentication has no token that could travel."""
    workspace = client_of_a_vault(endpoints, {"Authorization": "Basic bWU6cGFzcw=="})

    with pytest.raises(ConfigError, match=r"authenticates by vault, which gives no token.* Hint: .+\.$"):
        Endpoint.from_workspace(workspace, "chat")
