"""Endpoints: names, URLs and base URLs, and that no secret is printed."""

import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from spark_llm.auth.credentials import Bearer, ClientCredentials, Credential, SignInDeferredError, Workspace
from spark_llm.endpoint.endpoint import Endpoint
from spark_llm.errors import ConfigError

if TYPE_CHECKING:
    from spark_llm.endpoint.route import Route

HOST = "https://adb-1.2.azuredatabricks.net"
WORKSPACE = {"DATABRICKS_HOST": HOST, "DATABRICKS_TOKEN": "dapi-of-the-workspace"}
ROUTES = ["/chat/completions", "/completions", "/embeddings"]
SECRET = "dapi-s3cret"


def give_token() -> str:
    """Return a token; a function that workers call."""
    return SECRET


def url_of(endpoint: Endpoint, route: str = "/chat/completions", **environ: str) -> str:
    """Return the URL for a task of this route."""
    return endpoint.resolve(route, environ or WORKSPACE).url


@pytest.mark.parametrize(
    "host",
    [
        HOST,
        HOST + "/",
        "adb-1.2.azuredatabricks.net",
        " adb-1.2.azuredatabricks.net/ \n",
        HOST + "/?o=6051921418418893",
    ],
)
def test_a_name_becomes_a_url_of_the_workspace(host: str) -> None:
    """DATABRICKS_HOST may have any spelling, also the URL of a browser."""
    found = url_of(Endpoint("my-endpoint"), DATABRICKS_HOST=host, DATABRICKS_TOKEN="dapi")

    assert f"{HOST}/serving-endpoints/my-endpoint/invocations" == found


@pytest.mark.parametrize("route", ROUTES)
def test_a_name_serves_every_task(route: str) -> None:
    """The invocations route is the same for chat, completions and embeddings."""
    assert f"{HOST}/serving-endpoints/e_1.x-2/invocations" == url_of(Endpoint("e_1.x-2"), route)


def test_a_served_model_has_its_own_url() -> None:
    """Its requests bypass the traffic split."""
    assert f"{HOST}/serving-endpoints/my-endpoint/served-models/my-model-2/invocations" == url_of(
        Endpoint("my-endpoint", served_model="my-model-2")
    )


@pytest.mark.parametrize(
    ("url", "route"),
    [
        (f"{HOST}/serving-endpoints/my-endpoint/invocations", "/chat/completions"),
        (f"{HOST}/serving-endpoints/my-endpoint/invocations", "/embeddings"),
        ("http://127.0.0.1:5000/gateway/chat/invocations", "/completions"),
        ("https://api.openai.com/v1/chat/completions", "/chat/completions"),
        ("https://api.openai.com/v1/completions", "/completions"),
        ("https://x.openai.azure.com/openai/deployments/e/embeddings?api-version=2024-10-21&a=%20b", "/embeddings"),
    ],
)
def test_a_url_with_a_known_route_is_used_as_it_is(url: str, route: str) -> None:
    """Its query is kept; only a fragment is removed."""
    assert url == url_of(Endpoint(url, token="t"), route)
    assert url == url_of(Endpoint(url + "#part", token="t"), route)


@pytest.mark.parametrize("route", ROUTES)
def test_a_name_of_three_parts_is_a_model_of_the_gateway(route: str) -> None:
    """It is asked at the workspace's AI Gateway, with the workspace's credential, and by its whole name."""
    resolved = Endpoint("system.ai.gpt-5").resolve(route, WORKSPACE)

    assert (f"{HOST}/ai-gateway/mlflow/v1{route}", "system.ai.gpt-5") == (resolved.url, resolved.model)
    assert Bearer.of("dapi-of-the-workspace", "DATABRICKS_TOKEN") == resolved.credential
    assert not resolved.attributed


@pytest.mark.parametrize("name", ["a", "a.b", "a.b.c.d", "a..c", ".b.c", "a.b."])
def test_another_number_of_parts_is_an_endpoint(name: str) -> None:
    """It is looked up among the workspace's serving endpoints."""
    assert f"{HOST}/serving-endpoints/{name}/invocations" == url_of(Endpoint(name))


@pytest.mark.parametrize(
    ("endpoint", "url", "api"),
    [
        (Endpoint("https://host/v1/responses?a=b"), "https://host/v1/responses?a=b", "responses"),
        (Endpoint("https://host/v1/responses", api="responses"), "https://host/v1/responses", "responses"),
        (Endpoint("https://host/v1", model="m", api="responses"), "https://host/v1/responses", "responses"),
        (Endpoint("https://host/v1", model="m", api="chat"), "https://host/v1/chat/completions", "chat"),
        (Endpoint("https://host/v1", model="m"), "https://host/v1/chat/completions", None),
        (Endpoint("https://host/invocations", api="responses"), "https://host/invocations", "responses"),
        (Endpoint("e", api="responses"), f"{HOST}/serving-endpoints/e/invocations", "responses"),
        (Endpoint("a.b.c", api="responses"), f"{HOST}/ai-gateway/mlflow/v1/responses", "responses"),
    ],
    ids=repr,
)
def test_a_chat_may_go_to_the_responses_route(endpoint: Endpoint, url: str, api: str | None) -> None:
    """By its URL, or by `api`; a URL of invocations stays as it is."""
    resolved = endpoint.resolve("/chat/completions", WORKSPACE)

    assert (url, api, api) == (resolved.url, resolved.api, endpoint.chat_api)


@pytest.mark.parametrize(
    ("endpoint", "route"),
    [
        (Endpoint("https://host/v1/responses"), "/embeddings"),
        (Endpoint("https://host/v1/responses", api="chat"), "/chat/completions"),
        (Endpoint("https://host/v1/chat/completions", api="responses"), "/chat/completions"),
        (Endpoint("https://host/v1", model="m", api="responses"), "/embeddings"),
        (Endpoint("e", api="chat"), "/completions"),
    ],
    ids=repr,
)
def test_a_contradiction_of_routes_is_an_error(endpoint: Endpoint, route: str) -> None:
    """It is raised when the UDF is built."""
    with pytest.raises(ConfigError, match=r" Hint: .+\.$"):
        endpoint.resolve(route, WORKSPACE)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1{}"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1{}"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000{}"),
        ("https://host/base?key=1", "https://host/base{}?key=1"),
    ],
)
def test_the_tasks_route_is_added_to_a_base_url(base: str, expected: str, route: str) -> None:
    """Any other URL is an OpenAI-style base URL; the model's name goes into the request."""
    resolved = Endpoint(base, model="smollm2").resolve(route, {})

    assert (expected.format(route), "smollm2") == (resolved.url, resolved.model)


def test_a_base_url_needs_a_model() -> None:
    """Without one, the error is raised when the UDF is built."""
    with pytest.raises(ConfigError, match=r"a base URL, which needs a model.* Hint: .*model=.+\."):
        Endpoint("http://127.0.0.1:8000/v1").resolve("/embeddings", {})


def test_the_url_of_another_task_is_an_error() -> None:
    """A chat URL cannot embed, and "/chat/completions" is not taken for "/completions"."""
    for url, route in (
        ("http://127.0.0.1/v1/chat/completions", "/embeddings"),
        ("http://127.0.0.1/v1/chat/completions", "/completions"),
        ("http://127.0.0.1/v1/completions", "/chat/completions"),
    ):
        with pytest.raises(ConfigError, match=rf"this UDF sends requests to {route}\. Hint: .+\."):
            Endpoint(url).resolve(route, {})


@pytest.mark.parametrize(
    "environ", [{}, {"DATABRICKS_HOST": ""}, {"DATABRICKS_HOST": "  "}, {"DATABRICKS_HOST": "https://"}]
)
def test_a_name_needs_a_workspace(environ: dict[str, str]) -> None:
    """A name without DATABRICKS_HOST is an error."""
    with pytest.raises(ConfigError, match=r"'my-endpoint'.*DATABRICKS_HOST.* Hint: .+\."):
        Endpoint("my-endpoint", token="t").resolve("/embeddings", environ)


@pytest.mark.parametrize("target", ["my-endpoint", f"{HOST}/serving-endpoints/e/invocations"])
def test_a_workspace_needs_a_token(target: str) -> None:
    """Without one, the error is raised before the first request."""
    with pytest.raises(ConfigError, match=r"no token.* Hint: .*DATABRICKS_TOKEN.+\."):
        Endpoint(target).resolve("/embeddings", {"DATABRICKS_HOST": HOST})


def test_another_server_needs_no_token() -> None:
    """By default, vLLM and llama.cpp need no token."""
    assert Bearer() == Endpoint("http://127.0.0.1:8000/v1", model="m").resolve("/embeddings", WORKSPACE).credential


def test_building_an_endpoint_reads_no_environment() -> None:
    """The environment is read when a UDF is built."""
    assert "Endpoint('my-endpoint')" == repr(Endpoint("my-endpoint"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"target": ""},
        {"target": "  "},
        {"target": None},
        {"target": 7},
        {"target": "my endpoint"},
        {"target": "my/endpoint"},
        {"target": ".."},
        {"target": "mein-endpünkt"},
        {"target": "x" * 256},
        {"target": "ftp://host/invocations"},
        {"target": "https:///invocations"},
        {"target": "https://"},
        {"target": "https://host/a b/invocations"},
        {"target": "https://host:port/invocations"},
        {"target": "https://host:99999/invocations"},
        {"target": "https://[::1/invocations"},
        {"target": f"https://user:{SECRET}@host/invocations"},
        {"target": f"https://{SECRET}@host/invocations"},
        {"target": f"https://user:{SECRET}/x@host/invocations"},
        {"target": "my-endpoint", "model": "m"},
        {"target": "my-endpoint", "served_model": ""},
        {"target": "my-endpoint", "served_model": "a/b"},
        {"target": "my-endpoint", "served_model": 7},
        {"target": "https://host/invocations", "served_model": "m"},
        {"target": "https://host/v1", "model": " "},
        {"target": "https://host/v1", "model": 7},
        {"target": "my-endpoint", "token": ""},
        {"target": "my-endpoint", "token": f"{SECRET}\n"},
        {"target": "my-endpoint", "token": f"Bearer {SECRET}"},
        {"target": "my-endpoint", "token": 7},
        {"target": f"https://host:x/invocations?key={SECRET}"},
        {"target": f"ftp://host/invocations?key={SECRET}"},
        {"target": f"https://ß.example/v1?key={SECRET}"},
        {"target": f"https://a..example/v1?key={SECRET}"},
        {"target": f"https://.example/v1?key={SECRET}"},
        {"target": f"https://{'a' * 64}.example/v1?key={SECRET}"},
        {"target": f"https://{'a.' * 127}example/v1?key={SECRET}"},
        {"target": f"https://\udcff.example/v1?key={SECRET}"},
        {"target": "my-endpoint", "headers": {"X Y": "v"}},
        {"target": "my-endpoint", "headers": {"X": f"{SECRET}\r\nHost: evil"}},
        {"target": "my-endpoint", "headers": {"X": 7}},
        {"target": "my-endpoint", "headers": ["X"]},
        {"target": "my-endpoint", "headers": {"X": "v", "Content-Length": "5"}},
        {"target": "my-endpoint", "headers": {"transfer-encoding": "chunked"}},
        {"target": "my-endpoint", "headers": {"Content-Encoding": "gzip"}},
        {"target": "my-endpoint", "headers": {"CONNECTION": "upgrade"}},
        {"target": "my-endpoint", "ca_bundle": " "},
        {"target": "my-endpoint", "ca_bundle": 7},
        {"target": "my-endpoint", "ca_bundle": f"-----BEGIN CERTIFICATE-----\n{SECRET}\n-----END CERTIFICATE-----\n"},
        {"target": "my-endpoint", "ca_bundle": f"MIIB\n{SECRET}\n"},
        {"target": "my-endpoint", "ca_bundle": "ca\0.pem"},
        {"target": "my-endpoint", "allow_http": "yes"},
        {"target": "my-endpoint", "allow_http": None},
        {"target": "my-endpoint", "attribution": "no"},
        {"target": "my-endpoint", "api": "completions"},
        {"target": "my-endpoint", "api": True},
        {"target": "system.ai.my-model", "model": "m"},
        {"target": "system.ai.my-model", "served_model": "m"},
    ],
)
def test_an_invalid_argument_is_an_error(arguments: dict[str, Any]) -> None:
    """The message ends in a next step and has no secret."""
    with pytest.raises(ConfigError, match=r"(?s)^.+ Hint: .+\.$") as raised:
        Endpoint(**arguments)

    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("host", ["h", "a.example.", "[::1]", "127.0.0.1", "xn--bcher-kva.example", f"{'a' * 63}.x_y"])
def test_a_host_that_can_be_looked_up_is_taken(host: str) -> None:
    """It may end in a dot, and be an address."""
    assert f"https://{host}/v1/embeddings" == Endpoint(f"https://{host}/v1", model="m").resolve("/embeddings", {}).url


def test_the_host_of_a_workspace_is_checked_too() -> None:
    """It comes from the environment."""
    with pytest.raises(ConfigError, match=r"is no name that can be looked up\. Hint: "):
        Endpoint("e", token="t").resolve("/embeddings", {"DATABRICKS_HOST": "https://a..example"})


def test_a_path_of_certificates_is_the_workers_own() -> None:
    """Building an endpoint reads no file: the path need not exist here."""
    assert "no/such/file.pem" == Endpoint("my-endpoint", ca_bundle="no/such/file.pem").ca_bundle


@pytest.mark.parametrize("token", [SECRET, give_token], ids=["a string", "a function"])
@pytest.mark.parametrize("target", ["my-endpoint", f"{HOST}/e/invocations?sig={SECRET}&x={SECRET}"])
def test_no_secret_is_printed(target: str, token: Any) -> None:  # noqa: ANN401 -- a string or a function
    """This holds for an endpoint, its route and pickled copies of both."""
    endpoint = Endpoint(target, token=token)
    route = endpoint.resolve("/embeddings", WORKSPACE)
    copies = pickle.loads(pickle.dumps((endpoint, route)))  # noqa: S301 -- our own bytes
    printed = "".join(f"{value!r} {value} {[value]}" for value in (endpoint, route, route.credential, *copies))

    assert SECRET not in printed
    assert "give_token" not in printed
    assert "***" in repr(endpoint)
    assert "***" in repr(route)


@pytest.mark.parametrize(
    "url",
    [
        f"https://host/v1?sig={SECRET}",
        f"{HOST}/e/invocations?sig={SECRET}",
        f"https://host/chat/completions?sig={SECRET}",
    ],
    ids=["a base", "no token", "another task"],
)
def test_no_secret_is_in_an_error(url: str) -> None:
    """Errors have a URL without the values of its query."""
    with pytest.raises(ConfigError) as raised:
        Endpoint(url).resolve("/embeddings", {})

    assert SECRET not in str(raised.value)


def test_the_repr_has_the_arguments() -> None:
    """Secrets in it are masked."""
    assert "Endpoint('e', served_model='m', token=***)" == repr(Endpoint("e", served_model="m", token=SECRET))
    assert "Endpoint('e', attribution=False)" == repr(Endpoint("e", attribution=False))
    assert "Endpoint('e', api='responses')" == repr(Endpoint("e", api="responses"))
    assert "Endpoint('http://h/v1?a=***', model='m')" == repr(Endpoint("http://h/v1?a=b", model="m"))
    assert "Endpoint('e', headers=***, ca_bundle=***, allow_http=True)" == repr(
        Endpoint("e", headers={"X-Key": SECRET}, ca_bundle="/ca.pem", allow_http=True)
    )


LOCAL = ["http://127.0.0.1:8000/v1", "http://localhost/v1", "http://[::1]:8000/v1", "http://127.8.0.1/v1"]
REMOTE = ["http://host/v1", "http://10.0.0.1/v1", "http://127.0.0.1.evil.net/v1", "http://localhost.evil.net/v1"]


@pytest.mark.parametrize("url", LOCAL)
def test_plain_http_to_this_machine_is_allowed(url: str) -> None:
    """Loopback is not a network."""
    assert url + "/embeddings" == Endpoint(url, model="m").resolve("/embeddings", {}).url


@pytest.mark.parametrize("url", REMOTE)
def test_plain_http_to_another_machine_needs_allow_http(url: str) -> None:
    """The error is raised when the UDF is built, before a token or a text is sent in clear."""
    with pytest.raises(ConfigError, match=r"plain http to another machine.* Hint: .*allow_http=True.+\."):
        Endpoint(url, model="m", token=SECRET).resolve("/embeddings", {})

    assert url + "/embeddings" == Endpoint(url, model="m", allow_http=True).resolve("/embeddings", {}).url


def test_a_workspace_without_https_is_an_error() -> None:
    """This holds for an address from the environment too."""
    environ = {"DATABRICKS_HOST": "http://ml.corp.example", "DATABRICKS_TOKEN": SECRET}
    with pytest.raises(ConfigError, match="plain http to another machine"):
        Endpoint("my-endpoint").resolve("/embeddings", environ)


@pytest.mark.parametrize(
    ("target", "attributed"),
    [
        ("e", True),
        ("https://proxy.example.com/serving-endpoints/e/invocations", True),
        ("https://1.serving.cloud.databricks.com/2/serving-endpoints/e/invocations", True),
        ("https://w.cloud.databricks.com/serving-endpoints/chat/completions", True),
        ("https://w.cloud.databricks.com/ai-gateway/mlflow/v1/chat/completions", False),
        ("https://gateway.example.com/endpoints/e/invocations", False),
        ("https://api.openai.com/v1/chat/completions", False),
    ],
)
def test_only_databricks_model_serving_is_told_who_asks(target: str, *, attributed: bool) -> None:
    """The path decides, since a proxy may stand in front; `attribution=False` turns it off."""
    environ = {"DATABRICKS_HOST": "https://w.cloud.databricks.com"}
    on, off = (
        Endpoint(target, token="t", attribution=flag).resolve("/chat/completions", environ) for flag in (True, False)
    )

    assert (attributed, False) == (on.attributed, off.attributed)


def test_the_headers_of_a_route_are_sorted() -> None:
    """Equal headers in another order give an equal route."""
    one = Endpoint("https://h/v1", model="m", headers={"X-B": "2", "X-A": "1"}).resolve("/embeddings", {})
    other = Endpoint("https://h/v1", model="m", headers={"X-A": "1", "X-B": "2"}).resolve("/embeddings", {})

    assert (("X-A", "1"), ("X-B", "2")) == one.headers
    assert {one: "engine"}[other] == "engine"
    assert one != Endpoint("https://h/v1", model="m").resolve("/embeddings", {})


class Provider:
    """A credentials provider with a fixed workspace, or none."""

    requirement = "a test provider"

    def __init__(self, host: str | None, credential: Credential | None = None, *, available: bool = True) -> None:
        """Return this workspace later."""
        default = Bearer.of("of-the-provider", "the provider")
        self._workspace = None if host is None else Workspace(host, credential or default)
        self._available = available

    def is_available(self, environ: Mapping[str, str]) -> bool:
        """Return the fixed answer."""
        return self._available

    def workspace(self, environ: Mapping[str, str]) -> Workspace | None:
        """Return the fixed workspace."""
        return self._workspace


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (HOST, "of-the-provider")),
        ({"DATABRICKS_HOST": HOST}, (HOST, "of-the-provider")),
        (WORKSPACE, (HOST, "dapi-of-the-workspace")),
        ({"DATABRICKS_HOST": "https://elsewhere.cloud.databricks.com"}, None),
        ({"DATABRICKS_TOKEN": "dapi-of-nowhere"}, (HOST, "of-the-provider")),
    ],
)
def test_a_provider_is_used_if_the_environment_has_no_credential(
    environ: dict[str, str], expected: tuple[str, str] | None
) -> None:
    """It has the workspace's URL and the token, which goes to that workspace only."""
    providers = (Provider("https://never.used", available=False), Provider(None), Provider(HOST))
    endpoint = Endpoint("my-endpoint")
    if expected is None:
        with pytest.raises(ConfigError, match=r"There is no token for https://elsewhere.*a test provider"):
            endpoint.resolve("/embeddings", environ, providers)
        return
    route = endpoint.resolve("/embeddings", environ, providers)
    assert isinstance(route.credential, Bearer)
    assert (f"{expected[0]}/serving-endpoints/my-endpoint/invocations", expected[1]) == (
        route.url,
        route.credential.source,
    )


def test_a_given_token_needs_only_the_workspaces_url() -> None:
    """The URL is the provider's, and the token is the endpoint's."""
    route = Endpoint("my-endpoint", token="mine").resolve("/embeddings", {}, (Provider(HOST),))

    assert (Bearer.of("mine"), True) == (route.credential, route.url.startswith(HOST))


@pytest.mark.parametrize(
    "url", [f"{HOST}/serving-endpoints/e/invocations", "https://ml.corp/serving-endpoints/e/invocations"]
)
def test_a_provider_serves_urls_of_its_workspace(url: str) -> None:
    """A workspace's URL without a token gets the token of a provider for that workspace."""
    home = url.partition("/serving")[0]
    route = Endpoint(url).resolve("/embeddings", {"DATABRICKS_HOST": home}, (Provider(home),))

    assert Bearer.of("of-the-provider") == route.credential


def test_the_data_plane_uses_the_provider_of_its_workspace() -> None:
    """Its host is another one, so the provider's workspace is assumed; a personal token is an error there."""
    url = "https://1a2b.serving.cloud.databricks.com/1234/serving-endpoints/e/invocations"
    client = Provider(HOST, ClientCredentials("id", "secret"))
    credential = Endpoint(url).resolve("/embeddings", {}, (client,)).credential

    assert isinstance(credential, ClientCredentials)
    assert f"{HOST}/oidc/v1/token" == credential.token_url
    with pytest.raises(ConfigError, match="OAuth tokens only"):
        Endpoint(url).resolve("/embeddings", {}, (Provider(HOST, Bearer.of("dapi0123")),))


@pytest.mark.parametrize("name", ["Authorization", "api-key"])
def test_an_authentication_header_replaces_the_token(name: str) -> None:
    """No token of the environment is sent beside it."""
    route = Endpoint(f"{HOST}/serving-endpoints/e/invocations", headers={name: "mine"}).resolve(
        "/embeddings", WORKSPACE
    )

    assert (Bearer(), ((name, "mine"),)) == (route.credential, route.headers)


def test_another_host_gets_no_credential_of_a_provider() -> None:
    """A server that is not a workspace gets requests without a token."""
    route = Endpoint("https://example.com/v1", model="m").resolve("/embeddings", {}, (Provider(HOST),))

    assert Bearer() == route.credential


def test_without_allow_sign_in_the_sign_in_is_deferred() -> None:
    """A provider may need a network; the environment does not."""
    with pytest.raises(SignInDeferredError):
        Endpoint("my-endpoint").resolve("/embeddings", {}, (Provider(HOST),), allow_sign_in=False)

    assert url_of(Endpoint("my-endpoint"))


def test_the_error_has_every_source_of_a_credential() -> None:
    """The message for a missing credential lists them."""
    with pytest.raises(ConfigError) as raised:
        Endpoint("my-endpoint").resolve("/embeddings", {"DATABRICKS_HOST": HOST}, (Provider(None),))

    for source in ("token=", "DATABRICKS_TOKEN", "DATABRICKS_CLIENT_ID", "a test provider"):
        assert source in str(raised.value)


def test_one_endpoint_has_one_identity_for_all_its_udfs() -> None:
    """The credentials of one `Endpoint` with a token function are equal; those of two are not."""
    one, other = (Endpoint("https://h/v1", model="m", token=give_token) for _ in range(2))
    credentials = [each.resolve(route, {}).credential for each in (one, other) for route in ROUTES]

    assert [credentials[0]] * 3 + [credentials[3]] * 3 == credentials
    assert credentials[0] != credentials[3]


@pytest.mark.parametrize("token", [None, SECRET, give_token], ids=["none", "a string", "a function"])
def test_a_route_equals_its_copies(token: Any) -> None:  # noqa: ANN401 -- a string or a function
    """A worker finds its engine by the route: a pickled copy is equal, one with another token is not."""
    route = Endpoint("https://host/v1", model="m", token=token).resolve("/embeddings", {})
    copy: Route = pickle.loads(pickle.dumps(route))  # noqa: S301 -- our own bytes
    other = Endpoint("https://host/v1", model="m", token="another").resolve("/embeddings", {})

    assert {route: "engine"}[copy] == "engine"
    assert route != other
    assert isinstance(copy.credential, Bearer)
    assert token is copy.credential.source or token == copy.credential.source
