"""Programs that tests start: ready when they say so, and ended in any case."""

import os
import sys
from pathlib import Path

import pytest

from tests.integration.clients.program import Program, ProgramFailedError


def program(script: str, folder: Path) -> Program:
    """Start a Python script that is ready at a URL and at a word."""
    command = [sys.executable, "-uc", script]
    return Program(command, ready=(r"at (\S+)", "ready"), folder=folder, environment={}, timeout_s=30)


def test_a_program_is_ready_when_it_has_said_all(tmp_path: Path) -> None:
    """What it says is found in any order, and it ends with its test."""
    with program("print('ready'); print('at http://x')", tmp_path) as started:
        assert "http://x" == started.said[0][1]


def test_a_program_that_would_go_on_is_ended(tmp_path: Path) -> None:
    """It is ended with its whole process group."""
    script = "import os, signal; print('ready at', os.getpid()); signal.pause()"
    with program(script, tmp_path) as started:
        number = int(started.said[0][1])

    with pytest.raises(ProcessLookupError):
        os.killpg(number, 0)


def test_a_program_that_is_never_ready_tells_why(tmp_path: Path) -> None:
    """A program that ends too early is an error with its last words."""
    with pytest.raises(ProgramFailedError, match=r"is not ready. It said:\nat http://x\nno room"):
        program("print('at http://x'); raise SystemExit('no room')", tmp_path)
