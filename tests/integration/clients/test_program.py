"""Third-party programs: they are ready after their output matched, and are ended in any case."""

import os
import sys
from pathlib import Path

import pytest

from tests.integration.clients.program import Program, ProgramFailedError


def program(script: str, folder: Path) -> Program:
    """Start a Python script that is ready after printing a URL and a word."""
    command = [sys.executable, "-uc", script]
    return Program(command, ready=(r"at (\S+)", "ready"), folder=folder, environment={}, timeout_s=30)


def test_a_program_is_ready_when_all_patterns_matched(tmp_path: Path) -> None:
    """The patterns may match in any order."""
    with program("print('ready'); print('at http://x')", tmp_path) as started:
        assert "http://x" == started.matches[0][1]


def test_a_running_program_is_ended(tmp_path: Path) -> None:
    """A program is ended with its whole process group."""
    script = "import os, signal; print('ready at', os.getpid()); signal.pause()"
    with program(script, tmp_path) as started:
        process_group = int(started.matches[0][1])

    with pytest.raises(ProcessLookupError):
        os.killpg(process_group, 0)


def test_a_program_that_is_never_ready_raises(tmp_path: Path) -> None:
    """A program that ends too early raises an error with its last output."""
    with pytest.raises(ProgramFailedError, match=r"is not ready. Its output:\nat http://x\nno room"):
        program("print('at http://x'); raise SystemExit('no room')", tmp_path)
