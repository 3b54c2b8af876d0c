"""Protection from web pages: by host name and by origin."""

import http.client

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.serving.http.loopback import page_refusal
from spark_llm.serving.protocol.errors import HOST_NOT_ALLOWED, ORIGIN_NOT_ALLOWED
from tests.support.local_client import POST_PATHS, Client, chat_body

LOOPBACK_NAMES = ["127.0.0.1", "localhost", "LocalHost", "[::1]"]
PATHS = [POST_PATHS[0], "/v1/chat/completions", "/health", "/openapi.json", "/oidc/v1/token", "/nowhere", "/stats"]


@given(name=st.sampled_from(LOOPBACK_NAMES), port=st.none() | st.integers(0, 65535))
def test_loopback_names_are_allowed(name: str, port: int | None) -> None:
    """A loopback name is allowed with any port, which may be forwarded, and so is the server's own origin."""
    host = name if port is None else f"{name}:{port}"

    assert None is page_refusal([host], [])
    assert None is page_refusal([host], [f"http://{host}"])


@given(host=st.text() | st.from_regex(r"[a-z0-9.:\[\]]*", fullmatch=True), port=st.integers(0, 99999))
def test_any_other_host_is_refused(host: str, port: int) -> None:
    """Any other host name is refused, even if it resolves to this machine."""
    if host.lower() not in {"127.0.0.1", "localhost", "[::1]"} and not host.startswith(
        ("127.0.0.1:", "localhost:", "[::1]:")
    ):
        assert HOST_NOT_ALLOWED == page_refusal([host], []) == page_refusal([f"{host}:{port}"], [])
    assert HOST_NOT_ALLOWED == page_refusal([f"localhost.{host}"], [])


@given(origin=st.text())
def test_any_other_origin_is_refused(origin: str) -> None:
    """Another port of this machine is another origin, and so is `null`."""
    for each in (origin, "null", "http://localhost", "http://localhost:80", "https://localhost:8000"):
        assert ORIGIN_NOT_ALLOWED == page_refusal(["localhost:8000"], [each])
    assert ORIGIN_NOT_ALLOWED == page_refusal(["localhost:8000"], ["http://localhost:8000", origin])


@pytest.mark.parametrize("hosts", [[], ["localhost", "evil.example"], ["evil.example", "localhost"], [""]])
def test_every_host_header_must_be_a_loopback_name(hosts: list[str]) -> None:
    """A request without a Host header, or with a foreign one beside a loopback name, is refused."""
    assert HOST_NOT_ALLOWED == page_refusal(hosts, [])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PUT"])
def test_every_route_keeps_pages_out(path: str, method: str, shared: Client) -> None:
    """Every route refuses a page, even with the right token, and sends no CORS header."""
    url, token = shared.endpoints.url + path, {"Authorization": f"Bearer {shared.endpoints.token}"}
    port = shared.endpoints.url.rpartition(":")[2]
    before = shared.endpoints.stats.requests
    responses = [
        requests.request(method, url, json=chat_body("a"), headers={**token, **headers}, timeout=10)
        for headers in ({"Host": f"evil.example:{port}"}, {"Origin": "https://evil.example"}, {"Origin": "null"})
    ]

    assert [421, 403, 403] == [response.status_code for response in responses]
    assert not [
        name for response in responses for name in response.headers if name.lower().startswith("access-control")
    ]
    assert before == shared.endpoints.stats.requests


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]"])
def test_documents_use_the_host_name_of_the_request(name: str, shared: Client) -> None:
    """URLs in a document have the host name that the client used, and no response has a CORS header."""
    port = int(shared.endpoints.url.rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/.well-known/databricks-config", headers={"Host": f"{name}:{port}"})
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()

    assert 200 == response.status
    assert f'"oidc_endpoint":"http://{name}:{port}/oidc"' in body
    assert not [header for header, _ in response.getheaders() if header.lower().startswith("access-control")]
