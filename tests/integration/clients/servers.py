"""Servers that answer the library's UDFs, under every URL that they have; docs/clients.md has a row for each.

The gateways of MLflow (`tests.integration.clients.gateways`) stand before local endpoints: their answers are exact. The
server of llama.cpp runs in this process, with the small model that the local endpoints have too.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import requests

from spark_llm import Endpoint, Policy
from spark_llm.auth.credentials import ClientCredentials
from spark_llm.engine.engine import Engine
from spark_llm.protocol.task import Task
from spark_llm.serving import LocalEndpoints
from spark_llm.serving.models.weights import find_weights
from tests.integration.clients.client import ENDPOINTS, ROUTES
from tests.support.asking import started

CONTEXT = 2048  # tokens over both of llama.cpp's slots
TIMEOUT_S = 30

ALL = ("chat", "completions", "embeddings")
CHAT_AND_EMBEDDINGS = ("chat", "embeddings")
LOCAL, YAML, SERVER, LLAMA = (
    "`LocalEndpoints`",
    "`mlflow gateway start`",
    "`mlflow server`",
    "llama.cpp",
)
# Which tasks each server's URLs serve. {name} alone is a name that is looked up at DATABRICKS_HOST; with {name} or
# {route} in it a URL is posted to as it is; any other is a base.
SERVERS: dict[str, dict[str, tuple[str, ...]]] = {
    LOCAL: {
        "{name}": ALL,
        "/serving-endpoints/{name}/invocations": ALL,
        "/serving-endpoints/{name}/served-models/{name}-1/invocations": ALL,
        "/{workspace}/serving-endpoints/{name}/invocations": ALL,
        "/serving-endpoints": ALL,
        "/serving-endpoints/{route}": ALL,
        "/v1": ALL,
        "/v1/{route}": ALL,
        "/ai-gateway/mlflow/v1": ALL,
        "/openai/deployments/{name}/{route}?api-version=2024-10-21": ALL,
    },
    YAML: {
        "/gateway/{name}/invocations": ALL,
        "/endpoints/{name}/invocations": ALL,
        "/v1": ALL,
    },
    SERVER: {
        "/gateway/{name}/mlflow/invocations": CHAT_AND_EMBEDDINGS,
        "/gateway/databricks-{name}/mlflow/invocations": CHAT_AND_EMBEDDINGS,
        "/gateway/mlflow/v1": ("chat",),
        "/gateway/openai/v1": CHAT_AND_EMBEDDINGS,
        "/gateway/proxy/{name}/v1/{route}": ALL,
    },
    LLAMA: {
        "/v1": ALL,
        "/v1/{route}": ALL,
    },
}


class Place(NamedTuple):
    """A server that runs, and who asks there; a workspace has a number and an OAuth client as well."""

    url: str
    token: str | None = None
    client: ClientCredentials | None = None
    workspace: str = ""

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a driver that is signed in to a workspace."""
        return {"DATABRICKS_HOST": self.url, "DATABRICKS_TOKEN": str(self.token)} if self.workspace else {}

    def endpoint(self, form: str, task: str, name: str | None = None) -> Endpoint:
        """Return the endpoint that a URL of this form names, for one task."""
        name = name or ENDPOINTS[task]
        if form == "{name}":
            return Endpoint(name)
        filled = form.format(name=name, route=ROUTES[task], workspace=self.workspace)
        model = None if form.endswith("/invocations") else name
        return Endpoint(self.url + filled, model=model, token=self.client if "{workspace}" in form else self.token)

    def engine(self, form: str, task: str, asked: Task, policy: Policy = Policy(), name: str | None = None) -> Engine:
        """Return an engine that asks there; it ends with its test."""
        route = self.endpoint(form, task, name).resolve(asked.route, self.environ)
        started.append(Engine(route, policy))
        return started[-1]


def local(endpoints: LocalEndpoints) -> Place:
    """Return local endpoints as a place."""
    told = requests.get(f"{endpoints.url}/.well-known/databricks-config", timeout=TIMEOUT_S).json()
    client = ClientCredentials(endpoints.client_id, endpoints.client_secret)
    return Place(endpoints.url, endpoints.token, client, told["workspace_id"])


@contextmanager
def llama() -> Iterator[Place]:
    """Start llama.cpp's server: two slots, one thread, embeddings as well, and a key."""
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
    yield Place(server.listening_address, params.api_keys[0])
    del server  # which ends it
