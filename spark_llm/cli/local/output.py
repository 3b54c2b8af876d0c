"""What the programs that this one starts print: held back while they start, and let through to stderr afterwards.

Spark's launcher prints a page about every package that it looks up. Nobody needs it where that went well, and where it
did not, the page says why.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_STDOUT, _STDERR = 1, 2
_ALARMS = (" ERROR ", " FATAL ")  # as log4j marks a line


class HeldBack:
    """Reads what is written into a pipe, line by line; keeps the lines until they are let through."""

    def __init__(self, source: int, onwards: int, instead: Callable[[str], str]) -> None:
        """Read from the descriptor `source` until its other end is closed, and write to `onwards`.

        `instead` says, from another thread, what is written at once in place of a line that is held back.
        """
        self._source, self._onwards, self._instead = source, onwards, instead
        self._lines: list[str] | None = []
        self._turn = threading.Lock()
        self._reading = threading.Thread(target=self._read, name="spark_llm stderr", daemon=True)
        self._reading.start()

    def let_through(self) -> None:
        """Forget what was held back, but for errors, and hold back nothing more."""
        with self._turn:
            lines, self._lines = self._lines or [], None
            for line in lines:
                if any(alarm in line for alarm in _ALARMS):
                    self._write(line.encode())

    def all_said(self, timeout_s: float = 5.0) -> str:
        """Return what was held back, after all who could write have ended."""
        self._reading.join(timeout_s)
        with self._turn:
            return "".join(self._lines or [])

    def _read(self) -> None:
        with os.fdopen(self._source, "rb") as source:
            for line in source:
                with self._turn:
                    if self._lines is None:
                        self._write(line)
                    else:
                        self._lines.append(line.decode(errors="replace"))
                        self._write(self._instead(self._lines[-1]).encode())
        os.close(self._onwards)

    def _write(self, line: bytes) -> None:
        while line:
            line = line[os.write(self._onwards, line) :]


@contextmanager
def held_back(instead: Callable[[str], str]) -> Iterator[HeldBack]:
    """Hold back what programs print that are started in this block; `instead` says what is shown in place of a line.

    What other threads of this process print in the meantime is held back as well.
    """
    sys.stdout.flush()
    source, sink = os.pipe()
    before = [(each, os.dup(each)) for each in (_STDOUT, _STDERR)]
    held = HeldBack(source, os.dup(_STDERR), instead)
    for each, _ in before:
        os.dup2(sink, each)
    os.close(sink)
    try:
        yield held
    finally:
        for each, kept in before:
            os.dup2(kept, each)
            os.close(kept)
