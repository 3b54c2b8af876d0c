"""The public names, and the packages that they are imported from."""

import subprocess
import sys
from collections.abc import Callable

import pytest

import spark_llm
from spark_llm.auth import ClientCredentials
from spark_llm.errors import ArgumentError
from tests.conftest import ROOT

TWICE = """
import importlib, pkgutil, types
import spark_llm

first = {name: getattr(spark_llm, name) for name in spark_llm.__all__}
for module in pkgutil.walk_packages(spark_llm.__path__, "spark_llm."):
    if not module.name.endswith((".__main__", ".pytest_plugin")):
        importlib.import_module(module.name)
for name, before in first.items():
    assert getattr(spark_llm, name) is before, name
    assert isinstance(before, types.ModuleType) == (name in ("functions", "schemas", "serving")), name
"""


@pytest.mark.waits
def test_no_submodule_shadows_a_public_name() -> None:
    """A public function stays one after all modules are loaded."""
    done = subprocess.run([sys.executable, "-c", TWICE], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize(
    "statement",
    [
        "from spark_llm.auth import ClientCredentials",
        "from spark_llm.cli import main",
        "from spark_llm.endpoint import Endpoint",
        "from spark_llm.enrich import enrich_stream, enrich_table",
        "from spark_llm.functions import ai_classify",
        "from spark_llm.serving import LocalEndpoints",
    ],
)
def test_packages_export_their_public_names(statement: str) -> None:
    """Each import works, whatever file has the name."""
    names: dict[str, object] = {}
    exec(statement, names)  # noqa: S102 -- one of those above

    assert all(callable(value) for name, value in names.items() if name != "__builtins__")


def public_callables() -> dict[str, Callable[..., object]]:
    """Return what users call, by name: all public functions, and the classes that they make objects of."""
    public = {name: getattr(spark_llm, name) for name in dir(spark_llm) if not name.endswith(("Error", "Report"))}
    functions = {name: each for name, each in vars(spark_llm.functions).items() if name.startswith(("ai_", "llm_"))}
    named = {name: getattr(spark_llm.Endpoint, name) for name in ("from_openai", "from_workspace", "from_mlflow")}
    named = {f"Endpoint.{name}": each for name, each in named.items()} | {"ClientCredentials": ClientCredentials}
    return {name: each for name, each in {**public, **functions, **named}.items() if callable(each)}


def test_an_unknown_argument_is_named_with_a_hint() -> None:
    """Every public callable says so, and the error is both of ours and a `TypeError`."""
    found = public_callables()
    for name, call in found.items():
        with pytest.raises(ArgumentError, match=rf"^{name} has no argument 'unknown'. Hint: the arguments are "):
            call(unknown=1)

    assert {"Policy", "Budget", "Endpoint", "Price", "chat_udf", "enrich_table", "usage_report"} <= found.keys()


def test_an_unknown_name_is_an_attribute_error() -> None:
    """Modules raise this for every unknown attribute."""
    with pytest.raises(AttributeError, match="no attribute 'enrich_tables'"):
        getattr(spark_llm, "enrich_tables")  # noqa: B009 -- mypy knows that it is not there
