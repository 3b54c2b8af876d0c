"""The endpoint of all benchmarks: a small HTTP/1.1 server in a separate process.

It must never be the bottleneck, so it parses only what it needs. Paths are `/<behaviour>/<route>`, where the route is
`chat/completions`, `embeddings` or `responses`. The benchmarks control it by paths under `/control/`: see
`benchmarks.support.endpoint_process`.
"""

import asyncio
import json
import random
import re
import sys
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

from benchmarks.support.behaviours import Arrival, ResponsePlan, Steady, parse_behaviour
from benchmarks.support.bodies import SEED, ParsedRequest, error_response, http_response
from benchmarks.support.counters import SAMPLE_S, Counters, Sample
from spark_llm.engine.engine import new_event_loop

if TYPE_CHECKING:
    from collections.abc import Callable

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)")


class Endpoint:
    """The state of all connections: behaviours, random numbers and counters."""

    def __init__(self) -> None:
        """Begin as after a reset."""
        self.counters = Counters()
        self.reset()

    def reset(self) -> None:
        """Reset counters, behaviours and random numbers; requests in flight stay counted."""
        in_flight = self.counters.in_flight
        self.counters = Counters(in_flight=in_flight, max_in_flight=in_flight)
        self.series: list[Sample] = []
        self._behaviours: dict[str, Steady] = {}
        self._rng = random.Random(SEED)
        self._start_s = time.perf_counter()
        self._cpu_before = time.process_time()

    @property
    def now(self) -> float:
        """The seconds since the last reset."""
        return time.perf_counter() - self._start_s

    def read(self) -> Counters:
        """Return the counters, with the times up to now."""
        self.counters.cpu_s = time.process_time() - self._cpu_before
        self.counters.wall_s = self.now
        return self.counters

    def sample(self) -> None:
        """Record a sample of the counters."""
        counters = self.counters
        self.series.append(Sample(round(self.now, 3), counters.in_flight, counters.requests, counters.answered))

    def begin(self, path: str, body: bytes) -> tuple[ResponsePlan, bytes]:
        """Count an arriving request; return its plan, and the whole response."""
        segment = path.split("/", 2)[1]
        if segment not in self._behaviours:
            self._behaviours[segment] = parse_behaviour(segment)
        request = ParsedRequest(path, body)
        counters, now = self.counters, self.now
        plan = self._behaviours[segment].plan(Arrival(now, counters.in_flight, request.texts, self._rng))
        counters.requests += 1
        counters.rows += len(request.texts)
        counters.service_s += plan.service_s
        counters.first_s = now if counters.first_s is None else counters.first_s
        counters.last_s = now
        counters.in_flight += 1
        if plan.status == 200:  # a refusal is sent at once
            counters.max_in_flight = max(counters.max_in_flight, counters.in_flight)
        return plan, request.response() if plan.status == 200 else error_response(plan.status)

    def end(self, plan: ResponsePlan | None) -> None:
        """Count the end of a request; without a plan, the client has hung up."""
        self.counters.in_flight -= 1
        self.counters.ended_s = self.now
        if plan is not None:
            self.counters.refused += plan.status == 429
            self.counters.answered += plan.status == 200 and plan.ending == "whole"


class Connection(asyncio.Protocol):
    """One connection, which answers its requests one after the other."""

    def __init__(self, server: "Server") -> None:
        """Wait for the first request."""
        self._server = server
        self._endpoint = server.endpoint
        self._received = bytearray()
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Buffer the data, and respond if a whole request is there."""
        self._received += data
        self._process_buffer()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        """Cancel the request in flight."""
        self._server.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._busy:
            self._endpoint.end(None)

    def _process_buffer(self) -> None:
        while not self._busy:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._received[:end]).lower()
            length = _LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._received) < whole:
                return
            body = bytes(self._received[end + 4 : whole])
            del self._received[:whole]
            self._handle(head.split(b" ", 2)[1].decode("ascii", "replace"), body)

    def _handle(self, path: str, body: bytes) -> None:
        if path.startswith("/control/"):
            self.transport.write(self._server.control(path))
            return
        plan, response = self._endpoint.begin(path, body)
        self._busy = True
        if plan.ending == "never":
            return
        if plan.after_s:
            self._timer = asyncio.get_running_loop().call_later(plan.after_s, self._send_delayed, plan, response)
        else:
            self._send(plan, response)

    def _send(self, plan: ResponsePlan, response: bytes) -> None:
        self._busy = False
        self._endpoint.end(plan)
        if plan.ending == "cut":
            self.transport.write(response[: (response.index(b"\r\n\r\n") + len(response)) // 2])
            self.transport.close()
        else:
            self.transport.write(response)

    def _send_delayed(self, plan: ResponsePlan, response: bytes) -> None:
        self._timer = None
        self._send(plan, response)
        self._process_buffer()


class Server:
    """The listening socket, which can close for an outage, and the control commands."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Do not listen yet."""
        self.endpoint = Endpoint()
        self.connections: set[Connection] = set()
        self._loop = loop
        self._commands: dict[str, Callable[..., object]] = {
            "counters": lambda: asdict(self.endpoint.read()),
            "series": lambda: self.endpoint.series,
            "reset": self.endpoint.reset,
            "outage": self._plan_outage,
        }

    async def listen(self, port: int) -> int:
        """Listen on this port, or on a free one for 0; return the port."""
        self._listening = await self._loop.create_server(lambda: Connection(self), "127.0.0.1", port, backlog=1_024)
        return int(self._listening.sockets[0].getsockname()[1])

    def sample_periodically(self) -> None:
        """Record samples at regular intervals."""
        self.endpoint.sample()
        self._loop.call_later(SAMPLE_S, self.sample_periodically)

    def control(self, path: str) -> bytes:
        """Run a command, `/control/<command>/<number>…`; return the whole HTTP response."""
        command, *numbers = path.split("/")[2:]
        result = self._commands[command](*map(float, numbers))
        return http_response(200, json.dumps(result).encode())

    def _plan_outage(self, after_s: float, for_s: float) -> None:
        self._loop.call_later(after_s, lambda: self._loop.create_task(self._outage(for_s)))

    async def _outage(self, for_s: float) -> None:
        """Simulate a process that is killed and restarted: close the port, and cut every connection."""
        port = int(self._listening.sockets[0].getsockname()[1])
        self._listening.close()
        for connection in list(self.connections):
            connection.transport.abort()
        await asyncio.sleep(for_s)
        await self.listen(port)


def serve() -> None:
    """Serve on a free port, which is printed, until standard input ends, as when the parent process ends."""
    loop = new_event_loop()
    server = Server(loop)
    print(loop.run_until_complete(server.listen(0)), flush=True)

    def until_input_ends() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(loop.stop)

    threading.Thread(target=until_input_ends, daemon=True).start()
    loop.call_soon(server.sample_periodically)
    loop.run_forever()


if __name__ == "__main__":
    serve()
