"""Network errors of the HTTP client: each has its own fault, with a message that names the cause."""

import asyncio
import os
import re
import socket
import subprocess
import sys
import zlib
from importlib.util import find_spec
from pathlib import Path

import pytest
import trustme

from spark_llm.errors import ConfigError
from spark_llm.protocol.failures import failure_of
from spark_llm.protocol.values import Response
from spark_llm.transport.http import MAX_ANSWER_BYTES, HTTPClient
from tests.support.raw_server import AUTHORITY, OK_RESPONSE, RawServer, hanging_server, listening, post

BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the machine's own proxies from the environment."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def closed_port() -> str:
    """Return a loopback address where no server listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_refused_connection_names_the_address() -> None:
    """Without a listener, the fault is `connection`."""
    address = closed_port()
    response = post(f"http://{address}/")

    assert (0, "connection") == (response.status, response.fault)
    assert f"no connection to {address}: connection refused" == response.detail


def test_an_ipv6_address_is_written_in_brackets() -> None:
    """Brackets separate it from the port; a machine without IPv6 reports that it has no such address."""
    response = post(f"http://[::1]:{closed_port().rpartition(':')[2]}/")

    assert ("connection", False) == (response.fault, response.no_socket)
    assert re.match(
        r"no connection to \[::1\]:\d+: (connection refused|cannot assign requested address)", response.detail
    )


def test_an_unknown_host_is_named() -> None:
    """The fault of a host that no name server knows is `connection`."""
    response = post("http://nowhere.invalid/")

    assert "connection" == response.fault
    assert response.detail.startswith("the name nowhere.invalid cannot be resolved: ")


@pytest.mark.parametrize(
    "url",
    [
        "http://a..example/",
        f"http://{'a' * 64}.example/",
        "http://a\ufffd.example/",
        "http://1\u0661/",
    ],
)
def test_a_url_that_cannot_be_used_is_a_final_fault(url: str) -> None:
    """No attempt and no other row can do better."""
    response = post(url)

    assert (0, "connection", True) == (response.status, response.fault, response.final)
    assert response.detail.startswith("the URL cannot be used: ")
    assert failure_of(response).stops_at_once


def packed_blanks(size: int, status: bytes) -> bytes:
    """Return an answer that is small on the wire, and `size` bytes long once it is unpacked."""
    packer = zlib.compressobj(1, wbits=31)
    blanks = bytes(2**20)
    content = b"".join(packer.compress(blanks) for _ in range(size // len(blanks))) + packer.flush()
    head = b"HTTP/1.1 %b\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % (status, len(content))
    return head + content


def test_an_answer_beyond_the_limit_is_the_error_of_its_request() -> None:
    """It is not kept in memory, and not asked for again; other rows may have smaller answers."""
    server = RawServer(packed_blanks(MAX_ANSWER_BYTES + 2**21, b"200 OK"))
    response = post(server.url, timeout_s=60)
    server.close()
    failure = failure_of(response)

    assert (200, "invalid_response", b"") == (response.status, response.fault, response.body)
    assert ("invalid_response", 200, "the answer has more than 128 MB, and was not read", False) == failure.error
    assert not failure.stops_all


def test_of_an_error_beyond_the_limit_the_beginning_is_read() -> None:
    """Its status says what to do."""
    server = RawServer(packed_blanks(MAX_ANSWER_BYTES + 2**21, b"503 Busy"))
    response = post(server.url, timeout_s=60)
    server.close()

    assert MAX_ANSWER_BYTES < len(response.body) < MAX_ANSWER_BYTES + 2**21
    assert ("unavailable", 503, True) == failure_of(response).error[:2] + failure_of(response).error[3:]


def test_a_self_signed_certificate_is_refused() -> None:
    """The server gets no request, and the fault is final: a retry is useless."""
    server = RawServer(OK_RESPONSE, tls=True)
    response = post(server.url, token="s3cret")
    server.close()

    assert ("connection", True, b"") == (response.fault, response.final, server.received)
    assert response.detail.startswith("certificate verify failed: ")
    assert response.detail.endswith(f"({server.authority})")


@pytest.mark.parametrize("form", ["text", "path"])
def test_a_certificate_of_the_bundle_is_trusted(form: str, tmp_path: Path) -> None:
    """A private authority is given by the text of its certificate, or by a path."""
    authority = AUTHORITY.cert_pem.bytes().decode()
    if form == "path":
        (tmp_path / "authority.pem").write_text(authority, encoding="utf-8")
        authority = str(tmp_path / "authority.pem")
    server = RawServer(OK_RESPONSE, tls=True)
    response = post(server.url, ca_bundle=authority)
    server.close()

    assert (200, b"{}") == (response.status, response.body)


def test_another_authority_is_not_trusted() -> None:
    """A bundle without the server's authority changes nothing."""
    server = RawServer(OK_RESPONSE, tls=True)
    response = post(server.url, token="s3cret", ca_bundle=trustme.CA().cert_pem.bytes().decode())
    server.close()

    assert ("connection", True, b"") == (response.fault, response.final, server.received)


@pytest.mark.parametrize("bundle", ["/nowhere/ca.pem", __file__, "-----BEGIN CERTIFICATE-----\nnothing\n"])
def test_an_unreadable_bundle_is_an_error(bundle: str) -> None:
    """Such are a missing path, a file without certificates, and a truncated text."""
    with pytest.raises(ConfigError, match=r"ca_bundle cannot be used.* Hint: .+\.$"):
        post("https://127.0.0.1:9/", ca_bundle=bundle)


def test_a_certificate_of_the_environment_is_trusted(tmp_path: Path) -> None:
    """SSL_CERT_FILE, set before a worker starts, names the trusted authorities."""
    trusted = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(str(trusted))
    server = RawServer(OK_RESPONSE, tls=True)
    program = (
        "import asyncio, sys\n"
        "from spark_llm.transport.http import HTTPClient\n"
        "async def once():\n"
        "    client = HTTPClient(sys.argv[1], 5.0, 1)\n"
        "    print(await client.post(b'{}', None))\n"
        "    await client.close()\n"
        "asyncio.run(once())\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, server.url],
        env={**os.environ, "SSL_CERT_FILE": str(trusted)},
        capture_output=True,
        text=True,
        check=True,
    )
    server.close()

    assert ran.stdout.startswith("Response(status=200, body=b'{}'")


def test_https_to_a_port_of_plain_http_is_named() -> None:
    """The fault is `connection`, and it is final: a retry is useless."""
    server = RawServer(BAD_REQUEST)
    response = post(f"https://{server.authority}/")
    server.close()

    assert ("connection", True) == (response.fault, response.final)
    assert response.detail.startswith(f"no TLS with {server.authority}: ")


@pytest.mark.waits
def test_a_slow_connection_is_not_a_slow_answer() -> None:
    """Without an answer to the handshake, the fault is `connection`, after half of the time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        response = post(f"https://{address}/", timeout_s=0.4)

    assert ("connection", f"no connection to {address} within 0.2 s") == (response.fault, response.detail)


@pytest.mark.parametrize("spelling", ["http://{}", "http://user:hunter2@{}", "{}", "user:hunter2@{}"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_unreachable_proxy_is_named(scheme: str, spelling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the proxy's address and not its password, in every spelling of the variable."""
    address = closed_port()
    monkeypatch.setenv(f"{scheme}_proxy", spelling.format(address))
    response = post(f"{scheme}://model.invalid/")

    assert "connection" == response.fault
    assert f"no connection to the proxy {address}: connection refused" == response.detail


def test_the_error_of_a_proxy_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the proxy's status and reason, without its password."""
    server = RawServer(b"HTTP/1.1 407 Proxy Authentication Required, not p%40ssw0rd\r\nContent-Length: 0\r\n\r\n")
    monkeypatch.setenv("https_proxy", f"http://user:p%40ssw0rd@{server.authority}")
    response = post("https://model.invalid/", token="s3cret")
    server.close()

    assert server.received.startswith(b"CONNECT model.invalid:443 HTTP/1.1\r\n")
    assert b"s3cret" not in server.received
    assert ("connection", True) == (response.fault, response.final)
    message = "the proxy lets no connection through: 407 Proxy Authentication Required, not ***"
    assert message == failure_of(response).error.message


@pytest.mark.parametrize(("variable", "address"), [("ALL_PROXY", "socks5://{}"), ("http_proxy", "socks5h://u:pw@{}")])
def test_a_socks_proxy_is_an_error_before_anything_is_sent(
    variable: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only SOCKS is understood there, so the client does not connect."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv(variable, address.format(f"127.0.0.1:{listener.getsockname()[1]}"))
        with pytest.raises(ConfigError, match=f"{variable.upper()} names a SOCKS proxy.* Hint: "):
            post("http://model.invalid/", token="s3cret")
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize(
    ("answer", "status", "fault", "detail"),
    [
        (b"", 0, "connection", "the server closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 0, "connection", "what came back is not HTTP: "),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{",
            200,
            "invalid_response",
            "the answer is incomplete: Response payload is not completed",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Encoding: gzip\r\n\r\nhello",
            200,
            "invalid_response",
            "the answer is incomplete: 400, message: Can not decode content-encoding: gzip",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Long: " + b"a" * 200_000 + b"\r\n\r\n{}",
            0,
            "connection",
            "the headers of the answer are too large: Got more than 131072 bytes",
        ),
    ],
)
def test_a_broken_answer_is_a_fault(answer: bytes, status: int, fault: str, detail: str) -> None:
    """A closed connection, another protocol, a truncated body and a wrong encoding have their own faults."""
    server = RawServer(answer)
    response = post(server.url)
    server.close()

    assert (status, fault) == (response.status, response.fault)
    assert response.detail.startswith(detail)
    assert "\n" not in response.detail


@pytest.mark.waits
def test_a_missing_answer_is_a_time_out_and_frees_its_connection() -> None:
    """Each overdue request closes its connection and gives its place in the pool to the next."""

    async def ask() -> tuple[list[Response], Response]:
        async with hanging_server() as server:
            client = HTTPClient(server.url, 0.2, 1)
            late = []
            for _ in range(2):
                server.hung_up.clear()
                late.append(await client.post(b"{}", None))
                await asyncio.wait_for(server.hung_up.wait(), 5)
            server.response = OK_RESPONSE
            fine = await client.post(b"{}", None)
            await client.close()
            return late, fine

    late, fine = asyncio.run(ask())

    assert [(0, "timeout")] * 2 == [(response.status, response.fault) for response in late]
    assert all(re.match(r"no complete answer within 0\.2 s \(\d\.\d s waited\)", each.detail) for each in late)
    assert all(0.2 <= response.latency_s < 2 for response in late)
    assert (200, None) == (fine.status, fine.fault)


@pytest.mark.waits
def test_an_answer_that_stops_half_way_is_a_time_out() -> None:
    """If only the head arrives, the fault is `timeout`, with the status of the head."""

    async def ask() -> Response:
        async with hanging_server() as server:
            server.response = OK_RESPONSE.removesuffix(b"}")
            client = HTTPClient(server.url, 0.2, 1)
            response = await client.post(b"{}", None)
            await client.close()
            return response

    response = asyncio.run(ask())

    assert (200, "timeout") == (response.status, response.fault)


@pytest.mark.waits
def test_every_overdue_request_times_out() -> None:
    """Requests that wait for a place in the pool time out too."""

    async def ask() -> list[Response]:
        async with hanging_server() as server:
            client = HTTPClient(server.url, 0.2, 5)
            late = await asyncio.gather(*(client.post(b"{}", None) for _ in range(10)))
            await client.close()
            return late

    assert ["timeout"] * 10 == [response.fault for response in asyncio.run(ask())]


def test_a_cancelled_request_closes_its_connection() -> None:
    """A cancelled task ends as cancelled, not as a time-out, and the server sees the connection close."""

    async def call_off() -> bool:
        async with hanging_server() as server:
            client = HTTPClient(server.url, 60.0, 1)
            asking = asyncio.ensure_future(client.post(b"{}", None))
            await asyncio.wait_for(server.got_request.wait(), 5)
            asking.cancel()
            await asyncio.wait_for(server.hung_up.wait(), 5)
            await asyncio.wait([asking])
            await client.close()
            return asking.cancelled()

    assert asyncio.run(call_off())


def test_a_connection_that_was_closed_while_idle_is_not_used_again() -> None:
    """A server that closes idle connections costs no attempt."""

    async def ask() -> tuple[list[int], int]:
        left, connections = asyncio.Event(), 0

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await reader.readuntil(b"\r\n\r\n{}")
            writer.write(OK_RESPONSE)
            writer.write_eof()
            await reader.read()  # until the client leaves too
            left.set()
            writer.close()

        async with listening(take) as url:
            client = HTTPClient(url, 5.0, 1)
            statuses = []
            for _ in range(3):
                statuses.append((await client.post(b"{}", None)).status)
                await asyncio.wait_for(left.wait(), 5)
                left.clear()
            await client.close()
        return statuses, connections

    assert ([200] * 3, 3) == asyncio.run(ask())


@pytest.mark.parametrize(
    "before",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 2,
        b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n",
    ],
)
def test_an_interim_answer_is_not_the_answer(before: bytes) -> None:
    """Responses with a status of 1xx are skipped."""
    server = RawServer(before + OK_RESPONSE)
    response = post(server.url)
    server.close()

    assert (200, b"{}") == (response.status, response.body)


def test_trailers_are_skipped() -> None:
    """Fields after the last chunk are not part of the body."""
    server = RawServer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n")
    response = post(server.url)
    server.close()

    assert (200, b"{}", None) == (response.status, response.body, response.fault)


@pytest.mark.skipif(find_spec("backports") is not None or sys.version_info >= (3, 14), reason="zstd is installed")
def test_an_unsupported_encoding_is_named() -> None:
    """The request accepts only installed encodings; an answer in another one is an error that names it."""
    server = RawServer(b"HTTP/1.1 200 OK\r\nContent-Encoding: zstd\r\nContent-Length: 2\r\n\r\n{}")
    response = post(server.url)
    server.close()

    assert "connection" == response.fault
    assert response.detail.startswith("the answer cannot be read: Can not decode content-encoding: ")
    assert b"zstd" not in server.received
