"""The routes as a client sees them: responses and errors."""

import base64
import json
import socket

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.serving import echo_vector
from tests.support.local_client import (
    ENDPOINTS,
    POST_PATHS,
    RESPONSES_PATHS,
    Client,
    chat_body,
    is_databricks,
    paths_of,
)

CHAT = chat_body("hello big world")


@pytest.mark.parametrize("path", paths_of("chat/completions"))
def test_a_chat_answer_has_the_documented_shape(path: str, shared: Client) -> None:
    """Every chat route sends one body of the documented shape, with an id, and the request's id in a header."""
    response = shared.post(path, {**CHAT, "model": "chat", "n": 2})
    body = response.json()

    assert (200, "application/json") == (response.status_code, response.headers["Content-Type"])
    assert f"chatcmpl-{response.headers['x-request-id']}" == body.pop("id")
    assert isinstance(body.pop("created"), int)
    message = {"role": "assistant", "content": "hello big world"}
    assert {
        "object": "chat.completion",
        "model": "echo",
        "choices": [{"index": i, "message": message, "finish_reason": "stop"} for i in range(2)],
        "usage": {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9},
    } == body


@pytest.mark.parametrize("path", paths_of("completions"))
def test_choices_of_an_array_prompt_are_numbered_by_prompt_and_copy(path: str, shared: Client) -> None:
    """One body answers an array of prompts: index = prompt * n + copy, and one usage for all."""
    body = shared.post(path, {"model": "complete", "prompt": ["a b", "c"], "n": 3}).json()

    assert "text_completion" == body["object"]
    assert [(i, text) for i, text in enumerate(["a b"] * 3 + ["c"] * 3)] == [
        (choice["index"], choice["text"]) for choice in body["choices"]
    ]
    assert {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12} == body["usage"]


@pytest.mark.parametrize("path", paths_of("embeddings"))
def test_vectors_come_as_numbers_or_as_base64(path: str, shared: Client) -> None:
    """Both encodings of an embedding hold the same float32 values, in the order of the inputs."""
    texts = ["one", "two words"]
    body = {"model": "embed", "input": texts, "dimensions": 40}
    numbers = shared.post(path, body).json()
    encoded = shared.post(path, {**body, "encoding_format": "base64"}).json()

    assert {
        "object": "list",
        "model": "echo",
        "data": [
            {"object": "embedding", "index": i, "embedding": echo_vector(text, 40)} for i, text in enumerate(texts)
        ],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    } == numbers
    assert [row["embedding"] for row in numbers["data"]] == [
        list(memoryview(base64.b64decode(row["embedding"])).cast("f")) for row in encoded["data"]
    ]


def test_models_and_health_are_served(shared: Client) -> None:
    """/v1/models lists the endpoints for clients with the token; /health needs none."""
    url = shared.endpoints.url
    models = requests.get(f"{url}/v1/models", headers={"Authorization": "Bearer t0ken"}, timeout=10)

    assert ["chat", "complete", "embed"] == [row["id"] for row in models.json()["data"]]
    assert models.json()["data"][1] == shared.get("/v1/models/complete").json()
    assert "model_not_found" == shared.get("/v1/models/nobody").json()["error"]["code"]
    assert 401 == requests.get(f"{url}/v1/models", timeout=10).status_code
    assert {"status": "OK"} == requests.get(f"{url}/health", timeout=10).json()


# --- Refusals ---


NO_CREDENTIAL = "Credential was not sent or was of an unsupported type for this API."
INVALID = "Invalid access token."


@pytest.mark.waits
@pytest.mark.parametrize("path", POST_PATHS)
@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, NO_CREDENTIAL),
        ("Bearer", NO_CREDENTIAL),
        ("t0ken", NO_CREDENTIAL),
        ("Basic t0ken", NO_CREDENTIAL),
        ("Bearer wrong", INVALID),
        ("Bearer t0ken\xe9", INVALID),
    ],
)
def test_every_post_needs_the_token(path: str, header: str | None, message: str, shared: Client) -> None:
    """A request without the right token is refused with 401, in the path's own dialect."""
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    response = requests.post(shared.endpoints.url + path, json=CHAT, headers=headers, timeout=10)

    assert 401 == response.status_code
    databricks = {"error_code": "UNAUTHENTICATED", "message": message}
    openai = {"message": message, "type": "invalid_request_error", "param": None, "code": "invalid_api_key"}
    azure = {"message": message, "code": "401"}
    expected = databricks if is_databricks(path) else {"error": openai if path.startswith("/v1") else azure}
    assert expected == response.json()


@pytest.mark.parametrize("path", POST_PATHS)
def test_the_token_may_be_the_password_of_a_user_named_token(path: str, shared: Client) -> None:
    """Basic authentication carries the token, as curl's `-u token:…` sends it; another user's password does not."""
    answers = [
        requests.post(shared.endpoints.url + path, json=CHAT, auth=pair, timeout=10).status_code
        for pair in (("token", "t0ken"), ("me", "t0ken"), ("token", "wrong"))
    ]

    assert [False, True, True] == [status == 401 for status in answers]


@pytest.mark.parametrize(
    ("headers", "query", "status", "code"),
    [
        ({"api-key": "t0ken"}, "?api-version=1", 200, None),
        ({"Authorization": "Bearer t0ken"}, "?api-version=1", 200, None),
        ({"api-key": "t0ken"}, "", 404, "404"),
        ({"api-key": "t0ken"}, "?api-version=", 404, "404"),
        ({"api-key": "wrong"}, "?api-version=1", 401, "401"),
        ({}, "?api-version=1", 401, "401"),
    ],
)
def test_azure_takes_an_api_key_and_needs_a_version(
    headers: dict[str, str], query: str, status: int, code: str | None, shared: Client
) -> None:
    """Azure's routes also take the token as an API key, and send 404 without an API version."""
    url = f"{shared.endpoints.url}/openai/deployments/chat/chat/completions{query}"
    response = requests.post(url, json=CHAT, headers=headers, timeout=10)

    assert (status, code) == (response.status_code, response.json().get("error", {}).get("code"))
    if status == 404:
        assert {"error": {"code": "404", "message": "Resource not found"}} == response.json()


def test_only_azure_takes_an_api_key(shared: Client) -> None:
    """Other routes ignore the header `api-key`."""
    urls = [shared.endpoints.invocations("chat"), f"{shared.endpoints.openai_url}/chat/completions"]

    assert [401, 401] == [
        requests.post(url, json=CHAT, headers={"api-key": "t0ken"}, timeout=10).status_code for url in urls
    ]


def test_the_bearer_scheme_ignores_case(shared: Client) -> None:
    """The scheme's name is valid in any case, as HTTP demands."""
    assert (
        200
        == shared.post(
            "/serving-endpoints/chat/invocations", CHAT, headers={"Authorization": "bearer t0ken"}
        ).status_code
    )


@pytest.mark.parametrize(
    ("endpoint", "body", "message"),
    [
        ("chat", {}, "Endpoint chat serves chat: the request needs 'messages'."),
        ("chat", {"input": "x"}, 'Bad request: json: unknown field "input". Endpoint chat serves chat: the request'),
        ("embed", CHAT, 'Bad request: json: unknown field "messages". Endpoint embed serves embeddings: the request'),
        ("chat", {"messages": []}, "Expected `array` of length >= 1 - at `$.messages`"),
        ("chat", {"messages": "hi"}, "Expected `array`, got `str` - at `$.messages`"),
        ("chat", {"messages": [{"role": "pope", "content": "hi"}]}, "Invalid enum value 'pope'"),
        ("chat", {"messages": [{"role": "user"}]}, "a message of role 'user' needs `content`"),
        ("chat", {**CHAT, "n": 6}, "Expected `int` <= 5 - at `$.n`"),
        ("chat", {**CHAT, "max_tokens": 0}, "Expected `int` >= 1 - at `$.max_tokens`"),
        ("chat", {**CHAT, "temperature": "hot"}, "Expected `float | null`, got `str` - at `$.temperature`"),
        ("chat", {**CHAT, "seed": 2**70}, "$.seed"),
        ("chat", {**CHAT, "stream": "yes"}, "Expected `bool | null`, got `str` - at `$.stream`"),
        ("embed", {"input": "x", "stream": True}, "embeddings are not streamed: leave out `stream`"),
        ("complete", {"prompt": []}, "Expected `array` of length >= 1 - at `$.prompt`"),
        ("complete", {"prompt": [[1, 2]]}, "Expected `str`, got `array` - at `$.prompt[0]`"),
        ("embed", {"input": None}, "Expected `str | array`, got `null` - at `$.input`"),
        ("embed", {"input": "x", "encoding_format": "hex"}, "Invalid enum value 'hex'"),
        ("embed", {"input": "x", "dimensions": 0}, "Expected `int` >= 1 - at `$.dimensions`"),
        ("embed", {"input": ["x"] * 151}, "Input embeddings size is too large, exceeding 150 limit for embed"),
    ],
)
def test_a_wrong_field_is_named(endpoint: str, body: object, message: str, shared: Client) -> None:
    """A field that is missing, mistyped or out of range gets a 400 with its name."""
    response = shared.query(endpoint, body)

    assert (400, "BAD_REQUEST") == (response.status_code, response.json()["error_code"])
    assert message in response.json()["message"]


@pytest.mark.waits
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"messages": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"seed": 1' + b"0" * 5000 + b"}",
        b'{"temperature": 1e999}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    ],
)
@pytest.mark.parametrize("path", POST_PATHS)
def test_a_body_must_be_a_json_object(path: str, data: bytes, shared: Client) -> None:
    """Any other body gets a 400 in the path's dialect, even if it is deep, long or broken."""
    response = shared.post(path, data=data)

    assert 400 == response.status_code
    assert ({"error_code", "message"} if is_databricks(path) else {"error"}) == set(response.json())


@given(path=st.sampled_from(POST_PATHS), data=st.binary(max_size=400))
def test_arbitrary_bytes_are_refused(path: str, data: bytes, shared: Client) -> None:
    """Any bytes get a 4xx, and the server goes on serving."""
    assert shared.post(path, data=data).status_code in range(400, 500)
    assert 200 == shared.chat("still there").status_code


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_FIELDS = st.sampled_from(
    [
        *(
            "messages",
            "prompt",
            "input",
            "n",
            "max_tokens",
            "stop",
            "seed",
            "dimensions",
            "stream",
            "temperature",
            "model",
        ),
        *("tools", "tool_choice", "instructions", "text", "reasoning"),
    ]
)
# Values that are nearly right, in any order and number.
_NEARLY = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["message", "function_call", "function_call_output", "reasoning", "function"]),
            "role": st.sampled_from(["system", "user", "assistant", "tool"]),
            "content": st.none()
            | st.text()
            | st.lists(st.fixed_dictionaries({"type": st.just("input_text")}, optional={"text": st.text()})),
            "call_id": st.sampled_from(["a", "b"]),
            "tool_call_id": st.sampled_from(["a", "b"]),
            "name": st.just("f"),
            "arguments": st.text(),
            "output": st.text(),
            "function": st.just({"name": "f"}),
        },
    ),
    max_size=4,
)


_BASES: dict[str, dict[str, object]] = {
    "chat/completions": CHAT,
    "completions": {"prompt": "a"},
    "embeddings": {"input": "a"},
    "responses": {"input": "a"},
}


@given(task=st.sampled_from([*_BASES]), data=st.data())
def test_arbitrary_fields_are_answered_or_refused(task: str, data: st.DataObject, shared: Client) -> None:
    """Any JSON in a field gets a 200 or a 4xx, and never a 5xx."""
    path = data.draw(st.sampled_from(RESPONSES_PATHS if task == "responses" else paths_of(task)))
    strange = data.draw(st.dictionaries(_FIELDS, _JSON | _NEARLY, max_size=3))
    name = ENDPOINTS.get(task, "chat")
    raw = json.dumps({"model": name, **_BASES[task], **strange}).encode()

    assert shared.post(path, data=raw).status_code in {200, 400, 404}


def test_a_body_that_does_not_decompress_is_refused(shared: Client) -> None:
    """A body with a false Content-Encoding gets a 400."""
    assert 400 == shared.post(POST_PATHS[0], data=b"no gzip", headers={"Content-Encoding": "gzip"}).status_code


@pytest.mark.parametrize(
    ("path", "limit"),
    [("/serving-endpoints/completions", 4), ("/ai-gateway/mlflow/v1/completions", 4), ("/v1/completions", 16)],
)
def test_a_body_has_a_limit(path: str, limit: int, shared: Client) -> None:
    """A body up to the limit of its service is accepted, and one byte more gets a 413."""
    head, tail = b'{"model": "complete", "prompt": "', b'"}'
    fits = head + b"x" * (limit * 2**20 - len(head + tail)) + tail

    assert [200, 413] == [shared.post(path, data=data).status_code for data in (fits, fits + b" ")]


_UNKNOWN_PATHS = [path.replace("chat-1", "nobody-1").replace("/chat/inv", "/nobody/inv") for path in POST_PATHS]


@pytest.mark.parametrize("path", [path.replace("/deployments/chat", "/deployments/nobody") for path in _UNKNOWN_PATHS])
def test_an_unknown_endpoint_is_not_found(path: str, shared: Client) -> None:
    """An unknown name of an endpoint or of a served entity gets a 404 in the words of its service."""
    response = shared.post(path, {"model": "nobody", **CHAT})

    assert 404 == response.status_code
    if is_databricks(path):
        message = "The given endpoint does not exist, please retry after checking the specified model and version"
        assert {
            "error_code": "ENDPOINT_NOT_FOUND",
            "message": f"{message} deployment exists.",
        } == response.json()
    else:
        code = "model_not_found" if path.startswith("/v1") else "DeploymentNotFound"
        assert code == response.json()["error"]["code"]


def test_an_unknown_path_gets_a_404_in_json(shared: Client) -> None:
    """An unknown path or method gets the 404 of its service."""
    databricks = {"error_code": "ENDPOINT_NOT_FOUND", "message": "No API found for 'POST /serving-endpoints/chat'"}
    openai = {"code": "unknown_url", "message": "Unknown request URL: POST /v1/threads."}
    azure = {"code": "404", "message": "Resource not found"}

    assert databricks == shared.post("/serving-endpoints/chat", {}).json()
    assert openai.items() <= shared.post("/v1/threads", {}).json()["error"].items()
    assert {"error": azure} == shared.post("/openai/deployments/chat", {}).json()
    assert "ENDPOINT_NOT_FOUND" == shared.get("/serving-endpoints/chat/invocations").json()["error_code"]


def test_only_this_machine_is_served(shared: Client) -> None:
    """The port is bound to 127.0.0.1 only, so it is closed on other addresses of this machine."""
    with socket.socket() as other:
        other.settimeout(2)
        with pytest.raises(OSError, match=r"refused|timed out|unreachable|assign"):
            other.connect(("127.0.0.2", int(shared.endpoints.url.rpartition(":")[2])))
