"""MLflow's scoring server with a linear model of ten numbers, in a process and an environment of its own.

The environment is created at its first use, in the checkout's `build` folder; it takes about a minute.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import requests

from benchmarks.support.session import ROOT

FOLDER = Path(ROOT) / "build" / "scoring"
COLUMNS = tuple(f"x{number}" for number in range(10))
_PACKAGES = (f"mlflow-skinny=={version('mlflow-skinny')}", "scikit-learn", "fastapi", "uvicorn", "uvloop", "httptools")
_INSTALL_S = 600
_START_S = 60
_SAVE = """
import sys
import mlflow
import numpy
import pandas
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression

names = sys.argv[2:]
rows = pandas.DataFrame(numpy.random.default_rng(0).normal(size=(1_000, len(names))), columns=names)
model = LinearRegression().fit(rows, rows.to_numpy() @ numpy.arange(len(names)))
signature = infer_signature(rows, model.predict(rows))
mlflow.sklearn.save_model(model, sys.argv[1], signature=signature, serialization_format="cloudpickle")
"""


@contextlib.contextmanager
def scoring_server() -> Iterator[str]:
    """Start the server, and stop it at the end; yield the URL of its predictions."""
    python, model = _environment(), FOLDER / "model"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = ("--host", "127.0.0.1", "--port", str(port), "--log-level", "warning")
    process = subprocess.Popen(
        [str(python), "-m", "uvicorn", *address, "mlflow.pyfunc.scoring_server.app:app"],
        env={**os.environ, "__pyfunc_model_path__": str(model), "MLFLOW_DISABLE_TELEMETRY": "true"},
    )
    with process:
        try:
            _wait_for(f"http://127.0.0.1:{port}/ping", process)
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            process.terminate()


def _environment() -> Path:
    """Return the Python of the environment, which has the model; the first call creates it."""
    python, ready = FOLDER / "bin" / "python", FOLDER / "ready"
    if not ready.exists():
        _run([sys.executable, "-m", "venv", "--clear", str(FOLDER)])
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*install, *_PACKAGES, "pandas<3"])
        _run([str(python), "-c", _SAVE, str(FOLDER / "model"), *COLUMNS])
        ready.touch()
    return python


def _run(command: list[str]) -> None:
    environ = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    subprocess.run(command, env=environ, capture_output=True, timeout=_INSTALL_S, check=True)


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Return as soon as a URL answers; raises `RuntimeError` where it does not."""
    end_s = time.monotonic() + _START_S
    while time.monotonic() < end_s and process.poll() is None:
        with contextlib.suppress(requests.ConnectionError):
            requests.get(url, timeout=_START_S).raise_for_status()
            return
        time.sleep(0.1)
    raise RuntimeError("MLflow's scoring server does not start. Hint: remove the folder build/scoring, and try again.")
