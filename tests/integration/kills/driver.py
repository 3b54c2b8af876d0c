"""A Spark driver in a process of its own, which a test listens to, tells to begin, and kills."""

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

_SHOWN = 40  # last lines of a driver that did not do what it was to
_END_S = 30.0


class DriverEndedError(Exception):
    """A driver ended, or kept silent, before it said what a test waits for."""


class Driver:
    """A program that logs what it does, line by line, and whose last line of JSON is its answer.

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
        self._said = threading.Condition()
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
        """Tell it to begin with what it has got ready for."""
        if self._process.stdin is not None:
            self._process.stdin.write("begin\n")
            self._process.stdin.flush()

    @property
    def lines(self) -> int:
        """How many lines it has said so far."""
        with self._said:
            return len(self._lines)

    @property
    def story(self) -> str:
        """What it said last, for those who ask why it did not do what it was to."""
        with self._said:
            return "\n".join(["It said last:", *self._lines[-_SHOWN:]])

    def wait_for(self, pattern: str, *, after: int = 0, timeout_s: float = 300.0) -> str:
        """Return the first line, of those after so many, that has the pattern, as soon as it is said."""
        wanted = re.compile(pattern)

        def found() -> str | None:
            return next((line for line in self._lines[after:] if wanted.search(line)), None)

        with self._said:
            self._said.wait_for(lambda: found() is not None or self._ended, timeout_s)
            line = found()
        if line is None:
            raise DriverEndedError(f"It did not say {pattern!r}. {self.story}")
        return line

    def answer(self, timeout_s: float = 600.0) -> Any:  # noqa: ANN401 -- what JSON holds
        """Wait until it has ended by itself, and return what it answered."""
        code = self._process.wait(timeout_s)
        self._reader.join(_END_S)
        answers = [line for line in self._lines if line.startswith("{")]
        if code or not answers:
            raise DriverEndedError(f"It ended with {code}. {self.story}")
        return json.loads(answers[-1])

    def kill(self) -> None:
        """Kill it, its JVM and Spark's Python workers (which have a group of their own), as a failing machine does."""
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
            with self._said:
                self._lines.append(line.rstrip())
                self._said.notify_all()
        with self._said:
            self._ended = True
            self._said.notify_all()
