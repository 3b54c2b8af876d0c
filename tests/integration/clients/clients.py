"""Clients that are not ours, one for each row of the first table in docs/clients.md.

They run in two environments, that of the tests and that of MLflow (`tests.integration.clients.environment`). What only
one of them has is imported where it is used, and nothing of this library is imported.
"""

import json
import subprocess
from collections.abc import Iterator
from importlib import import_module
from typing import Any, ClassVar

from tests.integration.clients.client import (
    ASKING,
    DESCRIBING,
    ENDPOINTS,
    STREAMING,
    TIMEOUT_S,
    Body,
    Client,
    Workspace,
)


class OpenAIClient(Client):
    """The `openai` package, at one of the bases that speak its protocol."""

    columns: ClassVar[tuple[str, ...]] = STREAMING
    base = "/serving-endpoints"

    def __init__(self, workspace: Workspace) -> None:
        """Make the client as its users do."""
        super().__init__(workspace)
        self.client = self.signed_in()

    def signed_in(self) -> Any:  # noqa: ANN401 -- one of several classes, and of two versions
        """Return the client."""
        from openai import OpenAI

        base_url = self.workspace.url + self.base
        return OpenAI(base_url=base_url, api_key=self.workspace.token, max_retries=0, timeout=TIMEOUT_S)

    def _resource(self, task: str) -> Any:  # noqa: ANN401 -- three of the client's resources
        return {"chat": self.client.chat.completions}.get(task) or getattr(self.client, task)

    def ask(self, task: str, body: Body) -> Body:
        """Ask by `create`."""
        response: Body = self._resource(task).create(model=ENDPOINTS[task], **body).model_dump()
        return response

    def stream(self, task: str, body: Body) -> Iterator[Body]:
        """Ask by `create(stream=True)`."""
        return (chunk.model_dump() for chunk in self._resource(task).create(model=ENDPOINTS[task], **body))

    def names(self) -> list[str]:
        """Ask for the models."""
        return [model.id for model in self.client.models.list()]


class OpenAIAtV1(OpenAIClient):
    """The same at the routes of OpenAI itself, where it can list the models."""

    columns = (*STREAMING, "list")
    base = "/v1"


class OpenAIAtGateway(OpenAIClient):
    """The same at the routes of a workspace's AI gateway."""

    base = "/ai-gateway/mlflow/v1"


class AzureClient(OpenAIClient):
    """The `openai` package's class for Azure: a deployment's name in the path, a key in a header of its own."""

    def signed_in(self) -> Any:  # noqa: ANN401 -- as above
        """Return the client."""
        from openai import AzureOpenAI

        return AzureOpenAI(
            azure_endpoint=self.workspace.url,
            api_key=self.workspace.token,
            api_version="2024-10-21",
            max_retries=0,
            timeout=TIMEOUT_S,
        )


class SDK(Client):
    """`databricks-sdk` with a personal access token."""

    columns: ClassVar[tuple[str, ...]] = (*ASKING, *DESCRIBING)

    def __init__(self, workspace: Workspace) -> None:
        """Make the client as its users do, but one that does not try for minutes."""
        from databricks.sdk import WorkspaceClient
        from databricks.sdk.core import Config

        super().__init__(workspace)
        config = Config(host=workspace.url, retry_timeout_seconds=TIMEOUT_S, **self.credentials())
        self.client = WorkspaceClient(config=config)

    def credentials(self) -> dict[str, Any]:
        """Return how it signs in."""
        return {"token": self.workspace.token, "auth_type": "pat"}

    def query(self, name: str, arguments: dict[str, Any]) -> Body:
        """Ask an endpoint."""
        return self.client.serving_endpoints.query(name, **arguments).as_dict()

    def ask(self, task: str, body: Body) -> Body:
        """Ask with messages in the SDK's own class."""
        from databricks.sdk.service.serving import ChatMessage

        arguments = dict(body)
        if "messages" in arguments:
            arguments["messages"] = [ChatMessage.from_dict(message) for message in arguments["messages"]]
        return self.query(ENDPOINTS[task], arguments)

    def names(self) -> list[str]:
        """List the endpoints."""
        return [str(endpoint.name) for endpoint in self.client.serving_endpoints.list()]

    def described(self, name: str) -> Body:
        """Get the endpoint."""
        return self.client.serving_endpoints.get(name).as_dict()


class SDKWithOAuth(SDK):
    """`databricks-sdk` signed in as a service principal: it asks for a token by itself."""

    def credentials(self) -> dict[str, Any]:
        """Return a client's id and secret."""
        return {
            "client_id": self.workspace.client_id,
            "client_secret": self.workspace.client_secret,
            "auth_type": "oauth-m2m",
        }


class SDKDataPlane(SDKWithOAuth):
    """`databricks-sdk` past the control plane: it trades its token for one that opens this endpoint alone."""

    columns = ASKING

    def query(self, name: str, arguments: dict[str, Any]) -> Body:
        """Ask an endpoint at its own address."""
        return self.client.serving_endpoints_data_plane.query(name, **arguments).as_dict()


class SDKOpenAI(OpenAIClient):
    """The `openai` client that `databricks-sdk` makes; it wants httpx, which openai 2 brings."""

    with_mlflow = True

    def signed_in(self) -> Any:  # noqa: ANN401 -- as above
        """Return the client."""
        endpoints: Any = SDK(self.workspace).client.serving_endpoints  # this call of the SDK has no types
        return endpoints.get_open_ai_client(max_retries=0, timeout=TIMEOUT_S)


class MLflowClient(Client):
    """MLflow's deployments client, signed in by DATABRICKS_HOST and DATABRICKS_TOKEN."""

    columns = (*STREAMING, *DESCRIBING)
    with_mlflow = True

    def __init__(self, workspace: Workspace) -> None:
        """Make the client as its users do."""
        super().__init__(workspace)
        self.client = import_module("mlflow.deployments").get_deploy_client("databricks")

    def ask(self, task: str, body: Body) -> Body:
        """Ask by `predict`."""
        response: Body = self.client.predict(endpoint=ENDPOINTS[task], inputs=dict(body))
        return response

    def stream(self, task: str, body: Body) -> Iterator[Body]:
        """Ask by `predict_stream`."""
        chunks: Iterator[Body] = self.client.predict_stream(endpoint=ENDPOINTS[task], inputs=dict(body))
        return chunks

    def names(self) -> list[str]:
        """List the endpoints."""
        return [endpoint["name"] for endpoint in self.client.list_endpoints()]

    def described(self, name: str) -> Body:
        """Get the endpoint."""
        endpoint: Body = self.client.get_endpoint(name)
        return endpoint


class Requests(Client):
    """Plain `requests` with a bearer token."""

    columns = (*STREAMING, *DESCRIBING)

    def _session(self) -> Any:  # noqa: ANN401 -- requests, which MLflow's environment has as well
        import requests

        session = requests.Session()
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {self.workspace.token}"
        return session

    def _post(self, task: str, body: Body) -> Any:  # noqa: ANN401 -- a response of requests
        url = f"{self.workspace.url}/serving-endpoints/{ENDPOINTS[task]}/invocations"
        response = self._session().post(url, json=body, timeout=TIMEOUT_S, stream=body.get("stream", False))
        response.raise_for_status()
        return response

    def _get(self, path: str) -> Body:
        response = self._session().get(f"{self.workspace.url}/api/2.0/serving-endpoints{path}", timeout=TIMEOUT_S)
        response.raise_for_status()
        told: Body = response.json()
        return told

    def ask(self, task: str, body: Body) -> Body:
        """Post the body."""
        response: Body = self._post(task, body).json()
        return response

    def stream(self, task: str, body: Body) -> Iterator[Body]:
        """Post the body, and read events line by line up to the last."""
        lines = [line for line in self._post(task, body).iter_lines(decode_unicode=True) if line]
        if lines[-1] != "data: [DONE]":
            raise ValueError(f"The stream ends in {lines[-1]!r}.")
        return (json.loads(line.removeprefix("data: ")) for line in lines[:-1])

    def names(self) -> list[str]:
        """Get the list."""
        return [endpoint["name"] for endpoint in self._get("")["endpoints"]]

    def described(self, name: str) -> Body:
        """Get the endpoint."""
        return self._get(f"/{name}")


class Curl(Client):
    """`curl -u token:$TOKEN`: the token as a password."""

    route = "/serving-endpoints/{name}/invocations"

    def ask(self, task: str, body: Body) -> Body:
        """Post the body."""
        url = self.workspace.url + self.route.format(name=ENDPOINTS[task])
        options = ["--silent", "--show-error", "--fail-with-body", "--noproxy", "*", "--max-time", str(TIMEOUT_S)]
        command = ["curl", *options, "-u", f"token:{self.workspace.token}", "-X", "POST"]
        command += ["-H", "Content-Type: application/json", "-d", json.dumps(body), url]
        response: Body = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        return response


class CurlAtServedModel(Curl):
    """The same, past the endpoint's traffic split to one of its models."""

    route = "/serving-endpoints/{name}/served-models/{name}-1/invocations"


CLIENTS: dict[str, type[Client]] = {
    "`OpenAI`, base `/serving-endpoints`": OpenAIClient,
    "`OpenAI`, base `/v1`": OpenAIAtV1,
    "`OpenAI`, base `/ai-gateway/mlflow/v1`": OpenAIAtGateway,
    "`AzureOpenAI`": AzureClient,
    "`databricks-sdk`, access token": SDK,
    "`databricks-sdk`, client id and secret": SDKWithOAuth,
    "`databricks-sdk`, data plane": SDKDataPlane,
    "`databricks-sdk`, `get_open_ai_client()`": SDKOpenAI,
    'MLflow, `get_deploy_client("databricks")`': MLflowClient,
    "`requests`, bearer token": Requests,
    "`curl -u token:$TOKEN`": Curl,
    "`curl`, a served model": CurlAtServedModel,
}
