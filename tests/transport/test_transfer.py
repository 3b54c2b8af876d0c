"""Large files over HTTP: sent from a disk and written to one in constant memory, for as long as something happens."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from spark_llm.protocol.values import Response
from spark_llm.transport.blocking import transfer_once
from spark_llm.transport.form import FileForm
from spark_llm.transport.http import TransferClient
from tests.support.loopback import serving
from tests.support.raw_server import RawServer, listening

MB = 2**20
LARGE = 200 * MB
PEAK = """
import re, sys
from pathlib import Path
from spark_llm.transport.blocking import transfer_once
from spark_llm.transport.form import FileForm

def peak_mb():
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

url, small, large, target = sys.argv[1:]
def transfer(path, size):
    form = FileForm({"purpose": "batch"}, path, "name.jsonl", "boundary")
    sent = transfer_once("POST", url, headers={"Content-Type": form.content_type}, body=form)
    with open(target, "wb") as file:
        got = transfer_once("GET", f"{url}/{size}", headers={}, sink=file.write)
    return sent.status, got.status, sent.body.decode()

transfer(small, 1000)
before = peak_mb()
print(*transfer(large, Path(large).stat().st_size), peak_mb() - before)
"""


@contextlib.contextmanager
def counting_server() -> Iterator[str]:
    """A server that answers with the length of what it gets, and sends as many bytes as the path says."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            left = length = int(self.headers["content-length"])
            while left:
                left -= len(self.rfile.read(min(left, MB)))
            self.answer(str(length).encode())

        def do_GET(self) -> None:
            left = int(self.path.rpartition("/")[2])
            self.answer(b"", left)
            while left:
                self.wfile.write(b"x" * min(left, MB))
                left -= min(left, MB)

        def answer(self, body: bytes, length: int | None = None) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.mark.waits
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_a_file_of_200_mb_never_stands_in_memory(tmp_path: Path) -> None:
    """Neither on its way up nor down: the peak of a process grows by a few MB."""
    small, large, target = (tmp_path / name for name in ("small", "large", "target"))
    small.write_bytes(b"x" * 1000)
    with large.open("wb") as file:
        file.truncate(LARGE)
    with counting_server() as url:
        command = [sys.executable, "-c", PEAK, url, *map(str, (small, large, target))]
        out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    sent, got, length, grown_mb = out.split()

    assert ("200", "200") == (sent, got)
    assert LARGE < int(length) < LARGE + 1_000
    assert LARGE == target.stat().st_size
    assert float(grown_mb) < 16


async def transferred(url: str, body: bytes | None, idle_s: float) -> Response:
    """Return the response to one transfer on the test's own event loop."""
    client = TransferClient(url, idle_s, 1)
    try:
        return await client.transfer("POST" if body else "GET", body, None)
    finally:
        await client.close()


def test_a_transfer_ends_when_nothing_happens() -> None:
    """Where the server reads no more, and where it sends no more."""

    async def stalls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        await gone.wait()
        writer.close()

    async def play() -> list[Response]:
        async with listening(stalls) as url:
            try:
                return [await transferred(url, body, 0.2) for body in (b"x" * 50 * MB, None)]
            finally:
                gone.set()

    gone = asyncio.Event()
    for response in asyncio.run(play()):
        assert ("timeout", b"") == (response.fault, response.body)
        assert "no complete answer within 0.2 s" in response.detail


def test_a_transfer_that_goes_on_is_not_ended() -> None:
    """It takes longer than the longest pause, and is whole: each piece comes after a tenth of it."""
    pieces = 12

    async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % pieces)
        for _ in range(pieces):
            await asyncio.sleep(0.1)  # the server's pace
            writer.write(b"x")
        writer.close()

    async def play() -> Response:
        async with listening(drips) as url:
            return await transferred(url, None, 1.0)

    response = asyncio.run(play())

    assert (200, b"x" * pieces, None) == (response.status, response.body, response.fault)
    assert response.latency_s > 1.0


def test_an_error_does_not_go_to_the_file() -> None:
    """It is the response's body, as ever; nor does any other answer than a 200."""
    for status in (b"404 Not Found", b"206 Partial Content"):
        server = RawServer(b"HTTP/1.1 %b\r\nContent-Length: 4\r\n\r\noops" % status)
        taken: list[bytes] = []
        response = transfer_once("GET", server.url, headers={}, sink=taken.append)
        server.close()

        assert (int(status[:3]), b"oops", []) == (response.status, response.body, taken)


def test_the_error_of_a_sink_is_raised() -> None:
    """It is of the disk, not of the network."""

    def full(_: bytes) -> None:
        raise OSError("no space")

    server = RawServer(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\noops")
    with pytest.raises(OSError, match="no space"):
        transfer_once("GET", server.url, headers={}, sink=full)
    server.close()


def test_a_form_can_be_sent_again(tmp_path: Path) -> None:
    """Its length is known, and its parts are as browsers write them."""
    path = tmp_path / "f"
    path.write_bytes(b"line\n" * 100_000)
    form = FileForm({"purpose": "batch"}, str(path), 'a "name"\r\n', "limit")
    first, again = b"".join(form), b"".join(form)

    assert first == again
    assert len(form) == len(first)
    assert first.startswith(b'--limit\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--limit\r\n')
    assert b'filename="a %22name%22%0D%0A"\r\n' in first
    assert first.endswith(b"line\n\r\n--limit--\r\n")
    assert "multipart/form-data; boundary=limit" == form.content_type
