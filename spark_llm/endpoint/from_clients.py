"""Endpoints from clients that the user already has: each function returns the arguments of an `Endpoint`.

The packages of these clients need not be installed.
"""

import base64
import inspect
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from spark_llm.auth.credentials import Workspace
from spark_llm.auth.databricks_profile import workspace_of_config, workspace_of_profile
from spark_llm.errors import ConfigError
from spark_llm.protocol.urls import gateway_url, invocations_url, is_gateway_name

_KEY_PLACEHOLDERS = ("", "no-token", "<missing API key>")  # of clients without a key


def arguments_from_openai(client: Any, model: str) -> dict[str, Any]:  # noqa: ANN401 -- openai.OpenAI, or one of its kind
    """Return the arguments for an `openai.OpenAI`, `AsyncOpenAI`, `AzureOpenAI` or `AsyncAzureOpenAI`."""
    if not hasattr(client, "base_url") or not hasattr(client, "api_key"):
        raise _wrong_type(client, "a client of the openai package", 'Endpoint(url, model="…", token=…)')
    parts = urlsplit(str(client.base_url))
    azure = hasattr(client, "_azure_deployment")
    path = parts.path.rstrip("/")
    if azure and "/deployments" not in path:  # the client puts the model into the path of each request
        path += f"/deployments/{quote(model, safe='')}"
    query = urlencode({name: str(value) for name, value in getattr(client, "default_query", {}).items()})
    headers = {name: str(value) for name, value in getattr(client, "_custom_headers", {}).items()}
    headers |= {
        f"OpenAI-{name.title()}": getattr(client, name)
        for name in ("organization", "project")
        if getattr(client, name, None)
    }
    url = urlunsplit(parts._replace(path=path, query="&".join(filter(None, (parts.query, query)))))
    return {"target": url, "model": model, "token": _key_or_function(client), "headers": headers}


def _key_or_function(client: Any) -> Any:  # noqa: ANN401 -- a token, a function that returns one, or None
    """Return the client's key or its key function; raise `ConfigError` for a key that cannot travel."""
    for name in ("_azure_ad_token_provider", "_api_key_provider", "_azure_ad_token", "api_key"):
        key = getattr(client, name, None)
        if inspect.iscoroutinefunction(key):
            raise ConfigError(
                "The client's key comes from a coroutine function, which a worker cannot run.",
                "pass Endpoint(url, model=…, token=function) with a plain function.",
            )
        if key is not None and (callable(key) or key not in _KEY_PLACEHOLDERS):
            return key
    if client.api_key == "no-token":
        raise ConfigError(
            "This client authenticates by databricks-sdk, not by a key.",
            "use Endpoint.from_workspace(WorkspaceClient(), name).",
        )
    return None


def arguments_from_workspace(workspace: Any, name: str, served_model: str | None) -> dict[str, Any]:  # noqa: ANN401 -- databricks.sdk.WorkspaceClient
    """Return the arguments for a `databricks.sdk.WorkspaceClient`."""
    config = getattr(workspace, "config", None)
    if config is None or not hasattr(config, "authenticate"):
        raise _wrong_type(
            workspace, "a WorkspaceClient of databricks-sdk", "Endpoint(name), which finds DATABRICKS_HOST"
        )
    return _arguments_at(workspace_of_config(config, "the WorkspaceClient"), name, served_model)


def arguments_from_mlflow(client: Any, name: str) -> dict[str, Any]:  # noqa: ANN401 -- mlflow.deployments.BaseDeploymentClient
    """Return the arguments for a client of `mlflow.deployments.get_deploy_client`."""
    target = getattr(client, "target_uri", None)
    if not isinstance(target, str):
        raise _wrong_type(client, "an MLflow deployment client", "get_deploy_client(…)")
    scheme, _, rest = target.partition("://")
    if scheme == "databricks":
        profile = rest.partition(":")[0]
        return _arguments_at(workspace_of_profile(profile), name, None) if profile else {"target": name}
    if scheme in ("http", "https"):
        return {
            "target": f"{target.rstrip('/')}/endpoints/{quote(name, safe='')}/invocations",
            **_mlflow_credentials(os.environ),
        }
    raise ConfigError(
        f"An MLflow deployment client of {scheme!r} has no URL to send requests to.",
        'use get_deploy_client("databricks") or get_deploy_client with a gateway\'s URL.',
    )


def _mlflow_credentials(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the credentials that MLflow's clients read from the environment: a token, or a user and a password."""
    user, password = environ.get("MLFLOW_TRACKING_USERNAME"), environ.get("MLFLOW_TRACKING_PASSWORD")
    if user and password:
        encoded = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
        return {"headers": {"Authorization": f"Basic {encoded}"}}
    return {"token": environ.get("MLFLOW_TRACKING_TOKEN") or None}


def _arguments_at(workspace: Workspace, name: str, served_model: str | None) -> dict[str, Any]:
    if is_gateway_name(name):
        return {"target": gateway_url(workspace.host, ""), "model": name, "token": workspace.credential}
    return {"target": invocations_url(workspace.host, name, served_model), "token": workspace.credential}


def _wrong_type(value: object, expected: str, alternative: str) -> ConfigError:
    return ConfigError(f"{type(value).__name__} is not {expected}.", f"pass one, or use {alternative}.")
