"""Fixtures of the tests that kill drivers: drivers that end with the test."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from spark_llm.serving import LocalEndpoints
from tests.conftest import ROOT
from tests.integration.kills.driver import Driver

CHUNK_ROWS = 500


@pytest.fixture
def options(endpoints: LocalEndpoints, tmp_path: Path) -> dict[str, Any]:
    """Return the options of the drivers; those that are started later have the changes of a test."""
    return {
        "folder": str(tmp_path),
        "text": "concat('row ', id)",
        "chunk_rows": CHUNK_ROWS,
        "url": endpoints.invocations("chat"),
        "token": endpoints.token,
    }


@pytest.fixture
def start_driver(options: dict[str, Any], tmp_path: Path) -> Iterator[Callable[[int], Driver]]:
    """Return a function that starts a driver, which fills `tmp_path / "target"` from a source of so many rows."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])}
    with ExitStack() as stack:

        def start(rows: int) -> Driver:
            command = [sys.executable, "-m", "tests.integration.kills.job", json.dumps({**options, "rows": rows})]
            return stack.enter_context(Driver(command, tmp_path, environment))

        yield start
