"""The endpoint's process: start it, control it, read its counters."""

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

NO_LATENCY = Steady()
CHAT = "chat/completions"
EMBEDDINGS = "embeddings"
_COMMAND_TIMEOUT_S = 60.0  # longer than any outage


class EndpointProcess:
    """A running endpoint, controlled over HTTP."""

    def __init__(self, port: int) -> None:
        """Use the endpoint on this loopback port."""
        self._port = port

    @property
    def control_url(self) -> str:
        """The base URL of the control commands."""
        return f"http://127.0.0.1:{self._port}/control"

    def url(self, route: str, behaviour: Steady = NO_LATENCY) -> str:
        """Return the URL of a route, such as `CHAT`, with this behaviour."""
        return f"{self.base_url(behaviour)}/{route}"

    def base_url(self, behaviour: Steady = NO_LATENCY) -> str:
        """Return the base URL of all routes with this behaviour."""
        return f"http://127.0.0.1:{self._port}/{behaviour.segment}"

    def counters(self) -> Counters:
        """Return the counters since the last reset."""
        return Counters(**self._command("counters"))

    def series(self) -> list[Sample]:
        """Return the samples since the last reset."""
        return [Sample(*sample) for sample in self._command("series")]

    def reset(self) -> None:
        """Reset counters, behaviours and random numbers."""
        self._command("reset")

    def plan_outage(self, after_s: float, for_s: float) -> None:
        """Schedule an outage: the port closes, and every connection is cut."""
        self._command(f"outage/{after_s}/{for_s}")

    def _command(self, command: str) -> Any:  # noqa: ANN401 -- what JSON holds
        """Send a command, with retries while the port is closed; return the JSON response."""
        deadline = time.monotonic() + _COMMAND_TIMEOUT_S
        while True:
            connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
            try:
                connection.request("GET", f"/control/{command}")
                return json.loads(connection.getresponse().read())
            except ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            finally:
                connection.close()


@contextlib.contextmanager
def endpoint_process() -> Iterator[EndpointProcess]:
    """Start the endpoint in a new process, and stop it at the end."""
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
            yield EndpointProcess(int(process.stdout.readline()))
        finally:
            process.stdin.close()
