"""Who is asking: which token goes where, and how a worker keeps it fresh."""

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
STRANGERS = [
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
    """Return a token, as a function that is called on the workers."""
    return SECRET


def give_another() -> str:
    """Return a token, as another function."""
    return SECRET


def token_for(url: str, environ: Mapping[str, str]) -> object:
    """Return the token that the environment holds for a URL."""
    found = environment_credential(url, environ)
    return found.source if isinstance(found, Bearer) else found


@pytest.mark.parametrize("url", DATABRICKS_URLS)
def test_a_workspace_gets_its_token(url: str) -> None:
    """Every cloud's workspaces are known by their hosts."""
    assert "dapi-of-databricks" == token_for(url, ENVIRON)
    assert is_databricks(url)


def test_openai_gets_its_key() -> None:
    """And nobody else's."""
    assert "sk-of-openai" == token_for("https://api.openai.com/v1", ENVIRON)
    assert "sk-of-openai" == token_for("https://eu.api.openai.com/v1", ENVIRON)


@pytest.mark.parametrize("url", STRANGERS)
def test_a_stranger_gets_no_secret(url: str) -> None:
    """A host that only looks like one of ours is sent no token from the environment."""
    workspace = {"DATABRICKS_HOST": "https://adb-1.2.azuredatabricks.net"}

    assert [None, None] == [environment_credential(url, ENVIRON), environment_credential(url, ENVIRON | workspace)]
    assert not is_databricks(url)


@pytest.mark.parametrize("host", ["https://ml.corp.example", "ml.corp.example", "https://ml.corp.example/"])
def test_a_workspace_of_ones_own_name_gets_its_token(host: str) -> None:
    """Where DATABRICKS_HOST names it, the token goes there, and no further."""
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
def test_a_port_may_be_written_or_not(host: str, expected: bool) -> None:  # noqa: FBT001 -- a table
    """A workspace is a host and a port, and a scheme's own port need not be told."""
    assert expected is is_workspace("https://ml.corp/serving-endpoints/e/invocations", host)
    assert expected is is_workspace("https://ml.corp:443/serving-endpoints/e/invocations", host)


@pytest.mark.parametrize("environ", [{}, {"DATABRICKS_TOKEN": "", "OPENAI_API_KEY": ""}])
def test_an_empty_secret_is_none(environ: dict[str, str]) -> None:
    """A variable that is set to nothing holds nothing."""
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
def test_a_host_is_written_in_many_ways(host: str, expected: str) -> None:
    """With a scheme or without, with a slash at the end or blanks around: it is one host."""
    assert expected == host_url(host)


@pytest.mark.parametrize("source", [SECRET, give_token], ids=["a string", "a function"])
def test_a_bearer_does_not_print(source: Any) -> None:  # noqa: ANN401 -- a string or a function
    """It says that there is a token, and not which."""
    bearer = Bearer.of(source)

    assert ["'***'"] * 2 == [repr(bearer), str(bearer)]
    assert "None" == repr(Bearer.of(None))


def test_a_bearer_is_the_same_wherever_it_travels() -> None:
    """Copies are equal and one key; another token is another, and so is another function."""
    text, function = Bearer.of(SECRET), Bearer.of(give_token)
    copies = pickle.loads(pickle.dumps((text, function)))  # noqa: S301 -- our own bytes

    assert (text, function) == copies
    assert {text: 1, function: 2} == dict(zip(copies, (1, 2), strict=True))
    assert len({text, function, Bearer.of("another"), Bearer.of(give_another), Bearer.of(None)}) == 5


@pytest.mark.parametrize(
    "token", ["", " ", f"{SECRET}\n", f" {SECRET}", f"{SECRET}\0", "dapi-é", "dapi\N{EM DASH}x", 7, b"dapi", ["x"]]
)
def test_a_token_that_no_header_can_hold_is_refused(token: Any) -> None:  # noqa: ANN401 -- every wrong type
    """At once, with a next step, and without printing it."""
    with pytest.raises(ConfigError, match=r" Hint: .+\.$") as raised:
        Bearer.of(token)

    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("part", ["client_id", "client_secret"])
def test_a_client_that_no_header_can_hold_is_refused(part: str) -> None:
    """A secret that was copied with its line end is found where the UDF is built, and not printed."""
    with pytest.raises(ConfigError, match=r" Hint: .+\.$") as raised:
        ClientCredentials(**{"client_id": "id", "client_secret": "s", part: f"{SECRET}\n"})

    assert SECRET not in str(raised.value)


def test_a_client_prints_without_its_secret() -> None:
    """Which client it is may be read, and nothing else."""
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
    """A token goes before a client, unless DATABRICKS_AUTH_TYPE says otherwise; half a client is none."""
    found = environment_credential(DATABRICKS_URLS[0], environ)

    assert expected == (found and found.origin)


def test_a_route_optimised_endpoint_is_asked_with_the_client() -> None:
    """It takes OAuth tokens only, so the client goes before the token there."""
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
    """And OpenAI's to OpenAI."""
    assert expected == token_for(url, ENVIRON)


def test_a_client_gets_its_tokens_at_the_endpoints_workspace() -> None:
    """Or where it says itself."""
    url = "https://dbc-1.cloud.databricks.com/serving-endpoints/e/invocations"
    own = ClientCredentials("id", "secret", "https://login.example.com/token")

    assert "https://dbc-1.cloud.databricks.com/oidc/v1/token" == client_at(url, "").token_url
    assert "https://ml.corp/oidc/v1/token" == client_at("https://ml.corp/serving-endpoints/e/invocations", ML).token_url
    assert own == credential_for_endpoint(own, url, "")


def test_a_client_of_the_data_plane_asks_the_workspace_for_the_endpoints_rights() -> None:
    """The data plane gives out no tokens, and its endpoint is described at the workspace."""
    found = client_at(DATA_PLANE, "https://dbc-1.cloud.databricks.com")

    assert [
        "https://dbc-1.cloud.databricks.com/oidc/v1/token",
        "https://dbc-1.cloud.databricks.com/api/2.0/serving-endpoints/my-endpoint",
    ] == [found.token_url, found.description_url]


@pytest.mark.parametrize("url", [DATA_PLANE, "https://ml.corp/serving-endpoints/e/invocations"])
def test_a_client_needs_a_workspace(url: str) -> None:
    """Where nothing tells its address, the next step is said at once."""
    with pytest.raises(ConfigError, match=r"DATABRICKS_HOST.* Hint: .+\.$"):
        client_at(url, "")


def test_a_personal_access_token_is_refused_at_the_data_plane() -> None:
    """Before anything is sent: it would be refused there as well, without a reason."""
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
def test_azures_keys_have_their_own_header(token: str, azure: bool, expected: tuple[str, str]) -> None:  # noqa: FBT001 -- a table
    """A key is no bearer token there; a token of Entra ID is."""
    assert expected == token_header(token, azure=azure)


def client_at(url: str, host: str) -> ClientCredentials:
    """Return a client, fit for a URL."""
    found = credential_for_endpoint(ClientCredentials("id", "secret"), url, host)
    assert isinstance(found, ClientCredentials)
    return found
