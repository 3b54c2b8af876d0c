"""MLflow's own scoring server with real models, as `mlflow models serve` runs it, in MLflow's environment."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import ROOT
from tests.integration.clients.environment import peer_environment, peers_python
from tests.integration.clients.mlflow_models import FUNCTION
from tests.integration.clients.program import Program
from tests.integration.clients.servers import RunningServer

SAVE_S = 300


def saved_models(folder: Path) -> Path:
    """Save the models in a folder, and return it."""
    command = [str(peers_python()), "-m", "tests.integration.clients.mlflow_models", str(folder)]
    subprocess.run(command, env=peer_environment(folder, PYTHONPATH=ROOT), cwd=ROOT, timeout=SAVE_S, check=True)
    return folder


@contextmanager
def scoring(models: Path, name: str = FUNCTION) -> Iterator[RunningServer]:
    """Start the server of one of the models."""
    command = [str(peers_python().with_name("uvicorn")), "--host", "127.0.0.1", "--port", "0", "--workers", "1"]
    environment = peer_environment(models, __pyfunc_model_path__=str(models / name))
    ready = (r"Uvicorn running on (http://127\.0\.0\.1:\d+)",)
    with Program(
        [*command, "mlflow.pyfunc.scoring_server.app:app"], ready=ready, folder=models, environment=environment
    ) as program:
        yield RunningServer(program.matches[0][1])
