"""Web pages are kept out, whatever name they come by."""

import http.client

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.serving.http.loopback import page_refusal
from spark_llm.serving.protocol.errors import HOST_NOT_ALLOWED, ORIGIN_NOT_ALLOWED
from tests.support.local_client import POST_PATHS, Client, conversation

OURS = ["127.0.0.1", "localhost", "LocalHost", "[::1]"]
PATHS = [POST_PATHS[0], "/v1/chat/completions", "/health", "/openapi.json", "/oidc/v1/token", "/nowhere", "/stats"]


@given(name=st.sampled_from(OURS), port=st.none() | st.integers(0, 65535))
def test_this_machine_is_known_by_its_names(name: str, port: int | None) -> None:
    """Any port will do, since a port may be forwarded; a page of this very server may ask it."""
    host = name if port is None else f"{name}:{port}"

    assert None is page_refusal([host], [])
    assert None is page_refusal([host], [f"http://{host}"])


@given(host=st.text() | st.from_regex(r"[a-z0-9.:\[\]]*", fullmatch=True), port=st.integers(0, 99999))
def test_any_other_name_is_refused(host: str, port: int) -> None:
    """A name that resolves here is still another name."""
    if host.lower() not in {"127.0.0.1", "localhost", "[::1]"} and not host.startswith(
        ("127.0.0.1:", "localhost:", "[::1]:")
    ):
        assert HOST_NOT_ALLOWED == page_refusal([host], []) == page_refusal([f"{host}:{port}"], [])
    assert HOST_NOT_ALLOWED == page_refusal([f"localhost.{host}"], [])


@given(origin=st.text())
def test_any_other_origin_is_refused(origin: str) -> None:
    """Another port of this machine is another origin, and so is none that is told (`null`)."""
    for each in (origin, "null", "http://localhost", "http://localhost:80", "https://localhost:8000"):
        assert ORIGIN_NOT_ALLOWED == page_refusal(["localhost:8000"], [each])
    assert ORIGIN_NOT_ALLOWED == page_refusal(["localhost:8000"], ["http://localhost:8000", origin])


@pytest.mark.parametrize("hosts", [[], ["localhost", "evil.example"], ["evil.example", "localhost"], [""]])
def test_every_host_that_is_named_is_ours(hosts: list[str]) -> None:
    """A request that names none, or one of ours beside another, is refused."""
    assert HOST_NOT_ALLOWED == page_refusal(hosts, [])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PUT"])
def test_every_route_keeps_pages_out(path: str, method: str, shared: Client) -> None:
    """Whatever is asked, with the right token too, and no answer invites a page in."""
    url, token = shared.endpoints.url + path, {"Authorization": f"Bearer {shared.endpoints.token}"}
    port = shared.endpoints.url.rpartition(":")[2]
    before = shared.endpoints.stats.requests
    responses = [
        requests.request(method, url, json=conversation("a"), headers={**token, **headers}, timeout=10)
        for headers in ({"Host": f"evil.example:{port}"}, {"Origin": "https://evil.example"}, {"Origin": "null"})
    ]

    assert [421, 403, 403] == [response.status_code for response in responses]
    assert not [
        name for response in responses for name in response.headers if name.lower().startswith("access-control")
    ]
    assert before == shared.endpoints.stats.requests


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]"])
def test_the_answers_name_the_server_as_the_client_does(name: str, shared: Client) -> None:
    """Addresses in a document are by the name that the client came by, and no answer has a CORS header."""
    port = int(shared.endpoints.url.rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/.well-known/databricks-config", headers={"Host": f"{name}:{port}"})
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()

    assert 200 == response.status
    assert f'"oidc_endpoint":"http://{name}:{port}/oidc"' in body
    assert not [header for header, _ in response.getheaders() if header.lower().startswith("access-control")]
