"""A Spark driver in a process of its own, whose output a test reads, and which it starts and kills."""

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

_SHOWN = 40  # last lines of a driver that failed
_END_S = 30.0


class DriverEndedError(Exception):
    """A driver ended, or printed nothing, before the line that a test waits for."""


class Driver:
    """A program that logs line by line, and whose last line of JSON is its answer.

    >>> with Driver(command, folder, os.environ) as driver:
    ...     driver.wait_for(READY)
    ...     driver.begin()
    ...     driver.wait_for("Start to commit")
    ...     driver.kill()
    """

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        """Start it, in a process group of its own."""
        self._lines: list[str] = []
        self._ended = False
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="reads a driver", daemon=True)
        self._reader.start()

    def begin(self) -> None:
        """Let it begin its job."""
        if self._process.stdin is not None:
            self._process.stdin.write("begin\n")
            self._process.stdin.flush()

    @property
    def lines(self) -> int:
        """The number of lines it has printed so far."""
        with self._changed:
            return len(self._lines)

    @property
    def last_lines(self) -> str:
        """Its last lines, for the message of a failure."""
        with self._changed:
            return "\n".join(["Its last lines:", *self._lines[-_SHOWN:]])

    def wait_for(self, *patterns: str, after: int = 0, timeout_s: float = 300.0) -> str:
        """Return the first line with the pattern, after the first `after` lines; wait until it is printed.

        Of several patterns each is looked for after the line with the one before it.
        """
        line = ""
        for pattern in patterns:
            with self._changed:
                self._changed.wait_for(lambda: self._find(pattern, after) is not None or self._ended, timeout_s)  # noqa: B023 -- used in this turn
                found = self._find(pattern, after)
                if found is None:
                    raise DriverEndedError(f"It did not print {pattern!r}. {self.last_lines}")
                line, after = self._lines[found], found + 1
        return line

    def _find(self, pattern: str, after: int) -> int | None:
        """Return the number of the first line with the pattern, after the first `after` lines."""
        wanted = re.compile(pattern)
        return next((number for number in range(after, len(self._lines)) if wanted.search(self._lines[number])), None)

    def run_for(self, seconds: float) -> None:
        """Let it run so long, or to its end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended, seconds)

    def has_printed(self, *patterns: str) -> bool:
        """Return whether it has printed lines with these patterns, each after the line with the one before it."""
        with self._changed:
            lines = iter(self._lines)
            return all(any(re.search(pattern, line) for line in lines) for pattern in patterns)

    def answer(self, timeout_s: float = 600.0) -> Any:  # noqa: ANN401 -- what JSON holds
        """Wait until it has ended by itself, and return its answer."""
        code = self._process.wait(timeout_s)
        self._reader.join(_END_S)
        answers = [line for line in self._lines if line.startswith("{")]
        if code or not answers:
            raise DriverEndedError(f"It ended with {code}. {self.last_lines}")
        return json.loads(answers[-1])

    def kill(self) -> None:
        """Kill it, its JVM and Spark's Python workers (which have a group of their own), as a failing machine does."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # to list the workers takes as long as a commit
        listed = subprocess.run(["ps", "-eo", "pid=,sess="], capture_output=True, text=True, check=True)  # noqa: S607 -- Spark's own scripts want it on the PATH too
        sessions = (map(int, line.split()) for line in listed.stdout.splitlines())
        for number in [number for number, session in sessions if session == self._process.pid]:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self._process.wait(_END_S)
        self._reader.join(_END_S)

    def __enter__(self) -> "Driver":  # noqa: PYI034 -- typing.Self came with Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        with self._process:  # closes the pipes
            pass

    def _read(self) -> None:
        """Read to the end, so that it never waits for its reader."""
        for line in self._process.stdout or ():
            with self._changed:
                self._lines.append(line.rstrip())
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
