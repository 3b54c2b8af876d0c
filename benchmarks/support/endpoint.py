"""The endpoint that every contender asks: a small HTTP/1.1 server, in a process of its own.

It must never be the bottleneck, so it parses no more than it has to. A path says how a request is answered, and what
it asks for: `/<behaviour>/<route>`, the route being `chat/completions`, `embeddings` or `responses`. What stands under
`/control/` is for the benchmarks: see `benchmarks.support.running`.
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

from benchmarks.support.behaviours import Arrival, Fate, Steady, behaviour
from benchmarks.support.bodies import SEED, Asked, refusal, response
from benchmarks.support.counters import SAMPLE_S, Counters, Sample
from spark_llm.engine.loop_thread import new_event_loop

if TYPE_CHECKING:
    from collections.abc import Callable

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)")


class Endpoint:
    """What all connections share: the behaviours, the dice and the counters."""

    def __init__(self) -> None:
        """Begin as after a reset."""
        self.counters = Counters()
        self.reset()

    def reset(self) -> None:
        """Count from nothing, behave as on the first day and throw the same dice; what is in flight stays so."""
        out = self.counters.in_flight
        self.counters = Counters(in_flight=out, max_in_flight=out)
        self.series: list[Sample] = []
        self._behaviours: dict[str, Steady] = {}
        self._dice = random.Random(SEED)
        self._began = time.perf_counter()
        self._cpu_before = time.process_time()

    @property
    def now(self) -> float:
        """The seconds since the last reset."""
        return time.perf_counter() - self._began

    def read(self) -> Counters:
        """Return the counters as they are."""
        self.counters.cpu_s = time.process_time() - self._cpu_before
        self.counters.wall_s = self.now
        return self.counters

    def sample(self) -> None:
        """Put down the state of things."""
        counters = self.counters
        self.series.append(Sample(round(self.now, 3), counters.in_flight, counters.requests, counters.answered))

    def come(self, path: str, body: bytes) -> tuple[Fate, bytes]:
        """Let a request in; return its fate, and the whole response."""
        segment = path.split("/", 2)[1]
        if segment not in self._behaviours:
            self._behaviours[segment] = behaviour(segment)
        asked = Asked(path, body)
        counters, now = self.counters, self.now
        fate = self._behaviours[segment].fate(Arrival(now, counters.in_flight, asked.texts, self._dice))
        counters.requests += 1
        counters.rows += len(asked.texts)
        counters.service_s += fate.service_s
        counters.first_s = now if counters.first_s is None else counters.first_s
        counters.last_s = now
        counters.in_flight += 1
        if fate.status == 200:  # what is refused is gone at once
            counters.max_in_flight = max(counters.max_in_flight, counters.in_flight)
        return fate, asked.answer() if fate.status == 200 else refusal(fate.status)

    def leave(self, fate: Fate | None) -> None:
        """Let a request out, whose fate was fulfilled; without one, whoever sent it has hung up."""
        self.counters.in_flight -= 1
        self.counters.ended_s = self.now
        if fate is not None:
            self.counters.refused += fate.status == 429
            self.counters.answered += fate.status == 200 and fate.ending == "whole"


class Connection(asyncio.Protocol):
    """One connection: requests are answered one after the other, however they came in."""

    def __init__(self, server: "Server") -> None:
        """Wait for the first request."""
        self._server = server
        self._endpoint = server.endpoint
        self._heard = bytearray()
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self.transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Take in what came, and answer if a whole request is there."""
        self._heard += data
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        """Call off what is in flight: nobody waits for it."""
        self._server.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._busy:
            self._endpoint.leave(None)

    def _go_on(self) -> None:
        while not self._busy:
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
        if path.startswith("/control/"):
            self.transport.write(self._server.control(path))
            return
        fate, answer = self._endpoint.come(path, body)
        self._busy = True
        if fate.ending == "never":
            return
        if fate.after_s:
            self._timer = asyncio.get_running_loop().call_later(fate.after_s, self._answer_late, fate, answer)
        else:
            self._answer(fate, answer)

    def _answer(self, fate: Fate, answer: bytes) -> None:
        self._busy = False
        self._endpoint.leave(fate)
        if fate.ending == "cut":
            self.transport.write(answer[: (answer.index(b"\r\n\r\n") + len(answer)) // 2])
            self.transport.close()
        else:
            self.transport.write(answer)

    def _answer_late(self, fate: Fate, answer: bytes) -> None:
        self._timer = None
        self._answer(fate, answer)
        self._go_on()


class Server:
    """The listening socket, which can go away for a while and come back, and the commands of the benchmarks."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear nothing yet."""
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
        """Listen on this port, or a free one for 0; return which one it is."""
        self._listening = await self._loop.create_server(lambda: Connection(self), "127.0.0.1", port, backlog=1_024)
        return int(self._listening.sockets[0].getsockname()[1])

    def sample_for_ever(self) -> None:
        """Put down the state of things from time to time."""
        self.endpoint.sample()
        self._loop.call_later(SAMPLE_S, self.sample_for_ever)

    def control(self, path: str) -> bytes:
        """Carry out a command, `/control/<command>/<number>…`; return the response."""
        command, *numbers = path.split("/")[2:]
        done = self._commands[command](*map(float, numbers))
        return response(200, json.dumps(done).encode())

    def _plan_outage(self, after_s: float, for_s: float) -> None:
        self._loop.call_later(after_s, lambda: self._loop.create_task(self._be_gone(for_s)))

    async def _be_gone(self, for_s: float) -> None:
        """Do as a process that is killed, and started again later: no one listens, and every connection is cut."""
        port = int(self._listening.sockets[0].getsockname()[1])
        self._listening.close()
        for connection in list(self.connections):
            connection.transport.abort()
        await asyncio.sleep(for_s)
        await self.listen(port)


def serve() -> None:
    """Answer on a free port, which is printed, until standard input ends: when whoever started it is done, or gone."""
    loop = new_event_loop()
    server = Server(loop)
    print(loop.run_until_complete(server.listen(0)), flush=True)

    def until_input_ends() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(loop.stop)

    threading.Thread(target=until_input_ends, daemon=True).start()
    loop.call_soon(server.sample_for_ever)
    loop.run_forever()


if __name__ == "__main__":
    serve()
