"""The one door to the network: what goes out, what it takes of the environment, and what comes back."""

import base64
import html
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from spark_llm.protocol.chat import Chat
from spark_llm.protocol.failures import failure_of
from spark_llm.protocol.values import Answer, Failure
from spark_llm.transport.http import ask_once
from tests.support.answering import answering
from tests.support.wire import FINE, Scripted, post


@pytest.fixture
def fine() -> Iterator[Scripted]:
    """Answers 200 with an empty object."""
    server = Scripted(FINE)
    yield server
    server.close()


def test_a_body_goes_out_and_a_response_comes_back(fine: Scripted) -> None:
    """Status, body, headers and time are those of the answer; the token stands in the header."""
    response = post(f"{fine.url}/v1?a=%20b", token="s3cret")

    assert (200, b"{}", "r1", None) == (
        response.status,
        response.body,
        response.headers.get("x-request-id"),
        response.fault,
    )
    assert response.latency_s > 0
    assert fine.heard.startswith(b"POST /v1?a=%20b HTTP/1.1\r\n")
    assert b"Authorization: Bearer s3cret\r\n" in fine.heard


def test_headers_of_ones_own_go_with_the_request(fine: Scripted) -> None:
    """They may replace ours; a token comes last."""
    headers = {"X-Team": "data", "user-agent": "mine", "authorization": "Basic of-a-gateway"}
    post(fine.url, token="s3cret", headers=headers)

    mine = (b"x-team", b"user-agent", b"authorization")
    sent = sorted(line.lower() for line in fine.heard.splitlines() if line.lower().startswith(mine))
    assert [b"authorization: bearer s3cret", b"user-agent: mine", b"x-team: data"] == sent


def test_a_key_of_azure_has_its_own_header(fine: Scripted) -> None:
    """And no other."""
    post(fine.url, token="0123456789abcdef", azure=True)

    assert b"api-key: 0123456789abcdef\r\n" in fine.heard
    assert b"authorization" not in fine.heard.lower()


SECRET = "s3cret/token+1"
LOGIN = base64.b64encode(f"robot:{SECRET}".encode()).decode()
CARRIERS: list[dict[str, Any]] = [
    {"token": SECRET},
    {"token": SECRET, "azure": True},
    {"headers": {"X-Key": SECRET}},
    {"headers": {"Authorization": f"Bearer {SECRET}"}},
    {"headers": {"X-Forwarded-Authorization": f"token  {SECRET}"}},
    {"headers": {"authorization": f"basic {LOGIN}"}},
    {"query": f"?a=b&api-key={quote(SECRET, safe='')}"},
    {"query": f"?sig={SECRET}"},
]


@pytest.mark.parametrize("status", [200, 401, 500])
@pytest.mark.parametrize("sent", CARRIERS, ids=str)
def test_an_error_that_repeats_a_secret_is_masked(sent: dict[str, Any], status: int) -> None:
    """Its words end up in a table, and what we sent does not: whatever carried it, whatever the status."""
    written = (SECRET, SECRET.replace("/", r"\/"), quote(SECRET), quote(SECRET, safe="").lower())
    words = f"No key is like {' or '.join(written)}."
    options = {name: value for name, value in sent.items() if name != "query"}
    with answering({f"POST /{sent.get('query', '')}": (status, {"error": {"message": words}})}) as server:
        response = post(f"{server.url}/{sent.get('query', '')}", **options)

    assert "No key is like *** or *** or *** or ***." == failure_of(response).error.message


def test_a_secret_that_is_cut_off_is_masked() -> None:
    """Words are shortened after they were masked: no half of a secret is left at their end."""
    for length in range(470, 500):
        words = f"{'x' * length} {SECRET} is wrong. {'y' * 100}"
        with answering({"POST /": (401, {"message": words})}) as server:
            message = failure_of(post(f"{server.url}/", token=SECRET)).error.message
        assert SECRET[:4] not in message


def test_what_is_no_answer_and_repeats_a_secret_is_masked() -> None:
    """A 200 of another shape is quoted, without the secret; a page too."""
    for body in (f"key {SECRET} unknown", f"<html><body>key {html.escape(SECRET)} unknown</body></html>"):
        server = Scripted(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        outcome = Chat().decode(post(server.url, token=SECRET), 1)
        server.close()
        assert isinstance(outcome, Failure)
        assert "the answer is not JSON: key *** unknown" == outcome.error.message


def test_an_answer_that_holds_a_secret_is_left_as_it_is() -> None:
    """What a model says is the row's, whatever it is."""
    document = {"choices": [{"message": {"content": f"The key is {SECRET}."}}]}
    with answering({"POST /": (200, document)}) as server:
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
    """Gateways that trace or log write long headers, and many; curl reads 100 KB of one."""
    server = Scripted(FINE.replace(b"\r\n\r\n", b"\r\n" + headers + b"\r\n"))
    response = post(server.url)
    server.close()

    assert (200, b"{}", None) == (response.status, response.body, response.fault)


def test_one_request_can_be_sent_without_a_loop(fine: Scripted) -> None:
    """Signing in and looking around are rare: a connection each, with any method."""
    response = ask_once("GET", f"{fine.url}/api", headers={"Accept": "text/plain"})

    assert (200, b"{}") == (response.status, response.body)
    assert fine.heard.startswith(b"GET /api HTTP/1.1\r\n")
    assert b"Accept: text/plain\r\n" in fine.heard


def test_no_credentials_are_taken_from_netrc(fine: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ~/.netrc with an entry for the host is not read: nobody gets a password that was not meant for them."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))

    assert 200 == post(fine.url).status
    assert b"authorization" not in fine.heard.lower()


def test_the_environments_proxy_is_used(fine: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """With HTTP_PROXY set the request goes to the proxy, with the whole address in it; NO_PROXY is heeded."""
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", fine.url)

    assert 200 == post("http://model.invalid/v1/embeddings").status
    assert fine.heard.startswith(b"POST http://model.invalid/v1/embeddings HTTP/1.1\r\n")
    monkeypatch.setenv("no_proxy", "model.invalid")
    assert "connection" == post("http://model.invalid/v1/embeddings").fault


def test_a_redirect_is_not_followed(fine: Scripted) -> None:
    """The token is for one host: a redirect is the answer, and its target is not asked."""
    server = Scripted(f"HTTP/1.1 302 Found\r\nLocation: {fine.url}\r\nContent-Length: 0\r\n\r\n".encode())
    response = post(server.url, token="s3cret")
    server.close()

    assert 302 == response.status
    assert b"" == fine.heard
    post(fine.url)  # so that it may close
