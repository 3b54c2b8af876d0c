"""Fixtures of the tests of groups."""

import shutil
import tempfile
from collections.abc import Iterator

import pytest

from spark_llm.coordination.place import FOLDER_VARIABLE


@pytest.fixture
def limits_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return an empty folder for the groups of a test; pytest's own has a path too long for a socket."""
    folder = tempfile.mkdtemp(prefix="l-", dir="/tmp")
    monkeypatch.setenv(FOLDER_VARIABLE, folder)
    yield folder
    shutil.rmtree(folder)
