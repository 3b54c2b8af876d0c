"""Where clients are asked: in this process, or in MLflow's environment for those that only it has."""

import json
import subprocess
from pathlib import Path

from tests.conftest import ROOT
from tests.integration.clients.client import Workspace
from tests.integration.clients.clients import CLIENTS
from tests.integration.clients.environment import peers_python, surroundings

_END_S = 10.0


class Desk:
    """Asks clients; the process in MLflow's environment starts with the first question to it."""

    def __init__(self, workspace: Workspace, home: Path) -> None:
        """Ask nothing yet; what runs elsewhere has its home in this folder."""
        self._workspace = workspace
        self._home = home
        self._elsewhere: subprocess.Popen[str] | None = None

    def ask(self, client: str, column: str) -> object:
        """Do one column of one client."""
        if not CLIENTS[client].with_mlflow:
            return CLIENTS[client](self._workspace).do(column)
        return self.elsewhere(client=client, column=column)

    def elsewhere(self, **asked: str) -> object:
        """Have `tests.integration.clients.remote` do something, and return its answer."""
        self._elsewhere = self._elsewhere or self._open()
        self._say(self._elsewhere, asked)
        line = self._elsewhere.stdout.readline() if self._elsewhere.stdout else ""
        said = json.loads(line or '{"error": "The process has ended."}')
        assert "answer" in said, said["error"]
        return said["answer"]

    def close(self) -> None:
        """End the process by ending what it reads."""
        if self._elsewhere is not None:
            self._elsewhere.communicate(timeout=_END_S)

    def _open(self) -> "subprocess.Popen[str]":
        signed_in = {"DATABRICKS_HOST": self._workspace.url, "DATABRICKS_TOKEN": self._workspace.token}
        opened = subprocess.Popen(
            [str(peers_python()), "-m", "tests.integration.clients.remote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=surroundings(self._home, PYTHONPATH=ROOT, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", **signed_in),
        )
        self._say(opened, self._workspace._asdict())
        return opened

    @staticmethod
    def _say(process: "subprocess.Popen[str]", value: object) -> None:
        if process.stdin is not None:
            process.stdin.write(json.dumps(value) + "\n")
            process.stdin.flush()
