"""The environment that MLflow and its clients have for themselves, in the checkout's `build` folder.

It is made when a test first wants it, which takes a minute and a gigabyte, and anew when the versions below change.
MLflow pins much that this library does not, so the two do not share one.
"""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

FOLDER = Path(ROOT, "build", "peers")
PINS = (
    "mlflow[gateway]==3.17.2",
    "databricks-sdk==0.156.0",
    "openai==2.54.0",  # brings httpx, which the SDK's OpenAI client wants and openai 3 does not have
    "msgspec==0.22.0",  # this library needs it
)
_INSTALL_S = 1_200


def peers_python() -> Path:
    """Return the environment's Python, made at the first call."""
    python, ready = FOLDER / "bin" / "python", FOLDER / "ready"
    pins = "\n".join(PINS)
    if not ready.is_file() or ready.read_text(encoding="utf-8") != pins:
        ready.unlink(missing_ok=True)
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(FOLDER)],
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PINS],
        ):
            subprocess.run(command, timeout=_INSTALL_S, check=True)
        ready.write_text(pins, encoding="utf-8")
    return python


def surroundings(home: Path, **own: str) -> dict[str, str]:
    """Return the environment variables of a peer's program: a home of its own, and nothing of the machine's."""
    path = os.pathsep.join([str(FOLDER / "bin"), os.environ.get("PATH", os.defpath)])
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "PYTHONWARNINGS": "ignore"}
    return {"PATH": path, "HOME": str(home), "NO_PROXY": "127.0.0.1", **quiet, **own}
