"""Requests of the Responses route: parameters, conversations and parts under its names."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_llm.errors import ConfigError
from spark_llm.protocol.chat.responses_request import ResponsesParameters
from spark_llm.protocol.chat.task import Chat
from spark_llm.protocol.chat.tools import tool_parameters
from spark_llm.protocol.media import Media
from spark_llm.protocol.parameters import encode_parameters
from spark_llm.protocol.task import FOLDED, PLAIN, RESPONSES, UnsendableError
from spark_llm.protocol.values import Prompt
from tests.flow.test_typed_answers import REPLY
from tests.protocol.chat.test_task import CONVERSATIONS, only_once
from tests.support.strategies import JSON, TEXTS, plain

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
TOOLS = tool_parameters(
    [
        {"type": "function", "function": {"name": "f", "parameters": SCHEMA, "strict": True}},
        {"type": "function", "function": {"name": "g", "description": "G."}},
    ],
    "g",
)


def request(task: Chat, item: Any, wire_format: int = RESPONSES, model: str | None = None) -> dict[str, Any]:  # noqa: ANN401 -- any item
    """Write a request, and read it with each field once."""
    body: dict[str, Any] = json.loads(bytes(task.encode([item], model, wire_format)), object_pairs_hook=only_once)
    return body


def parameters(extra_body: dict[str, Any] | None = None, **given: object) -> dict[str, Any]:
    """Return the fields of a request with these parameters."""
    body = request(Chat(parameters=encode_parameters(given, extra_body)), "?")
    del body["input"]
    return body


@given(TEXTS, st.none() | TEXTS, st.none() | TEXTS)
def test_a_text_is_the_input(text: str, system: str | None, model: str | None) -> None:
    """Instructions stand beside it; nothing is stored."""
    instructions = {} if system is None else {"instructions": plain(system)}
    named = {} if model is None else {"model": plain(model)}

    assert {**named, "store": False, **instructions, "input": plain(text)} == request(Chat(system), text, model=model)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max_tokens": 64}, {"max_output_tokens": 64}),
        ({"max_completion_tokens": 16}, {"max_output_tokens": 16}),
        ({"max_tokens": 64, "max_completion_tokens": 32}, {"max_output_tokens": 32}),
        ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
        ({"n": 1}, {}),
        ({"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}),
        ({"verbosity": "high"}, {"text": {"verbosity": "high"}}),
        ({"response_format": {"type": "json_object"}}, {"text": {"format": {"type": "json_object"}}}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}},
            {"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}},
        ),
        (
            TOOLS,
            {
                "tools": [
                    {"type": "function", "name": "f", "parameters": SCHEMA, "strict": True},
                    {
                        "type": "function",
                        "name": "g",
                        "description": "G.",
                        "parameters": {"type": "object", "properties": {}},
                        "strict": False,
                    },
                ],
                "tool_choice": {"type": "function", "name": "g"},
            },
        ),
        ({"tools": [], "tool_choice": "required"}, {"tools": [], "tool_choice": "required"}),
    ],
)
def test_parameters_have_the_routes_names(given: dict[str, Any], expected: dict[str, Any]) -> None:
    """None is lost, and a function that is not strict stays so."""
    assert {"store": False, **expected} == parameters(**given)


@pytest.mark.parametrize(
    ("extra_body", "given", "expected"),
    [
        ({"service_tier": "flex", "metadata": {"a": "b"}}, {}, {"service_tier": "flex", "metadata": {"a": "b"}}),
        ({"store": True}, {}, {"store": True}),
        (
            {"reasoning": {"summary": "auto"}},
            {"reasoning_effort": "low"},
            {"reasoning": {"effort": "low", "summary": "auto"}},
        ),
        ({"text": {"a": 1}}, {"verbosity": "low"}, {"text": {"verbosity": "low", "a": 1}}),
        ({"max_output_tokens": 20}, {}, {"max_output_tokens": 20}),
        ({"tools": [{"type": "web_search"}]}, {}, {"tools": [{"type": "web_search"}]}),
        ({"tool_choice": {"type": "web_search"}}, {}, {"tool_choice": {"type": "web_search"}}),
    ],
)
def test_extra_body_is_merged(extra_body: dict[str, Any], given: dict[str, Any], expected: dict[str, Any]) -> None:
    """Its fields go beside those of parameters, also inside `text` and `reasoning`."""
    assert {"store": False, **expected} == parameters(extra_body, **given)


@pytest.mark.parametrize(
    ("extra_body", "given", "why"),
    [
        (None, {"n": 2}, "n= has no place"),
        (None, {"stop": "x"}, "stop= has no place"),
        (None, {"seed": 1}, "seed= has no place"),
        (None, {"max_tokens": 15}, "max_tokens=15 is below 16"),
        (None, {"max_completion_tokens": 1}, "is below 16"),
        ({"max_output_tokens": 1}, {"max_tokens": 64}, "is below 16"),
        ({"seed": 1}, {}, "seed= has no place"),
        ({"instructions": "Be brief."}, {}, "may not set 'instructions'"),
        ({"background": True}, {}, "may not set 'background'"),
        ({"reasoning": {"effort": "low"}}, {"reasoning_effort": "high"}, "sets 'reasoning'"),
        ({"text": "low"}, {"verbosity": "high"}, "sets 'text'"),
    ],
)
def test_what_the_route_lacks_raises(extra_body: dict[str, Any] | None, given: dict[str, Any], why: str) -> None:
    """On the driver it is a `ConfigError`, and on a worker the error of every row."""
    encoded = encode_parameters(given, extra_body)
    with pytest.raises(ConfigError, match=why) as refused:
        ResponsesParameters.of(encoded)
    with pytest.raises(UnsendableError, match=why) as unsendable:
        request(Chat(parameters=encoded), "?")
    failure = unsendable.value.failure

    assert refused.value.hint.endswith(".")
    assert ("invalid_request", None, True, False) == (
        failure.error.kind,
        failure.error.status,
        failure.stops_at_once,
        failure.about_input,
    )
    assert 'Endpoint(…, api="responses")' in failure.error.hint


@given(st.dictionaries(TEXTS.map("x_{}".format), JSON, max_size=4))
def test_unknown_fields_stay_as_they_are(extra_body: dict[str, Any]) -> None:
    """As in a chat completions request."""
    chat = json.loads(bytes(Chat(parameters=encode_parameters({}, extra_body)).encode(["?"], None, 0)))
    del chat["messages"]

    assert {"store": False, **chat} == parameters(extra_body)


@given(CONVERSATIONS, st.none() | TEXTS)
def test_a_conversation_is_a_list_of_items(conversation: list[dict[str, str]], system: str | None) -> None:
    """A system message at its head is the instructions; any other message keeps its place and its text."""
    body = request(Chat(system), conversation)
    chat = json.loads(bytes(Chat(system).encode([conversation], None, 0)))["messages"]
    if chat and chat[0]["role"] == "system":
        assert chat.pop(0)["content"] == body["instructions"]

    assert [message["content"] for message in chat] == [
        item.get("content", item.get("output")) for item in body["input"]
    ]
    assert [message["role"] for message in chat] == [item.get("role", "tool") for item in body["input"]]


@given(CONVERSATIONS | TEXTS, st.none() | TEXTS.filter(str.strip))
def test_instructions_can_be_part_of_the_users_message(content: Any, system: str | None) -> None:  # noqa: ANN401 -- any item
    """As in a chat completions request without a system role."""
    body = request(Chat(system), content, RESPONSES | FOLDED)
    chat = json.loads(bytes(Chat(system).encode([content], None, FOLDED)))["messages"]

    assert "instructions" not in body
    assert [message["content"] for message in chat] == [
        item.get("content", item.get("output")) for item in body["input"]
    ]


@pytest.mark.parametrize("item", ["?", [{"role": "user", "content": "?"}], Prompt("?", "Be brief.", REPLY)])
def test_a_type_is_a_format_of_the_text(item: Any) -> None:  # noqa: ANN401 -- any item
    """Or in words, where the server lacks the field; the verbosity stays beside it."""
    task = Chat("Be brief.", encode_parameters({"verbosity": "low"}, None), output=REPLY)
    body, worded = request(task, item), request(task, item, RESPONSES | PLAIN)

    assert "low" == body["text"]["verbosity"] == worded["text"]["verbosity"]
    assert {"type": "json_schema", "name": "answer", "strict": True, "schema": json.loads(REPLY.schema)} == body[
        "text"
    ]["format"]
    assert "format" not in worded["text"]
    assert f"Be brief.\n\n{REPLY.instructions}" == worded["instructions"]


CALL = {"id": "call_1", "name": "f", "arguments": '{"a": 1}'}


def test_calls_and_their_results_are_items() -> None:
    """A call follows its message; a message with calls alone has no item of its own."""
    conversation: list[Any] = [
        {"role": "user", "content": "?"},
        {
            "role": "assistant",
            "content": "One moment.",
            "tool_calls": [CALL, {**CALL, "id": "call_2", "arguments": None}],
        },
        {"role": "tool", "content": "3", "tool_call_id": "call_1"},
        {"role": "tool", "content": None, "tool_call_id": "call_2"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        None,
    ]
    call = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": '{"a": 1}'}

    assert [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "One moment."},
        call,
        {**call, "call_id": "call_2", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "3"},
        {"type": "function_call_output", "call_id": "call_2", "output": ""},
        call,
        None,
    ] == request(Chat(), conversation)["input"]


PNG = Media("image", "image/png", b"\x89PNG\r\n\x1a\n\0")
PDF = Media("file", "application/pdf", b"%PDF-1.7")


def test_media_are_parts() -> None:
    """Bytes travel as data URLs; an image or a file may travel as its own."""
    content = ["What is it?", PNG, Media("image", url="https://a/b.png"), PDF, Media("file", url="https://a/b.pdf")]
    [item] = request(Chat(), [{"role": "user", "content": content}])["input"]

    assert [
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{base64.b64encode(PNG.data or b'').decode()}"},
        {"type": "input_image", "image_url": "https://a/b.png"},
        {
            "type": "input_file",
            "filename": "file.pdf",
            "file_data": f"data:application/pdf;base64,{base64.b64encode(PDF.data or b'').decode()}",
        },
        {"type": "input_file", "file_url": "https://a/b.pdf"},
    ] == item["content"]


def test_parts_of_other_roles() -> None:
    """What the model said is an output; the result of a call may have parts too."""
    conversation: list[Any] = [
        {"role": "system", "content": ["Be brief."]},
        {"role": "assistant", "content": ["Hi"]},
        {"role": "tool", "content": ["3", PNG], "tool_call_id": "call_1"},
    ]
    system, assistant, result = request(Chat(), conversation)["input"]

    assert [{"type": "input_text", "text": "Be brief."}] == system["content"]
    assert [{"type": "output_text", "text": "Hi"}] == assistant["content"]
    assert ["input_text", "input_image"] == [part["type"] for part in result["output"]]


def test_audio_is_the_rows_error() -> None:
    """The route has no place for it; the other rows go on."""
    with pytest.raises(UnsendableError) as unsendable:
        request(Chat(), [{"role": "user", "content": [Media("audio", "audio/wav", b"RIFF")]}])
    failure = unsendable.value.failure

    assert ("invalid_request", None, False, False) == (
        failure.error.kind,
        failure.error.status,
        failure.stops_all,
        failure.about_input,
    )


@pytest.mark.parametrize("message", ["This model is only supported in v1/responses", "x"])
def test_a_message_that_names_the_route_leads_there(message: str) -> None:
    """Once, and before any other format."""
    task = Chat("Be brief.", output=REPLY)

    assert (RESPONSES if message != "x" else PLAIN) == task.fallback_format(["?"], 0, message)
    assert RESPONSES | PLAIN == task.fallback_format(["?"], RESPONSES, message)
    assert RESPONSES | FOLDED == task.fallback_format(["?"], RESPONSES, "System role not supported")
    assert None is Chat().fallback_format(["?"], RESPONSES, message)
