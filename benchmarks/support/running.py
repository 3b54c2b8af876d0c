"""The endpoint as the benchmarks see it: a process of its own, which they start, ask and stop."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks.support.behaviours import Steady
from benchmarks.support.counters import Counters, Sample

AT_ONCE = Steady()
CHAT = "chat/completions"
EMBEDDINGS = "embeddings"
_PATIENCE_S = 60.0  # longer than any outage


class Running:
    """An endpoint that answers, seen from outside."""

    def __init__(self, port: int) -> None:
        """Find it on this port of the loopback address."""
        self._port = port

    @property
    def control_url(self) -> str:
        """The URL that the commands come after."""
        return f"http://127.0.0.1:{self._port}/control"

    def url(self, route: str, behaviour: Steady = AT_ONCE) -> str:
        """Return the URL where a route, such as `CHAT`, is answered in this way."""
        return f"{self.base_url(behaviour)}/{route}"

    def base_url(self, behaviour: Steady = AT_ONCE) -> str:
        """Return the URL that a client puts its routes after."""
        return f"http://127.0.0.1:{self._port}/{behaviour.segment}"

    def counters(self) -> Counters:
        """Return what it counted since the last reset."""
        return Counters(**self._do("counters"))

    def series(self) -> list[Sample]:
        """Return the samples that it took since the last reset."""
        return [Sample(*sample) for sample in self._do("series")]

    def reset(self) -> None:
        """Let it count from nothing, behave as on the first day and throw the same dice again."""
        self._do("reset")

    def plan_outage(self, after_s: float, for_s: float) -> None:
        """Let it vanish once: nobody listens, and every connection is cut."""
        self._do(f"outage/{after_s}/{for_s}")

    def _do(self, command: str) -> Any:  # noqa: ANN401 -- what JSON holds
        """Send a command, again and again while nobody listens."""
        until = time.monotonic() + _PATIENCE_S
        while True:
            connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
            try:
                connection.request("GET", f"/control/{command}")
                return json.loads(connection.getresponse().read())
            except ConnectionError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
            finally:
                connection.close()


@contextlib.contextmanager
def running() -> Iterator[Running]:
    """Start the endpoint in a process of its own, and stop it in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.support.endpoint"],
        cwd=Path(__file__).parents[2],
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
