"""Runs in MLflow's environment, and does there what the tests ask for: one JSON line in, one out."""

import contextlib
import json
import os
import sys
from collections.abc import Mapping

from spark_llm import Endpoint, Policy
from spark_llm.engine.engine import Engine
from tests.integration.clients.client import Workspace
from tests.integration.clients.clients import CLIENTS, MLflowClient
from tests.support.asking import CHAT, ask, texts


def do(workspace: Workspace, asked: Mapping[str, str]) -> object:
    """Do one column of one client; or take MLflow's client over, and ask an endpoint as it asks."""
    if name := asked.get("taken_over"):
        endpoint = Endpoint.from_mlflow(MLflowClient(workspace).client, name)
        engine = Engine(endpoint.resolve(CHAT.route, os.environ), Policy())
        try:
            return texts(ask(engine, [["red", None]]))
        finally:
            engine.close()
    return CLIENTS[asked["client"]](workspace).do(asked["column"])


def answer(workspace: Workspace, asked: Mapping[str, str]) -> dict[str, object]:
    """Return what came of it; what went wrong is told by its name."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the answers
            return {"answer": do(workspace, asked)}
    except Exception as error:  # noqa: BLE001 -- whatever it is, the test that asked has to hear it
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    where = Workspace(**json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(where, json.loads(line))) + "\n")
        sys.stdout.flush()
