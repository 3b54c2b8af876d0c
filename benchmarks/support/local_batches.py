"""A local endpoint with a Batch API, in a process of its own whose CPU time is counted."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.support.session import ROOT

_PROGRAM = """
import sys
from spark_llm.serving import LocalEndpoints

with LocalEndpoints() as endpoints:
    print(endpoints.openai_url, endpoints.token, flush=True)
    for _ in sys.stdin:
        print(len(endpoints.answered), endpoints.stats.total_tokens, flush=True)
        endpoints.reset()
"""


@dataclass(frozen=True)
class LocalBatches:
    """The process, the base URL that it serves, and the token for it."""

    process: "subprocess.Popen[str]"
    url: str
    token: str

    def answered(self) -> tuple[int, int]:
        """Return the requests that were answered in batches, and the tokens of all, since the last call."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("The process has no pipes.")
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        requests, tokens = map(int, self.process.stdout.readline().split())
        return requests, tokens

    @property
    def cpu_s(self) -> float:
        """The CPU time that the process has used, in seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def local_batches() -> Iterator[LocalBatches]:
    """Start the process, and end it."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", _PROGRAM], text=True, cwd=ROOT, **pipes) as process:  # type: ignore[call-overload]  # pipes
        try:
            yield LocalBatches(process, *process.stdout.readline().split())
        finally:
            process.kill()
