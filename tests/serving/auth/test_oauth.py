"""The token endpoint (RFC 6749), and the routes that its tokens open."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.serving import After, Echo, LocalEndpoints, Model, ServingEndpoint
from spark_llm.serving.auth.oauth import JWT_BEARER, TokenEndpoint
from spark_llm.serving.auth.tokens import Token, TokenStore
from tests.support.local_client import Client, chat_body, connected

CHAT = chat_body("hello")
CLIENT = ("me", "s3cret")
M2M = {"grant_type": "client_credentials", "scope": "all-apis"}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Endpoints with one OAuth client; `fast` and `swift` have a data plane."""
    models: dict[str, Model | ServingEndpoint] = {
        "fast": ServingEndpoint(Echo(), route_optimized=True),
        "swift": ServingEndpoint(Echo(), route_optimized=True),
        "plain": Echo(),
    }
    with connected(LocalEndpoints(models, clients=dict([CLIENT]))) as client:
        yield client


def request_token(
    client: Client, form: object, auth: tuple[str, str] | None = None, **headers: str
) -> requests.Response:
    """Request a token."""
    url = f"{client.endpoints.url}/oidc/v1/token"
    return requests.post(url, data=form, auth=auth, headers=headers, timeout=10)  # type: ignore[arg-type]


def query_info(client: Client, name: str) -> Any:  # noqa: ANN401 -- a JSON document
    """Return the data plane of an endpoint's description."""
    return client.get(f"/api/2.0/serving-endpoints/{name}").json()["data_plane_info"]["query_info"]


def chat(url: str, token: str) -> requests.Response:
    """Request chat at `url`."""
    return requests.post(url, json=CHAT, headers={"Authorization": f"Bearer {token}"}, timeout=10)


# --- Granted ---


@pytest.mark.parametrize("auth", [CLIENT, None])
def test_a_client_gets_a_token_for_the_workspace(auth: tuple[str, str] | None, client: Client) -> None:
    """A client sends its secret by basic authentication or in the form; the token opens all routes but a data plane."""
    before = client.endpoints.tokens_issued
    form = M2M if auth else {**M2M, "client_id": "me", "client_secret": "s3cret"}
    response = request_token(client, form, auth)
    granted = response.json()

    assert (200, "no-store") == (response.status_code, response.headers["Cache-Control"])
    assert ("Bearer", 3600, "all-apis") == (granted["token_type"], granted["expires_in"], granted["scope"])
    assert before + 1 == client.endpoints.tokens_issued
    urls = [client.endpoints.invocations("fast"), query_info(client, "fast")["endpoint_url"]]
    assert [200, 403] == [chat(url, granted["access_token"]).status_code for url in urls]


def test_authorization_details_limit_a_token_to_one_data_plane(client: Client) -> None:
    """A token with an endpoint's authorization details opens its data plane, and no other route."""
    fast, swift = query_info(client, "fast"), query_info(client, "swift")
    granted = request_token(client, {**M2M, "authorization_details": fast["authorization_details"]}, CLIENT).json()
    answered = chat(fast["endpoint_url"], granted["access_token"])

    assert json.loads(fast["authorization_details"]) == granted["authorization_details"]
    assert (200, "hello") == (answered.status_code, answered.json()["choices"][0]["message"]["content"])
    elsewhere = [swift["endpoint_url"], client.endpoints.invocations("fast"), f"{client.endpoints.openai_url}/models"]
    refused = [chat(url, granted["access_token"]) for url in elsewhere[:2]]
    assert [403, 403] == [each.status_code for each in refused]
    assert "Provided OAuth token does not have required scopes: model-serving" == refused[0].json()["message"]


def test_a_token_is_exchanged_for_a_data_plane_token(client: Client) -> None:
    """The jwt-bearer grant takes a token issued here, without a client's secret."""
    token = request_token(client, M2M, CLIENT).json()["access_token"]
    swift = query_info(client, "swift")
    form = {"grant_type": JWT_BEARER, "assertion": token, "authorization_details": swift["authorization_details"]}
    granted = request_token(client, form)

    assert 200 == granted.status_code
    assert 200 == chat(swift["endpoint_url"], granted.json()["access_token"]).status_code
    again = request_token(client, {**form, "assertion": granted.json()["access_token"]})
    assert (400, "invalid_grant") == (again.status_code, again.json()["error"])


def test_a_data_plane_refuses_the_plain_token(client: Client) -> None:
    """A data plane refuses the plain token as an unsupported credential, and a request without a token."""
    url = query_info(client, "fast")["endpoint_url"]
    message = "Credential was not sent or was of an unsupported type for this API."

    assert (401, message) == (
        chat(url, client.endpoints.token).status_code,
        chat(url, client.endpoints.token).json()["message"],
    )
    assert 401 == requests.post(url, json=CHAT, timeout=10).status_code
    assert 401 == chat(url, "wrong").status_code


def test_only_a_route_optimised_endpoint_has_a_data_plane(client: Client) -> None:
    """Other endpoints get a 404 there, and their descriptions have no data plane."""
    document = client.get("/api/2.0/serving-endpoints/plain").json()
    url = query_info(client, "fast")["endpoint_url"].replace("/fast/", "/plain/")
    details = json.loads(query_info(client, "fast")["authorization_details"])
    details[0]["object_path"] = f"/serving-endpoints/{document['id']}"
    token = request_token(client, {**M2M, "authorization_details": json.dumps(details)}, CLIENT).json()["access_token"]

    assert (False, False) == (document["route_optimized"], "data_plane_info" in document)
    assert (404, "ENDPOINT_NOT_FOUND") == (chat(url, token).status_code, chat(url, token).json()["error_code"])


def test_each_issued_token_expires_by_itself() -> None:
    """An expired token gets the documented 403, and the next token has its own expiry."""
    expire = [After(requests=2), After(requests=1), None]
    with connected(LocalEndpoints(issued_tokens_expire=expire.__getitem__)) as client:
        auth = (client.endpoints.client_id, client.endpoints.client_secret)
        responses = []
        for _ in range(3):
            token = request_token(client, M2M, auth).json()["access_token"]
            responses.append([chat(client.endpoints.invocations("chat"), token) for _ in range(3)])

        assert [[200, 200, 403], [200, 403, 403], [200, 200, 200]] == [
            [r.status_code for r in row] for row in responses
        ]
        assert {"error_code": 403, "message": "Invalid Token"} == responses[0][-1].json()
        assert 3 == client.endpoints.tokens_issued
        client.endpoints.reset()
        assert 0 == client.endpoints.tokens_issued


def test_a_client_can_sign_in_after_a_revocation() -> None:
    """`revoke` ends every issued token; tokens issued later are valid."""
    with connected(LocalEndpoints()) as client:
        auth = (client.endpoints.client_id, client.endpoints.client_secret)
        url = client.endpoints.invocations("chat")
        old = request_token(client, M2M, auth).json()["access_token"]
        client.endpoints.revoke()
        new = request_token(client, M2M, auth).json()["access_token"]

        assert [403, 200] == [chat(url, old).status_code, chat(url, new).status_code]


def test_no_secret_is_printed() -> None:
    """The `repr` of the endpoints has neither the client's secret nor a token."""
    endpoints = LocalEndpoints(clients=dict([CLIENT]))

    assert "s3cret" not in repr(endpoints)
    assert CLIENT == (endpoints.client_id, endpoints.client_secret)


@pytest.mark.parametrize("clients", [{}, {"": "x"}, {"me": ""}, {"a:b": "x"}, {"me": "caf\xe9"}, {"\ud800": "x"}])
def test_invalid_clients_raise(clients: dict[str, str]) -> None:
    """No client, or ids and secrets that no header can hold, raise at construction; the error has no secret."""
    with pytest.raises(ValueError, match=r"Hint: (omit it|write ids)") as error:
        LocalEndpoints(clients=clients)

    assert "caf" not in str(error.value)


# --- Refused ---


@pytest.mark.parametrize(
    ("form", "auth", "status", "error"),
    [
        (M2M, None, 401, "invalid_client"),
        (M2M, ("me", "wrong"), 401, "invalid_client"),
        (M2M, ("you", "s3cret"), 401, "invalid_client"),
        ({**M2M, "client_id": "me"}, None, 401, "invalid_client"),
        ({**M2M, "client_secret": "s3cret"}, CLIENT, 400, "invalid_request"),
        ({"scope": "all-apis"}, CLIENT, 400, "invalid_request"),
        ({"grant_type": ""}, CLIENT, 400, "invalid_request"),
        ({"grant_type": "password", "username": "me", "password": "x"}, CLIENT, 400, "unsupported_grant_type"),
        ([("grant_type", "client_credentials")] * 2, CLIENT, 400, "invalid_request"),
        (b"grant_type=%ff", CLIENT, 400, "invalid_request"),
        ({"grant_type": JWT_BEARER}, None, 400, "invalid_request"),
        ({"grant_type": JWT_BEARER, "assertion": "wrong", "authorization_details": "[]"}, None, 400, "invalid_grant"),
        ({**M2M, "authorization_details": "[]"}, CLIENT, 400, "invalid_authorization_details"),
        ({**M2M, "authorization_details": "{"}, CLIENT, 400, "invalid_authorization_details"),
        ({**M2M, "authorization_details": '[{"type": "other"}]'}, CLIENT, 400, "invalid_authorization_details"),
    ],
)
def test_a_wrong_token_request_gets_the_error_of_the_rfc(
    form: object, auth: tuple[str, str] | None, status: int, error: str, client: Client
) -> None:
    """A wrong token request gets its error code, and no token."""
    before = client.endpoints.tokens_issued
    response = request_token(client, form, auth, **{"Content-Type": "application/x-www-form-urlencoded"})

    assert (status, error) == (response.status_code, response.json()["error"])
    assert response.json()["error_description"].endswith((".", "failed"))
    assert before == client.endpoints.tokens_issued
    assert (status == 401 and auth is not None) == ("WWW-Authenticate" in response.headers)


def test_a_token_request_must_be_a_form(client: Client) -> None:
    """JSON is refused as a body, and the plain token as an assertion."""
    url = f"{client.endpoints.url}/oidc/v1/token"
    details = query_info(client, "fast")["authorization_details"]
    plain = {"grant_type": JWT_BEARER, "assertion": client.endpoints.token, "authorization_details": details}

    assert "invalid_request" == requests.post(url, json=M2M, auth=CLIENT, timeout=10).json()["error"]
    assert "invalid_grant" == request_token(client, plain).json()["error"]
    assert 404 == requests.get(url, timeout=10).status_code


# --- Without a socket ---

_FORMS = st.dictionaries(
    st.sampled_from(["grant_type", "scope", "client_id", "client_secret", "assertion", "authorization_details"]),
    st.sampled_from(["client_credentials", JWT_BEARER, "me", "s3cret", "all-apis", "[]", "null", "[[]]", ""])
    | st.text(),
).map(lambda form: requests.Request("POST", "http://x", data=form).prepare().body or "")


def token_endpoint(clients: dict[str, str]) -> tuple[TokenEndpoint, TokenStore]:
    """Return a token endpoint for these clients, and its tokens."""
    tokens = TokenStore(Token("plain", expires=None, now=0), issued_expire=None)
    return TokenEndpoint(clients, tokens, {"number": "chat"}), tokens


@given(body=st.binary() | _FORMS.map(lambda body: str(body).encode("utf-8", "replace")), header=st.text())
def test_any_token_request_is_granted_or_refused(body: bytes, header: str) -> None:
    """Any bytes get a token or an error of the RFC, and the count of tokens is exact."""
    endpoint, tokens = token_endpoint({"me": "s3cret"})
    status, document, _ = endpoint.respond(body, "application/x-www-form-urlencoded", header, now=0)

    assert (status == 200, status == 200) == ("access_token" in document, tokens.issued_count == 1)
    assert status in {200, 400, 401}
    assert status == 200 or {"error", "error_description"} == set(document)


@given(
    clients=st.dictionaries(
        st.from_regex(r"[ -9;-~]+", fullmatch=True), st.from_regex(r"[ -~]+", fullmatch=True), min_size=1, max_size=3
    ),
    data=st.data(),
)
def test_a_client_signs_in_with_its_own_secret_only(clients: dict[str, str], data: st.DataObject) -> None:
    """Only matching pairs of id and secret get a token."""
    endpoint, _ = token_endpoint(clients)
    user, password = data.draw(st.sampled_from([*clients])), data.draw(st.sampled_from([*clients.values()]))
    header = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    status, _, _ = endpoint.respond(
        b"grant_type=client_credentials", "application/x-www-form-urlencoded", header, now=0
    )

    assert (clients[user] == password) == (status == 200)
