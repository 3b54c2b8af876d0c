"""Virtual environments for third-party programs, in the checkout's `build` folder.

One is created at its first use, and again when the versions below change. That of MLflow and its clients takes a minute
and a gigabyte. MLflow pins many packages that this library does not pin, so the two do not share an environment.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import ROOT

FOLDER = Path(ROOT, "build", "peers")
PINS = (
    "mlflow[gateway]==3.17.2",
    "scikit-learn==1.9.1",  # for a model behind MLflow's scoring server
    "databricks-sdk==0.156.0",
    "openai==2.54.0",  # installs httpx, which the SDK's OpenAI client needs and openai 3 does not have
    "msgspec==0.22.0",  # this library needs it
)
COHERE_PINS = ("cohere==7.3.1",)
FUZZER_PINS = ("schemathesis==4.32.5",)
_INSTALL_S = 1_200


def peers_python() -> Path:
    """Return the Python of MLflow's environment; the first call creates it."""
    return _python(FOLDER, PINS)


def fuzzer() -> Path:
    """Return the program of schemathesis; the first call creates its environment."""
    return _python(FOLDER.with_name("fuzzer"), FUZZER_PINS).with_name("schemathesis")


def cohere_python() -> Path:
    """Return the Python of Cohere's client; the first call creates its environment."""
    return _python(FOLDER.with_name("cohere"), COHERE_PINS)


def _python(folder: Path, wanted: Sequence[str]) -> Path:
    python, ready = folder / "bin" / "python", folder / "ready"
    pins = "\n".join(wanted)
    if not ready.is_file() or ready.read_text(encoding="utf-8") != pins:
        ready.unlink(missing_ok=True)
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted],
        ):
            subprocess.run(command, timeout=_INSTALL_S, check=True)
        ready.write_text(pins, encoding="utf-8")
    return python


def peer_environment(home: Path, **extra: str) -> dict[str, str]:
    """Return the environment variables of another server: its own home, and none of this machine's."""
    path = os.pathsep.join([str(FOLDER / "bin"), os.environ.get("PATH", os.defpath)])
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "PYTHONWARNINGS": "ignore"}
    return {"PATH": path, "HOME": str(home), "NO_PROXY": "127.0.0.1", **quiet, **extra}
