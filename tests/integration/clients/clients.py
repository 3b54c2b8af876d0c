"""Third-party clients, one for each row of the first table in docs/clients.md.

They run in two environments: that of the tests, and that of MLflow (`tests.integration.clients.environment`). A package
of only one environment is imported inside functions. This library is not imported.
"""

import json
import subprocess
from collections.abc import Iterator
from importlib import import_module
from typing import Any, ClassVar

from tests.integration.clients.client import (
    ASKING,
    CHATTING,
    DESCRIBING,
    NAMES,
    PREDICTING,
    RESPONDING,
    STREAMING,
    TIMEOUT_S,
    Body,
    Client,
    Workspace,
)


class OpenAIClient(Client):
    """The `openai` package, at one of the base URLs with its protocol."""

    columns: ClassVar[tuple[str, ...]] = (*STREAMING, *CHATTING, *RESPONDING)
    base = "/serving-endpoints"

    def __init__(self, workspace: Workspace) -> None:
        """Create the client as its users do."""
        super().__init__(workspace)
        self.client = self.make_client()

    def make_client(self) -> Any:  # noqa: ANN401 -- one of several classes, and of two versions
        """Return the client."""
        from openai import OpenAI

        base_url = self.workspace.url + self.base
        return OpenAI(base_url=base_url, api_key=self.workspace.token, max_retries=0, timeout=TIMEOUT_S)

    def _resource(self, task: str) -> Any:  # noqa: ANN401 -- three of the client's resources
        return {"chat": self.client.chat.completions}.get(task) or getattr(self.client, task)

    def ask(self, task: str, body: Body) -> Body:
        """Call `create`."""
        response: Body = self._resource(task).create(model=NAMES[task], **body).model_dump()
        return response

    def stream(self, task: str, body: Body) -> Iterator[Body]:
        """Call `create(stream=True)`."""
        return (chunk.model_dump() for chunk in self._resource(task).create(model=NAMES[task], **body))

    def names(self) -> list[str]:
        """List the models."""
        return [model.id for model in self.client.models.list()]

    def close(self) -> None:
        """Close the connections, which the client keeps until it is collected."""
        self.client.close()


class OpenAIAtV1(OpenAIClient):
    """The `openai` package at OpenAI's own routes, where it can list the models."""

    columns = (*OpenAIClient.columns, "list")
    base = "/v1"


class OpenAIAtGateway(OpenAIClient):
    """The `openai` package at the routes of a workspace's AI gateway."""

    base = "/ai-gateway/mlflow/v1"


class AzureClient(OpenAIClient):
    """The `openai` package's Azure class: a deployment's name in the path, a key in the header `api-key`."""

    def make_client(self) -> Any:  # noqa: ANN401 -- as above
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

    columns: ClassVar[tuple[str, ...]] = (*ASKING, *DESCRIBING, *PREDICTING)

    def __init__(self, workspace: Workspace) -> None:
        """Create the client as its users do, with a short retry timeout."""
        from databricks.sdk import WorkspaceClient
        from databricks.sdk.core import Config

        super().__init__(workspace)
        config = Config(host=workspace.url, retry_timeout_seconds=TIMEOUT_S, **self.credentials())
        self.client = WorkspaceClient(config=config)

    def credentials(self) -> dict[str, Any]:
        """Return the credentials for `Config`."""
        return {"token": self.workspace.token, "auth_type": "pat"}

    def query(self, name: str, arguments: dict[str, Any]) -> Body:
        """Query an endpoint."""
        return self.client.serving_endpoints.query(name, **arguments).as_dict()

    def ask(self, task: str, body: Body) -> Body:
        """Query with messages and tables in the SDK's own classes."""
        from databricks.sdk.service.serving import ChatMessage, DataframeSplitInput

        arguments = dict(body)
        if "dataframe_split" in arguments:
            arguments["dataframe_split"] = DataframeSplitInput.from_dict(arguments["dataframe_split"])
        if "messages" in arguments:
            arguments["messages"] = [ChatMessage.from_dict(message) for message in arguments["messages"]]
        return self.query(NAMES[task], arguments)

    def names(self) -> list[str]:
        """List the endpoints."""
        return [str(endpoint.name) for endpoint in self.client.serving_endpoints.list()]

    def describe(self, name: str) -> Body:
        """Get the endpoint."""
        return self.client.serving_endpoints.get(name).as_dict()


class SDKWithOAuth(SDK):
    """`databricks-sdk` as a service principal, which requests a token by itself."""

    def credentials(self) -> dict[str, Any]:
        """Return a client's id and secret."""
        return {
            "client_id": self.workspace.client_id,
            "client_secret": self.workspace.client_secret,
            "auth_type": "oauth-m2m",
        }


class SDKDataPlane(SDKWithOAuth):
    """`databricks-sdk` at the data plane: it exchanges its token for one of this endpoint."""

    columns = (*ASKING, *PREDICTING)

    def query(self, name: str, arguments: dict[str, Any]) -> Body:
        """Query an endpoint on its data plane."""
        return self.client.serving_endpoints_data_plane.query(name, **arguments).as_dict()


class SDKOpenAI(OpenAIClient):
    """The `openai` client that `databricks-sdk` creates; it needs httpx, which openai 2 installs."""

    with_mlflow = True

    def make_client(self) -> Any:  # noqa: ANN401 -- as above
        """Return the client."""
        endpoints: Any = SDK(self.workspace).client.serving_endpoints  # this call of the SDK has no types
        return endpoints.get_open_ai_client(max_retries=0, timeout=TIMEOUT_S)


class MLflowClient(Client):
    """MLflow's deployments client, with DATABRICKS_HOST and DATABRICKS_TOKEN."""

    columns = (*STREAMING, *DESCRIBING, *CHATTING, *PREDICTING)
    with_mlflow = True

    def __init__(self, workspace: Workspace) -> None:
        """Create the client as its users do."""
        super().__init__(workspace)
        self.client = import_module("mlflow.deployments").get_deploy_client("databricks")

    def ask(self, task: str, body: Body) -> Body:
        """Call `predict`."""
        response: Body = self.client.predict(endpoint=NAMES[task], inputs=dict(body))
        return response

    def stream(self, task: str, body: Body) -> Iterator[Body]:
        """Call `predict_stream`."""
        chunks: Iterator[Body] = self.client.predict_stream(endpoint=NAMES[task], inputs=dict(body))
        return chunks

    def names(self) -> list[str]:
        """List the endpoints."""
        return [endpoint["name"] for endpoint in self.client.list_endpoints()]

    def describe(self, name: str) -> Body:
        """Get the endpoint."""
        endpoint: Body = self.client.get_endpoint(name)
        return endpoint


class Requests(Client):
    """Plain `requests` with a bearer token."""

    columns = (*STREAMING, *DESCRIBING, *CHATTING, *PREDICTING)

    def _session(self) -> Any:  # noqa: ANN401 -- requests, which MLflow's environment has as well
        import requests

        session = requests.Session()
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {self.workspace.token}"
        return session

    def _post(self, task: str, body: Body) -> Any:  # noqa: ANN401 -- a response of requests
        url = f"{self.workspace.url}/serving-endpoints/{NAMES[task]}/invocations"
        response = self._session().post(url, json=body, timeout=TIMEOUT_S, stream=body.get("stream", False))
        response.raise_for_status()
        return response

    def _get(self, path: str) -> Body:
        response = self._session().get(f"{self.workspace.url}/api/2.0/serving-endpoints{path}", timeout=TIMEOUT_S)
        response.raise_for_status()
        document: Body = response.json()
        return document

    def ask(self, task: str, body: Body) -> Body:
        """Post the body."""
        response: Body = self._post(task, body).json()
        return response

    def stream(self, task: str, body: Body) -> Iterator[Body]:
        """Post the body, and return the chunks of its events."""
        lines = [line for line in self._post(task, body).iter_lines(decode_unicode=True) if line]
        if lines[-1] != "data: [DONE]":
            raise ValueError(f"The stream ends in {lines[-1]!r}.")
        return (json.loads(line.removeprefix("data: ")) for line in lines[:-1])

    def names(self) -> list[str]:
        """Get the list."""
        return [endpoint["name"] for endpoint in self._get("")["endpoints"]]

    def describe(self, name: str) -> Body:
        """Get the endpoint."""
        return self._get(f"/{name}")


class Curl(Client):
    """`curl -u token:$TOKEN`: the token as a password."""

    columns = (*ASKING, "image", "tools", *PREDICTING)
    route = "/serving-endpoints/{name}/invocations"

    def ask(self, task: str, body: Body) -> Body:
        """Post the body."""
        url = self.workspace.url + self.route.format(name=NAMES[task])
        options = ["--silent", "--show-error", "--fail-with-body", "--noproxy", "*", "--max-time", str(TIMEOUT_S)]
        command = ["curl", *options, "-u", f"token:{self.workspace.token}", "-X", "POST"]
        command += ["-H", "Content-Type: application/json", "-d", json.dumps(body), url]
        response: Body = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        return response


class CurlAtServedModel(Curl):
    """`curl` at one of the endpoint's models, past the traffic split."""

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
