"""Credentials: their checks, and the hosts that may get them."""

import pickle
from collections.abc import Mapping
from typing import Any

import pytest

from spark_llm.auth.credentials import Bearer, ClientCredentials, credential_for_endpoint, environment_credential
from spark_llm.errors import ConfigError
from spark_llm.protocol.urls import host_url, is_databricks, is_workspace
from spark_llm.transport.http import token_header

SECRET = "dapi-s3cret"
ENVIRON = {
    "DATABRICKS_TOKEN": "dapi-of-databricks",
    "OPENAI_API_KEY": "sk-of-openai",
    "AZURE_OPENAI_API_KEY": "of-azure",
}
DATA_PLANE = "https://1a2b.serving.cloud.databricks.com/1234/serving-endpoints/my-endpoint/invocations"
ML = "https://ml.corp"
DATABRICKS_URLS = [
    "https://adb-984752964297111.11.azuredatabricks.net/serving-endpoints/e/invocations",
    "https://adb-1.2.databricks.azure.us/serving-endpoints/e/invocations",
    "https://adb-1.2.databricks.azure.cn/serving-endpoints/e/invocations",
    "https://dbc-a1b2.cloud.databricks.com/serving-endpoints/e/invocations",
    "https://dbc-a1b2.cloud.databricks.us/serving-endpoints/e/invocations",
    "https://dbc-a1b2.cloud.databricks.mil/serving-endpoints/e/invocations",
    "https://1234.5.gcp.databricks.com/serving-endpoints/e/invocations",
    "https://1a2b.serving.cloud.databricks.com/1234/serving-endpoints/e/invocations",
    "https://DBC-A1B2.Cloud.Databricks.COM:443/serving-endpoints/e/invocations",
]
OTHER_HOSTS = [
    "https://example.com/v1",
    "https://databricks.com.evil.net/invocations",
    "https://evil-databricks.com/invocations",
    "https://evilazuredatabricks.net/invocations",
    "https://adb-1.2.azuredatabricks.cn/invocations",
    "https://adb-1.2.azuredatabricks.us/invocations",
    "https://dbc-a1b2.cloud.databricks.evil/invocations",
    "https://evil.net/?host=x.cloud.databricks.com",
    "https://evil.net/x.cloud.databricks.com/invocations",
    "https://evil.net/#@x.cloud.databricks.com",
    "https://openai.com.evil.net/v1",
    "https://notopenai.com/v1",
    "http://127.0.0.1:8000/v1",
    "http://localhost/v1",
    "not a url",
    "",
]


def give_token() -> str:
    """Return a token; a function that workers call."""
    return SECRET


def give_another() -> str:
    """Return a token; another function."""
    return SECRET


def token_for(url: str, environ: Mapping[str, str]) -> object:
    """Return the token of the environment for a URL."""
    found = environment_credential(url, environ)
    return found.source if isinstance(found, Bearer) else found


@pytest.mark.parametrize("url", DATABRICKS_URLS)
def test_a_workspace_gets_its_token(url: str) -> None:
    """The workspaces of every cloud are recognised by their hosts."""
    assert "dapi-of-databricks" == token_for(url, ENVIRON)
    assert is_databricks(url)


def test_openai_gets_its_key_only() -> None:
    """OpenAI's hosts get OPENAI_API_KEY."""
    assert "sk-of-openai" == token_for("https://api.openai.com/v1", ENVIRON)
    assert "sk-of-openai" == token_for("https://eu.api.openai.com/v1", ENVIRON)


@pytest.mark.parametrize("url", OTHER_HOSTS)
def test_another_host_gets_no_secret(url: str) -> None:
    """A host that only looks like a known one gets no token from the environment."""
    workspace = {"DATABRICKS_HOST": "https://adb-1.2.azuredatabricks.net"}

    assert [None, None] == [environment_credential(url, ENVIRON), environment_credential(url, ENVIRON | workspace)]
    assert not is_databricks(url)


@pytest.mark.parametrize("host", ["https://ml.corp.example", "ml.corp.example", "https://ml.corp.example/"])
def test_a_workspace_with_a_custom_domain_gets_its_token(host: str) -> None:
    """The token goes to the host in DATABRICKS_HOST, and not to its parent or subdomains."""
    environ = ENVIRON | {"DATABRICKS_HOST": host}

    assert "dapi-of-databricks" == token_for("https://ml.corp.example/serving-endpoints/e/invocations", environ)
    assert None is environment_credential("https://sub.ml.corp.example/e/invocations", environ)
    assert None is environment_credential("https://corp.example/e/invocations", environ)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("https://ml.corp", True),
        ("ml.corp:443", True),
        ("https://ml.corp:8443", False),
        ("http://ml.corp", False),
        ("", False),
    ],
)
def test_the_default_port_may_be_left_out(host: str, expected: bool) -> None:  # noqa: FBT001 -- a table
    """A workspace is a host and a port; port 443 is the default of https."""
    assert expected is is_workspace("https://ml.corp/serving-endpoints/e/invocations", host)
    assert expected is is_workspace("https://ml.corp:443/serving-endpoints/e/invocations", host)


@pytest.mark.parametrize("environ", [{}, {"DATABRICKS_TOKEN": "", "OPENAI_API_KEY": ""}])
def test_an_empty_variable_is_no_credential(environ: dict[str, str]) -> None:
    """A variable with an empty value counts as not set."""
    assert None is environment_credential(DATABRICKS_URLS[0], environ)
    assert None is environment_credential("https://api.openai.com/v1", environ)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("", ""),
        ("  ", ""),
        ("h", "https://h"),
        ("h/", "https://h"),
        (" https://h/ ", "https://h"),
        ("http://h:80//", "http://h:80"),
        ("https://[", ""),
        ("h:port", ""),
    ],
)
def test_the_spellings_of_a_host_are_one_url(host: str, expected: str) -> None:
    """The scheme, a final slash and blanks may be there or not."""
    assert expected == host_url(host)


@pytest.mark.parametrize("source", [SECRET, give_token], ids=["a string", "a function"])
def test_a_bearer_does_not_print(source: Any) -> None:  # noqa: ANN401 -- a string or a function
    """It shows that there is a token, masked."""
    bearer = Bearer.of(source)

    assert ["'***'"] * 2 == [repr(bearer), str(bearer)]
    assert "None" == repr(Bearer.of(None))


def test_a_bearer_equals_its_copies() -> None:
    """Pickled copies are equal and hash alike; other tokens and functions are different."""
    text, function = Bearer.of(SECRET), Bearer.of(give_token)
    copies = pickle.loads(pickle.dumps((text, function)))  # noqa: S301 -- our own bytes

    assert (text, function) == copies
    assert {text: 1, function: 2} == dict(zip(copies, (1, 2), strict=True))
    assert len({text, function, Bearer.of("another"), Bearer.of(give_another), Bearer.of(None)}) == 5


@pytest.mark.parametrize(
    "token", ["", " ", f"{SECRET}\n", f" {SECRET}", f"{SECRET}\0", "dapi-é", "dapi\N{EM DASH}x", 7, b"dapi", ["x"]]
)
def test_a_token_that_no_header_can_hold_is_refused(token: Any) -> None:  # noqa: ANN401 -- every wrong type
    """The error has a next step, and not the token."""
    with pytest.raises(ConfigError, match=r" Hint: .+\.$") as raised:
        Bearer.of(token)

    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("part", ["client_id", "client_secret"])
def test_a_client_that_no_header_can_hold_is_refused(part: str) -> None:
    """A secret with a line end is an error when the UDF is built, and is not printed."""
    with pytest.raises(ConfigError, match=r" Hint: .+\.$") as raised:
        ClientCredentials(**{"client_id": "id", "client_secret": "s", part: f"{SECRET}\n"})

    assert SECRET not in str(raised.value)


def test_a_client_prints_without_its_secret() -> None:
    """Its `repr` has the client's id only."""
    assert SECRET not in repr(ClientCredentials("my-client", SECRET))
    assert "my-client" in repr(ClientCredentials("my-client", SECRET))


CLIENT = {"DATABRICKS_CLIENT_ID": "my-client", "DATABRICKS_CLIENT_SECRET": SECRET}
TOKEN = {"DATABRICKS_TOKEN": "dapi-1"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (TOKEN, "DATABRICKS_TOKEN"),
        (CLIENT, "DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET"),
        (TOKEN | CLIENT, "DATABRICKS_TOKEN"),
        (TOKEN | CLIENT | {"DATABRICKS_AUTH_TYPE": "pat"}, "DATABRICKS_TOKEN"),
        (TOKEN | CLIENT | {"DATABRICKS_AUTH_TYPE": "oauth-m2m"}, "DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET"),
        (TOKEN | {"DATABRICKS_CLIENT_ID": "my-client"}, "DATABRICKS_TOKEN"),
        ({"DATABRICKS_CLIENT_ID": "my-client"}, None),
        ({"DATABRICKS_CLIENT_SECRET": SECRET}, None),
    ],
)
def test_the_environment_names_one_credential(environ: dict[str, str], expected: str | None) -> None:
    """A token takes precedence over a client unless DATABRICKS_AUTH_TYPE names the client; half a client is ignored."""
    found = environment_credential(DATABRICKS_URLS[0], environ)

    assert expected == (found and found.origin)


def test_a_route_optimised_endpoint_gets_the_client() -> None:
    """It takes OAuth tokens only, so the client takes precedence there."""
    assert isinstance(environment_credential(DATA_PLANE, TOKEN | CLIENT), ClientCredentials)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://x.openai.azure.com/openai/deployments/d/chat/completions", "of-azure"),
        ("https://x.services.ai.azure.com/models", "of-azure"),
        ("https://openai.azure.com.evil.net/", None),
        ("https://api.openai.com/v1", "sk-of-openai"),
    ],
)
def test_azures_key_goes_to_azure(url: str, expected: str | None) -> None:
    """OpenAI's key goes to OpenAI, and no key to other hosts."""
    assert expected == token_for(url, ENVIRON)


def test_a_client_gets_its_tokens_at_the_endpoints_workspace() -> None:
    """A client with a token URL of its own keeps it."""
    url = "https://dbc-1.cloud.databricks.com/serving-endpoints/e/invocations"
    own = ClientCredentials("id", "secret", "https://login.example.com/token")

    assert "https://dbc-1.cloud.databricks.com/oidc/v1/token" == client_at(url, "").token_url
    assert "https://ml.corp/oidc/v1/token" == client_at("https://ml.corp/serving-endpoints/e/invocations", ML).token_url
    assert own == credential_for_endpoint(own, url, "")


def test_a_client_of_a_route_optimised_endpoint_uses_the_workspace() -> None:
    """The data plane has no token endpoint and no description, so both URLs are of the workspace."""
    found = client_at(DATA_PLANE, "https://dbc-1.cloud.databricks.com")

    assert [
        "https://dbc-1.cloud.databricks.com/oidc/v1/token",
        "https://dbc-1.cloud.databricks.com/api/2.0/serving-endpoints/my-endpoint",
    ] == [found.token_url, found.description_url]


@pytest.mark.parametrize("url", [DATA_PLANE, "https://ml.corp/serving-endpoints/e/invocations"])
def test_a_client_needs_a_workspace(url: str) -> None:
    """Without its address, the error names the variable to set."""
    with pytest.raises(ConfigError, match=r"DATABRICKS_HOST.* Hint: .+\.$"):
        client_at(url, "")


def test_a_personal_access_token_for_the_data_plane_is_an_error() -> None:
    """It is raised before a request, which would be refused without a reason."""
    with pytest.raises(ConfigError, match=r"OAuth tokens only.* Hint: .*ClientCredentials.+\.$"):
        credential_for_endpoint(Bearer.of("dapi0123"), DATA_PLANE, "https://dbc-1.cloud.databricks.com")

    oauth = Bearer.of("eyJ.an.oauth-token")
    assert oauth == credential_for_endpoint(oauth, DATA_PLANE, "")


@pytest.mark.parametrize(
    ("token", "azure", "expected"),
    [
        ("key", False, ("Authorization", "Bearer key")),
        ("a.b.c", False, ("Authorization", "Bearer a.b.c")),
        ("0123456789abcdef", True, ("api-key", "0123456789abcdef")),
        ("a.b.c", True, ("Authorization", "Bearer a.b.c")),
    ],
)
def test_a_key_of_azure_has_its_own_header(token: str, azure: bool, expected: tuple[str, str]) -> None:  # noqa: FBT001 -- a table
    """A key goes into `api-key`, a token of Entra ID into `Authorization`."""
    assert expected == token_header(token, azure=azure)


def client_at(url: str, host: str) -> ClientCredentials:
    """Return a client with the URLs for an endpoint."""
    found = credential_for_endpoint(ClientCredentials("id", "secret"), url, host)
    assert isinstance(found, ClientCredentials)
    return found
