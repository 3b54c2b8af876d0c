"""MLflow's two gateways: the one that reads a file, and the one that is part of its server.

They run in an environment of their own, each before local endpoints.
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
from tests.integration.clients.environment import peers_python, surroundings
from tests.integration.clients.program import Program
from tests.integration.clients.servers import Place

LIMITED, PATIENT = "limited", "patient"  # endpoints of the gateway: 3 calls a minute, 5 a second


@contextmanager
def yaml_gateway(behind: LocalEndpoints, folder: Path) -> Iterator[Place]:
    """Start MLflow's gateway that reads a file, before local endpoints."""
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
    file.write_text(json.dumps({"endpoints": endpoints}), encoding="utf-8")  # every JSON is YAML
    command = [str(peers_python().with_name("mlflow")), "gateway", "start", "--config-path", str(file)]
    command += ["--host", "127.0.0.1", "--port", "0", "--workers", "1"]  # a limit counts for one worker
    ready = (r"Listening at: (http://127\.0\.0\.1:\d+)", "Application startup complete")
    with Program(command, ready=ready, folder=folder, environment=surroundings(folder)) as program:
        yield Place(program.said[0][1])


@contextmanager
def mlflow_server(behind: LocalEndpoints, folder: Path) -> Iterator[Place]:
    """Start MLflow's server, and make endpoints of its gateway before local endpoints."""
    environment = surroundings(
        folder,
        MLFLOW_CRYPTO_KEK_PASSPHRASE=secrets.token_hex(16),
        MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES="http,https",
        MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS="true",
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",  # seven processes that nothing here needs
    )
    command = [str(peers_python().with_name("mlflow")), "server", "--host", "127.0.0.1", "--port", "0"]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    ready = (r"Uvicorn running on (http://127\.0\.0\.1:\d+)", "Application startup complete")
    with Program(command, ready=ready, folder=folder, environment=environment) as program:
        place = Place(program.said[0][1])
        base = {"api_base": behind.openai_url}
        _connect(place, "openai", "", {"api_key": behind.token}, base)
        client = {"api_base": behind.url, "auth_mode": "oauth_m2m", "client_id": behind.client_id}
        _connect(place, "databricks", "databricks-", {"client_secret": behind.client_secret}, client)
        yield place


def _connect(
    place: Place, provider: str, prefix: str, secret_value: Mapping[str, str], auth_config: Mapping[str, str]
) -> None:
    """Make endpoints of the gateway before those of a provider, with a prefix to their names."""
    auth = {"secret_value": secret_value, "auth_config": auth_config, "provider": provider}
    secret = _make(place, "secret", secret_name=provider, **auth)["secret_id"]
    for name in ENDPOINTS.values():
        own = prefix + name
        model = _make(place, "model-definition", name=own, secret_id=secret, model_name=name, provider=provider)
        chosen = {"model_definition_id": model["model_definition_id"], "linkage_type": "PRIMARY", "weight": 1.0}
        _make(place, "endpoint", name=own, model_configs=[chosen], usage_tracking=False)


def _make(place: Place, noun: str, **fields: object) -> Mapping[str, str]:
    """Make something of the gateway's."""
    url = f"{place.url}/api/3.0/mlflow/gateway/{noun}s/create"
    response = requests.post(url, json=fields, timeout=TIMEOUT_S)
    response.raise_for_status()
    made: Mapping[str, str] = response.json()[noun.replace("-", "_")]
    return made
