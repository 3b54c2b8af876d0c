"""The endpoint that every contender asks: a small HTTP/1.1 server, in a process of its own.

It must never be the bottleneck, so it parses no more than it has to. What it counts is the only truth that the
benchmarks have. The path says how it answers:

    /zero/chat/completions        at once
    /lognormal/chat/completions   after a drawn latency: median 0.2 s, sigma 0.6, the same draws after each reset
    /zero/embeddings              at once: vectors of 1,024 numbers, in base64 or as JSON, as the request asks
    /counters, /reset             what was counted since the last reset, and the reset
"""

import asyncio
import base64
import contextlib
import json
import math
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from typing import cast

import msgspec

MEDIAN_S = 0.2
SIGMA = 0.6
DIMENSIONS = 1_024
SEED = 20_240_611

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)")
_CHAT = json.dumps(
    {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "benchmark",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "The review is positive."},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 24, "completion_tokens": 5, "total_tokens": 29},
    }
).encode()


@dataclass
class Counters:
    """What the endpoint saw since the last reset."""

    requests: int = 0
    rows: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    in_flight_s: float = 0.0  # the integral of `in_flight` over time
    latency_s: float = 0.0  # the sum of the latencies that were drawn
    cpu_s: float = 0.0  # the endpoint's own
    wall_s: float = 0.0


class Endpoint:
    """What all connections share: the counters and the dice."""

    def __init__(self) -> None:
        """Begin as after a reset."""
        self.counters = Counters()
        self.reset()

    def reset(self) -> None:
        """Count from nothing and draw the same latencies again; what is in flight stays so."""
        out = self.counters.in_flight
        self.counters = Counters(in_flight=out, max_in_flight=out)
        self._dice = random.Random(SEED)
        self._began = self._moved_at = time.perf_counter()
        self._cpu_before = time.process_time()

    def move(self, by: int) -> None:
        """Let one request in (+1) or out (-1)."""
        now = time.perf_counter()
        counters = self.counters
        counters.in_flight_s += counters.in_flight * (now - self._moved_at)
        self._moved_at = now
        counters.in_flight += by
        counters.max_in_flight = max(counters.max_in_flight, counters.in_flight)

    def answer(self, path: str, body: bytes) -> tuple[bytes, float]:
        """Return the answer to a request, and the seconds after which it is given."""
        if path == "/counters":
            self.move(0)
            now = Counters(**asdict(self.counters))
            now.cpu_s = time.process_time() - self._cpu_before
            now.wall_s = time.perf_counter() - self._began
            return _response(json.dumps(asdict(now)).encode()), 0.0
        if path == "/reset":
            self.reset()
            return _response(b"{}"), 0.0
        self.counters.requests += 1
        if path.endswith("/embeddings"):
            asked = msgspec.json.decode(body, type=EmbeddingRequest)
            self.counters.rows += len(asked.input)
            return _vectors(len(asked.input), asked.encoding_format == "base64"), 0.0
        if path.endswith("/chat/completions"):
            self.counters.rows += 1
            if not path.startswith("/lognormal/"):
                return _chat(), 0.0
            latency_s = self._dice.lognormvariate(math.log(MEDIAN_S), SIGMA)
            self.counters.latency_s += latency_s
            return _chat(), latency_s
        return _response(b'{"error":{"message":"no such path"}}', b"404 Not Found"), 0.0


class EmbeddingRequest(msgspec.Struct):
    """The two fields of an embedding request that change its answer."""

    input: list[str]
    encoding_format: str = "float"


def _response(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


@cache
def _chat() -> bytes:
    return _response(_CHAT)


@cache
def _vectors(count: int, in_base64: bool) -> bytes:  # noqa: FBT001 -- a key of the cache
    """Return an answer of `count` vectors, made once; numbers are written with the nine digits that float32 needs."""
    dice = random.Random(SEED)
    numbers = [dice.gauss(0.0, 1 / math.sqrt(DIMENSIONS)) for _ in range(DIMENSIONS)]
    if in_base64:
        import numpy as np

        vector = json.dumps(base64.b64encode(np.array(numbers, "<f4").tobytes()).decode())
    else:
        vector = "[" + ",".join(f"{number:.9g}" for number in numbers) + "]"
    data = ",".join(f'{{"object":"embedding","index":{index},"embedding":{vector}}}' for index in range(count))
    usage = json.dumps({"prompt_tokens": 8 * count, "total_tokens": 8 * count})
    return _response(f'{{"object":"list","data":[{data}],"model":"benchmark","usage":{usage}}}'.encode())


class Connection(asyncio.Protocol):
    """One connection: requests are answered one after the other, however they came in."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Wait for the first request."""
        self._endpoint = endpoint
        self._heard = bytearray()
        self._pending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take in what came, and answer if a whole request is there."""
        self._heard += data
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        """Call off what is in flight: nobody waits for it."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
            self._endpoint.move(-1)

    def _go_on(self) -> None:
        while self._pending is None:
            end = self._heard.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._heard[:end]).lower()
            length = _LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._heard) < whole:
                return
            body = bytes(self._heard[end + 4 : whole])
            del self._heard[:whole]
            self._take(head.split(b" ", 2)[1].decode("ascii", "replace"), body)

    def _take(self, path: str, body: bytes) -> None:
        if path in ("/counters", "/reset"):
            self._transport.write(self._endpoint.answer(path, body)[0])
            return
        self._endpoint.move(+1)
        answer, latency_s = self._endpoint.answer(path, body)
        if latency_s:
            self._pending = asyncio.get_running_loop().call_later(latency_s, self._answer_late, answer)
        else:
            self._transport.write(answer)
            self._endpoint.move(-1)

    def _answer_late(self, answer: bytes) -> None:
        self._pending = None
        self._transport.write(answer)
        self._endpoint.move(-1)
        self._go_on()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def serve() -> None:
    """Answer on a free port, which is printed, until standard input ends: when whoever started it is done, or gone."""
    loop = _new_loop()
    endpoint = Endpoint()
    server = loop.run_until_complete(loop.create_server(lambda: Connection(endpoint), "127.0.0.1", 0, backlog=1_024))
    print(server.sockets[0].getsockname()[1], flush=True)

    def until_input_ends() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(loop.stop)

    threading.Thread(target=until_input_ends, daemon=True).start()
    loop.run_forever()


class Running:
    """An endpoint that answers, seen from outside."""

    def __init__(self, port: int) -> None:
        """Find it on this port of the loopback address."""
        self._port = port

    def url(self, path: str) -> str:
        """Return the URL of a path such as "zero/chat/completions"."""
        return f"http://127.0.0.1:{self._port}/{path}"

    def counters(self) -> Counters:
        """Return what it counted since the last reset."""
        return Counters(**json.loads(self._asked("/counters")))

    def reset(self) -> None:
        """Let it count from nothing and draw the same latencies again."""
        self._asked("/reset")

    def _asked(self, path: str) -> bytes:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()


@contextlib.contextmanager
def running() -> Iterator[Running]:
    """Start the endpoint in a process of its own, and stop it in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.endpoint"],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("The endpoint was started without pipes.")
        try:
            yield Running(int(process.stdout.readline()))
        finally:
            process.stdin.close()


if __name__ == "__main__":
    serve()
