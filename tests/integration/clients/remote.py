"""A process in MLflow's environment that runs commands of the tests: one JSON line in, one out."""

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


def run(workspace: Workspace, command: Mapping[str, str]) -> object:
    """Return the result of one column of one client, or texts from an endpoint made of MLflow's client."""
    if name := command.get("from_mlflow"):
        endpoint = Endpoint.from_mlflow(MLflowClient(workspace).client, name)
        engine = Engine(endpoint.resolve(CHAT.route, os.environ), Policy())
        try:
            return texts(ask(engine, [["red", None]]))
        finally:
            engine.close()
    return CLIENTS[command["client"]](workspace).run(command["column"])


def reply(workspace: Workspace, command: Mapping[str, str]) -> dict[str, object]:
    """Return the result of a command, or its error."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the replies
            return {"result": run(workspace, command)}
    except Exception as error:  # noqa: BLE001 -- the test gets every error
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    workspace = Workspace(**json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(reply(workspace, json.loads(line))) + "\n")
        sys.stdout.flush()
