"""The package as its users get it: what is in it, and that it works without the checkout."""

import re
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from pathlib import Path

import pytest
from nbformat import v4

from spark_llm._version import __version__
from tests.conftest import ROOT
from tests.integration.package import users

SMOKE = Path(__file__).with_name("smoke.py")
MINIMA = Path(__file__).with_name("minima.txt")
SCRIPT = """
from pyspark.sql import DataFrame

from spark_llm import Endpoint, Policy, chat_udf
from spark_llm import functions as ai

def moods(df: DataFrame) -> DataFrame:
    chat = chat_udf(Endpoint("https://example.com/v1", model="m"), max_tokens=8, policy=Policy(max_in_flight=4))
    labelled = df.withColumn("label", ai.ai_classify("review", ["angry", "happy"], chat=chat))
    return labelled.withColumn("mood", chat("review"))
"""
WRONG = SCRIPT.replace("max_tokens=8", 'max_tokens="8"')


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the sdist."""
    return users.build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def laptop(packages: tuple[Path, Path]) -> Path:
    """The Python of an environment as README tells a laptop's user to make it, with two type checkers."""
    wheel, _ = packages
    return users.environment("laptop", wheel, "mypy", "pyright", python=Path(sys.executable), extras="demo")


def library() -> set[str]:
    """Return the files of the library in the checkout."""
    files = (path for path in Path(ROOT, "spark_llm").rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}


@pytest.mark.waits
def test_the_wheel_and_the_sdist_have_the_library_alone(packages: tuple[Path, Path]) -> None:
    """Every file of the library and its license: no tests, no notebooks, no benchmarks."""
    wheel, sdist = packages
    about = f"spark_llm_endpoints-{__version__}.dist-info"
    names = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    root = f"spark_llm_endpoints-{__version__}"
    beside = (".gitignore", "CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml")
    with zipfile.ZipFile(wheel) as opened:
        assert library() | {f"{about}/{name}" for name in names} == set(opened.namelist())
    with tarfile.open(sdist) as archive:
        assert {f"{root}/{name}" for name in (*library(), *beside)} == set(archive.getnames())


@pytest.mark.waits
def test_the_packages_pass_the_index_own_checks(packages: tuple[Path, Path]) -> None:
    """`twine check --strict` and `check-wheel-contents` find nothing."""
    folder = Path(sys.executable).parent
    for command in (["twine", "check", "--strict", *map(str, packages)], ["check-wheel-contents", str(packages[0])]):
        done = subprocess.run([str(folder / command[0]), *command[1:]], capture_output=True, text=True, check=False)
        assert 0 == done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_the_import_is_quick(laptop: Path, tmp_path: Path) -> None:
    """It takes at most 150 ms, the fastest of five, as no heavy library is loaded."""
    program = "import time; t = time.perf_counter(); import spark_llm; print(time.perf_counter() - t)"

    assert 0.15 >= min(float(users.run(laptop, "-c", program, home=tmp_path)) for _ in range(5))


@pytest.mark.slow
def test_the_demo_runs_from_the_wheel(laptop: Path, tmp_path: Path) -> None:
    """It ends with the answers and the second run that asks nothing."""
    shown = users.run(laptop, "-m", "spark_llm", "demo", home=tmp_path, timeout_s=600)

    assert "0 rows asked, 40 needed nothing" in shown
    assert re.search(r"\| *1\| *kettle\|(positive|negative)\|", shown)


@pytest.mark.slow
def test_the_endpoints_serve_from_the_wheel(laptop: Path, tmp_path: Path) -> None:
    """`spark-llm serve` prints an address, whose page loads."""
    command = [str(laptop.with_name("spark-llm")), "serve", "--models", "echo", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = next(filter(None, (re.search(r"http://127\.0\.0\.1:\d+/", line) for line in server.stdout)))
            with urllib.request.urlopen(address[0], timeout=10) as page:  # noqa: S310 -- the server above
                assert b"<title>" in page.read()
        finally:
            server.terminate()


@pytest.mark.slow
@pytest.mark.parametrize("checker", [["mypy", "--strict"], ["pyright"]], ids=lambda checker: checker[0])
def test_a_users_script_is_type_checked(checker: list[str], laptop: Path, tmp_path: Path) -> None:
    """The package's types are found: a right script passes, and a wrong argument is named."""
    for name, script in (("right.py", SCRIPT), ("wrong.py", WRONG)):
        Path(tmp_path, name).write_text(script, encoding="utf-8")
    users.run(laptop, "-m", *checker, "right.py", home=tmp_path)

    with pytest.raises(AssertionError, match="max_tokens"):
        users.run(laptop, "-m", *checker, "wrong.py", home=tmp_path)


@pytest.mark.slow
def test_a_notebook_installs_the_library_itself(packages: tuple[Path, Path], tmp_path: Path) -> None:
    """Its cells run as a script in an empty environment, as on Colab; the first one installs the named wheel."""
    python = users.empty_environment("notebook", Path(sys.executable))
    cells = v4.reads(Path(ROOT, "notebooks", "01_quickstart.ipynb").read_text("utf-8")).cells
    script = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    Path(tmp_path, "notebook.py").write_text(script, encoding="utf-8")
    own = {"SPARK_LLM_PACKAGE": str(packages[0]), "MPLBACKEND": "agg"}

    assert "positive" in users.run(python, "notebook.py", home=tmp_path, timeout_s=900, **own)


@pytest.mark.slow
@pytest.mark.parametrize("version", users.PYTHONS)
def test_a_first_job_runs_on_each_python(version: str, packages: tuple[Path, Path], tmp_path: Path) -> None:
    """With the wheel alone, on classic Spark."""
    if (python := users.interpreter(version)) is None:
        pytest.skip(f"this machine has no Python {version}")
    made = users.environment(f"python-{version}", packages[0], python=python, extras="spark")

    assert "hello" in users.run(made, str(_copied(tmp_path)), home=tmp_path)


@pytest.mark.slow
def test_a_first_job_runs_with_the_lowest_versions(packages: tuple[Path, Path], tmp_path: Path) -> None:
    """Each dependency in the lowest version that it may have, as pyproject.toml says, on the lowest Python."""
    if (python := users.interpreter(users.PYTHONS[0])) is None:
        pytest.skip(f"this machine has no Python {users.PYTHONS[0]}")
    pins = [line for line in MINIMA.read_text("utf-8").splitlines() if not line.startswith("#")]
    made = users.environment("minima", packages[0], python=python, extras="spark", pins=pins)

    assert "hello" in users.run(made, str(_copied(tmp_path)), home=tmp_path)


def test_the_lowest_versions_are_those_of_the_package() -> None:
    """minima.txt has the lower bound of each dependency."""
    declared = Path(ROOT, "pyproject.toml").read_text("utf-8")
    block = declared[declared.index("\ndependencies = [") : declared.index("[project.scripts]")]
    bounds = dict(re.findall(r'"([a-z-]+)>=([\d.]+)', block))
    pins = dict(re.findall(r"^([a-z-]+)==([\d.]+)", MINIMA.read_text("utf-8"), re.MULTILINE))

    assert {"aiohttp", "msgspec", "pandas", "pyarrow", "pyspark", "tomli", "tqdm"} <= pins.keys()
    assert {} == {name: pin for name, pin in pins.items() if name in bounds and not _same(bounds[name], pin)}


def _same(bound: str, pin: str) -> bool:
    return [int(part) for part in bound.split(".")] == [int(part) for part in pin.split(".")][: bound.count(".") + 1]


def _copied(folder: Path) -> Path:
    """Return the first job as a file outside the checkout, so that the wheel is imported."""
    copy = folder / "job.py"
    copy.write_text(SMOKE.read_text("utf-8"), encoding="utf-8")
    return copy
