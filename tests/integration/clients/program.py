"""A third-party program, started by a test and ended with all its child processes."""

import contextlib
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
    """A program ended, or timed out, before it was ready."""


class Program:
    """A program in its own process group, ready when its output has matched all patterns.

    Attributes:
        matches: The matches of the patterns of `ready`, in their order.
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
        """Start the program, and wait until each pattern of `ready` has matched a line."""
        self._patterns = [re.compile(pattern) for pattern in ready]
        self._matches: dict[str, re.Match[str]] = {}
        self._last_lines: deque[str] = deque(maxlen=30)
        self._ready_or_ended = threading.Event()
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
        self._ready_or_ended.wait(timeout_s)
        if not self._is_ready:
            self.stop()
            raise ProgramFailedError("\n".join([f"{' '.join(command)} is not ready. Its output:", *self._last_lines]))
        self.matches = [self._matches[pattern.pattern] for pattern in self._patterns]

    @property
    def _is_ready(self) -> bool:
        return len(self._matches) == len(self._patterns)

    def _read(self) -> None:
        """Read to the end, so that the program never blocks on a full pipe."""
        with self._process.stdout or contextlib.nullcontext(()) as lines:
            for line in lines:
                self._last_lines.append(line.rstrip())
                for pattern in self._patterns:
                    if match := pattern.search(line):
                        self._matches.setdefault(pattern.pattern, match)
                if self._is_ready:
                    self._ready_or_ended.set()
        self._ready_or_ended.set()

    def stop(self) -> None:
        """End the whole process group, by SIGTERM and then by SIGKILL."""
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, signal_number)
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
