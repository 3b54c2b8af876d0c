"""Environments in which the built wheel is installed, as a user does it: nothing of the checkout is on their path."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import ROOT

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
BUILD = Path(ROOT, "build", "package")
_INSTALL_S = 1_200


def build(folder: Path) -> tuple[Path, Path]:
    """Build the sdist, and the wheel of it, into a folder; return both, the wheel first."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), ROOT]
    subprocess.run(command, check=True, capture_output=True)
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def interpreter(version: str) -> Path | None:
    """Return a Python of this version: on the path, or of pyenv; None where the machine has none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found = [shutil.which(f"python{version}"), *map(str, pyenv.glob(f"{version}.*/bin/python{version}"))]
    for python in filter(None, found):
        done = subprocess.run([python, "--version"], capture_output=True, text=True, check=False)
        if done.stdout.startswith(f"Python {version}."):
            return Path(python)
    return None


def empty_environment(name: str, python: Path) -> Path:
    """Return the Python of a new environment that has only pip."""
    subprocess.run([str(python), "-m", "venv", "--clear", str(BUILD / name)], timeout=_INSTALL_S, check=True)
    return BUILD / name / "bin" / "python"


def environment(name: str, wheel: Path, *packages: str, python: Path, extras: str, pins: Sequence[str] = ()) -> Path:
    """Return the Python of a new environment with the wheel and these packages, each as `pins` say."""
    made = empty_environment(name, python)
    constraints = BUILD / name / "pins.txt"
    constraints.write_text("\n".join(pins), encoding="utf-8")
    pip = [str(made), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(constraints)]
    subprocess.run([*pip, f"{wheel}[{extras}]", *packages], timeout=_INSTALL_S, check=True)
    return made


def run(python: Path, *arguments: str, home: Path, timeout_s: float = 300, **own: str) -> str:
    """Run a program of an environment in an empty folder and home; return what it printed."""
    variables = {
        "HOME": str(home),
        "PATH": os.pathsep.join([str(python.parent), os.defpath]),
        "PYSPARK_PYTHON": str(python),
        "SPARK_LOCAL_IP": "127.0.0.1",
        **own,
    }
    for name in ("JAVA_HOME", "JAVA_TOOL_OPTIONS", "XDG_CACHE_HOME"):
        if value := os.environ.get(name):
            variables[name] = value
    command = [str(python), *arguments]
    done = subprocess.run(
        command, cwd=home, env=variables, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert 0 == done.returncode, f"{done.stdout[-2_000:]}\n{done.stderr[-4_000:]}"
    return done.stdout
