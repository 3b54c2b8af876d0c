"""Third-party clients raise their own errors for error responses, as with the real service."""

import openai
import pytest
from databricks.sdk import errors
from databricks.sdk.errors.base import DatabricksError

from spark_llm.serving import Faults, LocalEndpoints
from tests.integration.clients.client import Client, Workspace
from tests.integration.clients.clients import SDK, OpenAIAtV1, OpenAIClient, SDKWithOAuth


@pytest.mark.waits
@pytest.mark.parametrize("client", [OpenAIClient, OpenAIAtV1])
@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        ("400", openai.BadRequestError),
        ("401", openai.AuthenticationError),
        ("403", openai.PermissionDeniedError),
        ("429", openai.RateLimitError),
        ("500", openai.InternalServerError),
        ("503", openai.InternalServerError),
    ],
)
def test_the_openai_client_recognises_an_error(
    client: type[Client],
    fault: str,
    raised: type[openai.APIStatusError],
    workspace: Workspace,
    endpoints: LocalEndpoints,
) -> None:
    """Each status raises its exception, with the server's message."""
    endpoints.faults = Faults(fault)
    with pytest.raises(raised) as error:
        client(workspace).run("chat")

    assert fault == str(error.value.status_code)
    assert isinstance(error.value.body, dict)
    assert error.value.body["message"] in str(error.value)


@pytest.mark.parametrize(
    ("fault", "raised"),
    [("400", errors.BadRequest), ("401", errors.Unauthenticated), ("403", errors.PermissionDenied)],
)
def test_the_sdk_recognises_an_error(
    fault: str, raised: type[DatabricksError], workspace: Workspace, endpoints: LocalEndpoints
) -> None:
    """Each error code raises its exception."""
    endpoints.faults = Faults(fault)
    with pytest.raises(raised):
        SDK(workspace).run("chat")


def test_the_sdk_recognises_an_unknown_endpoint(workspace: Workspace) -> None:
    """Getting an unknown endpoint and querying it raise different errors, each with the service's message."""
    client = SDK(workspace)
    with pytest.raises(errors.ResourceDoesNotExist, match=r"Endpoint with name 'nowhere' does not exist\."):
        client.describe("nowhere")
    with pytest.raises(errors.NotFound, match="The given endpoint does not exist"):
        client.query("nowhere", {"prompt": "x"})


@pytest.mark.parametrize("client", [OpenAIClient, OpenAIAtV1])
def test_the_openai_client_recognises_a_wrong_key(client: type[Client], workspace: Workspace) -> None:
    """An unknown token raises an authentication error."""
    with pytest.raises(openai.AuthenticationError):
        client(workspace._replace(token="wrong")).run("chat")


def test_the_sdk_recognises_a_wrong_secret(workspace: Workspace) -> None:
    """A wrong client secret raises `invalid_client`."""
    with pytest.raises(ValueError, match="invalid_client"):
        SDKWithOAuth(workspace._replace(client_secret="wrong")).run("chat")
