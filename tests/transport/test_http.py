"""The HTTP client: its requests, its use of the environment, and its responses."""

import base64
import html
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.failures import failure_of
from spark_llm.protocol.values import Answer, Failure
from spark_llm.transport.blocking import send_once
from spark_llm.transport.http import STREAMED_BYTES
from tests.support.raw_server import AUTHORITY, OK_RESPONSE, RawServer, post
from tests.support.stub_server import stub_server


@pytest.fixture
def fine() -> Iterator[RawServer]:
    """A server that answers 200 with an empty object."""
    server = RawServer(OK_RESPONSE)
    yield server
    server.close()


def test_a_request_is_sent_and_its_response_returned(fine: RawServer) -> None:
    """The response has the answer's status, body, headers and time; the token is in the request's header."""
    response = post(f"{fine.url}/v1?a=%20b", token="s3cret")

    assert (200, b"{}", "r1", None) == (
        response.status,
        response.body,
        response.headers.get("x-request-id"),
        response.fault,
    )
    assert response.latency_s > 0
    assert fine.received.startswith(b"POST /v1?a=%20b HTTP/1.1\r\n")
    assert b"Authorization: Bearer s3cret\r\n" in fine.received


@pytest.mark.parametrize("tls", [False, True])
def test_a_large_body_is_sent_in_pieces(tls: bool) -> None:  # noqa: FBT001 -- a table
    """Its length is in a header, as proxies want it; aiohttp, which warns of large bodies, says nothing."""
    body = json.dumps({"input": "é" * STREAMED_BYTES}, ensure_ascii=False).encode()
    with stub_server({"POST /v1": (200, {})}, tls=tls) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        bundle = AUTHORITY.cert_pem.bytes().decode() if tls else None
        response = send_once("POST", f"{server.url}/v1", headers={}, body=body, token="s3cret", ca_bundle=bundle)

    assert (200, b"{}") == (response.status, response.body)
    assert [json.loads(body)] == server.bodies
    [headers] = server.headers
    assert (str(len(body)), None) == (headers["content-length"], headers.get("transfer-encoding"))
    assert "Bearer s3cret" == headers["authorization"]


def test_custom_headers_are_sent(fine: RawServer) -> None:
    """They may replace the defaults; a token replaces an `authorization` header."""
    headers = {"X-Team": "data", "user-agent": "mine", "authorization": "Basic of-a-gateway"}
    post(fine.url, token="s3cret", headers=headers)

    custom = (b"x-team", b"user-agent", b"authorization")
    sent = sorted(line.lower() for line in fine.received.splitlines() if line.lower().startswith(custom))
    assert [b"authorization: bearer s3cret", b"user-agent: mine", b"x-team: data"] == sent


def test_a_key_of_azure_is_sent_in_its_own_header(fine: RawServer) -> None:
    """No other header has the key."""
    post(fine.url, token="0123456789abcdef", azure=True)

    assert b"api-key: 0123456789abcdef\r\n" in fine.received
    assert b"authorization" not in fine.received.lower()


SECRET = "s3cret/token+1"
BASIC_CREDENTIALS = base64.b64encode(f"robot:{SECRET}".encode()).decode()
CARRIERS: list[dict[str, Any]] = [
    {"token": SECRET},
    {"token": SECRET, "azure": True},
    {"headers": {"X-Key": SECRET}},
    {"headers": {"Authorization": f"Bearer {SECRET}"}},
    {"headers": {"X-Forwarded-Authorization": f"token  {SECRET}"}},
    {"headers": {"authorization": f"basic {BASIC_CREDENTIALS}"}},
    {"query": f"?a=b&api-key={quote(SECRET, safe='')}"},
    {"query": f"?sig={SECRET}"},
]


@pytest.mark.waits
@pytest.mark.parametrize("status", [200, 401, 500])
@pytest.mark.parametrize("sent", CARRIERS, ids=str)
def test_a_secret_in_an_error_is_masked(sent: dict[str, Any], status: int) -> None:
    """The message ends up in a table without the secret, in whatever part of the request it was sent."""
    written = (SECRET, SECRET.replace("/", r"\/"), quote(SECRET), quote(SECRET, safe="").lower())
    message = f"No key is like {' or '.join(written)}."
    options = {name: value for name, value in sent.items() if name != "query"}
    with stub_server({f"POST /{sent.get('query', '')}": (status, {"error": {"message": message}})}) as server:
        response = post(f"{server.url}/{sent.get('query', '')}", **options)

    assert "No key is like *** or *** or *** or ***." == failure_of(response).error.message


@pytest.mark.waits
def test_a_truncated_message_has_no_part_of_a_secret() -> None:
    """A message is masked before it is truncated."""
    for length in range(470, 500):
        text = f"{'x' * length} {SECRET} is wrong. {'y' * 100}"
        with stub_server({"POST /": (401, {"message": text})}) as server:
            message = failure_of(post(f"{server.url}/", token=SECRET)).error.message
        assert SECRET[:4] not in message


def test_a_secret_in_an_invalid_answer_is_masked() -> None:
    """A 200 that is not JSON is quoted without the secret, plain or as HTML."""
    for body in (f"key {SECRET} unknown", f"<html><body>key {html.escape(SECRET)} unknown</body></html>"):
        server = RawServer(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        outcome = Chat().decode(post(server.url, token=SECRET), 1)
        server.close()
        assert isinstance(outcome, Failure)
        assert "the answer is not JSON: key *** unknown" == outcome.error.message


def test_an_answer_with_a_secret_is_not_changed() -> None:
    """The text of a model belongs to the row."""
    document = {"choices": [{"message": {"content": f"The key is {SECRET}."}}]}
    with stub_server({"POST /": (200, document)}) as server:
        response = post(f"{server.url}/", token=SECRET)

    assert json.dumps(document).encode() == response.body
    outcome = Chat().decode(response, 1)
    assert isinstance(outcome, Answer)
    assert f"The key is {SECRET}." == outcome.results[0].text


@pytest.mark.parametrize(
    "headers",
    [b"X-Long: " + b"a" * 100_000 + b"\r\n", b"".join(b"X-Header-%d: a\r\n" % number for number in range(900))],
    ids=["long", "many"],
)
def test_large_headers_are_read(headers: bytes) -> None:
    """One header of 100 KB and 900 headers are read: gateways write them, and curl reads them."""
    server = RawServer(OK_RESPONSE.replace(b"\r\n\r\n", b"\r\n" + headers + b"\r\n"))
    response = post(server.url)
    server.close()

    assert (200, b"{}", None) == (response.status, response.body, response.fault)


def test_send_once_needs_no_event_loop(fine: RawServer) -> None:
    """It sends one request on a new connection, with any method."""
    response = send_once("GET", f"{fine.url}/api", headers={"Accept": "text/plain"})

    assert (200, b"{}") == (response.status, response.body)
    assert fine.received.startswith(b"GET /api HTTP/1.1\r\n")
    assert b"Accept: text/plain\r\n" in fine.received


def test_no_credentials_are_taken_from_netrc(fine: RawServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ~/.netrc with an entry for the host is not read."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))

    assert 200 == post(fine.url).status
    assert b"authorization" not in fine.received.lower()


def test_the_proxy_of_the_environment_is_used(fine: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With HTTP_PROXY the request goes to the proxy, with the full URL in it; NO_PROXY makes exceptions."""
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", fine.url)

    assert 200 == post("http://model.invalid/v1/embeddings").status
    assert fine.received.startswith(b"POST http://model.invalid/v1/embeddings HTTP/1.1\r\n")
    monkeypatch.setenv("no_proxy", "model.invalid")
    assert "connection" == post("http://model.invalid/v1/embeddings").fault


def test_a_redirect_is_not_followed(fine: RawServer) -> None:
    """The token is for one host: the redirect is the response, and its target gets no request."""
    server = RawServer(f"HTTP/1.1 302 Found\r\nLocation: {fine.url}\r\nContent-Length: 0\r\n\r\n".encode())
    response = post(server.url, token="s3cret")
    server.close()

    assert 302 == response.status
    assert b"" == fine.received
    post(fine.url)  # so that the server can close
