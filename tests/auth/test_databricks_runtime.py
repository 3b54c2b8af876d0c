"""The Databricks runtime: a notebook's workspace and token are known without variables."""

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
    """The provider, with a runtime package whose context is the test's parameter."""
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
def test_a_name_belongs_to_the_notebooks_workspace(runtime: Runtime) -> None:
    """Workspace and token are the notebook's; a worker uses its task's token, or else this one."""
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
def test_a_notebook_without_a_token_has_no_workspace(runtime: Runtime) -> None:
    """Without a URL or a token in the context, the provider returns None."""
    assert None is runtime.workspace(ON_DATABRICKS)


def test_outside_databricks_the_provider_is_not_available() -> None:
    """Without the runtime's package, no workspace is returned and nothing is raised."""
    assert [False, True, None] == [
        Runtime().is_available({}),
        Runtime().is_available(ON_DATABRICKS),
        Runtime().workspace({}),
    ]
