"""Servers for the library's requests, with every URL of each; docs/clients.md has a row for each.

MLflow's gateways (`tests.integration.clients.gateways`) stand in front of local endpoints, so their answers are exact.
MLflow's scoring server (`tests.integration.clients.scoring_servers`) has models of its own. The server of llama.cpp
runs in this process, with the small model of the local endpoints.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import requests

from spark_llm import Endpoint, Policy
from spark_llm.auth.credentials import ClientCredentials
from spark_llm.engine.engine import Engine
from spark_llm.protocol.task import Task
from spark_llm.serving import LocalEndpoints
from spark_llm.serving.models.weights import find_weights
from tests.integration.clients.client import NAMES, ROUTES
from tests.support.asking import started

CONTEXT = 2048  # tokens over both of llama.cpp's slots
TIMEOUT_S = 30

ALL = ("chat", "completions", "embeddings")
MORE = ("images", "tools")  # what else a chat takes
CHATS = (*MORE, "responses")  # chats in another form
WHOLE, AT_CHAT = (*ALL, *CHATS), (*ALL, *MORE)
PREDICTIONS = "predictions"  # of custom models
COLUMNS = (*WHOLE, PREDICTIONS)  # of the page's table
OWN_URL = (*AT_CHAT, PREDICTIONS)
CHAT_AND_EMBEDDINGS = ("chat", "embeddings")
LOCAL, YAML, SERVER, SCORING, LLAMA = (
    "`LocalEndpoints`",
    "`mlflow gateway start`",
    "`mlflow server`",
    "`mlflow models serve`",
    "llama.cpp",
)
# The tasks of each server's URLs. {name} alone is an endpoint's name at DATABRICKS_HOST; a URL with {name} or {route}
# is used unchanged; any other is a base URL.
SERVERS: dict[str, dict[str, tuple[str, ...]]] = {
    LOCAL: {
        "{name}": OWN_URL,
        "/serving-endpoints/{name}/invocations": OWN_URL,
        "/serving-endpoints/{name}/served-models/{name}-1/invocations": OWN_URL,
        "/{workspace}/serving-endpoints/{name}/invocations": OWN_URL,
        "/serving-endpoints": WHOLE,
        "/serving-endpoints/{route}": WHOLE,
        "/v1": WHOLE,
        "/v1/{route}": WHOLE,
        "/ai-gateway/mlflow/v1": WHOLE,
        "/openai/v1": WHOLE,
        "/openai/deployments/{name}/{route}?api-version=2024-10-21": AT_CHAT,
        "/openai/{route}?api-version=2025-04-01-preview": ("responses",),
    },
    YAML: {
        "/gateway/{name}/invocations": AT_CHAT,
        "/endpoints/{name}/invocations": AT_CHAT,
        "/v1": AT_CHAT,
    },
    SERVER: {
        "/gateway/{name}/mlflow/invocations": (*CHAT_AND_EMBEDDINGS, *MORE),
        "/gateway/databricks-{name}/mlflow/invocations": (*CHAT_AND_EMBEDDINGS, *MORE),
        "/gateway/mlflow/v1": ("chat", *MORE),
        "/gateway/openai/v1": (*CHAT_AND_EMBEDDINGS, *CHATS),
        "/gateway/proxy/{name}/v1/{route}": WHOLE,
    },
    SCORING: {"/invocations": (PREDICTIONS,)},
    LLAMA: {
        "/v1": (*ALL, "responses"),
        "/v1/{route}": (*ALL, "responses"),
    },
}


class RunningServer(NamedTuple):
    """A running server with its credentials; a workspace also has an id and an OAuth client."""

    url: str
    token: str | None = None
    client: ClientCredentials | None = None
    workspace: str = ""

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables of a driver in this workspace; empty for other servers."""
        return {"DATABRICKS_HOST": self.url, "DATABRICKS_TOKEN": str(self.token)} if self.workspace else {}

    def endpoint(self, url_template: str, task: str, name: str | None = None) -> Endpoint:
        """Return the endpoint at a URL, for one task; a URL with {route} has the route of a chat itself."""
        name = name or NAMES["chat" if task in MORE else task]
        api: Literal["responses"] | None = (
            "responses" if task == "responses" and "{route}" not in url_template else None
        )
        if url_template == "{name}":
            return Endpoint(name, api=api)
        route = ROUTES["chat"] if task in MORE else ROUTES.get(task, task)
        filled = url_template.format(name=name, route=route, workspace=self.workspace)
        model = None if url_template.endswith("/invocations") else name
        token = self.client if "{workspace}" in url_template else self.token
        return Endpoint(self.url + filled, model=model, token=token, api=api)

    def engine(
        self, url_template: str, task: str, protocol_task: Task, policy: Policy = Policy(), name: str | None = None
    ) -> Engine:
        """Return an engine for a URL; it closes with its test."""
        route = self.endpoint(url_template, task, name).resolve(protocol_task.route, self.environ)
        started.append(Engine(route, policy))
        return started[-1]


def local(endpoints: LocalEndpoints) -> RunningServer:
    """Return local endpoints as a running server."""
    config = requests.get(f"{endpoints.url}/.well-known/databricks-config", timeout=TIMEOUT_S).json()
    client = ClientCredentials(endpoints.client_id, endpoints.client_secret)
    return RunningServer(endpoints.url, endpoints.token, client, config["workspace_id"])


@contextmanager
def llama() -> Iterator[RunningServer]:
    """Start llama.cpp's server with two slots, one thread, embeddings and an API key."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(find_weights().chat_gguf)
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_parallel, params.n_ctx, params.cache_ram_mib = 2, CONTEXT, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.verbosity, params.ui = -1, False
    params.api_keys = [secrets.token_hex(16)]
    server = xllamacpp.Server(params)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.listening_address)
    yield RunningServer(server.listening_address, params.api_keys[0])
    del server  # which ends it
