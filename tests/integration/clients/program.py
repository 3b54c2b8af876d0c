"""A program of somebody else's, started by a test and ended with all that it has started itself."""

import os
import re
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

_END_S = 10.0


class ProgramFailedError(Exception):
    """A program ended, or kept silent, before it was ready."""


class Program:
    """A program in a process group of its own, ready when it has said all that it says then.

    Attributes:
        said: What the patterns of `ready` found, in their order.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        ready: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        timeout_s: float = 120.0,
    ) -> None:
        """Start the program, and wait until each pattern of `ready` has been found in a line."""
        self._patterns = [re.compile(pattern) for pattern in ready]
        self._found: dict[str, re.Match[str]] = {}
        self._last: deque[str] = deque(maxlen=30)
        self._decided = threading.Event()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env=dict(environment),
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name=f"reads {command[0]}", daemon=True)
        self._reader.start()
        self._decided.wait(timeout_s)
        if not self._is_ready:
            self.stop()
            raise ProgramFailedError("\n".join([f"{' '.join(command)} is not ready. It said:", *self._last]))
        self.said = [self._found[pattern.pattern] for pattern in self._patterns]

    @property
    def _is_ready(self) -> bool:
        return len(self._found) == len(self._patterns)

    def _read(self) -> None:
        """Read to the end, so that the program never waits for its reader."""
        for line in self._process.stdout or ():
            self._last.append(line.rstrip())
            for pattern in self._patterns:
                if found := pattern.search(line):
                    self._found.setdefault(pattern.pattern, found)
            if self._is_ready:
                self._decided.set()
        self._decided.set()

    def stop(self) -> None:
        """End the whole group, gently and then not."""
        for how in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, how)
                self._process.wait(_END_S)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self._process.wait(_END_S)
        self._reader.join(_END_S)

    def __enter__(self) -> "Program":  # noqa: PYI034 -- typing.Self came with Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
