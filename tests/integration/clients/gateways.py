"""MLflow's two gateways: the one with a configuration file, and the one in its server.

They run in MLflow's environment, each in front of local endpoints.
"""

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from spark_llm.serving import LocalEndpoints
from tests.integration.clients.client import ENDPOINTS, TIMEOUT_S
from tests.integration.clients.environment import peer_environment, peers_python
from tests.integration.clients.program import Program
from tests.integration.clients.servers import RunningServer

LIMITED, PATIENT = "limited", "patient"  # endpoints of the gateway: 3 calls a minute, 5 a second


@contextmanager
def yaml_gateway(behind: LocalEndpoints, folder: Path) -> Iterator[RunningServer]:
    """Start MLflow's gateway with a configuration file, in front of local endpoints."""
    config = {"openai_api_key": behind.token, "openai_api_base": behind.openai_url}
    endpoints: list[dict[str, Any]] = [
        {
            "name": name,
            "endpoint_type": f"llm/v1/{task}",
            "model": {"provider": "openai", "name": name, "config": config},
        }
        for task, name in ENDPOINTS.items()
    ]
    for name, calls, period in ((LIMITED, 3, "minute"), (PATIENT, 5, "second")):
        endpoints.append({**endpoints[0], "name": name, "limit": {"renewal_period": period, "calls": calls}})
    file = folder / "gateway.yaml"
    file.write_text(json.dumps({"endpoints": endpoints}), encoding="utf-8")  # JSON is valid YAML
    command = [str(peers_python().with_name("mlflow")), "gateway", "start", "--config-path", str(file)]
    command += ["--host", "127.0.0.1", "--port", "0", "--workers", "1"]  # each worker has its own limit
    ready = (r"Listening at: (http://127\.0\.0\.1:\d+)", "Application startup complete")
    with Program(command, ready=ready, folder=folder, environment=peer_environment(folder)) as program:
        yield RunningServer(program.matches[0][1])


@contextmanager
def mlflow_server(behind: LocalEndpoints, folder: Path) -> Iterator[RunningServer]:
    """Start MLflow's server, with gateway endpoints in front of local endpoints."""
    environment = peer_environment(
        folder,
        MLFLOW_CRYPTO_KEK_PASSPHRASE=secrets.token_hex(16),
        MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES="http,https",
        MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS="true",
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",  # seven processes that no test needs
    )
    command = [str(peers_python().with_name("mlflow")), "server", "--host", "127.0.0.1", "--port", "0"]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    ready = (r"Uvicorn running on (http://127\.0\.0\.1:\d+)", "Application startup complete")
    with Program(command, ready=ready, folder=folder, environment=environment) as program:
        gateway = RunningServer(program.matches[0][1])
        base = {"api_base": behind.openai_url}
        _connect(gateway, "openai", "", {"api_key": behind.token}, base)
        client = {"api_base": behind.url, "auth_mode": "oauth_m2m", "client_id": behind.client_id}
        _connect(gateway, "databricks", "databricks-", {"client_secret": behind.client_secret}, client)
        yield gateway


def _connect(
    gateway: RunningServer, provider: str, prefix: str, secret_value: Mapping[str, str], auth_config: Mapping[str, str]
) -> None:
    """Create gateway endpoints for a provider's, with a prefix to their names."""
    auth = {"secret_value": secret_value, "auth_config": auth_config, "provider": provider}
    secret = _create(gateway, "secret", secret_name=provider, **auth)["secret_id"]
    for name in ENDPOINTS.values():
        prefixed = prefix + name
        model = _create(
            gateway, "model-definition", name=prefixed, secret_id=secret, model_name=name, provider=provider
        )
        model_config = {"model_definition_id": model["model_definition_id"], "linkage_type": "PRIMARY", "weight": 1.0}
        _create(gateway, "endpoint", name=prefixed, model_configs=[model_config], usage_tracking=False)


def _create(gateway: RunningServer, noun: str, **fields: object) -> Mapping[str, str]:
    """Create an object of the gateway, and return it."""
    url = f"{gateway.url}/api/3.0/mlflow/gateway/{noun}s/create"
    response = requests.post(url, json=fields, timeout=TIMEOUT_S)
    response.raise_for_status()
    created: Mapping[str, str] = response.json()[noun.replace("-", "_")]
    return created
