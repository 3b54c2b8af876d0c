"""What clients that are not ours make of a refusal: they know it for what it is, as at the real service."""

import openai
import pytest
from databricks.sdk import errors
from databricks.sdk.errors.base import DatabricksError

from spark_llm.serving import Faults, LocalEndpoints
from tests.integration.clients.client import BODIES, Client, Workspace
from tests.integration.clients.clients import SDK, OpenAIAtV1, OpenAIClient, SDKWithOAuth


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
def test_the_openai_client_knows_a_refusal(
    client: type[Client],
    fault: str,
    raised: type[openai.APIStatusError],
    workspace: Workspace,
    endpoints: LocalEndpoints,
) -> None:
    """Each status is the exception of its name, with the server's words in it."""
    endpoints.faults = Faults(fault)
    with pytest.raises(raised) as refusal:
        client(workspace).ask("chat", BODIES["chat"])

    assert fault == str(refusal.value.status_code)
    assert isinstance(refusal.value.body, dict)
    assert refusal.value.body["message"] in str(refusal.value)


@pytest.mark.parametrize(
    ("fault", "raised"),
    [("400", errors.BadRequest), ("401", errors.Unauthenticated), ("403", errors.PermissionDenied)],
)
def test_the_sdk_knows_a_refusal(
    fault: str, raised: type[DatabricksError], workspace: Workspace, endpoints: LocalEndpoints
) -> None:
    """Each error code is the exception of its name."""
    endpoints.faults = Faults(fault)
    with pytest.raises(raised):
        SDK(workspace).ask("chat", BODIES["chat"])


def test_the_sdk_knows_an_endpoint_that_is_not_there(workspace: Workspace) -> None:
    """Described, it is a resource that does not exist; asked, it is not found; both say so in the service's words."""
    client = SDK(workspace)
    with pytest.raises(errors.ResourceDoesNotExist, match=r"Endpoint with name 'nowhere' does not exist\."):
        client.described("nowhere")
    with pytest.raises(errors.NotFound, match="The given endpoint does not exist"):
        client.query("nowhere", {"prompt": "x"})


@pytest.mark.parametrize("client", [OpenAIClient, OpenAIAtV1])
def test_the_openai_client_knows_a_wrong_key(client: type[Client], workspace: Workspace) -> None:
    """A token that is not known is an authentication error."""
    with pytest.raises(openai.AuthenticationError):
        client(workspace._replace(token="wrong")).ask("chat", BODIES["chat"])


def test_the_sdk_knows_a_wrong_secret(workspace: Workspace) -> None:
    """Signing in with a secret that is not the client's fails, and says that it is the client."""
    with pytest.raises(ValueError, match="invalid_client"):
        SDKWithOAuth(workspace._replace(client_secret="wrong")).ask("chat", BODIES["chat"])
