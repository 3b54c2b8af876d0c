"""The one door to the network: what it sends of the environment, and what it makes of broken connections."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from spark_llm._http import HTTPClient
from spark_llm._values import Response


def post(url: str, *, token: str | None = None, timeout_s: float = 5.0) -> Response:
    """Post a small body and return what came of it."""

    async def once() -> Response:
        client = HTTPClient(url, timeout_s, 1)
        try:
            return await client.post(b"{}", token)
        finally:
            await client.close()

    return asyncio.run(once())


class Scripted:
    """A listener that keeps what one connection sends and answers with fixed bytes."""

    def __init__(self, answer: bytes) -> None:
        """Listen on a free port of loopback."""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._answer = answer
        self.heard = b""
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            while b"\r\n\r\n{}" not in self.heard and (more := connection.recv(65_536)):
                self.heard += more
            connection.sendall(self._answer)

    def close(self) -> None:
        """Stop listening."""
        self._thread.join(timeout=5)
        self._socket.close()


@pytest.fixture
def fine() -> Iterator[Scripted]:
    """Answers 200 with an empty object."""
    server = Scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Request-Id: r1\r\n\r\n{}")
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
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", fine.url)

    assert 200 == post("http://model.invalid/v1/embeddings").status
    assert fine.heard.startswith(b"POST http://model.invalid/v1/embeddings HTTP/1.1\r\n")
    monkeypatch.setenv("no_proxy", "model.invalid")
    assert "connection" == post("http://model.invalid/v1/embeddings").fault


@pytest.mark.parametrize(
    ("answer", "status", "fault"),
    [
        (b"", 0, "connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", 200, "invalid_response"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 0, "connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Encoding: gzip\r\n\r\nhello", 200, "invalid_response"),
    ],
)
def test_an_answer_that_is_none_is_a_fault(answer: bytes, status: int, fault: str) -> None:
    """A closed connection, a cut body, another protocol and bytes that cannot be unpacked are faults by their kind."""
    server = Scripted(answer)
    response = post(server.url)
    server.close()

    assert (status, fault) == (response.status, response.fault)
    assert response.detail


def test_a_redirect_is_not_followed(fine: Scripted) -> None:
    """The token is for one host: a redirect is the answer, and its target is not asked."""
    server = Scripted(f"HTTP/1.1 302 Found\r\nLocation: {fine.url}\r\nContent-Length: 0\r\n\r\n".encode())
    response = post(server.url, token="s3cret")
    server.close()

    assert 302 == response.status
    assert b"" == fine.heard
    post(fine.url)  # so that it may close
