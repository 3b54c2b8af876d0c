"""The services' own clients, which work with local endpoints as with the real ones."""

from collections.abc import Iterator

import openai
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import BadRequest, PermissionDenied, ResourceDoesNotExist, Unauthenticated
from databricks.sdk.service.serving import ChatMessage, ChatMessageRole, EndpointStateReady
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolUnionParam
from pydantic import BaseModel

from spark_llm.serving import Echo, LocalEndpoints, ServingEndpoint, echo_vector

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello  big world"}]
HELLO = [ChatMessage(role=ChatMessageRole.USER, content="hello  big world")]


@pytest.fixture
def endpoints(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalEndpoints]:
    """Endpoints with a data plane for `chat`; the environment has no settings that a client would read."""
    for name in ("HOST", "TOKEN", "CLIENT_ID", "CLIENT_SECRET", "CONFIG_PROFILE", "AUTH_TYPE", "CONFIG_FILE"):
        monkeypatch.delenv(f"DATABRICKS_{name}", raising=False)
    models = {
        "chat": ServingEndpoint(Echo(), tasks=["chat", "responses"], route_optimized=True),
        "codex": ServingEndpoint(Echo(), tasks=["responses"]),
        "complete": ServingEndpoint(Echo(), tasks=["completions"]),
        "embed": ServingEndpoint(Echo(), tasks=["embeddings"]),
    }
    with LocalEndpoints(models) as endpoints:
        yield endpoints


# --- databricks-sdk ---


def oauth_client(endpoints: LocalEndpoints) -> WorkspaceClient:
    """Return a client that uses OAuth."""
    return WorkspaceClient(
        host=endpoints.url, client_id=endpoints.client_id, client_secret=endpoints.client_secret, config_file="none"
    )


def test_the_sdk_signs_in_and_queries(endpoints: LocalEndpoints) -> None:
    """The SDK discovers the token endpoint, and one token serves every task."""
    client = oauth_client(endpoints)
    chat = client.serving_endpoints.query("chat", messages=HELLO)
    text = client.serving_endpoints.query("complete", prompt="a b")
    vectors = client.serving_endpoints.query("embed", input=["a", "b"])

    assert ("oauth-m2m", 1) == (client.config.auth_type, endpoints.tokens_issued)
    assert "chat-1" == chat.served_model_name
    assert ["hello  big world"] == [choice.message.content for choice in chat.choices or () if choice.message]
    assert ["a b"] == [choice.text for choice in text.choices or ()]
    assert [echo_vector("a"), echo_vector("b")] == [each.embedding for each in vectors.data or ()]
    assert {200: 3} == endpoints.stats.by_status


def test_the_sdk_queries_a_data_plane(endpoints: LocalEndpoints) -> None:
    """The SDK reads the data plane's URL, exchanges its token for that data plane, and gets an answer."""
    client = oauth_client(endpoints)
    answers = [client.serving_endpoints_data_plane.query("chat", messages=HELLO) for _ in range(2)]

    assert ["hello  big world"] * 2 == [
        choice.message.content for answer in answers for choice in answer.choices or () if choice.message
    ]
    assert 2 == endpoints.tokens_issued
    assert {"/1270010000000001/serving-endpoints/chat/invocations"} == {each.path for each in endpoints.requests}


def test_the_sdk_reads_the_descriptions(endpoints: LocalEndpoints) -> None:
    """The SDK reads the list, one endpoint and its OpenAPI with the plain token; a stopped one is NOT_READY."""
    client = WorkspaceClient(host=endpoints.url, token=endpoints.token, config_file="none")
    endpoints.set_ready("embed", False)
    listed = {each.name: (each.task, each.state and each.state.ready) for each in client.serving_endpoints.list()}
    chat = client.serving_endpoints.get("chat")

    assert {
        "chat": ("llm/v1/chat", EndpointStateReady.READY),
        "codex": ("agent/v1/responses", EndpointStateReady.READY),
        "complete": ("llm/v1/completions", EndpointStateReady.READY),
        "embed": ("llm/v1/embeddings", EndpointStateReady.NOT_READY),
    } == listed
    assert (True, "llm/v1/chat") == (chat.route_optimized, chat.task)
    assert chat.config is not None
    assert ["echo"] == [entity.entity_name for entity in chat.config.served_entities or ()]
    contents = client.serving_endpoints.get_open_api("chat").contents
    assert contents is not None
    with contents as document:
        assert document.read().startswith(b'{"openapi":"3.2.0"')


def test_the_sdk_recognises_the_errors(endpoints: LocalEndpoints) -> None:
    """Each error response is the exception that the real one would be, with its message and the request's id."""
    client = WorkspaceClient(host=endpoints.url, token=endpoints.token, config_file="none")
    with pytest.raises(ResourceDoesNotExist, match="Endpoint with name 'nobody' does not exist") as missing:
        client.serving_endpoints.get("nobody")
    info = missing.value.get_error_details().request_info
    assert info is not None
    assert 24 == len(info.request_id)
    with pytest.raises(BadRequest, match='unknown field "messages"'):
        client.serving_endpoints.query("embed", messages=HELLO)
    endpoints.set_ready("embed", False)
    with pytest.raises(BadRequest, match="The given endpoint is stopped"):
        client.serving_endpoints.query("embed", input="a")
    oauth = oauth_client(endpoints)
    oauth.serving_endpoints.get("chat")
    endpoints.revoke()
    with pytest.raises(Unauthenticated, match="Invalid access token"):
        client.serving_endpoints.get("chat")
    with pytest.raises(PermissionDenied, match="Invalid Token"):
        oauth.serving_endpoints.get("chat")
    with pytest.raises(ValueError, match="invalid_client: Client authentication failed"):
        WorkspaceClient(
            host=endpoints.url, client_id="me", client_secret="x", config_file="none"
        ).serving_endpoints.get("a")


# --- openai ---


@pytest.fixture(params=["/v1", "/serving-endpoints", "/ai-gateway/mlflow/v1", "azure"])
def client(request: pytest.FixtureRequest, endpoints: LocalEndpoints) -> Iterator[openai.OpenAI]:
    """A client at each base URL."""
    client = (
        openai.AzureOpenAI(
            azure_endpoint=endpoints.url, api_key=endpoints.token, api_version="2024-10-21", max_retries=0
        )
        if request.param == "azure"
        else openai.OpenAI(base_url=endpoints.url + request.param, api_key=endpoints.token, max_retries=0)
    )
    with client:
        yield client


def test_openai_queries_every_task(client: openai.OpenAI) -> None:
    """The client gets chat, completions and embeddings, in its own encoding of vectors."""
    chat = client.chat.completions.create(model="chat", messages=MESSAGES, n=2)
    text = client.completions.create(model="complete", prompt=["a b", "c"])
    vectors = client.embeddings.create(model="embed", input=["a", "b"])

    assert ["hello  big world"] * 2 == [choice.message.content for choice in chat.choices]
    assert ["a b", "c"] == [choice.text for choice in text.choices]
    assert [echo_vector("a"), echo_vector("b")] == [each.embedding for each in vectors.data]


def test_openai_reads_a_stream(client: openai.OpenAI) -> None:
    """The pieces join to the text, the last has the finish reason, and the usage comes on request."""
    chunks = list(
        client.chat.completions.create(
            model="chat", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    choices = [choice for chunk in chunks for choice in chunk.choices]
    text = list(client.completions.create(model="complete", prompt="a b", stream=True))

    assert ("assistant", "hello  big world", "stop") == (
        choices[0].delta.role,
        "".join(choice.delta.content or "" for choice in choices),
        choices[-1].finish_reason,
    )
    assert [6] == [chunk.usage.total_tokens for chunk in chunks[-1:] if chunk.usage]
    assert ["a", " b", ""] == [chunk.choices[0].text for chunk in text]


def test_openai_collects_the_calls_of_a_stream(client: openai.OpenAI) -> None:
    """The client's own collector of chunks has the calls, as its events told them."""
    tools: list[ChatCompletionToolUnionParam] = [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    ]
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": 'call f {"a": 1}\ncall f x'}]
    with client.chat.completions.stream(model="chat", messages=messages, tools=tools) as stream:
        done = [event.arguments for event in stream if event.type == "tool_calls.function.arguments.done"]
        [choice] = stream.get_final_completion().choices

    assert ['{"a": 1}', "x"] == done
    assert done == [call.function.arguments for call in choice.message.tool_calls or ()]
    assert "tool_calls" == choice.finish_reason


def test_openai_collects_the_events_of_a_response(client: openai.OpenAI) -> None:
    """The client's own collector of events has the response that a request without a stream gets."""
    whole = client.responses.create(model="chat", input="hello  big world", reasoning={"effort": "low"})
    with client.responses.stream(model="chat", input="hello  big world", reasoning={"effort": "low"}) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()

    assert "hello  big world" == whole.output_text == final.output_text == "".join(deltas)
    assert whole.usage == final.usage
    assert whole.usage is not None
    assert ("completed", 6) == (final.status, whole.usage.total_tokens)


class Answer(BaseModel):
    """The form of an answer."""

    sum: int


def test_openai_parses_a_response(client: openai.OpenAI) -> None:
    """The client's own parser reads the JSON of a response, and the arguments of a call."""
    parsed = client.responses.parse(model="chat", input='{"sum": 3}', text_format=Answer)
    tool = openai.pydantic_function_tool(Answer, name="add")["function"]
    called = client.responses.parse(
        model="chat",
        input='call add {"sum": 4}',
        tools=[{"type": "function", "name": "add", "parameters": tool["parameters"], "strict": True}],
    )

    assert Answer(sum=3) == parsed.output_parsed
    [call] = called.output
    assert call.type == "function_call"
    assert ("add", {"sum": 4}) == (call.name, call.parsed_arguments)


def test_openai_is_told_where_a_model_is_served(client: openai.OpenAI) -> None:
    """Chat with a model that is served at responses only raises, and the Responses API answers."""
    with pytest.raises(openai.APIStatusError, match=r"v1/responses|chatCompletion operation does not work") as error:
        client.chat.completions.create(model="codex", messages=MESSAGES)

    assert error.value.status_code in (400, 404)
    assert "a b" == client.responses.create(model="codex", input="a b").output_text


def test_openai_recognises_the_errors(client: openai.OpenAI, endpoints: LocalEndpoints) -> None:
    """404, 400 and 401 are the client's own exceptions."""
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="nobody", input="a")
    with pytest.raises(openai.BadRequestError, match="serves embeddings"):
        client.chat.completions.create(model="embed", messages=MESSAGES)
    endpoints.revoke()
    with pytest.raises(openai.AuthenticationError):
        client.embeddings.create(model="embed", input="a")


def test_openai_lists_the_models(endpoints: LocalEndpoints) -> None:
    """The client lists the endpoints as models."""
    with openai.OpenAI(base_url=endpoints.openai_url, api_key=endpoints.token) as client:
        assert ["chat", "codex", "complete", "embed"] == [model.id for model in client.models.list()]
        assert "embed" == client.models.retrieve("embed").id
