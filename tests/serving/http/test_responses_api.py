"""The Responses API: its requests, its answers, and what it refuses."""

from collections.abc import Iterator
from typing import Any

import pytest

from spark_llm.serving import (
    ChatRequest,
    Choice,
    Echo,
    Faults,
    LocalEndpoints,
    Model,
    ServingEndpoint,
    Texts,
    ToolCall,
    Usage,
    echo_media,
)
from tests.support.local_client import RESPONSES_PATHS, Client, chat_body, connected, is_databricks
from tests.support.media import PDF, data_url, encoded, image

Body = dict[str, Any]
PNG, URL = image(), "https://example.org/a.png"
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
LONG = " ".join(["word"] * 20)


class Thinker:
    """A custom model with every kind of token, a text and a call; it tells the chat request that it got."""

    name = "thinker"

    async def chat(self, request: ChatRequest) -> Texts:
        """Return what the request has of fields that `Echo` ignores."""
        said = (
            request.response_format,
            request.verbosity,
            request.reasoning_effort,
            request.limit,
            request.temperature,
        )
        usage = Usage(9, 5, cached_tokens=4, cache_write_tokens=3, image_tokens=2, reasoning_tokens=1)
        call = ToolCall("c1", "f", "{}")
        return Texts([Choice(repr(said), "tool_calls", [call])], usage, service_tier="flex")


class Filtered:
    """A custom model whose answer is withheld."""

    name = "filtered"

    async def chat(self, request: ChatRequest) -> Texts:
        """Return nothing, for a filter."""
        return Texts([Choice("", "content_filter")], Usage(1, 0))


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """An `Echo`, models of a test's own, and one that is served at responses only."""
    models: dict[str, Model | ServingEndpoint] = {
        "chat": Echo(),
        "thinker": Thinker(),
        "filtered": Filtered(),
        "codex": ServingEndpoint(Echo(), tasks=["responses"]),
        "old": ServingEndpoint(Echo(), tasks=["chat"]),
    }
    with connected(LocalEndpoints(models)) as client:
        yield client


def respond(client: Client, given: object, **fields: object) -> Body:
    """Return the whole answer to an input."""
    response = client.post("/v1/responses", {"model": "chat", "input": given, **fields})
    assert 200 == response.status_code, response.text
    answer: Body = response.json()
    return answer


def text_of(answer: Body) -> str:
    """Return the text of an answer's messages."""
    parts = [part for item in answer["output"] if item["type"] == "message" for part in item["content"]]
    assert {"output_text"} >= {part["type"] for part in parts}
    return "".join(part["text"] for part in parts)


def user(*parts: Body) -> list[Body]:
    """Return an input of one message in parts."""
    return [{"role": "user", "content": list(parts)}]


# --- Answers ---


@pytest.mark.parametrize("path", RESPONSES_PATHS)
def test_an_answer_has_the_documented_shape(path: str, client: Client) -> None:
    """Every route sends the object of the API, with an id, the items and the usage in the API's names."""
    body = {"model": "chat", "input": "hello big world", "instructions": "Be brief.", "store": False}
    response = client.post(path, body)
    answer = response.json()

    number = response.headers["x-request-id"]
    part = {"type": "output_text", "text": "Be brief.\nhello big world", "annotations": [], "logprobs": []}
    message = {"id": f"msg_{number}", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    expected = {
        "id": f"resp_{number}",
        "object": "response",
        "status": "completed",
        "model": "echo",
        "error": None,
        "incomplete_details": None,
        "instructions": "Be brief.",
        "output": [message],
        "store": False,
        "service_tier": "default",
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tools": [],
        "tool_choice": "auto",
        "usage": {
            "input_tokens": 5,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 10,
        },
    }
    assert expected == {name: answer[name] for name in expected}
    assert isinstance(answer["created_at"], int)


def test_every_token_and_the_tier_are_told(client: Client) -> None:
    """Cached, written and reasoning tokens are details; tokens of media are none of the API's, nor of the counters."""
    client.endpoints.reset()
    answer = client.post("/v1/responses", {"model": "thinker", "input": "a"}).json()

    usage, stats = answer["usage"], client.endpoints.stats
    assert {"cached_tokens": 4, "cache_write_tokens": 3} == usage["input_tokens_details"]
    assert ({"reasoning_tokens": 1}, "flex") == (usage["output_tokens_details"], answer["service_tier"])
    assert (14, 14, 0) == (usage["total_tokens"], stats.total_tokens, stats.image_tokens)
    chat = client.query("thinker", chat_body("a")).json()["usage"]
    assert {"reasoning_tokens": 1} == chat["completion_tokens_details"]
    assert 2 == chat["prompt_tokens_details"]["image_tokens"] == client.endpoints.stats.image_tokens


def test_options_reach_the_model(client: Client) -> None:
    """A model gets the form of the text, verbosity, effort, limit and temperature as a chat request has them."""
    form = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    fields: Body = {
        "text": {"format": form, "verbosity": "low"},
        "reasoning": {"effort": "high", "summary": "auto"},
        "max_output_tokens": 16,
        "temperature": 0.5,
    }
    answer = client.post("/v1/responses", {"model": "thinker", "input": "a", **fields}).json()

    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}}
    assert repr((schema, "low", "high", 16, 0.5)) == text_of(answer)
    assert ({"format": form, "verbosity": "low"}, {"effort": "high", "summary": "auto"}) == (
        answer["text"],
        answer["reasoning"],
    )
    assert ["reasoning", "message", "function_call"] == [item["type"] for item in answer["output"]]
    free = client.post("/v1/responses", {"model": "thinker", "input": "a", "text": {"format": {"type": "text"}}}).json()
    assert text_of(free).startswith("({'type': 'text'}, None, None, None, None)")


@pytest.mark.parametrize(
    ("limit", "status", "words"), [(16, "incomplete", 16), (20, "completed", 20), (None, "completed", 20)]
)
def test_a_limit_makes_an_answer_incomplete(limit: int | None, status: str, words: int, client: Client) -> None:
    """An answer that is cut is incomplete, and so is its last item."""
    answer = respond(client, LONG, max_output_tokens=limit)
    reason = {"reason": "max_output_tokens"} if status == "incomplete" else None

    assert (status, reason, words) == (answer["status"], answer["incomplete_details"], len(text_of(answer).split()))
    assert status == answer["output"][0]["status"]


def test_a_withheld_answer_is_incomplete(client: Client) -> None:
    """An answer that a filter withholds has no message, and says why."""
    answer = client.post("/v1/responses", {"model": "filtered", "input": "a"}).json()

    assert ("incomplete", {"reason": "content_filter"}, []) == (
        answer["status"],
        answer["incomplete_details"],
        answer["output"],
    )


def test_faults_have_the_apis_forms(client: Client) -> None:
    """An error under status 200 is a failed response, an empty answer an incomplete one; refusals are as ever."""
    client.endpoints.reset()
    client.endpoints.faults = Faults("errorbody empty 429@2 half", poison="cyanide")
    try:
        failed, empty = (respond(client, "a b") for _ in range(2))
        refused, half, poisoned = (
            client.post("/v1/responses", {"model": "chat", "input": text}) for text in ("a", "a", "some cyanide")
        )
    finally:
        client.endpoints.faults = Faults()

    error = {"code": "server_error", "message": "The model failed on this request."}
    assert ("failed", error, [], None) == (failed["status"], failed["error"], failed["output"], failed["usage"])
    assert ("incomplete", [], 2) == (empty["status"], empty["output"], empty["usage"]["output_tokens"])
    assert (429, "2", 400) == (refused.status_code, refused.headers["Retry-After"], poisoned.status_code)
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        half.json()


# --- Input ---


def test_the_input_is_a_conversation(client: Client) -> None:
    """Items with and without their type are messages; the last is the answer, after the system's and instructions."""
    items = [
        {"role": "system", "content": "One."},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Two."}]},
        {"role": "user", "content": "old"},
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": "said", "annotations": [], "logprobs": []},
                {"type": "refusal", "refusal": "no"},
            ],
        },
        {"role": "assistant", "content": "more"},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"role": "user", "content": [{"type": "input_text", "text": "new "}, {"type": "input_text", "text": "text"}]},
    ]
    answer = respond(client, items, instructions="Zero.")

    assert "Zero.\nOne.\nnew text" == text_of(answer)
    assert 8 == answer["usage"]["input_tokens"]


def test_images_and_files_are_read(client: Client) -> None:
    """Images as data URL or URL and files as data URL, base64 or URL stand in the answer as `echo_media` says them."""
    parts: list[Body] = [
        {"type": "input_text", "text": "See "},
        {"type": "input_image", "image_url": data_url(PNG), "detail": "auto"},
        {"type": "input_image", "image_url": URL},
        {"type": "input_file", "filename": "a.pdf", "file_data": data_url(PDF, "application/pdf")},
        {"type": "input_file", "filename": "a.pdf", "file_data": encoded(PDF)},
        {"type": "input_file", "file_url": "https://example.org/a.pdf"},
    ]
    answer = respond(client, user(*parts))

    said = [echo_media(each) for each in (PNG, URL, PDF, PDF, "https://example.org/a.pdf")]
    assert "See " + "".join(each.text for each in said) == text_of(answer)
    assert 1 + sum(each.tokens for each in said) == answer["usage"]["input_tokens"]


def test_a_chat_takes_no_file_at_a_url(client: Client) -> None:
    """`file_url` is a field of the Responses API alone."""
    part = {"type": "file", "file": {"file_url": "https://example.org/a.pdf"}}
    error = client.post("/v1/chat/completions", {"model": "chat", "messages": user(part)}).json()["error"]

    assert "Unknown parameter: 'messages[0].content[0].file.file_url'." == error["message"]


# --- Tools ---


def test_a_call_is_an_item(client: Client) -> None:
    """Calls are items with the call's id, and there is no message; several are in order."""
    answer = respond(client, 'call f {"a": 1}\ncall f x', tools=[TOOL])

    items = [(item["type"], item["status"], item["name"], item["arguments"]) for item in answer["output"]]
    assert [("function_call", "completed", "f", '{"a": 1}'), ("function_call", "completed", "f", "x")] == items
    assert ("completed", [TOOL]) == (answer["status"], answer["tools"])
    assert 2 == len({item["id"] for item in answer["output"]}) == len({item["call_id"] for item in answer["output"]})


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"tool_choice": "required"}, 1),
        ({"tool_choice": {"type": "function", "name": "f"}}, 1),
        ({"tool_choice": "none"}, 0),
        ({"tool_choice": "auto"}, 0),
        ({"tools": None, "tool_choice": "auto", "parallel_tool_calls": True}, 0),
    ],
)
def test_a_choice_makes_a_call(fields: Body, count: int, client: Client) -> None:
    """The choice has the API's flat form, and its defaults need no tools."""
    answer = respond(client, "hi", **{"tools": [TOOL], **fields})

    assert count == sum(item["type"] == "function_call" for item in answer["output"])


def call(call_id: str) -> Body:
    """Return the item of an earlier call."""
    return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}", "status": "completed"}


def result(call_id: str, output: object) -> Body:
    """Return the item of a result."""
    return {"type": "function_call_output", "call_id": call_id, "output": output}


@pytest.mark.parametrize(
    "items",
    [
        [call("c1"), result("c1", "three")],
        [call("c1"), call("c2"), result("c2", "two"), result("c1", [{"type": "input_text", "text": "three"}])],
        [call("c1"), {"type": "reasoning", "summary": []}, call("c2"), result("c1", "a"), result("c2", "three")],
        [call("c1"), result("c1", "a"), call("c2"), result("c2", "three")],
        [{"role": "assistant", "content": "Let me see."}, call("c1"), result("c1", "three")],
    ],
)
def test_results_are_read_back(items: list[Body], client: Client) -> None:
    """After the results of all calls, in parallel or one after the other, `Echo` answers with the last."""
    assert "three" == text_of(respond(client, [{"role": "user", "content": "hi"}, *items], tools=[TOOL]))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([call("c1")], "No tool output found for function call c1."),
        ([call("c1"), call("c2"), result("c1", "a")], "No tool output found for function call c2."),
        ([result("c1", "a")], "No tool call found for function call output with call_id c1."),
        ([{**call("c1"), "call_id": None}], "Expected `str`, got `null` - at `$.input[1].call_id`"),
        ([{"type": "function_call_output", "output": "a"}], "missing required field `call_id` - at `$.input[1]`"),
    ],
)
def test_calls_and_results_belong_together(items: list[Body], message: str, client: Client) -> None:
    """A call without its result, or a result without its call, gets a 400."""
    body = {"model": "chat", "input": [{"role": "user", "content": "hi"}, *items]}
    error = client.post("/v1/responses", body).json()["error"]

    assert message in error["message"]
    assert error["param"].startswith("input")


# --- Refusals ---

MOVED = "In the Responses API, this parameter has moved to"


@pytest.mark.parametrize(
    ("fields", "message", "param", "code"),
    [
        ({"n": 2}, "Unknown parameter: 'n'.", "n", "unknown_parameter"),
        ({"stop": "x"}, "Unknown parameter: 'stop'.", "stop", "unknown_parameter"),
        ({"seed": 1}, "Unknown parameter: 'seed'.", "seed", "unknown_parameter"),
        ({"max_tokens": 16}, "Unknown parameter: 'max_tokens'.", "max_tokens", "unknown_parameter"),
        ({"logprobs": True}, "Unknown parameter: 'logprobs'.", "logprobs", "unknown_parameter"),
        ({"anything": None}, "Unknown parameter: 'anything'.", "anything", "unknown_parameter"),
        ({"messages": []}, f"Unsupported parameter: 'messages'. {MOVED} 'input'.", None, "unsupported_parameter"),
        ({"response_format": {}}, f"{MOVED} 'text.format'.", "response_format", "unsupported_parameter"),
        ({"reasoning_effort": "low"}, f"{MOVED} 'reasoning.effort'.", "reasoning_effort", "unsupported_parameter"),
        (
            {"max_output_tokens": 15},
            "Expected a value >= 16, but got 15 instead.",
            "max_output_tokens",
            "integer_below_min_value",
        ),
        ({"input": ""}, 'One of "input" or "previous_response_id"', None, "missing_required_parameter"),
        ({"input": []}, 'One of "input" or "previous_response_id"', None, "missing_required_parameter"),
        ({"input": None}, 'One of "input" or "previous_response_id"', None, "missing_required_parameter"),
        (
            {"previous_response_id": "resp_1"},
            "Previous response with id 'resp_1' not found.",
            "previous_response_id",
            "previous_response_not_found",
        ),
        ({"background": True}, "Unsupported parameter: 'background'", "background", "unsupported_parameter"),
        ({"conversation": "c"}, "Unsupported parameter: 'conversation'", "conversation", "unsupported_parameter"),
        (
            {"input": [{"type": "web_search_call"}]},
            "Invalid value: 'web_search_call'. Supported values are",
            "input[0]",
            "invalid_value",
        ),
        ({"input": [7]}, "Invalid value: ''. Supported values are", "input[0]", "invalid_value"),
        (
            {"input": [{}]},
            "Supported values are: 'assistant', 'system', 'developer', and 'user'.",
            "input[0]",
            "invalid_value",
        ),
        ({"input": [{"role": "tool", "content": "a"}]}, "Invalid value: 'tool'.", "input[0]", "invalid_value"),
        ({"input": [{"role": "user"}]}, "missing required field `content` - at `$.input[0]`", "input[0]", None),
        ({"input": [{"type": "reasoning"}]}, "the input has no message", "input", None),
        (
            {"text": {"format": {"type": "xml"}}},
            "Invalid value: 'xml'. Supported values are: 'json_object'",
            "text.format.type",
            "invalid_value",
        ),
        (
            {"text": {"format": {"type": "json_schema", "schema": {}}}},
            "Missing required parameter: 'text.format.name'.",
            "text.format.name",
            "missing_required_parameter",
        ),
        ({"text": {"verbosity": "loud"}}, "Invalid enum value 'loud'", None, None),
        ({"reasoning": {"effort": "huge"}}, "Invalid enum value 'huge'", None, None),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "missing required field `name`", None, None),
        ({"tools": [{"type": "web_search"}]}, "Invalid value: 'web_search'.", "tools[0].type", "invalid_value"),
        (
            {"tools": [{**TOOL, "parameters": {"type": "string"}}]},
            "Invalid schema for function 'f'",
            "tools[0].function.parameters",
            "invalid_function_parameters",
        ),
        ({"tool_choice": "required"}, "'tool_choice' is only allowed when 'tools' are specified.", "tool_choice", None),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "g"}},
            "Tool choice 'g' not found",
            "tool_choice",
            None,
        ),
        ({"temperature": 3}, "Expected `float` <= 2.0", None, None),
    ],
)
@pytest.mark.parametrize("path", ["/v1/responses", "/serving-endpoints/responses"])
def test_what_the_api_lacks_is_refused(
    *, path: str, fields: Body, message: str, param: str | None, code: str | None, client: Client
) -> None:
    """Fields, items and values that the API does not have get a 400 in OpenAI's words."""
    response = client.post(path, {"model": "chat", "input": "a", **fields})

    assert 400 == response.status_code, response.text
    if is_databricks(path):
        assert ("BAD_REQUEST", True) == (response.json()["error_code"], message in response.json()["message"])
    else:
        error = response.json()["error"]
        assert (True, param, code) == (message in error["message"], error["param"], error["code"]), error


@pytest.mark.parametrize(
    ("part", "message", "param"),
    [
        (
            {"type": "input_audio", "input_audio": {}},
            "Invalid value: 'input_audio'. Supported values are: 'input_text', 'input_image', 'output_text',",
            ".type",
        ),
        ({"type": "text", "text": "a"}, "Invalid value: 'text'.", ".type"),
        ({"type": "image_url", "image_url": URL}, "Invalid value: 'image_url'.", ".type"),
        ({"type": "output_text", "text": "a"}, "Invalid value 'output_text'", None),
        ({"type": "input_text"}, "missing required field `text` - at `$.input[0].content[0]`", None),
        (
            {"type": "input_image", "image_url": "data:image/png;base64,?"},
            "Invalid 'input[0].content[0].image_url'. Expected a base64-encoded",
            ".image_url",
        ),
        ({"type": "input_image", "image_url": "a b"}, "Expected a valid URL", ".image_url"),
        ({"type": "input_image", "file_id": "file-1"}, "No such File object: file-1", ""),
        ({"type": "input_file", "file_data": "?"}, "Invalid 'input[0].content[0].file_data'.", ".file_data"),
        (
            {"type": "input_file", "file_url": "a b"},
            "Invalid 'input[0].content[0].file_url'. Expected a valid URL",
            ".file_url",
        ),
    ],
)
def test_a_part_that_cannot_be_read_is_named(part: Body, message: str, param: str | None, client: Client) -> None:
    """Audio, parts of a chat, and media that cannot be read get a 400 with their path."""
    response = client.post("/v1/responses", {"model": "chat", "input": user(part)})
    error = response.json()["error"]

    assert (400, True) == (response.status_code, message in error["message"]), error
    assert param is None or f"input[0].content[0]{param}" == error["param"]


def test_who_asks_may_be_told_at_databricks(client: Client) -> None:
    """Databricks' routes take the fields for attribution, and OpenAI's do not."""
    body = {"model": "chat", "input": "a", "usage_context": {"job": "1"}, "client_request_id": "x"}

    assert [200, 400] == [
        client.post(path, body).status_code for path in ("/serving-endpoints/responses", "/v1/responses")
    ]


def test_an_input_is_required(client: Client) -> None:
    """Without an input the request gets a 400 that names it; `messages` gets its own."""
    errors = [client.post("/v1/responses", {"model": "chat", **body}).json()["error"] for body in ({}, chat_body("a"))]

    assert "Missing required parameter: 'input'." == errors[0]["message"]
    assert errors[1]["message"].startswith("Unsupported parameter: 'messages'.")


# --- Served at responses only ---

ONLY = "This model is only supported in v1/responses and not in v1/chat/completions."


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/chat/completions", 404),
        ("/serving-endpoints/chat/completions", 400),
        ("/ai-gateway/mlflow/v1/chat/completions", 400),
        ("/serving-endpoints/codex/invocations", 400),
        ("/serving-endpoints/codex/served-models/codex-1/invocations", 400),
        ("/openai/v1/chat/completions", 400),
        ("/openai/deployments/codex/chat/completions?api-version=1", 400),
    ],
)
def test_a_model_may_be_served_at_responses_only(path: str, status: int, client: Client) -> None:
    """Its chat routes say where it is served, in each service's words."""
    response = client.post(path, {"model": "codex", **chat_body("a")})

    assert status == response.status_code
    if path.startswith("/openai"):
        error = response.json()["error"]
        assert ("OperationNotSupported", True) == (
            error["code"],
            "does not work with the specified model, codex" in error["message"],
        )
    elif is_databricks(path):
        assert {"error_code": "BAD_REQUEST", "message": ONLY} == response.json()
    else:
        error = {"message": ONLY, "type": "invalid_request_error", "param": "model", "code": None}
        assert {"error": error} == response.json()


def test_such_a_model_answers_at_its_own_path(client: Client) -> None:
    """At the endpoint's own path it takes `input`; its description names that task."""
    answer = client.query("codex", {"input": "a b"}).json()
    document = client.get("/api/2.0/serving-endpoints/codex").json()
    openapi = client.get("/api/2.0/serving-endpoints/codex/openapi").json()

    assert ("a b", "agent/v1/responses") == (text_of(answer), document["task"])
    assert "ResponsesRequest" in openapi["components"]["schemas"]


def test_a_chat_model_takes_no_input_at_its_own_path(client: Client) -> None:
    """Where the model serves chat, its own path wants `messages`; without responses the API refuses it."""
    own = client.query("old", {"input": "a"}).json()["message"]
    refused = client.post("/v1/responses", {"model": "old", "input": "a"})

    assert "Bad request: json: unknown field \"input\". Endpoint old serves chat: the request needs 'messages'." == own
    assert (400, True) == (refused.status_code, "Endpoint old serves chat" in refused.json()["error"]["message"])


def test_the_tools_of_a_response_have_a_number(client: Client) -> None:
    """Databricks takes 32 flat tools, OpenAI 128."""
    tools = [{**TOOL, "name": f"f{number}"} for number in range(33)]
    body = {"model": "chat", "input": "a", "tools": tools}

    assert [400, 200] == [
        client.post(path, body).status_code for path in ("/serving-endpoints/responses", "/v1/responses")
    ]
