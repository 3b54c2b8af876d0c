"""Where to ask: names, URLs and bases, and that no secret is printed on the way."""

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
    """Return a token, as a function that is called on the workers."""
    return SECRET


def url_of(endpoint: Endpoint, route: str = "/chat/completions", **environ: str) -> str:
    """Say where a task of this route is posted to."""
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
def test_a_name_is_looked_up_at_the_workspace(host: str) -> None:
    """However DATABRICKS_HOST was written, or copied from the browser, a name becomes the workspace's URL of it."""
    found = url_of(Endpoint("my-endpoint"), DATABRICKS_HOST=host, DATABRICKS_TOKEN="dapi")

    assert f"{HOST}/serving-endpoints/my-endpoint/invocations" == found


@pytest.mark.parametrize("route", ROUTES)
def test_a_name_serves_every_task(route: str) -> None:
    """The invocations route is the same for chat, completions and embeddings."""
    assert f"{HOST}/serving-endpoints/e_1.x-2/invocations" == url_of(Endpoint("e_1.x-2"), route)


def test_a_served_model_is_asked_past_the_split() -> None:
    """One model behind an endpoint has a URL of its own."""
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
def test_a_url_with_a_known_route_is_posted_to_as_it_is(url: str, route: str) -> None:
    """Query and all; only a fragment, which is never sent, is left off."""
    assert url == url_of(Endpoint(url, token="t"), route)
    assert url == url_of(Endpoint(url + "#part", token="t"), route)


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
def test_a_base_is_followed_by_the_tasks_route(base: str, expected: str, route: str) -> None:
    """Any other URL is an OpenAI-style base; the model's name goes into the request."""
    resolved = Endpoint(base, model="smollm2").resolve(route, {})

    assert (expected.format(route), "smollm2") == (resolved.url, resolved.model)


def test_a_base_needs_a_model() -> None:
    """Without one there is nothing to put into the request, and it is said where the UDF is built."""
    with pytest.raises(ConfigError, match=r"a base URL, which needs a model.* Hint: .*model=.+\."):
        Endpoint("http://127.0.0.1:8000/v1").resolve("/embeddings", {})


def test_another_tasks_url_is_refused() -> None:
    """A chat URL cannot embed, and "/completions" is not the end of "/chat/completions"."""
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
    """A name without DATABRICKS_HOST leads nowhere."""
    with pytest.raises(ConfigError, match=r"'my-endpoint'.*DATABRICKS_HOST.* Hint: .+\."):
        Endpoint("my-endpoint", token="t").resolve("/embeddings", environ)


@pytest.mark.parametrize("target", ["my-endpoint", f"{HOST}/serving-endpoints/e/invocations"])
def test_a_workspace_needs_a_token(target: str) -> None:
    """It answers nobody without one, and that is known before the first request."""
    with pytest.raises(ConfigError, match=r"no token.* Hint: .*DATABRICKS_TOKEN.+\."):
        Endpoint(target).resolve("/embeddings", {"DATABRICKS_HOST": HOST})


def test_a_server_of_ones_own_needs_no_token() -> None:
    """Such as vLLM and llama.cpp answer anyone, unless they were told otherwise."""
    assert Bearer() == Endpoint("http://127.0.0.1:8000/v1", model="m").resolve("/embeddings", WORKSPACE).credential


def test_building_an_endpoint_reads_no_environment() -> None:
    """What the driver's environment says is looked at when a UDF is built, and not before."""
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
        {"target": "my-endpoint", "headers": {"X Y": "v"}},
        {"target": "my-endpoint", "headers": {"X": f"{SECRET}\r\nHost: evil"}},
        {"target": "my-endpoint", "headers": {"X": 7}},
        {"target": "my-endpoint", "headers": ["X"]},
        {"target": "my-endpoint", "ca_bundle": " "},
        {"target": "my-endpoint", "ca_bundle": 7},
    ],
)
def test_what_cannot_be_right_is_refused(arguments: dict[str, Any]) -> None:
    """At once, in a sentence that ends in a next step and holds no secret."""
    with pytest.raises(ConfigError, match=r"(?s)^.+ Hint: .+\.$") as raised:
        Endpoint(**arguments)

    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("token", [SECRET, give_token], ids=["a string", "a function"])
@pytest.mark.parametrize("target", ["my-endpoint", f"{HOST}/e/invocations?sig={SECRET}&x={SECRET}"])
def test_no_secret_is_printed(target: str, token: Any) -> None:  # noqa: ANN401 -- a string or a function
    """Neither by an endpoint nor by the route that travels to the workers, nor by a copy of them that travelled."""
    endpoint = Endpoint(target, token=token)
    route = endpoint.resolve("/embeddings", WORKSPACE)
    copies = pickle.loads(pickle.dumps((endpoint, route)))  # noqa: S301 -- our own bytes
    printed = "".join(f"{thing!r} {thing} {[thing]}" for thing in (endpoint, route, route.credential, *copies))

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
    """A URL is named in errors without the values of its query."""
    with pytest.raises(ConfigError) as raised:
        Endpoint(url).resolve("/embeddings", {})

    assert SECRET not in str(raised.value)


def test_what_is_printed_says_what_matters() -> None:
    """The repr shows the arguments that were given, and that there is a token."""
    assert "Endpoint('e', served_model='m', token=***)" == repr(Endpoint("e", served_model="m", token=SECRET))
    assert "Endpoint('http://h/v1?a=***', model='m')" == repr(Endpoint("http://h/v1?a=b", model="m"))
    assert "Endpoint('e', headers=***, ca_bundle=***, allow_http=True)" == repr(
        Endpoint("e", headers={"X-Key": SECRET}, ca_bundle="/ca.pem", allow_http=True)
    )


LOCAL = ["http://127.0.0.1:8000/v1", "http://localhost/v1", "http://[::1]:8000/v1", "http://127.8.0.1/v1"]
REMOTE = ["http://host/v1", "http://10.0.0.1/v1", "http://127.0.0.1.evil.net/v1", "http://localhost.evil.net/v1"]


@pytest.mark.parametrize("url", LOCAL)
def test_plain_http_to_this_machine_is_fine(url: str) -> None:
    """Nobody is in between."""
    assert url + "/embeddings" == Endpoint(url, model="m").resolve("/embeddings", {}).url


@pytest.mark.parametrize("url", REMOTE)
def test_plain_http_to_another_machine_must_be_asked_for(url: str) -> None:
    """It is refused where the UDF is built, before a token or a text is sent in clear."""
    with pytest.raises(ConfigError, match=r"plain http to another machine.* Hint: .*allow_http=True.+\."):
        Endpoint(url, model="m", token=SECRET).resolve("/embeddings", {})

    assert url + "/embeddings" == Endpoint(url, model="m", allow_http=True).resolve("/embeddings", {}).url


def test_a_workspace_without_https_is_refused() -> None:
    """However its address came."""
    environ = {"DATABRICKS_HOST": "http://ml.corp.example", "DATABRICKS_TOKEN": SECRET}
    with pytest.raises(ConfigError, match="plain http to another machine"):
        Endpoint("my-endpoint").resolve("/embeddings", environ)


def test_headers_travel_with_the_route() -> None:
    """In an order of their own, so that equal ones are one key."""
    one = Endpoint("https://h/v1", model="m", headers={"X-B": "2", "X-A": "1"}).resolve("/embeddings", {})
    other = Endpoint("https://h/v1", model="m", headers={"X-A": "1", "X-B": "2"}).resolve("/embeddings", {})

    assert (("X-A", "1"), ("X-B", "2")) == one.headers
    assert {one: "engine"}[other] == "engine"
    assert one != Endpoint("https://h/v1", model="m").resolve("/embeddings", {})


class At:
    """A login at a workspace, or nowhere."""

    requirement = "a seat at the table"

    def __init__(self, host: str | None, who: Credential | None = None, *, here: bool = True) -> None:
        """Be signed in at `host`."""
        self._found = None if host is None else Workspace(host, who or Bearer.of("of-the-login", "the login"))
        self._here = here

    def is_available(self, environ: Mapping[str, str]) -> bool:
        """Say whether it is worth asking."""
        return self._here

    def workspace(self, environ: Mapping[str, str]) -> Workspace | None:
        """Say where it is signed in."""
        return self._found


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (HOST, "of-the-login")),
        ({"DATABRICKS_HOST": HOST}, (HOST, "of-the-login")),
        (WORKSPACE, (HOST, "dapi-of-the-workspace")),
        ({"DATABRICKS_HOST": "https://elsewhere.cloud.databricks.com"}, None),
        ({"DATABRICKS_TOKEN": "dapi-of-nowhere"}, (HOST, "of-the-login")),
    ],
)
def test_a_login_is_asked_where_the_environment_does_not_say(
    environ: dict[str, str], expected: tuple[str, str] | None
) -> None:
    """The workspace's address and the token come from it, and its token goes to its own workspace only."""
    providers = (At("https://never.asked", here=False), At(None), At(HOST))
    endpoint = Endpoint("my-endpoint")
    if expected is None:
        with pytest.raises(ConfigError, match=r"There is no token for https://elsewhere.*a seat at the table"):
            endpoint.resolve("/embeddings", environ, providers)
        return
    route = endpoint.resolve("/embeddings", environ, providers)
    assert isinstance(route.credential, Bearer)
    assert (f"{expected[0]}/serving-endpoints/my-endpoint/invocations", expected[1]) == (
        route.url,
        route.credential.source,
    )


def test_a_token_of_ones_own_needs_only_the_address() -> None:
    """Where the login knows the workspace, a token that was given goes there."""
    route = Endpoint("my-endpoint", token="mine").resolve("/embeddings", {}, (At(HOST),))

    assert (Bearer.of("mine"), True) == (route.credential, route.url.startswith(HOST))


@pytest.mark.parametrize(
    "url", [f"{HOST}/serving-endpoints/e/invocations", "https://ml.corp/serving-endpoints/e/invocations"]
)
def test_a_login_serves_urls_of_its_workspace(url: str) -> None:
    """A workspace's URL without a token is asked with the login's, if it is that workspace."""
    home = url.partition("/serving")[0]
    route = Endpoint(url).resolve("/embeddings", {"DATABRICKS_HOST": home}, (At(home),))

    assert Bearer.of("of-the-login") == route.credential


def test_the_data_plane_is_asked_with_the_login_of_its_workspace() -> None:
    """Its host is another one, so the login's workspace is taken for its own; a personal token is refused there."""
    url = "https://1a2b.serving.cloud.databricks.com/1234/serving-endpoints/e/invocations"
    client = At(HOST, ClientCredentials("id", "secret"))
    credential = Endpoint(url).resolve("/embeddings", {}, (client,)).credential

    assert isinstance(credential, ClientCredentials)
    assert f"{HOST}/oidc/v1/token" == credential.token_url
    with pytest.raises(ConfigError, match="OAuth tokens only"):
        Endpoint(url).resolve("/embeddings", {}, (At(HOST, Bearer.of("dapi0123")),))


@pytest.mark.parametrize("name", ["Authorization", "api-key"])
def test_a_header_may_say_who_is_asking(name: str) -> None:
    """Then no token is looked for, and none of the environment takes its place."""
    route = Endpoint(f"{HOST}/serving-endpoints/e/invocations", headers={name: "mine"}).resolve(
        "/embeddings", WORKSPACE
    )

    assert (Bearer(), ((name, "mine"),)) == (route.credential, route.headers)


def test_a_stranger_needs_no_login() -> None:
    """A server that is no workspace is asked without one, and no login is looked for."""
    route = Endpoint("https://example.com/v1", model="m").resolve("/embeddings", {}, (At(HOST),))

    assert Bearer() == route.credential


def test_building_asks_no_login() -> None:
    """What needs a network is put off; what needs none is not."""
    with pytest.raises(SignInDeferredError):
        Endpoint("my-endpoint").resolve("/embeddings", {}, (At(HOST),), allow_sign_in=False)

    assert url_of(Endpoint("my-endpoint"))


def test_the_error_names_every_way_in() -> None:
    """Who has no credential reads what would be one."""
    with pytest.raises(ConfigError) as raised:
        Endpoint("my-endpoint").resolve("/embeddings", {"DATABRICKS_HOST": HOST}, (At(None),))

    for way in ("token=", "DATABRICKS_TOKEN", "DATABRICKS_CLIENT_ID", "a seat at the table"):
        assert way in str(raised.value)


def test_an_endpoint_is_one_identity_for_all_its_udfs() -> None:
    """A token function of one `Endpoint` is asked once for its UDFs; of two, twice."""
    one, other = (Endpoint("https://h/v1", model="m", token=give_token) for _ in range(2))
    credentials = [each.resolve(route, {}).credential for each in (one, other) for route in ROUTES]

    assert [credentials[0]] * 3 + [credentials[3]] * 3 == credentials
    assert credentials[0] != credentials[3]


@pytest.mark.parametrize("token", [None, SECRET, give_token], ids=["none", "a string", "a function"])
def test_a_route_is_the_same_wherever_it_travels(token: Any) -> None:  # noqa: ANN401 -- a string or a function
    """A worker keeps its engine by the route: a copy must find it, and another token must not."""
    route = Endpoint("https://host/v1", model="m", token=token).resolve("/embeddings", {})
    copy: Route = pickle.loads(pickle.dumps(route))  # noqa: S301 -- our own bytes
    other = Endpoint("https://host/v1", model="m", token="another").resolve("/embeddings", {})

    assert {route: "engine"}[copy] == "engine"
    assert route != other
    assert isinstance(copy.credential, Bearer)
    assert token is copy.credential.source or token == copy.credential.source
