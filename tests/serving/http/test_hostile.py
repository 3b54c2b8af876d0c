"""Hostile requests are refused without a log record, and the next request is served."""

import http.client
import logging
import select
import socket
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spark_llm.serving import LocalEndpoints
from tests.support.local_client import POST_PATHS, Client, connected

# Most parts are valid, so that wrong parts behind them are reached too.
METHODS = st.sampled_from(["GET", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT", "TRACE"])
TARGETS = st.sampled_from(
    [*POST_PATHS, "/v1/models", "/health", "/stats", "/oidc/v1/token", "*", "/", "//", "/%00", "/?", "http://x/", "a:1"]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(quote).map("/{}".format)
VERSIONS = st.sampled_from(["HTTP/1.1", "HTTP/1.0"])
HEADERS = st.lists(
    st.sampled_from(
        [
            "Host: evil.example",
            "Host:",
            "Content-Length: 5",
            "Content-Length: -1",
            "Content-Length: 99999999999999999999",
            "Content-Length: 5\r\nContent-Length: 6",
            "Transfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: x",
            "Content-Encoding: gzip",
            "Content-Encoding: br",
            "Content-Type: text/plain; charset=nobody",
            "Content-Type: application/x-www-form-urlencoded",
            "Content-Type: ;;;",
            "Expect: 100-continue",
            "Expect: tea",
            "Upgrade: websocket\r\nConnection: upgrade",
            "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings",
            "Connection: close",
            "Range: bytes=0-",
            "Authorization: Basic dG9rZW46dDBrZW4=",
            "Authorization: Bearer t0ken",
            "Cookie: a=b; c",
            "Origin: null",
            ": no name",
            "No colon",
            " folded: line",
        ]
    )
    | st.text(max_size=30).map("X-Any: {}".format),
    max_size=2,
)
BODIES = st.binary(max_size=60) | st.sampled_from(
    [
        b"5\r\nhello\r\n0\r\n\r\n",
        b"zz\r\nhello",
        b"5;x=y\r\nhello\r\n",
        b"FFFFFFFFFFFFFFFFF\r\n",
        b'{"messages": []}',
        b"0\r\n",
    ]
)


@pytest.fixture(scope="module")
def server() -> Iterator[Client]:
    """Endpoints whose token is known."""
    with connected(LocalEndpoints(token="t0ken")) as client:
        yield client


def status_of(client: Client, raw: bytes, patience_s: float = 10.0) -> int | None:
    """Send bytes, and return the status of the first response; None without one.

    After `patience_s` seconds without a response, the sending side of the connection closes.
    """
    port = int(client.endpoints.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        try:
            connection.sendall(raw)
            if not select.select([connection], [], [], patience_s)[0]:
                connection.shutdown(socket.SHUT_WR)
            response = http.client.HTTPResponse(connection)
            response.begin()
        except (http.client.HTTPException, ConnectionError):
            return None
        return response.status


def raw_request(method: str, target: str, version: str, headers: list[str], body: bytes) -> bytes:
    """Return a request as bytes, without any checks."""
    head = "\r\n".join([f"{method} {target} {version}", *headers, "", ""])
    return head.encode("utf-8", "surrogatepass") + body


def check(client: Client, caplog: pytest.LogCaptureFixture, raw: bytes) -> None:
    """Assert that bytes cause no 5xx and no log record."""
    caplog.clear()
    status = status_of(client, raw, patience_s=0.02)

    assert status is None or status < 500, raw
    assert [] == [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


_FIXTURES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # caplog is cleared each time


@_FIXTURES
@given(raw=st.binary(max_size=200))
def test_any_bytes_are_refused(raw: bytes, server: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Bytes that are not HTTP get a 4xx or a closed connection."""
    check(server, caplog, raw)


@_FIXTURES
@given(method=METHODS, target=TARGETS, version=VERSIONS, headers=HEADERS, body=BODIES)
def test_any_request_is_answered_or_refused(  # noqa: PLR0917 -- five parts of a request, and two fixtures
    method: str,
    target: str,
    version: str,
    headers: list[str],
    body: bytes,
    server: Client,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Any request line, headers and body get no 5xx."""
    known = ["Host: localhost", "Authorization: Bearer t0ken"]
    check(server, caplog, raw_request(method, target, version, [*known, *headers], body))


@_FIXTURES
@given(path=st.sampled_from([*POST_PATHS, "/oidc/v1/token"]), headers=HEADERS, body=BODIES)
def test_any_body_and_headers_are_answered_or_refused(
    path: str, headers: list[str], body: bytes, server: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Any headers and body behind a valid head get no 5xx."""
    known = ["Host: localhost", "Authorization: Bearer t0ken", f"Content-Length: {len(body)}"]
    check(server, caplog, raw_request("POST", path, "HTTP/1.1", [*known, *headers], body))


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 200 + b"\r\n", 400),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/1.0\r\n\r\n", 421),
        (b"get /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /health HTTP/9\r\nHost: localhost\r\n\r\n", 400),
        (b"GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\n\r\n", 421),
    ],
    ids=[
        "long line",
        "long header",
        "many headers",
        "no host",
        "no host of old",
        "no method",
        "no version",
        "another server's address",
    ],
)
def test_a_head_has_limits(raw: bytes, status: int, server: Client, caplog: pytest.LogCaptureFixture) -> None:
    """A too long line or header, too many headers, or a request for another server get a 4xx."""
    assert status == status_of(server, raw)
    assert [] == [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_chunked_body_is_limited_too(server: Client) -> None:
    """A chunked body over 16 MB gets a 413, and the server goes on serving."""
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    head = ["Host: localhost", "Authorization: Bearer t0ken", "Transfer-Encoding: chunked"]
    raw = raw_request("POST", POST_PATHS[0], "HTTP/1.1", head, chunk * 17 + b"0\r\n\r\n")

    assert 413 == status_of(server, raw)
    assert 200 == server.chat("still there").status_code


def test_the_server_goes_on_serving(server: Client) -> None:
    """After all hostile requests the server answers, and no request is in flight."""
    assert 200 == server.chat("still there").status_code
    stats = server.endpoints.wait_for(lambda stats: stats.in_flight == 0)
    assert (0, stats.requests) == (stats.in_work, sum(stats.by_status.values()) + stats.disconnects)
