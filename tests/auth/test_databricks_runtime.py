"""Databricks' own runtime: who runs the notebook is known there without a token being set."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spark_llm import Endpoint
from spark_llm.auth.credentials import Bearer
from spark_llm.auth.databricks_runtime import Runtime

ON_DATABRICKS = {"DATABRICKS_RUNTIME_VERSION": "17.3"}
CONTEXT = """
from types import SimpleNamespace

def get_context():
    return {}
"""


@pytest.fixture
def runtime(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """The runtime, whose own package answers what the test says."""
    package = tmp_path / "dbruntime"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "databricks_repl_context.py").write_text(CONTEXT.format(request.param), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Runtime()
    for name in [name for name in sys.modules if name.startswith("dbruntime")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "runtime",
    ["SimpleNamespace(workspaceUrl='adb-1.2.azuredatabricks.net', apiToken='of-the-notebook')"],
    indirect=True,
)
def test_a_name_is_looked_up_where_the_notebook_runs(runtime: Runtime) -> None:
    """Its workspace and its token are the notebook's; the workers ask with their task's, or else with this one."""
    route = Endpoint("my-endpoint").resolve("/embeddings", ON_DATABRICKS, (runtime,))

    assert "https://adb-1.2.azuredatabricks.net/serving-endpoints/my-endpoint/invocations" == route.url
    assert isinstance(route.credential, Bearer)
    assert callable(route.credential.source)
    assert ("of-the-notebook", "the notebook's own token") == (route.credential.source(), route.credential.origin)
    assert "of-the-notebook" not in repr(route)


@pytest.mark.parametrize(
    "runtime",
    ["None", "SimpleNamespace(workspaceUrl=None, apiToken='t')", "SimpleNamespace(workspaceUrl='h', apiToken=None)"],
    indirect=True,
)
def test_a_notebook_without_a_token_is_passed_over(runtime: Runtime) -> None:
    """What the runtime does not know it does not make up."""
    assert None is runtime.workspace(ON_DATABRICKS)


def test_elsewhere_there_is_no_runtime() -> None:
    """Nobody imports what is not there."""
    assert [False, True, None] == [
        Runtime().is_available({}),
        Runtime().is_available(ON_DATABRICKS),
        Runtime().workspace({}),
    ]
