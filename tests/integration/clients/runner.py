"""The runner of the clients: in this process, or in a process in MLflow's environment."""

import json
import subprocess
from pathlib import Path

from tests.conftest import ROOT
from tests.integration.clients.client import Workspace
from tests.integration.clients.clients import CLIENTS
from tests.integration.clients.environment import peer_environment, peers_python

_END_S = 10.0


class ClientRunner:
    """Runs clients; the process in MLflow's environment starts at its first use."""

    def __init__(self, workspace: Workspace, home: Path) -> None:
        """Start nothing yet; the process in MLflow's environment has this home folder."""
        self._workspace = workspace
        self._home = home
        self._process: subprocess.Popen[str] | None = None

    def run(self, client: str, column: str) -> object:
        """Return the result of one column of one client."""
        if not CLIENTS[client].with_mlflow:
            return CLIENTS[client](self._workspace).run(column)
        return self.run_in_mlflow_environment(client=client, column=column)

    def run_in_mlflow_environment(self, **command: str) -> object:
        """Return the result of a command of `tests.integration.clients.remote`."""
        self._process = self._process or self._start()
        self._send(self._process, command)
        line = self._process.stdout.readline() if self._process.stdout else ""
        reply = json.loads(line or '{"error": "The process has ended."}')
        assert "result" in reply, reply["error"]
        return reply["result"]

    def close(self) -> None:
        """Close the process's standard input, which ends it."""
        if self._process is not None:
            self._process.communicate(timeout=_END_S)

    def _start(self) -> "subprocess.Popen[str]":
        credentials = {"DATABRICKS_HOST": self._workspace.url, "DATABRICKS_TOKEN": self._workspace.token}
        process = subprocess.Popen(
            [str(peers_python()), "-m", "tests.integration.clients.remote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=peer_environment(self._home, PYTHONPATH=ROOT, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", **credentials),
        )
        self._send(process, self._workspace._asdict())
        return process

    @staticmethod
    def _send(process: "subprocess.Popen[str]", value: object) -> None:
        if process.stdin is not None:
            process.stdin.write(json.dumps(value) + "\n")
            process.stdin.flush()
