"""Profiles and clients of databricks-sdk, the real one: what travels of a login."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.core import Config, CredentialsStrategy

from spark_llm import Endpoint
from spark_llm.auth.credentials import Bearer, ClientCredentials
from spark_llm.auth.databricks_profile import Profile, workspace_of_profile
from spark_llm.errors import ConfigError
from spark_llm.serving import LocalEndpoints
from tests.support.asking import ask, distinct, engine_at, texts


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take the machine's own providers out of the environment."""
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


def test_the_default_profile_says_where_and_who(endpoints: LocalEndpoints, profiles: dict[str, str]) -> None:
    """Without any variable a name is looked up at its workspace, with its token."""
    route = Endpoint("chat").resolve("/chat/completions", profiles)

    assert (endpoints.invocations("chat"), Bearer.of(endpoints.token)) == (route.url, route.credential)
    assert "the profile DEFAULT" == route.credential.origin


def test_a_profile_of_a_client_travels_as_the_client(endpoints: LocalEndpoints, profiles: dict[str, str]) -> None:
    """So each worker gets and renews its own tokens."""
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
def test_a_profile_is_looked_for_without_a_network(
    environ: dict[str, str],
    expected: bool,  # noqa: FBT001 -- a table
    endpoints: LocalEndpoints,
    profiles: dict[str, str],
) -> None:
    """Only one that is there, and only for its own workspace."""
    endpoints.stop()

    assert expected is Profile().is_available(profiles | environ)


@pytest.mark.parametrize(
    "text", ["no sections", "[DEFAULT\n", "[DEFAULT]\nhost = https://[\n", "\xff\xfe", "", "[__settings__]\n"]
)
def test_a_file_that_is_no_profile_is_none(text: str, tmp_path: Path) -> None:
    """It is passed over, and no exception leaves."""
    file = tmp_path / "cfg"
    file.write_text(text, encoding="latin-1")

    assert not Profile().is_available({"DATABRICKS_CONFIG_FILE": str(file)})


def test_the_file_may_name_its_default_profile(endpoints: LocalEndpoints, profiles: dict[str, str]) -> None:
    """It is the one that is looked for, and the one that signs in; a variable goes before it."""
    with Path(profiles["HOME"], ".databrickscfg").open("a", encoding="utf-8") as file:
        file.write("\n[__settings__]\ndefault_profile = client\n")
    origins = [
        Endpoint("chat").resolve("/chat/completions", profiles | environ).credential.origin
        for environ in ({}, {"DATABRICKS_CONFIG_PROFILE": "DEFAULT"})
    ]

    assert ["the profile client", "the profile DEFAULT"] == origins
    assert Profile().is_available(profiles | {"DATABRICKS_HOST": endpoints.url})


def test_a_profile_that_cannot_sign_in_says_so(profiles: dict[str, str]) -> None:
    """One that is not there, or has nothing to sign in with, with the command that mends it."""
    for name in ("nobody", "empty"):
        with pytest.raises(ConfigError, match=rf"the profile '{name}'.* Hint: .*databricks auth.+\.$"):
            workspace_of_profile(name)


def test_a_workspace_client_of_a_token_is_taken_over(endpoints: LocalEndpoints) -> None:
    """Its host and its token; one served model behind the endpoint if it is named."""
    workspace = WorkspaceClient(host=endpoints.url, token=endpoints.token)
    asked = engine_at(Endpoint.from_workspace(workspace, "chat", served_model="chat-1"))

    assert ["hello"] == texts(ask(asked, [["hello"]]))
    assert "/serving-endpoints/chat/served-models/chat-1/invocations" == endpoints.requests[-1].path


def test_a_workspace_client_of_a_client_is_taken_over(endpoints: LocalEndpoints) -> None:
    """The client travels, and not one token of it."""
    workspace = WorkspaceClient(
        host=endpoints.url, client_id=endpoints.client_id, client_secret=endpoints.client_secret
    )
    endpoint = Endpoint.from_workspace(workspace, "chat")

    assert isinstance(endpoint.token, ClientCredentials)
    assert ["hello"] == texts(ask(engine_at(endpoint), [["hello"]]))


class Vault(CredentialsStrategy):
    """A login that only this machine has."""

    def __init__(self, headers: dict[str, str]) -> None:
        """Sign in by these headers."""
        self._headers = headers

    def auth_type(self) -> str:
        """Name the login."""
        return "vault"

    def __call__(self, config: Config) -> Callable[[], dict[str, str]]:
        """Return what makes the headers of a request."""
        return lambda: self._headers


def test_of_another_login_the_token_of_the_moment_travels(endpoints: LocalEndpoints) -> None:
    """What cannot be renewed elsewhere says so, should it ever be refused."""
    vault = Vault({"Authorization": f"Bearer {endpoints.token}"})
    endpoint = Endpoint.from_workspace(WorkspaceClient(host=endpoints.url, credentials_strategy=vault), "chat")

    assert Bearer.of(endpoints.token) == endpoint.token
    assert "vault, as it was when the UDF was made" in getattr(endpoint.token, "origin", "")


def test_a_login_without_a_token_is_refused(endpoints: LocalEndpoints) -> None:
    """Basic authentication has none that could travel."""
    workspace = WorkspaceClient(host=endpoints.url, credentials_strategy=Vault({"Authorization": "Basic bWU6cGFzcw=="}))

    with pytest.raises(ConfigError, match=r"signs in by vault, which gives no token.* Hint: .+\.$"):
        Endpoint.from_workspace(workspace, "chat")
